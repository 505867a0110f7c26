//! Commitment (5.3, 5.4.2), and how committed entries get to the state machine.

use std::collections::VecDeque;

use crate::effect::{Effect, Effects};
use crate::log::Entry;
use crate::message::SnapshotHeader;
use crate::probe::probe;
use crate::raft::Raft;
use crate::role::Role;
use crate::types::{Index, PersistId};

/// Which entries the state machine has been given, and which of them it has applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Applying {
    applied: Index,
    handed_over: Index,
    /// Last index and bytes of each batch that is not applied yet.
    batches: VecDeque<(Index, usize)>,
    bytes: usize,
    /// A snapshot that is to replace the state machine, once the write of its header is durable.
    installing: Option<(PersistId, SnapshotHeader)>,
}

impl Applying {
    pub(crate) fn new(applied: Index) -> Applying {
        Applying { applied, handed_over: applied, batches: VecDeque::new(), bytes: 0, installing: None }
    }

    /// `lastApplied`: the state machine contains everything up to here.
    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    /// The host has been given everything up to here.
    pub(crate) fn handed_over(&self) -> Index {
        self.handed_over
    }

    fn hand_over(&mut self, entries: &[Entry]) {
        let bytes = entries.iter().map(Entry::size).sum();
        if let Some(last) = entries.last() {
            self.handed_over = last.index;
            self.batches.push_back((last.index, bytes));
            self.bytes += bytes;
        }
    }

    /// The state machine continues from a snapshot, once `written` is durable.
    pub(crate) fn skip_to(&mut self, snapshot: SnapshotHeader, written: PersistId) {
        self.handed_over = snapshot.position.index;
        self.installing = Some((written, snapshot));
    }

    fn reached(&mut self, index: Index) {
        assert!(index <= self.handed_over, "only what was handed over can be applied");
        self.applied = self.applied.max(index);
        while self.batches.front().is_some_and(|(last, _)| *last <= index) {
            self.bytes -= self.batches.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }
}

impl Raft {
    /// "If there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N, and
    /// log[N].term == currentTerm: set commitIndex = N" (5.3, 5.4.2). The leader counts itself only for entries on
    /// its own disk.
    pub(crate) fn advance_leader_commit(&mut self, out: &mut Effects) {
        let Role::Leader(leader) = &self.role else { return };
        let match_index = |id| match leader.progress.get(&id) {
            Some(progress) => Some(progress.match_index),
            None => (id == self.config.id).then(|| self.persistence.durable_index()),
        };
        let Some(index) = self.quorum().reached(match_index) else { return };
        // An entry of an earlier term is never committed by counting replicas (Figure 8), but only
        // together with a later entry of this term.
        if index <= self.commit_index {
            return;
        }
        if self.log.term_at(index) != Some(self.term) {
            probe!(OldTermHeldBack);
            return;
        }
        if index > self.persistence.durable_index() {
            probe!(SelfNotDurable);
        }
        self.commit_index = index;
        self.settle_changes(out);
        self.release_early_reads(out);
        self.advance_membership(out);
        if self.config.eager_commit {
            self.heartbeat_all(out);
        }
    }

    /// "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)"
    /// (Figure 2): only entries count that are known to be the leader's (S22).
    pub(crate) fn advance_follower_commit(&mut self, leader_commit: Index, out: &mut Effects) {
        let Role::Follower(follower) = &self.role else { return };
        let index = leader_commit.min(follower.verified);
        if index > self.commit_index {
            self.commit_index = index;
            self.settle_changes(out);
        }
    }

    /// Hands committed entries to the state machine, in order and each once. It hands over no more at a time than the
    /// limit, and no entry that this replica could still lose in a crash (S71).
    pub(crate) fn emit_apply(&mut self, out: &mut Effects) {
        if self.fault.is_some() {
            return;
        }
        if let Some((_, snapshot)) = self.applying.installing.take_if(|(id, _)| self.persistence.is_durable(*id)) {
            let index = snapshot.position.index;
            out.push(Effect::InstallSnapshot { snapshot });
            // This comes after the effect, because the new state may tell the host what became of the requests.
            self.requests.covered_by_snapshot(index, out);
        }
        let limit = self.commit_index.min(self.persistence.durable_index());
        while self.applying.handed_over < limit && self.applying.bytes < self.config.max_applying_bytes {
            let room = self.config.max_applying_bytes - self.applying.bytes;
            let entries = self.log.slice(self.applying.handed_over.next(), limit, usize::MAX, room);
            assert!(!entries.is_empty(), "what is not applied yet is still in the log");
            // An entry larger than the limit is handed over by itself.
            let bytes: usize = entries.iter().map(Entry::size).sum();
            if self.applying.bytes > 0 && bytes > room {
                probe!(ApplyLimited);
                return;
            }
            self.applying.hand_over(&entries);
            out.push(Effect::Apply { entries });
        }
    }

    /// The state machine contains everything up to `index`.
    pub(crate) fn applied(&mut self, index: Index, out: &mut Effects) {
        self.applying.reached(index);
        self.requests.applied(self.applying.applied(), &self.log, out);
    }
}
