//! Log replication (5.3): what a leader sends to which follower and when, and what the follower does with it.

use std::collections::BTreeSet;

use crate::effect::{Effects, Fault, Outcome, Refusal, Write};
use crate::log::{Entry, Payload};
use crate::message::{AppendEntries, AppendEntriesReply, AppendOutcome, Body};
use crate::probe::probe;
use crate::progress::Pause;
use crate::raft::Raft;
use crate::returning::told_durable;
use crate::role::{Leader, Role};
use crate::types::{Index, NodeId, Position, Round, Session, Time, Token};

/// The leader's part.
impl Raft {
    /// "If command received from client: append entry to local log" (Figure 2). The leader writes to its disk and
    /// sends to the followers at the same time; a replica counts towards the quorum once the entry is durable there.
    pub(crate) fn propose(&mut self, token: Token, command: bytes::Bytes, out: &mut Effects) {
        let Some(leader) = self.leader_ref() else { return self.refuse_as_follower(token, out) };
        if leader.transfer.is_some() {
            return self.requests.answer(token, Outcome::Refused(Refusal::TransferUnderWay), out);
        }
        // If nothing else is uncommitted, an entry of any size is accepted: the host bounds the size of requests.
        let uncommitted = self.uncommitted_bytes();
        let full = uncommitted > 0 && uncommitted + command.len() > self.config.max_uncommitted_bytes;
        if full {
            probe!(UncommittedLimited);
            return self.requests.answer(token, Outcome::Overloaded { limit: "max_uncommitted_bytes" }, out);
        }
        let position = self.append_own(Payload::Command(command), out);
        self.requests.proposed(position, token);
        self.broadcast_entries(out);
    }

    /// Bytes of the entries that are not committed yet, including those of earlier leaders (S37).
    fn uncommitted_bytes(&self) -> usize {
        self.log.bytes_after(self.commit_index)
    }

    /// Sends new entries to everyone, or in thrifty mode to a bare majority.
    pub(crate) fn broadcast_entries(&mut self, out: &mut Effects) {
        let Some(leader) = self.leader_ref() else { return };
        let targets: Vec<NodeId> = match self.config.thrifty {
            None => leader.progress.keys().copied().collect(),
            Some(_) => self.bare_majority(leader),
        };
        for id in targets {
            self.send_entries(id, out);
        }
    }

    /// Voters that form a quorum together with this leader. It prefers those that have the last entry or are being
    /// sent it, then those that answer, then the fast ones.
    fn bare_majority(&self, leader: &Leader) -> Vec<NodeId> {
        let last = self.log.last().index;
        let membership = self.membership.current();
        let mut order: Vec<_> = leader
            .progress
            .iter()
            .filter(|(id, _)| membership.is_voter(**id))
            .map(|(id, progress)| (!progress.covers(last), progress.misses, progress.slowness(), *id))
            .collect();
        order.sort_unstable();
        let mut chosen = BTreeSet::from([self.config.id]);
        let mut picked = Vec::new();
        for (_, _, _, id) in order {
            if self.quorum().is_reached_by(|voter| chosen.contains(&voter)) {
                break;
            }
            chosen.insert(id);
            picked.push(id);
        }
        picked
    }

    /// Sends entries that the peer lacks, as far as its state and its window allow.
    pub(crate) fn send_entries(&mut self, to: NodeId, out: &mut Effects) {
        while self.send_append(to, false, out) {}
    }

    /// Sends an AppendEntries whether or not there are entries for it: "repeat during idle periods to prevent
    /// election timeouts" (5.2). Its `prev` is the last entry that was sent, so that the loss of that entry is
    /// noticed (S34).
    pub(crate) fn heartbeat(&mut self, to: NodeId, out: &mut Effects) {
        if self.send_append(to, true, out) {
            self.send_entries(to, out);
        }
    }

    /// Sends every peer a heartbeat, with the entries that the peer lacks.
    pub(crate) fn heartbeat_all(&mut self, out: &mut Effects) {
        let peers: Vec<NodeId> =
            self.leader_ref().map(|leader| leader.progress.keys().copied().collect()).unwrap_or_default();
        for id in peers {
            self.heartbeat(id, out);
        }
    }

