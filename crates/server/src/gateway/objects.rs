//! Finds the JSON objects in a body that arrives in pieces of any length. Whether they are valid, others decide.

use bytes::{Bytes, BytesMut};
use tonic::Status;

/// Bytes of which the objects are found.
#[derive(Debug)]
pub(super) struct Objects {
    buffer: BytesMut,
    /// Bytes of the buffer that were looked at.
    seen: usize,
    /// How many braces and brackets are open.
    depth: usize,
    in_string: bool,
    /// Whether the next byte in a string is escaped.
    escaped: bool,
    /// The largest object, in bytes.
    most: usize,
}

impl Objects {
    /// No bytes yet. An object may have `most` bytes.
    pub(super) fn new(most: usize) -> Objects {
        Objects { buffer: BytesMut::new(), seen: 0, depth: 0, in_string: false, escaped: false, most }
    }

    /// Adds a piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// Takes the next object, if all of it is there.
    ///
    /// # Errors
    /// It is too large, or no object.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if self.seen == 0 {
            let blank = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let _ = self.buffer.split_to(blank);
            if let Some(byte) = self.buffer.first().filter(|byte| **byte != b'{') {
                let shown = char::from(*byte);
                return Err(Status::invalid_argument(format!(
                    "bowline: the request is not valid: it begins with {shown:?}; allowed: a JSON object"
                )));
            }
        }
        while let Some(byte) = self.buffer.get(self.seen) {
            self.seen += 1;
            if self.ends_with(*byte) {
                self.seen_at_most()?;
                return Ok(Some(self.buffer.split_to(std::mem::take(&mut self.seen)).freeze()));
            }
        }
        self.seen_at_most().map(|()| None)
    }

    /// Whether an object ends with the next byte.
    fn ends_with(&mut self, byte: u8) -> bool {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                // It begins with a brace, so at least one is open.
                self.depth -= 1;
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }

    fn seen_at_most(&self) -> Result<(), Status> {
        if self.seen <= self.most { Ok(()) } else { Err(too_large(self.seen, self.most)) }
    }

    /// Whether nothing but blanks is left.
    pub(super) fn is_blank(&self) -> bool {
        self.buffer.iter().all(u8::is_ascii_whitespace)
    }
}

/// In the words of gRPC.
pub(super) fn too_large(bytes: usize, most: usize) -> Status {
    Status::resource_exhausted(format!("grpc: received message larger than max ({bytes} vs. {most})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_in_pieces_of_any_length() {
        let parts = [r#"{}"#, r#"{"a":{"b":[1,{}]}}"#, r#"{"}":"\"}{\\"}"#, r#"{"\\":"é{"}"#];
        let text = format!(" \r\n{}{}\n{}\t {} ", parts[0], parts[1], parts[2], parts[3]);
        for size in 1..=text.len() {
            let (mut objects, mut found) = (Objects::new(20), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                objects.push(piece);
                while let Some(object) = objects.next().expect("they are objects") {
                    found.push(object);
                }
            }
            assert_eq!(found, parts.map(str::as_bytes), "in pieces of {size}");
            assert!(objects.is_blank());
        }
    }

    #[test]
    fn what_is_no_object_is_refused_and_what_is_not_whole_is_waited_for() {
        for text in ["[]", "7", "nul", "\"{}\"", "}", "\u{feff}{}", "{} ]"] {
            let mut objects = Objects::new(100);
            objects.push(text.as_bytes());
            let found = objects.next().and_then(|first| if first.is_some() { objects.next() } else { Ok(first) });
            assert_eq!(found.expect_err(text).code(), tonic::Code::InvalidArgument);
        }
        for text in ["", "  ", "{", r#"{"a":"}"#, r#"{"a":["#] {
            let mut objects = Objects::new(100);
            objects.push(text.as_bytes());
            assert!(objects.next().expect("it may go on").is_none(), "{text}");
            assert_eq!(objects.is_blank(), text.trim().is_empty());
        }
    }

    #[test]
    fn an_object_is_bounded() {
        for text in [r#"{"a":"aaaaaaaa"}"#, r#"{"a":"aaaaaaaa"#] {
            let mut objects = Objects::new(13);
            objects.push(text.as_bytes());
            let refused = objects.next().expect_err("it is too large");
            assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        }
        let mut objects = Objects::new(16);
        objects.push(br#"{"a":"aaaaaaaa"}"#);
        assert!(objects.next().is_ok_and(|object| object.is_some()));
    }
}
