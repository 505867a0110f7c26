//! One write of the history, in etcd's encoding.
//!
//! The value of a record is `mvccpb.KeyValue` in protobuf, so that a checksum over the history can be
//! compared with that of a real etcd. A tombstone holds only the key.

use bytes::{Buf, Bytes};
use prost::Message;

use super::types::KeyValue;
use super::{EngineError, Revision};

/// First byte of a record that is a put, and of one that is a tombstone.
const PUT: u8 = b'p';
const TOMBSTONE: u8 = b't';

/// A put or a tombstone as stored: a byte that says which, then the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record(Bytes);

impl Record {
    /// The record of a put.
    pub(crate) fn put(kv: &KeyValue) -> Record {
        Record::of(PUT, kv)
    }

    /// The record of a deletion.
    pub(crate) fn tombstone(key: &[u8]) -> Record {
        Record::of(TOMBSTONE, &KeyValue { key: Bytes::copy_from_slice(key), ..KeyValue::default() })
    }

    fn of(kind: u8, kv: &KeyValue) -> Record {
        let mut out = Vec::with_capacity(1 + kv.encoded_len());
        out.push(kind);
        kv.encode(&mut out).expect("a vector has room for all that is written to it");
        Record(out.into())
    }

    /// A record from the bytes of [`Record::message`].
    pub(crate) fn of_message(is_tombstone: bool, message: &[u8]) -> Record {
        let kind = if is_tombstone { TOMBSTONE } else { PUT };
        Record([&[kind], message].concat().into())
    }

    /// A record from the bytes of [`Record::stored`].
    #[must_use]
    pub fn from_stored(bytes: Bytes) -> Record {
        Record(bytes)
    }

    /// The bytes to store.
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

    /// Decodes the message. For a tombstone, only the key is set.
    ///
    /// # Errors
    /// The bytes are no record.
    pub fn key_value(&self) -> Result<KeyValue, EngineError> {
        let mut rest = self.0.clone();
        let kind = if rest.is_empty() { 0 } else { rest.get_u8() };
        if kind != PUT && kind != TOMBSTONE {
            return Err(damaged("its kind is unknown"));
        }
        let kv = KeyValue::decode(rest).map_err(|error| damaged(&error.to_string()))?;
        if kv.key.is_empty() {
            return Err(damaged("it has no key"));
        }
        Ok(kv)
    }
}

/// The bytes of a revision in etcd's `key` bucket, and how many of them to use: a tombstone has one more.
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
