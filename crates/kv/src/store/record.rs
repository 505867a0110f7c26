//! One write of the history, in the bytes that etcd keeps for it.
//!
//! The value of a record is `mvccpb.KeyValue` in protobuf, so that a checksum over the history can be
//! compared with that of a real etcd. A tombstone's holds the key alone.

use bytes::{Buf, Bytes};

use super::types::KeyValue;
use super::{EngineError, Revision};

/// First byte of a record that is a put, and of one that is a tombstone.
const PUT: u8 = b'p';
const TOMBSTONE: u8 = b't';

/// A put or a tombstone, as it is kept: a byte that tells which, and the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record(Bytes);

impl Record {
    /// The record of a put.
    pub(crate) fn put(kv: &KeyValue) -> Record {
        let mut out = Vec::with_capacity(kv.key.len() + kv.value.len() + 48);
        out.push(PUT);
        write_bytes(&mut out, 1, &kv.key);
        write_number(&mut out, 2, kv.create_revision);
        write_number(&mut out, 3, kv.mod_revision);
        write_number(&mut out, 4, kv.version);
        write_bytes(&mut out, 5, &kv.value);
        write_number(&mut out, 6, kv.lease);
        Record(out.into())
    }

    /// The record of a deletion.
    pub(crate) fn tombstone(key: &[u8]) -> Record {
        let mut out = Vec::with_capacity(key.len() + 8);
        out.push(TOMBSTONE);
        write_bytes(&mut out, 1, key);
        Record(out.into())
    }

    /// A record from the bytes of [`Record::stored`].
    #[must_use]
    pub fn from_stored(bytes: Bytes) -> Record {
        Record(bytes)
    }

    /// The bytes to keep.
    #[must_use]
    pub fn stored(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is a deletion.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.0.first() == Some(&TOMBSTONE)
    }

    /// The message alone, as etcd's `key` bucket holds it.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        self.0.get(1..).unwrap_or_default()
    }

    /// What it says. Of a tombstone, only the key.
    ///
    /// # Errors
    /// The bytes are no record.
    pub fn key_value(&self) -> Result<KeyValue, EngineError> {
        let mut rest = self.0.clone();
        let kind = if rest.is_empty() { 0 } else { rest.get_u8() };
        if kind != PUT && kind != TOMBSTONE {
            return Err(damaged("its kind is unknown"));
        }
        let mut kv = KeyValue::default();
        while !rest.is_empty() {
            match read_varint(&mut rest)? {
                0x0a => kv.key = read_bytes(&mut rest)?,
                0x10 => kv.create_revision = read_number(&mut rest)?,
                0x18 => kv.mod_revision = read_number(&mut rest)?,
                0x20 => kv.version = read_number(&mut rest)?,
                0x2a => kv.value = read_bytes(&mut rest)?,
                0x30 => kv.lease = read_number(&mut rest)?,
                _ => return Err(damaged("it holds an unknown field")),
            }
        }
        if kv.key.is_empty() {
            return Err(damaged("it has no key"));
        }
        Ok(kv)
    }
}

/// The bytes of a revision in etcd's `key` bucket, and how many of them count: a tombstone has one more.
pub(crate) fn bucket_key(at: Revision, tombstone: bool) -> ([u8; 18], usize) {
    let mut key = [b't'; 18];
    key[..8].copy_from_slice(&at.main.to_be_bytes());
    key[8] = b'_';
    key[9..17].copy_from_slice(&u64::from(at.sub).to_be_bytes());
    (key, if tombstone { 18 } else { 17 })
}

fn damaged(what: &str) -> EngineError {
    EngineError::new("read a record", what)
}

/// A field of bytes; an empty one is left out, as proto3 does.
fn write_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(field << 3 | 2);
        write_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

/// A field of a number; zero is left out. A negative number takes ten bytes, as an `int64` does.
fn write_number(out: &mut Vec<u8>, field: u8, number: i64) {
    if number != 0 {
        out.push(field << 3);
        write_varint(out, number.cast_unsigned());
    }
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(rest: &mut Bytes) -> Result<u64, EngineError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        if rest.is_empty() {
            break;
        }
        let byte = rest.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(damaged("a number does not end"))
}

fn read_number(rest: &mut Bytes) -> Result<i64, EngineError> {
    read_varint(rest).map(u64::cast_signed)
}

fn read_bytes(rest: &mut Bytes) -> Result<Bytes, EngineError> {
    let length = usize::try_from(read_varint(rest)?).unwrap_or(usize::MAX);
    if length > rest.len() {
        return Err(damaged("a length is beyond its end"));
    }
    Ok(rest.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bytes that etcd's marshaller gives for these fields, by the protobuf encoding's rules.
    #[test]
    fn the_message_is_etcds() {
        let kv = KeyValue {
            key: Bytes::from_static(b"foo"),
            create_revision: 2,
            mod_revision: 300,
            version: 1,
            value: Bytes::from_static(b"bar"),
            lease: 0,
        };
        assert_eq!(Record::put(&kv).message(), b"\x0a\x03foo\x10\x02\x18\xac\x02\x20\x01\x2a\x03bar");
        assert_eq!(Record::tombstone(b"foo").message(), b"\x0a\x03foo");
    }

    #[test]
    fn the_key_of_the_bucket_is_etcds() {
        let (key, length) = bucket_key(Revision { main: 0x0102, sub: 3 }, true);
        assert_eq!(&key[..length], b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03t");
        assert_eq!(bucket_key(Revision::start_of(2), false).1, 17);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            key in prop::collection::vec(any::<u8>(), 1..20), value: Vec<u8>,
            create_revision: i64, mod_revision: i64, version: i64, lease: i64,
        ) {
            let kv = KeyValue { key: key.into(), create_revision, mod_revision, version, value: value.into(), lease };
            let record = Record::put(&kv);
            prop_assert!(!record.is_tombstone());
            prop_assert_eq!(record.key_value(), Ok(kv.clone()));
            let tombstone = Record::tombstone(&kv.key);
            prop_assert!(tombstone.is_tombstone());
            prop_assert_eq!(tombstone.key_value().expect("it is whole").key, kv.key);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Record::from_stored(bytes.into()).key_value();
        }
    }
}
