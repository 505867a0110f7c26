//! Linearizable reads without a log entry (section 8; thesis 6.4).
//!
//! A read may be served from the state machine once three things hold: the leader has committed an entry of its own
//! term (else it may not know what is committed); the leader was still the leader after the read had arrived; and the
//! state machine contains what was committed by then. The second is proved by a quorum that answers a *round* begun
//! after the read arrived, or by a lease. The leader itself numbers the rounds, so a late message can't answer a
//! later round, as it could if clients named them (S64).

use std::collections::VecDeque;

use crate::effect::{Effects, Outcome, ReadKind};
use crate::message::Body;
use crate::probe::probe;
use crate::raft::Raft;
use crate::role::{Leader, Role};
use crate::types::{Index, NodeId, Round, Time, Token};

/// How long a follower's read waits for a new leader, in multiples of the longest election timeout.
const RELAY_PATIENCE: u32 = 4;

/// The reads that wait at a leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct LeaderReads {
    /// The latest round that was begun; every AppendEntries carries it.
    round: Round,
    /// The latest round that a quorum has answered.
    confirmed: Round,
    /// Reads that wait for a round, in the order of their rounds.
    waiting: VecDeque<WaitingRead>,
    /// Reads that arrived before the first commit of the term.
    early: Vec<(Reader, ReadKind)>,
}

impl LeaderReads {
    /// The latest round that was begun.
    pub(crate) fn round(&self) -> Round {
        self.round
    }

    /// How many reads wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.early.len()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct WaitingRead {
    reader: Reader,
    /// What was committed when the read arrived.
    index: Index,
    /// The round that confirms it.
    round: Round,
}

/// The client whose read it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reader {
    /// A client of this replica.
    Local(Token),
    /// A client of a follower.
    Remote { from: NodeId, context: u64 },
}

/// A read of a follower's client, on its way to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Relay {
    token: Token,
    kind: ReadKind,
    since: Time,
    asked_at: Time,
}

/// The leader's part.
impl Raft {
    /// Takes a read of this replica's own client.
    pub(crate) fn read(&mut self, token: Token, kind: ReadKind, out: &mut Effects) {
        match &self.role {
            Role::Leader(_) => self.lead_read(Reader::Local(token), kind, out),
            Role::Follower(follower) if follower.leader.is_some() => self.relay_read(token, kind, out),
            _ => self.refuse_as_follower(token, out),
        }
    }

    fn lead_read(&mut self, reader: Reader, kind: ReadKind, out: &mut Effects) {
        let Some(leader) = self.leader_ref() else { return };
        if leader.reads.len() >= self.config.max_waiting_reads {
            return self.refuse_read(reader, Outcome::Overloaded { limit: "max_waiting_reads" }, out);
        }
        let term_committed = self.commit_index >= leader.term_start;
        let under_lease = kind == ReadKind::Lease && self.lease_is_valid(leader, self.now);
        let index = self.commit_index;
        if term_committed && under_lease {
            probe!(ReadLease);
            return self.grant_read(reader, index, out);
        }
        let Some(leader) = self.leader_mut() else { return };
        if !term_committed {
            probe!(ReadEarly);
            leader.reads.early.push((reader, kind));
            return;
        }
        // Reads that arrive while a round is on its way share the next one.
        let round = Round(leader.reads.round.0 + 1);
        leader.reads.waiting.push_back(WaitingRead { reader, index, round });
        if leader.reads.confirmed == leader.reads.round {
            self.begin_round(out);
        } else {
            probe!(ReadShared);
        }
    }

    /// Begins the round that the waiting reads share.
    fn begin_round(&mut self, out: &mut Effects) {
        if let Some(leader) = self.leader_mut() {
            leader.reads.round = Round(leader.reads.round.0 + 1);
        }
        if self.membership().is_joint() {
            probe!(ReadInJoint);
        }
        self.heartbeat_all(out);
        self.confirm_reads(out);
    }

    /// Grants the reads whose round a quorum has answered.
    pub(crate) fn confirm_reads(&mut self, out: &mut Effects) {
        let Role::Leader(leader) = &mut self.role else { return };
        let newest = leader.reads.round;
        let answered = |id| match leader.progress.get(&id) {
            Some(progress) => Some(progress.round),
            None => (id == self.config.id).then_some(newest),
        };
        let Some(confirmed) = self.membership.current().quorum().reached(answered) else { return };
        leader.reads.confirmed = leader.reads.confirmed.max(confirmed);
        let confirmed = leader.reads.confirmed;
        let ready = leader.reads.waiting.partition_point(|read| read.round <= confirmed);
        let ready: Vec<WaitingRead> = leader.reads.waiting.drain(..ready).collect();
        let begin_another = confirmed == newest && !leader.reads.waiting.is_empty();
        for read in ready {
            self.grant_read(read.reader, read.index, out);
        }
        if begin_another {
            self.begin_round(out);
        }
    }

    /// Starts the reads that waited for the first commit of the term, if that has happened (S63).
    pub(crate) fn release_early_reads(&mut self, out: &mut Effects) {
        let commit_index = self.commit_index;
        let Some(leader) = self.leader_mut() else { return };
        if commit_index < leader.term_start {
            return;
        }
        for (reader, kind) in std::mem::take(&mut leader.reads.early) {
            self.lead_read(reader, kind, out);
        }
    }

