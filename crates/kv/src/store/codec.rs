//! The encoding of the store's note and snapshots: little-endian numbers and counted bytes.
//!
//! Input may be hostile: each length is checked against the remaining bytes before memory is allocated.

use bytes::Bytes;

/// Longest key, value or command, so that every record fits into a snapshot.
pub const MAX_FIELD_BYTES: usize = 16 << 20;

/// Bytes that can't be decoded.
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
    /// A command of an unknown kind.
    #[error("the command is of an unknown kind")]
    UnknownCommand,
    /// A reply with neither a response nor an error that this program knows.
    #[error("the reply is of an unknown kind")]
    UnknownReply,
    /// An unknown error number.
    #[error("error {0} is unknown")]
    UnknownError(i32),
    /// The bytes end too early, or a length is greater than the number of bytes left.
    #[error("{field} does not fit into the bytes that are left")]
    Short {
        /// The field that is cut off.
        field: &'static str,
    },
    /// A length is beyond its bound.
    #[error("{field} has {length} bytes, more than {MAX_FIELD_BYTES}")]
    Long {
        /// The field.
        field: &'static str,
        /// Its length.
        length: usize,
    },
    /// Transactions are nested too deep.
    #[error("transactions are nested more than {} deep", super::MAX_TXN_DEPTH)]
    TooDeep,
    /// A response belongs to a request of another kind.
    #[error("the response belongs to a request of another kind")]
    OtherResponse,
    /// Something follows the end.
    #[error("{0} bytes follow the end")]
    Trailing(usize),
}

/// Takes encoded values.
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

/// Reads what was written to a [`Sink`].
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

    /// Reads a list. Each item takes at least a byte, so a count greater than the number of bytes left is an error.
    /// The count alone allocates nothing.
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

    /// Checks that nothing follows.
    pub(crate) fn end(&self) -> Result<(), CodecError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(CodecError::Trailing(left)),
        }
    }
}