    /// Sends one message. Returns whether another one with entries may follow.
    fn send_append(&mut self, to: NodeId, even_if_empty: bool, out: &mut Effects) -> bool {
        let Role::Leader(leader) = &mut self.role else { return false };
        let round = leader.reads.round();
        let Some(progress) = leader.progress.get_mut(&to) else { return false };
        let prev = match progress.next_index() {
            Some(next_index) => self.log.position_at(next_index.previous()),
            // A snapshot is on its way. The follower may refuse this message, but it hears its leader and does not
            // stand for election.
            None => Some(self.log.base()),
        };
        let Some(prev) = prev else {
            self.start_snapshot(to, out);
            return even_if_empty && self.send_append(to, true, out);
        };
        let entries = match progress.paused(&self.config) {
            Some(Pause::WindowFull) => {
                probe!(WindowFull);
                Vec::new()
            }
            Some(Pause::Probing | Pause::Snapshot) => Vec::new(),
            None => {
                let (from, to) = (prev.index.next(), self.log.last().index);
                self.log.slice(from, to, self.config.max_message_entries, self.config.max_message_bytes)
            }
        };
        if entries.is_empty() && !even_if_empty {
            return false;
        }
        let carried = entries.last().map(|entry| (entry.index, entries.iter().map(Entry::size).sum()));
        progress.sent(self.now, carried);
        let session = progress.session;
        let (sent_at, commit_index) = (self.now, self.commit_index);
        let durable_index = told_durable(&self.config, self.persistence.durable_index());
        let append = AppendEntries { session, round, sent_at, prev, entries, commit_index, durable_index };
        self.send_now(to, Body::AppendEntries(append), out);
        carried.is_some()
    }

    /// Handles a follower's answer to AppendEntries.
    pub(crate) fn handle_append_reply(&mut self, from: NodeId, reply: &AppendEntriesReply, out: &mut Effects) {
        let (now, last) = (self.now, self.log.last().index);
        let Role::Leader(leader) = &mut self.role else { return };
        let newest_round = leader.reads.round();
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        if progress.session != reply.session || reply.round > newest_round {
            probe!(WrongSession);
            return;
        }
        let (sent_at, round) = (reply.sent_at, reply.round);
        match reply.outcome {
            // A peer can't have an entry that this leader doesn't have: the answer is wrong, and is ignored.
            AppendOutcome::Accepted { match_index } if match_index > last => return,
            AppendOutcome::Accepted { match_index } => {
                progress.answered(now, sent_at, round);
                if progress.accepted(match_index) {
                    self.advance_leader_commit(out);
                }
                self.go_on_with(from, out);
            }
            AppendOutcome::Damaged { hint, loss_id, .. } if progress.voided != Some(loss_id) => {
                progress.answered(now, sent_at, round);
                self.void_acknowledgements(from, hint, loss_id);
                self.send_entries(from, out);
            }
            AppendOutcome::Rejected { prev_index, hint } | AppendOutcome::Damaged { prev_index, hint, .. } => {
                progress.answered(now, sent_at, round);
                if progress.refusal_is_news(prev_index) {
                    probe!(ProbeRefused);
                    // The follower's hint skips whole terms of its log, and this search skips whole terms of the
                    // leader's log: together they need at most one probe for each term in which the logs differ.
                    let agreed = self.log.last_at_most(hint.index.min(prev_index.previous()), hint.term);
                    let next_index = agreed.map_or(Index(1), |position| position.index.next());
                    progress.probe(next_index);
                    self.send_entries(from, out);
                } else {
                    probe!(LateRefusal);
                }
            }
        }
        self.confirm_reads(out);
        self.advance_transfer(out);
    }

    /// Sends a peer the entries that it still lacks after its answer. In thrifty mode only a peer that is catching
    /// up, or the target of a transfer, gets them now: the others wait for their heartbeat.
    fn go_on_with(&mut self, id: NodeId, out: &mut Effects) {
        let Some(leader) = self.leader_ref() else { return };
        let Some(progress) = leader.progress.get(&id) else { return };
        // A new leader may not know yet which entries of earlier terms are committed. So a peer is also catching up
        // until it has the first entry of this term.
        let catching_up = progress.match_index < self.commit_index.max(leader.term_start);
        let transfer_target = self.is_transfer_target(id);
        if self.config.thrifty.is_none() || catching_up || transfer_target {
            self.send_entries(id, out);
        }
    }

    /// When the leader must act next, if no input comes before.
    pub(crate) fn leader_deadline(&self, leader: &Leader) -> Time {
        let mut deadline = Time::NEVER;
        let mut oldest_contact = Time::NEVER;
        for progress in leader.progress.values() {
            deadline = deadline.min(progress.heartbeat_due(&self.config));
            deadline = deadline.min(progress.retry_due(&self.config).unwrap_or(Time::NEVER));
            oldest_contact = oldest_contact.min(progress.contact.unwrap_or(leader.since).max(leader.since));
        }
        // The contact of a quorum is never older than the oldest contact of all. While even that is recent, which is
        // almost always so, the check-quorum deadline can't be the earliest, and need not be computed.
        if oldest_contact.after(self.config.election_timeout_max) < deadline {
            deadline = deadline.min(self.check_quorum_deadline(leader));
        }
        let transfer = leader.transfer.as_ref().map_or(Time::NEVER, |transfer| transfer.due());
        deadline.min(transfer)
    }

