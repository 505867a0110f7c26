//! Splits a stream of bytes into messages, one per line.

use crate::message::MAX_MESSAGE_BYTES;

/// Bytes that have arrived on a stream and are taken line by line.
///
/// It holds at most one incomplete line of [`MAX_MESSAGE_BYTES`] and the bytes of one read. A longer
/// line is skipped and counted; the lines after it are read as usual.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// The start of the first line that was not taken.
    start: usize,
    /// The end of the part that was searched for a newline.
    searched: usize,
    /// Whether the line at the start of the bytes is being skipped.
    discarding: bool,
    discarded: u64,
}

impl Lines {
    /// Appends bytes that were read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next complete line that is not blank, without its newline.
    pub fn next_line(&mut self) -> Option<&[u8]> {
        loop {
            let unseen = &self.bytes[self.searched..];
            let Some(length) = unseen.iter().position(|&byte| byte == b'\n') else {
                self.searched = self.bytes.len();
                self.bound();
                return None;
            };
            let (begin, end) = (self.start, self.searched + length);
            self.start = end + 1;
            self.searched = end + 1;
            if std::mem::take(&mut self.discarding) {
                continue;
            }
            if end - begin > MAX_MESSAGE_BYTES {
                self.discarded += 1;
            } else if !self.bytes[begin..end].trim_ascii().is_empty() {
                return Some(&self.bytes[begin..end]);
            }
        }
    }

    /// How many lines were too long.
    pub fn discarded(&self) -> u64 {
        self.discarded
    }

    fn bound(&mut self) {
        if self.discarding || self.bytes.len() - self.start > MAX_MESSAGE_BYTES {
            self.discarded += u64::from(!self.discarding);
            self.discarding = true;
            self.bytes.clear();
            self.start = 0;
            self.searched = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(line) = lines.next_line() {
            all.push(String::from_utf8(line.to_vec()).unwrap());
        }
        all
    }

    #[test]
    fn joined_and_cut_lines_come_out_whole() {
        let text = "{\"a\":1}\n{}\n\n  \n{\"b\":2}\r\nrest";
        let expected = ["{\"a\":1}", "{}", "{\"b\":2}\r"];
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                lines.push(piece);
                found.extend(all(&mut lines));
            }
            assert_eq!(found, expected, "pieces of {size}");
            lines.push(b"\n");
            assert_eq!(all(&mut lines), ["rest"]);
        }
    }

    #[test]
    fn a_line_over_the_bound_is_left_out_and_memory_stays_bounded() {
        for size in [1000, MAX_MESSAGE_BYTES, 10 * MAX_MESSAGE_BYTES] {
            let mut lines = Lines::default();
            lines.push(b"first\n");
            for _ in 0..(10 * MAX_MESSAGE_BYTES / size) {
                lines.push(&vec![b'x'; size]);
                assert_ne!(lines.next_line(), Some(&b"x"[..]));
                assert!(lines.bytes.len() <= MAX_MESSAGE_BYTES + size);
            }
            lines.push(b"tail\nsecond\n");
            assert_eq!(all(&mut lines), ["second"]);
            assert_eq!(lines.discarded(), 1);
        }
    }

    #[test]
    fn the_longest_line_passes_and_one_byte_more_does_not() {
        let mut lines = Lines::default();
        lines.push(&[&vec![b'a'; MAX_MESSAGE_BYTES][..], b"\n"].concat());
        assert_eq!(lines.next_line().map(<[u8]>::len), Some(MAX_MESSAGE_BYTES));
        lines.push(&[&vec![b'a'; MAX_MESSAGE_BYTES + 1][..], b"\nb\n"].concat());
        assert_eq!(all(&mut lines), ["b"]);
        assert_eq!(lines.discarded(), 1);
    }
}
