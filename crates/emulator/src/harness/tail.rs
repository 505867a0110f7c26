//! The end of a replica's output.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// How many bytes of the end are kept.
const KEPT_BYTES: usize = 4096;

/// How many lines of the end are shown.
const SHOWN_LINES: usize = 12;

/// The last bytes of an output, at most [`KEPT_BYTES`].
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(KEPT_BYTES)..];
        let over = (self.bytes.len() + kept.len()).saturating_sub(KEPT_BYTES);
        self.bytes.drain(..over);
        self.bytes.extend(kept);
    }

    /// The end of a file; empty if it can't be read.
    pub(super) fn of_file(file: &mut File) -> Tail {
        let mut tail = Tail::default();
        let length = file.seek(SeekFrom::End(0)).unwrap_or(0);
        let start = length.saturating_sub(KEPT_BYTES as u64);
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(start)).is_ok() && file.take(KEPT_BYTES as u64).read_to_end(&mut bytes).is_ok() {
            tail.push(&bytes);
        }
        tail
    }

    /// The last lines that are not blank, without control characters, which could confuse a terminal.
    pub(super) fn lines(&self) -> Vec<String> {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let clean = |line: &&str| -> String {
            let shown = line.trim_end().chars();
            shown.map(|c| if c.is_control() { ' ' } else { c }).collect()
        };
        let first = lines.len().saturating_sub(SHOWN_LINES);
        lines[first..].iter().map(clean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept_and_shown() {
        let mut tail = Tail::default();
        for n in 0..10_000 {
            tail.push(format!("line {n}\n\n").as_bytes());
            assert!(tail.bytes.len() <= KEPT_BYTES);
        }
        tail.push(b"\x1b[2Jlast");
        let lines = tail.lines();
        assert_eq!(lines.len(), SHOWN_LINES);
        assert_eq!(lines[SHOWN_LINES - 2..], ["line 9999", " [2Jlast"]);
        tail.push(&vec![b'x'; 100_000]);
        assert_eq!(tail.lines(), ["x".repeat(KEPT_BYTES)]);
    }
}