    pub(crate) fn on_leader_deadline(&mut self, out: &mut Effects) {
        if self.leader_ref().is_some_and(|leader| self.check_quorum_deadline(leader) <= self.now) {
            probe!(CheckQuorum);
            return self.become_follower(None, out);
        }
        self.on_transfer_deadline(out);
        self.retry_overdue(out);
        let Some(leader) = self.leader_ref() else { return };
        let due: Vec<NodeId> = leader
            .progress
            .iter()
            .filter(|(_, progress)| progress.heartbeat_due(&self.config) <= self.now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.heartbeat(id, out);
        }
    }

    /// "If followers crash or run slowly, or if network packets are lost, the leader retries AppendEntries RPCs
    /// indefinitely" (5.3). In thrifty mode another peer may take the place of a silent one.
    fn retry_overdue(&mut self, out: &mut Effects) {
        let (now, config) = (self.now, self.config.clone());
        let Role::Leader(leader) = &mut self.role else { return };
        let mut overdue = Vec::new();
        for (id, progress) in &mut leader.progress {
            if progress.retry_due(&config).is_some_and(|due| due <= now) {
                probe!(OverdueRetried);
                progress.missed();
                overdue.push(*id);
            }
        }
        if config.thrifty.is_some() {
            let uncommitted = self.commit_index < self.log.last().index;
            if uncommitted && !overdue.is_empty() {
                probe!(ThriftyReplaced);
                self.broadcast_entries(out);
            }
            return;
        }
        for id in overdue {
            self.send_entries(id, out);
        }
    }

    /// When this leader must step down unless a quorum answers before: a leader that has not heard from a quorum for
    /// the longest election timeout steps down, so that clients don't wait for it in vain (thesis 6.2). The time counts
    /// from when the answered messages were *sent*.
    pub(crate) fn check_quorum_deadline(&self, leader: &Leader) -> Time {
        let contact = |id: NodeId| match leader.progress.get(&id) {
            Some(progress) => Some(progress.contact.unwrap_or(leader.since).max(leader.since)),
            None => (id == self.config.id).then_some(Time::NEVER),
        };
        let heard = self.quorum().reached(contact);
        heard.map_or(Time::NEVER, |heard| heard.after(self.config.election_timeout_max))
    }
}

/// The follower's part.
impl Raft {
    /// The receiver's rules for AppendEntries (Figure 2).
    pub(crate) fn handle_append(&mut self, from: NodeId, append: AppendEntries, out: &mut Effects) {
        if !is_well_formed(&append, self.term) || !self.follow(from, out) {
            return;
        }
        let AppendEntries { session, round, sent_at, prev, entries, commit_index, durable_index: _ } = append;
        let outcome = if self.is_known_to_match(prev) {
            let Some(match_index) = self.take_entries(from, prev, entries, out) else { return };
            self.verified_through(match_index);
            self.check_repaired(match_index, out);
            self.advance_follower_commit(commit_index, out);
            AppendOutcome::Accepted { match_index }
        } else {
            self.mark_damaged(self.refuse_at(prev))
        };
        let reply = AppendEntriesReply { session, round, sent_at, outcome };
        self.send_durably(from, Body::AppendEntriesReply(reply), out);
    }

    /// Recognises the sender as the leader of this term and resets the election timeout, whether or not the message
    /// is accepted later (S10). Returns false if this replica has stopped, because it knows another leader of this
    /// term.
    pub(crate) fn follow(&mut self, from: NodeId, out: &mut Effects) -> bool {
        match &self.role {
            Role::Leader(_) => {
                self.halt(Fault::TwoLeaders { other: from, term: self.term }, out);
                return false;
            }
            Role::Follower(follower) if follower.leader.is_some_and(|leader| leader != from) => {
                self.halt(Fault::TwoLeaders { other: from, term: self.term }, out);
                return false;
            }
            Role::Follower(follower) if follower.leader == Some(from) => self.reset_election_deadline(),
            // "If the leader's term is at least as large as the candidate's current term, then the
            // candidate recognizes the leader as legitimate and returns to follower state" (5.2).
            Role::Follower(_) | Role::PreCandidate(_) => self.become_follower(Some(from), out),
            Role::Candidate(_) => {
                probe!(CandidateFollows);
                self.become_follower(Some(from), out);
            }
        }
        self.leader_contact = Some(self.now);
        self.settle_transfer(out);
        true
    }

    /// Whether this log equals the leader's up to `prev`. Up to the commit index it always does, even where this log is
    /// compacted (S23).
    fn is_known_to_match(&self, prev: Position) -> bool {
        prev.index <= self.commit_index || self.log.contains(prev)
    }