    /// Whether no other leader can have been elected yet: a quorum has answered messages that were *sent* less than
    /// the shortest election timeout ago, and refuses votes for that long (thesis 6.4.1). The lease is shortened by
    /// the bound on clock drift. Once a transfer has told a peer to stand for election, no lease is valid in this
    /// term, since the voters don't refuse that peer's request (S66).
    pub(crate) fn lease_is_valid(&self, leader: &Leader, now: Time) -> bool {
        let answered = |id: NodeId| match leader.progress.get(&id) {
            Some(progress) => progress.contact,
            None => (id == self.config.id).then_some(Time::NEVER),
        };
        let contact = self.quorum().reached(answered);
        let valid_until = contact.map(|contact| contact.after(self.config.lease_duration()));
        self.config.lease_reads && !leader.lease_void && valid_until.is_some_and(|until| now < until)
    }

    fn grant_read(&mut self, reader: Reader, index: Index, out: &mut Effects) {
        match reader {
            Reader::Local(token) => self.requests.readable(token, index, self.applying.applied(), out),
            Reader::Remote { from, context } => {
                self.send_now(from, Body::ReadIndexReply { context, index: Some(index) }, out);
            }
        }
    }

    fn refuse_read(&mut self, reader: Reader, outcome: Outcome, out: &mut Effects) {
        match reader {
            Reader::Local(token) => self.requests.answer(token, outcome, out),
            Reader::Remote { from, context } => {
                self.send_now(from, Body::ReadIndexReply { context, index: None }, out);
            }
        }
    }

    /// This replica no longer leads, so the reads that wait here can't be confirmed.
    pub(crate) fn refuse_waiting_reads(&mut self, leader: Leader, out: &mut Effects) {
        let readers = leader.reads.waiting.into_iter().map(|read| read.reader);
        for reader in readers.chain(leader.reads.early.into_iter().map(|(reader, _)| reader)) {
            probe!(ReadRefusedOnLoss);
            self.refuse_read(reader, Outcome::NotLeader { leader: self.leader() }, out);
        }
    }

    /// Takes a read that a follower relays for its client.
    pub(crate) fn handle_read_index(&mut self, from: NodeId, context: u64, kind: ReadKind, out: &mut Effects) {
        let reader = Reader::Remote { from, context };
        match &self.role {
            Role::Leader(_) => self.lead_read(reader, kind, out),
            _ => self.refuse_read(reader, Outcome::NotLeader { leader: self.leader() }, out),
        }
    }
}

/// The follower's part: it asks the leader for the index, waits for it, and reads its own state.
impl Raft {
    fn relay_read(&mut self, token: Token, kind: ReadKind, out: &mut Effects) {
        if self.relays.len() >= self.config.max_waiting_reads {
            return self.requests.answer(token, Outcome::Overloaded { limit: "max_waiting_reads" }, out);
        }
        // The context is random, so that a late answer to a question from before a restart can't match it.
        probe!(ReadRelayed);
        let context = self.random.next_u64();
        self.relays.insert(context, Relay { token, kind, since: self.now, asked_at: self.now });
        self.ask_for_index(context, kind, out);
    }

    fn ask_for_index(&self, context: u64, kind: ReadKind, out: &mut Effects) {
        if let Some(leader) = self.leader() {
            self.send_now(leader, Body::ReadIndex { context, kind }, out);
        }
    }

    pub(crate) fn handle_read_index_reply(&mut self, context: u64, index: Option<Index>, out: &mut Effects) {
        let Some(index) = index else { return };
        let Some(relay) = self.relays.remove(&context) else { return };
        // The index is committed, so this log is too, as far as it is known to equal the leader's.
        self.advance_follower_commit(index, out);
        self.requests.readable(relay.token, index, self.applying.applied(), out);
    }

    pub(crate) fn next_relay_deadline(&self) -> Option<Time> {
        self.relays.values().map(|relay| relay.asked_at.after(self.config.retry_after)).min()
    }

    /// Repeats questions that got no answer in time, to the current leader, which need not be the one asked before.
    pub(crate) fn retry_relays(&mut self, out: &mut Effects) {
        let (now, retry_after) = (self.now, self.config.retry_after);
        if self.leader().is_none() {
            self.refuse_old_relays(out);
        }
        let requests = &self.requests;
        self.relays.retain(|_, relay| requests.is_open(relay.token));
        let mut overdue = Vec::new();
        for (context, relay) in &mut self.relays {
            if relay.asked_at.after(retry_after) <= now {
                relay.asked_at = now;
                overdue.push((*context, relay.kind));
            }
        }
        for (context, kind) in overdue {
            self.ask_for_index(context, kind, out);
        }
    }

    /// Refuses reads that have waited for a leader for as long as a few elections may take: a removed replica never
    /// hears of a leader, and its clients must still get an answer (law 5).
    fn refuse_old_relays(&mut self, out: &mut Effects) {
        let (now, patience) = (self.now, self.config.election_timeout_max * RELAY_PATIENCE);
        let old: Vec<_> = self.relays.extract_if(.., |_, relay| relay.since.after(patience) <= now).collect();
        for (_, relay) in old {
            self.requests.answer(relay.token, Outcome::NotLeader { leader: None }, out);
        }
    }

    /// This replica leads now, so it confirms the reads itself that it had relayed.
    pub(crate) fn adopt_relays(&mut self, out: &mut Effects) {
        for (_, relay) in std::mem::take(&mut self.relays) {
            probe!(RelayAdopted);
            self.lead_read(Reader::Local(relay.token), relay.kind, out);
        }
    }
}
