//! Giving up old revisions: at once for readers, in steps for the engine.
//!
//! A compaction at revision N only moves the bound of what is readable; from then on no answer depends
//! on what is older and superseded, so it can be removed whenever there is time. What has to go
//! because of N, but not because of the compaction before it at M, was superseded by a record between
//! M and N, or is a tombstone there. So only those records are looked at, not the whole history; but before that, the
//! checksum that is [kept](super::kept_hashes) of a compaction reads all of it, in steps too.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::engine::{Batch, Engine, EngineError, Revision};
use super::index::Version;
use super::read::Failure;
use super::types::{CompactionRequest, CompactionResponse};
use super::{KvError, Store};

/// What a call of [`Store::scrub`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records that were looked at.
    pub examined: usize,
    /// Records that were removed.
    pub removed: usize,
    /// Whether nothing is left to remove, until the next compaction.
    pub done: bool,
}

/// A record between two compactions, that may make others go.
struct Witness {
    key: Bytes,
    version: Version,
}

impl<E: Engine> Store<E> {
    pub(crate) fn compact(&mut self, request: &CompactionRequest) -> Result<CompactionResponse, Failure> {
        if request.revision <= self.meta.compacted {
            return Err(KvError::Compacted.into());
        }
        if request.revision > self.meta.revision {
            return Err(KvError::FutureRevision.into());
        }
        // A tombstone at the old bound was spared; the new one may doom it.
        self.meta.cursor = self.meta.cursor.min(Revision::start_of(self.removable()));
        self.meta.hashes.add(self.meta.compacted, request.revision);
        self.meta.compacted = request.revision;
        Ok(CompactionResponse { revision: self.meta.revision })
    }

    /// Whether all that the compaction at this revision gave up is removed, from memory and from the
    /// engine. (A crash may bring it back; it is then removed again.)
    #[must_use]
    pub fn is_scrubbed(&self, revision: i64) -> bool {
        self.meta.scrubbed >= revision
    }

    /// The compaction up to which all is removed; -1 if there was none.
    #[must_use]
    pub fn scrubbed_revision(&self) -> i64 {
        self.meta.scrubbed
    }

    /// The compaction up to which old revisions may be removed: the checksum of a later one still counts them.
    fn removable(&self) -> i64 {
        self.meta.hashes.pending().map_or(self.meta.compacted, |pending| pending.previous)
    }

    /// Removes what compactions gave up, after having computed the checksums that are kept of them, looking at
    /// `budget` records at most (one at least). No answer depends on how far this went: call it when there is time.
    ///
    /// # Errors
    /// The engine failed; the store is then at a [`Store::fault`].
    pub fn scrub(&mut self, budget: usize) -> Result<Progress, EngineError> {
        let outcome = self.try_scrub(budget.max(1));
        self.watch(outcome)
    }

    fn try_scrub(&mut self, budget: usize) -> Result<Progress, EngineError> {
        self.check_fault()?;
        let bound = self.removable();
        if self.is_scrubbed(bound) {
            return Ok(match self.hash_step(budget)? {
                Some(examined) => Progress { examined, ..Progress::default() },
                None => Progress { done: true, ..Progress::default() },
            });
        }
        self.try_flush()?;
        let mut witnesses = Vec::new();
        let (examined, last) = self.witnesses(self.meta.cursor, bound, budget, |witness| witnesses.push(witness))?;
        if examined < budget {
            self.meta.scrubbed = bound;
            // The records at the bound itself are looked at again: a tombstone there must go later.
            self.meta.cursor = Revision::start_of(bound);
        } else if let Some(last) = last {
            self.meta.cursor = last.next();
        }
        let mut deletes = Vec::new();
        for Witness { key, version } in &witnesses {
            let stays = !goes_by_itself(version, bound);
            let before = if stays { version.at } else { version.at.next() };
            self.index.forget(key, before, |at| deletes.push(at));
        }
        self.write_batch(&Batch { deletes: &deletes, ..Batch::default() })?;
        Ok(Progress { examined, removed: deletes.len(), done: self.is_scrubbed(self.meta.compacted) })
    }

    /// What is still to be removed, and the revision from which on no reader sees it. Bounded by what was written
    /// since the compaction up to which all is removed.
    pub(crate) fn leavings(&self) -> Result<BTreeMap<Revision, i64>, EngineError> {
        let mut leavings = BTreeMap::new();
        let bound = self.meta.compacted;
        if !self.is_scrubbed(bound) {
            // Tombstones at the bound that is under way are spared for now only.
            let from = self.meta.cursor.min(Revision::start_of(self.removable()));
            self.witnesses(from, bound, usize::MAX, |Witness { key, version }| {
                // What is older still was named by its own successor, or is gone.
                let before = self.index.get(&key).and_then(|history| history.before(version.at));
                leavings.extend(before.map(|before| (before.at, version.at.main)));
                if goes_by_itself(&version, bound) {
                    leavings.insert(version.at, version.at.main);
                }
            })?;
        }
        Ok(leavings)
    }

    /// Looks at up to `budget` records from a place on, up to a compaction's revision, and shows those that may make
    /// others go, in order. Says how many it looked at, and which was the last.
    fn witnesses(
        &self,
        from: Revision,
        bound: i64,
        budget: usize,
        mut show: impl FnMut(Witness),
    ) -> Result<(usize, Option<Revision>), EngineError> {
        let mut examined = 0;
        let mut last = None;
        let mut failed = None;
        let end = Revision::start_of(bound.saturating_add(1));
        self.scan(from, end, &mut |at, record| {
            examined += 1;
            last = Some(at);
            match Version::of(at, &record) {
                // Before a key's first value there can only be a tombstone, which goes by itself: unless
                // both are of one transaction.
                Ok((_, version)) if version.version == 1 && at.sub == 0 => {}
                Ok((kv, version)) => show(Witness { key: kv.key, version }),
                Err(error) => failed = Some(error),
            }
            if failed.is_some() || examined == budget { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        failed.map_or(Ok((examined, last)), Err)
    }
}

/// Whether a record goes although nothing followed it. A tombstone at the compaction's own revision stays, for those
/// who watch from there.
fn goes_by_itself(version: &Version, bound: i64) -> bool {
    version.is_tombstone() && version.at.main < bound
}
