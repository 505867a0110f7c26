//! The encoding of commands.
//!
//! Fields are counted strings (`5:hello,`), so text needs no escaping, and an encoded command is text itself.

use bytes::Bytes;

/// Longest key, value or origin, in bytes.
pub const MAX_FIELD_BYTES: usize = 16 << 20;

/// Digits of a length: enough for [`MAX_FIELD_BYTES`].
const MAX_LENGTH_DIGITS: usize = 8;

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sets a key.
    Put {
        /// Names the client's request; a second command of the same origin changes nothing.
        origin: String,
        /// The key.
        key: String,
        /// Its new value.
        value: String,
    },
}

/// Bytes that are no command or snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The kind is unknown.
    #[error("unknown kind {0:?}")]
    UnknownKind(String),
    /// A field is missing or damaged.
    #[error("field {field} at byte {at} is not a counted string of at most {MAX_FIELD_BYTES} bytes of text")]
    Field {
        /// Its name.
        field: &'static str,
        /// Where it should begin.
        at: usize,
    },
    /// Something follows the last field.
    #[error("{0} bytes follow the last field")]
    Trailing(usize),
}

impl Command {
    /// The bytes that go into the log.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let Command::Put { origin, key, value } = self;
        let mut out = Vec::with_capacity(32 + origin.len() + key.len() + value.len());
        for field in ["put", origin, key, value] {
            write_field(&mut out, field);
        }
        out.into()
    }

    /// Reads what [`Command::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are no command; the error says why and where.
    pub fn decode(bytes: &[u8]) -> Result<Command, CommandError> {
        let mut reader = Reader::new(bytes);
        match reader.field("kind")? {
            "put" => {
                let mut text = |name| reader.field(name).map(str::to_owned);
                let command = Command::Put { origin: text("origin")?, key: text("key")?, value: text("value")? };
                reader.end()?;
                Ok(command)
            }
            other => Err(CommandError::UnknownKind(other.chars().take(20).collect())),
        }
    }
}

/// Appends a counted string.
pub(crate) fn write_field(out: &mut Vec<u8>, field: &str) {
    out.extend_from_slice(field.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(field.as_bytes());
    out.push(b',');
}

/// Reads counted strings one after the other.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// The next counted string.
    pub(crate) fn field(&mut self, field: &'static str) -> Result<&'a str, CommandError> {
        let at = self.at;
        self.try_field().ok_or(CommandError::Field { field, at })
    }

    /// The next counted string, as a number.
    pub(crate) fn number(&mut self, field: &'static str) -> Result<u64, CommandError> {
        let at = self.at;
        self.field(field)?.parse().map_err(|_| CommandError::Field { field, at })
    }

    /// Checks that nothing follows.
    pub(crate) fn end(&self) -> Result<(), CommandError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            left => Err(CommandError::Trailing(left)),
        }
    }

    fn try_field(&mut self) -> Option<&'a str> {
        let rest = self.bytes.get(self.at..)?;
        let digits = rest.iter().take(MAX_LENGTH_DIGITS + 1).position(|byte| *byte == b':')?;
        if digits == 0 || !rest[..digits].iter().all(u8::is_ascii_digit) {
            return None;
        }
        let length: usize = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        let start = digits + 1;
        let text = rest.get(start..start.checked_add(length)?)?;
        if length > MAX_FIELD_BYTES || rest.get(start + length) != Some(&b',') {
            return None;
        }
        self.at += start + length + 1;
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(origin: String, key: String, value: String) {
            let command = Command::Put { origin, key, value };
            prop_assert_eq!(Command::decode(&command.encode()), Ok(command));
        }

        #[test]
        fn garbage_is_refused_and_never_panics(bytes: Vec<u8>) {
            prop_assert!(Command::decode(&bytes).is_err());
        }

        #[test]
        fn a_damaged_command_never_panics(key: String, at: usize, byte: u8) {
            let command = Command::Put { origin: "0005/M1".to_owned(), key, value: "v".to_owned() };
            let mut bytes = command.encode().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Command::decode(&bytes);
            let _ = Command::decode(&bytes[..at]);
        }
    }

    #[test]
    fn errors_name_the_field_and_the_place() {
        let error = Command::decode(b"3:put,1:o,9:key,").expect_err("the key is cut short");
        assert_eq!(error, CommandError::Field { field: "key", at: 10 });
        let error = Command::decode(b"3:del,1:k,").expect_err("no such kind");
        assert_eq!(error.to_string(), "unknown kind \"del\"");
        assert_eq!(Command::decode(b"3:put,1:o,1:k,1:v,x"), Err(CommandError::Trailing(1)));
        assert!(Command::decode(b"3:put,1:o,99999999999999999999:k,").is_err());
    }
}
