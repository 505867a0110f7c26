//! The checksums of the latest compactions.
//!
//! A compaction gives up the revisions before it, so members could no longer be compared at an older revision.
//! Therefore etcd keeps the checksum that the history had just before each of its last compactions, and HashKV
//! answers with it at that compaction's revision, even after a later compaction.
//!
//! Etcd keeps its list in memory, so a member that has restarted answers differently from its peers. Here the list is
//! part of the replicated state: each checksum is a function of the commands up to its compaction, so all members
//! have the same list, also after a restart (the store's note holds it), after a snapshot, and in a rewritten file.
//! Each member computes the checksum when it has time. Until then it keeps the records that the checksum counts,
//! so a query or a dump of the state computes the same number from them.
//!
//! A member with data from a version without this list knows only the later compactions. For the others it
//! answers with another `compact_revision` than its peers: only checksums with the same one are comparable.

use super::codec::{CodecError, Sink, Source};

/// How many are kept, as in etcd.
const MAX_KEPT: usize = 10;

/// A compaction and its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeptHash {
    /// The compaction's revision. The checksum covers the records up to it.
    pub(crate) at: i64,
    /// The revision of the compaction before it; -1 if there was none.
    pub(crate) previous: i64,
    /// `None` until it is computed.
    pub(crate) hash: Option<u32>,
}

/// The latest compactions, oldest first, without gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeptHashes(Vec<KeptHash>);

impl KeptHashes {
    /// Adds a compaction, which follows the one at `previous`.
    pub(crate) fn add(&mut self, previous: i64, at: i64) {
        if self.0.len() == MAX_KEPT {
            self.0.remove(0);
        }
        self.0.push(KeptHash { at, previous, hash: None });
    }

    /// The checksum of the compaction at a revision.
    pub(crate) fn get(&self, at: i64) -> Option<&KeptHash> {
        self.0.iter().find(|kept| kept.at == at)
    }

    /// The oldest checksum that is not computed yet.
    pub(crate) fn pending(&self) -> Option<&KeptHash> {
        self.0.iter().find(|kept| kept.hash.is_none())
    }

    /// Stores a computed checksum, if its compaction is still in the list.
    pub(crate) fn set(&mut self, at: i64, hash: u32) {
        if let Some(kept) = self.0.iter_mut().find(|kept| kept.at == at) {
            kept.hash = Some(hash);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &KeptHash> {
        self.0.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one that was read from a note or snapshot.
    ///
    /// # Errors
    /// It does not follow the one before it, or there are too many.
    pub(crate) fn restore(&mut self, kept: KeptHash) -> Result<(), &'static str> {
        let follows = self.0.last().is_none_or(|last| last.at == kept.previous);
        if !follows || kept.previous < -1 || kept.at <= kept.previous {
            return Err("its checksums of compactions do not follow each other");
        }
        if self.0.len() == MAX_KEPT {
            return Err("it holds too many checksums of compactions");
        }
        self.0.push(kept);
        Ok(())
    }

    /// Whether the last one is the compaction at `compacted`, or there are none.
    pub(crate) fn end_at(&self, compacted: i64) -> bool {
        self.0.last().is_none_or(|last| last.at == compacted)
    }
}

impl KeptHash {
    pub(crate) fn write(&self, out: &mut impl Sink) {
        out.i64(self.previous);
        out.i64(self.at);
        out.bool(self.hash.is_some());
        out.u32(self.hash.unwrap_or(0));
    }

    pub(crate) fn read(source: &mut Source<'_>) -> Result<KeptHash, CodecError> {
        let (previous, at) = (source.i64("compaction")?, source.i64("compaction")?);
        let (known, hash) = (source.bool("checksum")?, source.u32("checksum")?);
        Ok(KeptHash { at, previous, hash: known.then_some(hash) })
    }
}
