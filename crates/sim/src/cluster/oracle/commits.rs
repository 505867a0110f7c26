//! Checks what is committed: Leader Completeness (I4), State Machine Safety (I5), and that equal logs give equal states
//! (I16, I17).

use bowline_raft::{Index, Log, NodeId, Raft, Term};

use crate::cluster::machine::Applied;
use crate::cluster::oracle::{Judged, Rule};

/// An upper bound, far above the number of operations in any run.
const MOST_OPERATIONS: usize = 1 << 32;

#[derive(Clone, Copy, Debug)]
struct Commit {
    term: Term,
    /// The term of the replica that first knew of it, or a later one: it never decreases from one entry to the next.
    by: Term,
}

#[derive(Debug, Default)]
pub(crate) struct Commits {
    entries: Vec<Commit>,
    /// By index: the digest of the state after the command there; 0 if none was applied yet.
    digests: Vec<u64>,
    /// By operation: the index at which it took effect; 0 if it did not.
    first_at: Vec<u64>,
    /// Index and number of each operation, in the order in which they took effect.
    order: Vec<(u64, u64)>,
    /// The index of the last command that was applied anywhere.
    last: u64,
}

impl Commits {
    /// The number of entries that are known to be committed.
    pub(crate) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        let at = usize::try_from(index.0.checked_sub(1)?).ok()?;
        self.entries.get(at).map(|commit| commit.term)
    }

    /// A replica's commit index rose from `before`. Returns the first index that was not known to be committed, if
    /// there is one.
    pub(crate) fn advanced(&mut self, raft: &Raft, before: Index) -> Result<Option<Index>, (Rule, String)> {
        let log = raft.log();
        let mut index = before.max(log.base().index.previous()).next();
        let mut new_from = None;
        while index <= raft.commit_index() {
            let Some(term) = log.term_at(index) else { break };
            match self.term_at(index) {
                Some(known) if known == term => {}
                Some(known) => {
                    let what =
                        format!("{} commits {index}@{}, but {index}@{} is committed there", raft.id(), term.0, known.0);
                    return Err((Rule::StateMachineSafety, what));
                }
                None if index.0 == self.len() + 1 => {
                    let by = self.entries.last().map_or(raft.term(), |last| last.by.max(raft.term()));
                    self.entries.push(Commit { term, by });
                    new_from = new_from.or(Some(index));
                }
                None => return Err((Rule::StateMachineSafety, format!("{} commits {index} out of order", raft.id()))),
            }
            index = index.next();
        }
        Ok(new_from)
    }

    /// I4: a new leader has everything that was committed in an earlier term.
    pub(crate) fn led_by(&self, raft: &Raft) -> Judged {
        let earlier = self.entries.partition_point(|commit| commit.by < raft.term());
        let Some(commit) = earlier.checked_sub(1).map(|at| self.entries[at]) else { return Ok(()) };
        let (log, index) = (raft.log(), Index(earlier as u64));
        if log.base().index > index || log.term_at(index) == Some(commit.term) {
            return Ok(());
        }
        let (id, term) = (raft.id(), raft.term());
        let what = format!("{id} leads in {term} without {index}@{}, committed in {}", commit.term.0, commit.by);
        Err((Rule::LeaderCompleteness, what))
    }

    /// A replica has applied a command. Returns whether it is the first one to do so.
    pub(crate) fn applied(&mut self, id: NodeId, applied: &Applied) -> Result<bool, (Rule, String)> {
        let at = usize::try_from(applied.index).expect("an index fits");
        if self.digests.len() <= at {
            self.digests.resize(at + 1, 0);
        }
        let known = self.digests[at];
        if known != 0 {
            let what = || {
                format!(
                    "{id} has a different state after index {}, where it applied operation {}",
                    applied.index, applied.op
                )
            };
            return if known == applied.digest { Ok(false) } else { Err((Rule::StatesAreEqual, what())) };
        }
        if self.last >= applied.index {
            let what = format!("{id} applies a command at {}, which other replicas skipped", applied.index);
            return Err((Rule::StatesAreEqual, what));
        }

        self.digests[at] = applied.digest;
        self.last = applied.index;
        let op = usize::try_from(applied.op).unwrap_or(usize::MAX);
        if op < MOST_OPERATIONS && self.first_at.len() <= op {
            self.first_at.resize(op + 1, 0);
        }
        if let Some(first @ 0) = self.first_at.get_mut(op) {
            *first = applied.index;
            self.order.push((applied.index, applied.op));
        }
        Ok(true)
    }

    /// The digest of the state after the command at `index`, if one was applied there.
    pub(crate) fn digest_at(&self, index: u64) -> Option<u64> {
        self.digests.get(usize::try_from(index).ok()?).copied().filter(|digest| *digest != 0)
    }

    /// The index of the last command up to `index` that was applied anywhere, and the digest of the state after it.
    pub(crate) fn last_up_to(&self, index: Index) -> (u64, u64) {
        let end = usize::try_from(index.0).map_or(0, |at| at.saturating_add(1)).min(self.digests.len());
        let last = self.digests[..end].iter().rposition(|digest| *digest != 0);
        last.map_or((0, 0), |at| (at as u64, self.digests[at]))
    }

    /// The index at which an operation took effect.
    pub(crate) fn effect_of(&self, op: u64) -> Option<u64> {
        self.first_at.get(usize::try_from(op).ok()?).copied().filter(|index| *index > 0)
    }

    /// Operations in the order in which they took effect.
    pub(crate) fn order(&self) -> &[(u64, u64)] {
        &self.order
    }

    /// Whether a log holds everything that is committed.
    pub(crate) fn all_in(&self, log: &Log) -> bool {
        let last = Index(self.len());
        log.base().index >= last || log.term_at(last) == self.term_at(last)
    }
}
