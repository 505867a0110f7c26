//! Snapshots and log compaction (section 7). The host makes, stores and moves snapshots. The core decides when a peer
//! needs one, whether to install one, and which entries to remove from the log.

use crate::effect::{Effect, Effects, Fault, Write};
use crate::message::{AppendEntriesReply, AppendOutcome, Body, InstallSnapshot, SnapshotHeader};
use crate::probe::probe;
use crate::progress::State;
use crate::raft::Raft;
use crate::role::Role;
use crate::types::{Index, NodeId, Round, Session, Term, Time};

impl Raft {
    /// A peer needs entries that are gone from the log: the host brings it a snapshot. The transfer gets a new
    /// session, so that no answer to an earlier message can end it.
    pub(crate) fn start_snapshot(&mut self, to: NodeId, out: &mut Effects) {
        let Some(leader) = self.leader_mut() else { return };
        let session = leader.new_session();
        if let Some(progress) = leader.progress.get_mut(&to) {
            progress.session = session;
            probe!(SnapshotNeeded);
            progress.state = State::Snapshot;
            out.push(Effect::FetchSnapshot { to, session });
        }
    }

    /// The transfer has ended. Its receiver sends its own answer; if that is lost, or if the transfer failed, the
    /// next heartbeat finds out what the peer has now (S39).
    pub(crate) fn snapshot_sent(&mut self, to: NodeId, session: Session, delivered: bool) {
        let last = self.log.last().index;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        if progress.session != session || !matches!(progress.state, State::Snapshot) {
            return;
        }
        progress.probe(last.next());
        if delivered {
            // Replication can continue at once; after a failure it waits for the next heartbeat.
            progress.last_sent = None;
        }
    }

    /// The host has stored a snapshot up to `index`: the log up to there may go, except for a bounded part that saves
    /// slow followers from needing a snapshot.
    pub(crate) fn snapshot_stored(&mut self, index: Index) {
        assert!(index <= self.applying.applied(), "a snapshot holds what is applied, not more");
        self.snapshot_index = self.snapshot_index.max(index);
        while self.log.bytes() > self.config.max_retained_bytes && self.log.base().index < self.snapshot_index {
            self.log.compact_through(self.log.base().index.next());
        }
        self.membership.compact_through(self.log.base().index);
    }

    /// The receiver's rules for InstallSnapshot (Figure 13).
    pub(crate) fn handle_install(&mut self, from: NodeId, install: InstallSnapshot, out: &mut Effects) {
        let InstallSnapshot { session, snapshot } = install;
        if !is_well_formed(session, &snapshot, self.term) || !self.follow(from, out) {
            return;
        }
        let position = snapshot.position;
        let match_index = if position.index <= self.commit_index {
            // The snapshot is older than what is committed here: it contains nothing new.
            probe!(SnapshotOld);
            self.commit_index
        } else if self.log.contains(position) {
            // "If existing log entry has same index and term as snapshot's last included entry,
            // retain log entries following it": the log contains all of the snapshot, and the snapshot proves that
            // this is committed.
            probe!(SnapshotRetained);
            self.verify_and_commit(position.index, out);
            position.index
        } else if position.index <= self.verified() {
            // In this term the leader has sent or confirmed an entry of another term at that index.
            let fault = Fault::LeaderContradictsItself { from, term: self.term, index: position.index };
            return self.halt(fault, out);
        } else {
            probe!(SnapshotInstalled);
            self.replace_by(snapshot, out);
            position.index
        };
        let outcome = AppendOutcome::Accepted { match_index };
        let reply = AppendEntriesReply { session, round: Round(0), sent_at: Time::ZERO, outcome };
        self.send_durably(from, Body::AppendEntriesReply(reply), out);
    }

    fn verify_and_commit(&mut self, index: Index, out: &mut Effects) {
        if let Role::Follower(follower) = &mut self.role {
            follower.verified = follower.verified.max(index);
        }
        self.check_repaired(index, out);
        self.advance_follower_commit(index, out);
    }

    /// "Discard the entire log; reset state machine using snapshot contents, and load snapshot's
    /// cluster configuration" (Figure 13). No older configuration remains (S41).
    fn replace_by(&mut self, snapshot: SnapshotHeader, out: &mut Effects) {
        let index = snapshot.position.index;
        self.log.reset(snapshot.position);
        self.membership.reset(snapshot.membership.clone());
        self.ask_new_members();
        let written = self.persistence.write(Write::Snapshot(snapshot.clone()), out);
        self.snapshot_index = index;
        self.commit_index = index;
        self.applying.skip_to(snapshot, written);
        self.verify_and_commit(index, out);
        self.settle_changes(out);
    }
}

/// Whether a leader of `term` can have sent this.
fn is_well_formed(session: Session, snapshot: &SnapshotHeader, term: Term) -> bool {
    let valid = snapshot.membership.is_valid();
    valid && session != Session(0) && snapshot.position.term <= term && snapshot.position.index <= Index::GREATEST
}
