//! The checksum of the history, by etcd's rules, so that it can be held against a real etcd's.

use std::ops::ControlFlow;

use super::engine::{Engine, EngineError, Revision};
use super::read::Failure;
use super::record::{Record, bucket_key};
use super::types::HashKv;
use super::{KvError, Store};

/// The name of etcd's bucket; the checksum begins with it.
const BUCKET: &[u8] = b"key";

impl<E: Engine> Store<E> {
    /// The checksum up to a revision. Etcd hashes what its bucket holds, with two exceptions, which we
    /// follow: what a compaction gave up counts only if it is still visible at the revision (where
    /// nothing at all is visible there, if it survives the compaction); and a tombstone exactly at
    /// the compacted revision does not count.
    pub(crate) fn try_hash_kv(&self, revision: i64) -> Result<HashKv, Failure> {
        let compacted = self.meta.compacted;
        if revision > 0 && revision < compacted {
            return Err(KvError::Compacted.into());
        }
        if revision > self.meta.revision {
            return Err(KvError::FutureRevision.into());
        }
        let upto = if revision == 0 { self.meta.revision } else { revision };
        let reader = if self.index.any_visible(upto) { upto } else { compacted };
        let mut hash = crc32c::crc32c(BUCKET);
        let mut failed = None;
        self.scan(Revision::default(), Revision::start_of(upto.saturating_add(1)), &mut |at, record| {
            let counts = if at.main > compacted { Ok(true) } else { self.is_seen(at, &record, reader) };
            match counts {
                Ok(true) => {
                    let (key, length) = bucket_key(at, record.is_tombstone());
                    hash = crc32c::crc32c_append(hash, &key[..length]);
                    hash = crc32c::crc32c_append(hash, record.message());
                }
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(HashKv { revision: self.meta.revision, hash, compact_revision: compacted, hash_revision: upto }),
        }
    }

    /// Whether a reader at a revision sees this very record.
    fn is_seen(&self, at: Revision, record: &Record, reader: i64) -> Result<bool, EngineError> {
        if record.is_tombstone() {
            return Ok(false);
        }
        let key = record.key_value()?.key;
        let seen = self.index.get(&key).and_then(|history| history.visible(reader));
        Ok(seen.is_some_and(|seen| seen.at == at))
    }
}
