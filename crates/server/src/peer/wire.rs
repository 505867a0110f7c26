//! Reading and writing little-endian fields. Nothing is allocated for a length before the bytes are there.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes that are no message of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end too early.
    #[error("{field} is cut off: {needed} bytes are needed, {left} are left")]
    CutOff {
        /// The field that was being read.
        field: &'static str,
        /// Its size in bytes.
        needed: usize,
        /// How many bytes were left.
        left: usize,
    },
    /// A field has a value that it can't have.
    #[error("{field} is {value}; allowed: {allowed}")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        allowed: &'static str,
    },
    /// There is more than the message.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
}

/// Reads fields from the front of a buffer.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes: Bytes,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Reader {
        Reader { bytes }
    }

    fn need(&self, field: &'static str, needed: usize) -> Result<(), WireError> {
        let left = self.bytes.len();
        if left < needed { Err(WireError::CutOff { field, needed, left }) } else { Ok(()) }
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        self.need(field, 1)?;
        Ok(self.bytes.get_u8())
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        self.need(field, 2)?;
        Ok(self.bytes.get_u16_le())
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        self.need(field, 4)?;
        Ok(self.bytes.get_u32_le())
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        self.need(field, 8)?;
        Ok(self.bytes.get_u64_le())
    }

    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, WireError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(WireError::Value { field, value: value.into(), allowed: "0 or 1" }),
        }
    }

    /// A field with its length in front, as a part of the same memory.
    pub(super) fn bytes(&mut self, field: &'static str) -> Result<Bytes, WireError> {
        let length = self.u32(field)? as usize;
        self.need(field, length)?;
        Ok(self.bytes.split_to(length))
    }

    /// A text with its length in front; what is no UTF-8 in it is replaced.
    pub(super) fn text(&mut self, field: &'static str) -> Result<String, WireError> {
        Ok(String::from_utf8_lossy(&self.bytes(field)?).into_owned())
    }

    /// All that is left.
    pub(super) fn rest(self) -> Bytes {
        self.bytes
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len()
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.bytes.len())) }
    }
}

/// Writes a field with its length in front.
pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("requests and chunks are bounded far below 4 GiB");
    out.put_u32_le(length);
    out.put_slice(bytes);
}
