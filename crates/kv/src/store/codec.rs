//! How the store's note and snapshots are written down: little-endian numbers and counted bytes.
//!
//! Whatever is read here may be hostile: a length is held against what is left before anything is allocated.

use bytes::Bytes;

/// Longest counted bytes, so that no value can be made up that a snapshot could not hold.
pub const MAX_FIELD_BYTES: usize = 16 << 20;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The first byte names a version that this program does not know.
    #[error("version {0} is unknown")]
    UnknownVersion(u8),
    /// A byte that names a kind or an option has no meaning.
    #[error("{field} {value} is unknown")]
    Unknown {
        /// What it should name.
        field: &'static str,
        /// Its value.
        value: u8,
    },
    /// The bytes are no protobuf message.
    #[error(transparent)]
    Message(#[from] prost::DecodeError),
    /// A command of no kind that this program knows.
    #[error("the command is of an unknown kind")]
    UnknownCommand,
    /// A reply with neither a response nor an error that this program knows.
    #[error("the reply is of an unknown kind")]
    UnknownReply,
    /// The number of an error that this program does not know.
    #[error("error {0} is unknown")]
    UnknownError(i32),
    /// The bytes end too early, or a length is beyond what follows.
    #[error("{field} does not fit into the bytes that are left")]
    Short {
        /// What should follow.
        field: &'static str,
    },
    /// A length is beyond its bound.
    #[error("{field} has {length} bytes, more than {MAX_FIELD_BYTES}")]
    Long {
        /// What is so long.
        field: &'static str,
        /// How long.
        length: usize,
    },
    /// Transactions within each other, more than allowed.
    #[error("transactions lie more than {} deep in each other", super::MAX_TXN_DEPTH)]
    TooDeep,
    /// A response belongs to a request of another kind.
    #[error("the response belongs to a request of another kind")]
    OtherResponse,
    /// Something follows the end.
    #[error("{0} bytes follow the end")]
    Trailing(usize),
}

/// Takes what is written.
pub(crate) trait Sink {
    fn raw(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.raw(&[value]);
    }

    fn bool(&mut self, value: bool) {
        self.u8(value.into());
    }

    fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.raw(&value.to_le_bytes());
    }

    /// A count, or a length.
    fn length(&mut self, value: usize) {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.raw(bytes);
    }
}

impl Sink for Vec<u8> {
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Reads what a [`Sink`] took.
pub(crate) struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Source<'a> {
        Source(bytes)
    }

    pub(crate) fn raw(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(CodecError::Short { field })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CodecError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(CodecError::Short { field })?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, CodecError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(CodecError::Unknown { field, value }),
        }
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn i64(&mut self, field: &'static str) -> Result<i64, CodecError> {
        Ok(i64::from_le_bytes(self.array(field)?))
    }

    fn length(&mut self, field: &'static str) -> Result<usize, CodecError> {
        usize::try_from(self.u32(field)?).map_err(|_| CodecError::Short { field })
    }

    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<Bytes, CodecError> {
        let length = self.length(field)?;
        self.raw(length, field).map(Bytes::copy_from_slice)
    }

    /// A list. Each item takes at least a byte, so a count beyond the bytes left is a lie; the list
    /// grows with what is really there.
    pub(crate) fn list<T>(
        &mut self,
        field: &'static str,
        mut item: impl FnMut(&mut Source<'a>) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let count = self.length(field)?;
        if count > self.0.len() {
            return Err(CodecError::Short { field });
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Nothing may follow.
    pub(crate) fn end(&self) -> Result<(), CodecError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(CodecError::Trailing(left)),
        }
    }
}