    /// "If an existing entry conflicts with a new one (same index but different terms), delete the
    /// existing entry and all that follow it. Append any new entries not already in the log" (5.3). Entries that
    /// match stay, and so do all that follow them (S21). Returns the index up to which the logs are now known to
    /// match.
    fn take_entries(
        &mut self,
        from: NodeId,
        prev: Position,
        mut entries: Vec<Entry>,
        out: &mut Effects,
    ) -> Option<Index> {
        let verified = prev.index.plus(entries.len());
        let known = |entry: &Entry| entry.index <= self.log.base().index || self.log.contains(entry.position());
        let Some(new_from) = entries.iter().position(|entry| !known(entry)) else { return Some(verified) };
        if new_from > 0 {
            probe!(AppendMatched);
        }
        let first = entries[new_from].index;
        if first <= self.commit_index {
            self.halt(Fault::CommittedConflict { from, index: first }, out);
            return None;
        }
        let held = self.log.term_at(first).filter(|held| *held != entries[new_from].term);
        if held.is_some() && first <= self.verified() {
            self.halt(Fault::LeaderContradictsItself { from, term: self.term, index: first }, out);
            return None;
        }
        // A `prev` up to the commit index was accepted without a comparison of terms, and the sender may have claimed
        // a smaller term for it.
        let before = first.previous();
        if self.log.term_at(before).is_some_and(|term| term > entries[new_from].term) {
            self.halt(Fault::CommittedConflict { from, index: before }, out);
            return None;
        }
        if first <= self.log.last().index {
            self.truncate_log(first, out);
        }
        self.append_all(entries.split_off(new_from), out);
        Some(verified)
    }

    fn truncate_log(&mut self, from: Index, out: &mut Effects) {
        probe!(LogConflict);
        if self.membership.current_index().is_some_and(|index| index >= from) {
            probe!(ConfigurationTruncated);
        }
        self.log.truncate_from(from);
        self.persistence.write(Write::Truncate { from }, out);
        self.membership.truncate_from(from);
    }

    /// The refusal, with a hint where the logs may still agree. The hint is this log's last entry before `prev` whose
    /// term is at most that of `prev`.
    fn refuse_at(&self, prev: Position) -> AppendOutcome {
        let limit = prev.index.previous().min(self.log.last().index);
        let hint = self.log.last_at_most(limit, prev.term).unwrap_or(self.log.base());
        AppendOutcome::Rejected { prev_index: prev.index, hint }
    }

    /// Up to where the log is known to equal that of this term's leader.
    pub(crate) fn verified(&self) -> Index {
        match &self.role {
            Role::Follower(follower) => follower.verified,
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => Index(0),
        }
    }

    fn verified_through(&mut self, index: Index) {
        if let Role::Follower(follower) = &mut self.role {
            follower.verified = follower.verified.max(index);
        }
    }

    /// "Reply false if term < currentTerm" (5.1): a sender with an earlier term learns of this one. That also lets a
    /// replica take part again whose term is higher than everyone else's: the leader steps down, adopts that term, and
    /// the next election follows.
    pub(crate) fn answer_stale(&self, from: NodeId, body: &Body, out: &mut Effects) {
        let (session, prev_index) = match body {
            Body::AppendEntries(append) => (append.session, append.prev.index),
            Body::InstallSnapshot(install) => (install.session, install.snapshot.position.index),
            Body::ReadIndex { context, .. } => {
                // Only this answer tells a removed replica of the new term, and its clients wait.
                return self.send_durably(from, Body::ReadIndexReply { context: *context, index: None }, out);
            }
            _ => return,
        };
        probe!(StaleAnswered);
        let outcome = AppendOutcome::Rejected { prev_index, hint: self.log.last() };
        let reply = AppendEntriesReply { session, round: Round(0), sent_at: Time::ZERO, outcome };
        self.send_durably(from, Body::AppendEntriesReply(reply), out);
    }
}

/// Whether a leader of `term` can have sent this message: the entries follow `prev` and each other without a gap, and
/// their terms, their configurations and the session are valid.
fn is_well_formed(append: &AppendEntries, term: crate::types::Term) -> bool {
    let mut last = append.prev;
    for entry in &append.entries {
        let follows = entry.index.0.checked_sub(1) == Some(last.index.0) && entry.term >= last.term;
        let valid = match &entry.payload {
            Payload::Membership(membership) => membership.is_valid(),
            Payload::Blank | Payload::Command(_) => true,
        };
        if !follows || !valid {
            return false;
        }
        last = entry.position();
    }
    last.term <= term && last.index <= Index::GREATEST && append.session != Session(0)
}
