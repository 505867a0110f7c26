//! Compaction: old revisions become unreadable at once, and are removed from the engine in steps.
//!
//! A compaction at revision N only moves the oldest readable revision. After that no answer depends
//! on older, superseded records, so they can be removed whenever there is time. A record that must be removed
//! because of N, but not because of the compaction before it at M, was superseded by a record between
//! M and N, or is a tombstone between them. So only the records between M and N are examined, not the whole history.
//! Before that, however, the checksum that is [kept](super::kept_hashes) of a compaction reads all of it, in steps too.

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
    /// Records that were examined.
    pub examined: usize,
    /// Records that were removed.
    pub removed: usize,
    /// Whether nothing is left to do until the next compaction.
    pub done: bool,
}

/// A record between two compactions. Because of it, older records of its key, or itself, may have to be removed.
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
        // A tombstone at the old bound was kept; now it must be removed.
        self.meta.cursor = self.meta.cursor.min(Revision::start_of(self.removable()));
        self.meta.hashes.add(self.meta.compacted, request.revision);
        self.meta.compacted = request.revision;
        Ok(CompactionResponse { revision: self.meta.revision })
    }

    /// Whether everything that the compaction at this revision gave up is removed, from memory and from the
    /// engine. (After a crash it may be back; then it is removed again.)
    #[must_use]
    pub fn is_scrubbed(&self, revision: i64) -> bool {
        self.meta.scrubbed >= revision
    }

    /// The latest compaction whose removal is complete; -1 if there is none.
    #[must_use]
    pub fn scrubbed_revision(&self) -> i64 {
        self.meta.scrubbed
    }

    /// The compaction up to which old revisions may be removed: the pending checksum of a later one counts the rest.
    fn removable(&self) -> i64 {
        self.meta.hashes.pending().map_or(self.meta.compacted, |pending| pending.previous)
    }

    /// Computes the checksums that are kept of compactions, and removes what compactions gave up. Examines at most
    /// `budget` records (at least one). No answer depends on its progress: call it when there is time.
    ///
    /// # Errors
    /// The engine failed; the store then has a [`Store::fault`].
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
            // The next compaction examines the records at the bound again, as a tombstone there must be removed then.
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

    /// The records that are still to be removed, each with the revision from which on no reader sees it. There are no
    /// more of them than were written since the last compaction whose removal is complete.
    pub(crate) fn leavings(&self) -> Result<BTreeMap<Revision, i64>, EngineError> {
        let mut leavings = BTreeMap::new();
        let bound = self.meta.compacted;
        if !self.is_scrubbed(bound) {
            // A tombstone at the bound of an earlier compaction must be removed now, even if the scrub is beyond it.
            let from = self.meta.cursor.min(Revision::start_of(self.removable()));
            self.witnesses(from, bound, usize::MAX, |Witness { key, version }| {
                // Even older records were found through their own successors, or are removed already.
                let before = self.index.get(&key).and_then(|history| history.before(version.at));
                leavings.extend(before.map(|before| (before.at, version.at.main)));
                if goes_by_itself(&version, bound) {
                    leavings.insert(version.at, version.at.main);
                }
            })?;
        }
        Ok(leavings)
    }

    /// Examines up to `budget` records from a place on, up to a compaction's revision, and visits the witnesses among
    /// them, in order. Returns how many it examined, and the last one.
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
                // Before a key's first value there can only be a tombstone, which is a witness itself, unless
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

/// Whether a record must be removed although no later one superseded it: a tombstone before the compaction's revision.
/// One at that revision stays, for clients that watch from there.
fn goes_by_itself(version: &Version, bound: i64) -> bool {
    version.is_tombstone() && version.at.main < bound
}
