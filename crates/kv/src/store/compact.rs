//! Giving up old revisions: at once for readers, in steps for the engine.
//!
//! A compaction at revision N only moves the bound of what is readable; from then on no answer depends
//! on what is older and superseded, so it can be removed whenever there is time. What has to go
//! because of N, but not because of the compaction before it at M, was superseded by a record between
//! M and N, or is a tombstone there. So only those records are looked at, not the whole history.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

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

/// A record that nobody can see any more, and its key.
struct Leaving {
    key: Box<[u8]>,
    at: Revision,
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
        self.meta.cursor = self.meta.cursor.min(Revision::start_of(self.meta.compacted));
        self.meta.compacted = request.revision;
        Ok(CompactionResponse { revision: self.meta.revision })
    }

    /// Whether all that the compaction at this revision gave up is removed, from memory and from the
    /// engine. (A crash may bring it back; it is then removed again.)
    #[must_use]
    pub fn is_scrubbed(&self, revision: i64) -> bool {
        self.meta.scrubbed >= revision
    }

    /// Removes what compactions gave up, looking at `budget` records at most (one at least). No
    /// answer depends on how far this went: call it when there is time.
    ///
    /// # Errors
    /// The engine failed; the store is then at a [`Store::fault`].
    pub fn scrub(&mut self, budget: usize) -> Result<Progress, EngineError> {
        let outcome = self.try_scrub(budget.max(1));
        self.watch(outcome)
    }

    fn try_scrub(&mut self, budget: usize) -> Result<Progress, EngineError> {
        self.check_fault()?;
        if self.is_scrubbed(self.meta.compacted) {
            return Ok(Progress { done: true, ..Progress::default() });
        }
        self.try_flush()?;
        let mut leavings = Vec::new();
        let (examined, last) = self.find_leavings(budget, |leaving| leavings.push(leaving))?;
        let done = examined < budget;
        if done {
            self.meta.scrubbed = self.meta.compacted;
            // The records at the bound itself are looked at again: a tombstone there must go later.
            self.meta.cursor = Revision::start_of(self.meta.compacted);
        } else if let Some(last) = last {
            self.meta.cursor = last.next();
        }
        let deletes: Vec<_> = leavings.iter().map(|leaving| leaving.at).collect();
        self.write_batch(&Batch { deletes: &deletes, ..Batch::default() })?;
        for leaving in &leavings {
            self.index.forget(&leaving.key, leaving.at);
        }
        Ok(Progress { examined, removed: leavings.len(), done })
    }

    /// What is still to be removed. Bounded by what was written between the last two compactions.
    pub(crate) fn leavings(&self) -> Result<BTreeSet<Revision>, EngineError> {
        let mut leavings = BTreeSet::new();
        if !self.is_scrubbed(self.meta.compacted) {
            self.find_leavings(usize::MAX, |leaving| {
                leavings.insert(leaving.at);
            })?;
        }
        Ok(leavings)
    }

    /// Looks at up to `budget` records from the cursor on, and names what can go because of them,
    /// oldest of a key first. Says how many it looked at, and which was the last.
    fn find_leavings(
        &self,
        budget: usize,
        mut name: impl FnMut(Leaving),
    ) -> Result<(usize, Option<Revision>), EngineError> {
        let compacted = self.meta.compacted;
        let mut examined = 0;
        let mut last = None;
        let mut failed = None;
        self.scan(self.meta.cursor, Revision::start_of(compacted.saturating_add(1)), &mut |at, record| {
            examined += 1;
            last = Some(at);
            match Version::of(at, &record) {
                Ok((key, version)) => {
                    // A tombstone at the bound stays for those who watch from there.
                    let goes_by_itself = |version: &Version| version.is_tombstone() && version.at.main < compacted;
                    let before = self.index.get(&key).and_then(|history| history.before(at));
                    if let Some(before) = before.filter(|before| !goes_by_itself(before)) {
                        name(Leaving { key: key.clone(), at: before.at });
                    }
                    if goes_by_itself(&version) {
                        name(Leaving { key, at });
                    }
                }
                Err(error) => failed = Some(error),
            }
            if failed.is_some() || examined == budget { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        failed.map_or(Ok((examined, last)), Err)
    }
}
