//! The checksum of the history, by etcd's rules, so that it can be compared with that of a real etcd.

use std::ops::ControlFlow;

use super::engine::{Engine, EngineError, Revision};
use super::kept_hashes::KeptHash;
use super::read::Failure;
use super::record::{Record, bucket_key};
use super::types::HashKv;
use super::{KvError, Store};

/// The name of etcd's bucket, which begins the checksum.
const BUCKET: &[u8] = b"key";

/// Bytes of records after which a step ends, as other work waits for it.
const STEP_BYTES: usize = 1 << 20;

/// Which records a checksum counts.
#[derive(Clone, Copy)]
struct Scope {
    /// It counts records up to this revision.
    upto: i64,
    /// Records up to this compaction count only if `reader` sees them.
    compacted: i64,
    /// The revision of the reader.
    reader: i64,
}

/// The checksum of a compaction, in steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashPass {
    /// The compaction.
    at: i64,
    /// The next record to count.
    cursor: Revision,
    /// The checksum so far.
    hash: u32,
}

impl<E: Engine> Store<E> {
    /// The checksum up to a revision. Etcd hashes the content of its bucket, with two exceptions, which we
    /// follow: a record up to the compacted revision counts only if it is still visible at the hashed revision (or at
    /// the compacted one, if nothing at all is visible at the hashed one); and a tombstone exactly at
    /// the compacted revision does not count. At the revision of one of the latest compactions it is the checksum
    /// that the history had just before it: see [`kept_hashes`](super::kept_hashes).
    pub(crate) fn try_hash_kv(&self, revision: i64) -> Result<HashKv, Failure> {
        if revision > 0
            && let Some(kept) = self.meta.hashes.get(revision)
        {
            let hash = kept.hash.map_or_else(|| self.hash_of(Scope::of(kept)), Ok)?;
            let (compact_revision, hash_revision) = (kept.previous, kept.at);
            return Ok(HashKv { revision: self.meta.revision, hash, compact_revision, hash_revision });
        }
        self.try_hash_kv_now(revision)
    }

    /// The same, but always computed from the present records, without the kept checksums.
    pub(crate) fn try_hash_kv_now(&self, revision: i64) -> Result<HashKv, Failure> {
        let compacted = self.meta.compacted;
        if revision > 0 && revision < compacted {
            return Err(KvError::Compacted.into());
        }
        if revision > self.meta.revision {
            return Err(KvError::FutureRevision.into());
        }
        let upto = if revision == 0 { self.meta.revision } else { revision };
        let reader = if self.index.any_visible(upto) { upto } else { compacted };
        let hash = self.hash_of(Scope { upto, compacted, reader })?;
        Ok(HashKv { revision: self.meta.revision, hash, compact_revision: compacted, hash_revision: upto })
    }

    fn hash_of(&self, scope: Scope) -> Result<u32, EngineError> {
        let mut pass = HashPass::begin(scope.upto);
        self.go_on_hashing(&mut pass, scope, usize::MAX, usize::MAX)?;
        Ok(pass.hash)
    }

    /// Does a step of a compaction's checksum, if one is still to be computed. Returns how many records it examined:
    /// at most `budget`.
    pub(crate) fn hash_step(&mut self, budget: usize) -> Result<Option<usize>, EngineError> {
        let Some(pending) = self.meta.hashes.pending().copied() else { return Ok(None) };
        let begun = self.hashing.filter(|pass| pass.at == pending.at);
        let mut pass = begun.unwrap_or(HashPass::begin(pending.at));
        let (examined, done) = self.go_on_hashing(&mut pass, Scope::of(&pending), budget, STEP_BYTES)?;
        self.hashing = (!done).then_some(pass);
        if done {
            self.meta.hashes.set(pass.at, pass.hash);
        }
        Ok(Some(examined))
    }

    /// Examines some more records. Returns how many, and whether the checksum is complete.
    fn go_on_hashing(
        &self,
        pass: &mut HashPass,
        scope: Scope,
        budget: usize,
        mut bytes: usize,
    ) -> Result<(usize, bool), EngineError> {
        let (mut examined, mut done, mut failed) = (0, true, None);
        self.scan(pass.cursor, Revision::start_of(scope.upto.saturating_add(1)), &mut |at, record| {
            let counts = if at.main > scope.compacted { Ok(true) } else { self.is_seen(at, &record, scope.reader) };
            match counts {
                Ok(counts) => pass.take(at, &record, counts),
                Err(error) => failed = Some(error),
            }
            examined += 1;
            bytes = bytes.saturating_sub(record.stored().len());
            done = examined < budget && bytes > 0;
            if done && failed.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        failed.map_or(Ok((examined, done)), Err)
    }

    /// Whether a reader at a revision sees this record.
    fn is_seen(&self, at: Revision, record: &Record, reader: i64) -> Result<bool, EngineError> {
        if record.is_tombstone() {
            return Ok(false);
        }
        let key = record.key_value()?.key;
        let seen = self.index.get(&key).and_then(|history| history.visible(reader));
        Ok(seen.is_some_and(|seen| seen.at == at))
    }
}

impl Scope {
    /// What the checksum of a compaction counts: the records that existed just before it. The fallback for a revision
    /// at which nothing is visible isn't needed: the last write there is visible, or a tombstone, which etcd keeps too.
    fn of(kept: &KeptHash) -> Scope {
        Scope { upto: kept.at, compacted: kept.previous, reader: kept.at }
    }
}

impl HashPass {
    /// The checksum of no records.
    pub(crate) fn begin(at: i64) -> HashPass {
        HashPass { at, cursor: Revision::default(), hash: crc32c::crc32c(BUCKET) }
    }

    /// Takes the next record, which may not count.
    pub(crate) fn take(&mut self, at: Revision, record: &Record, counts: bool) {
        self.cursor = at.next();
        if counts {
            let (key, length) = bucket_key(at, record.is_tombstone());
            self.hash = crc32c::crc32c_append(self.hash, &key[..length]);
            self.hash = crc32c::crc32c_append(self.hash, record.message());
        }
    }

    pub(crate) fn hash(&self) -> u32 {
        self.hash
    }
}
