//! Leader election (5.2), with the election restriction (5.4.1), pre-vote (thesis 9.6) and leader
//! stickiness (6; thesis 4.2.3). All of these are always on.

use std::collections::BTreeMap;

use crate::effect::Effects;
use crate::log::Payload;
use crate::message::Body;
use crate::probe::probe;
use crate::progress::Progress;
use crate::quorum::VoteResult;
use crate::raft::Raft;
use crate::read::LeaderReads;
use crate::role::{Candidate, Leader, PreCandidate, Role, Votes};
use crate::types::{Index, NodeId, Position, Session, Term, Time};

impl Raft {
    /// Draws a new election timeout (5.2): with a fixed one, a split vote could repeat for ever (S12).
    pub(crate) fn reset_election_deadline(&mut self) {
        let timeout = self.random.span(self.config.election_timeout_min, self.config.election_timeout_max);
        self.election_deadline = self.now.after(timeout);
    }

    /// "If election timeout elapses without receiving AppendEntries RPC from current leader or
    /// granting vote to candidate: convert to candidate" (Figure 2), by way of a pre-vote.
    fn on_election_timeout(&mut self, out: &mut Effects) {
        self.reset_election_deadline();
        if !self.may_stand() {
            return;
        }
        if !self.membership.current().is_voter(self.config.id) {
            probe!(StoodThoughRemoved);
        }
        let mut votes = Votes::default();
        votes.record(self.config.id, true);
        self.role = Role::PreCandidate(PreCandidate { votes, asked_at: self.now });
        self.ask_silent_voters(out);
        self.count_pre_votes(out);
    }

    /// "Increment currentTerm; vote for self; reset election timer; send RequestVote RPCs to all
    /// other servers" (Figure 2). Its own vote counts once it is durable, like any other.
    pub(crate) fn start_election(&mut self, transfer: bool, out: &mut Effects) {
        self.term = self.term.next();
        self.voted_for = Some(self.config.id);
        let own_vote = self.persist_hard_state(out);
        self.reset_election_deadline();
        let asked_at = self.now;
        self.role = Role::Candidate(Candidate { votes: Votes::default(), own_vote, transfer, asked_at });
        self.ask_silent_voters(out);
    }

    /// Whether this replica may stand for election. A learner or a removed member may not (S17, S54), nor may a replica
    /// whose log has lost something, or one that has just come back and has not heard from enough peers. But as long as
    /// its removal isn't known to be committed, the cluster may need this replica: "a server that is not part of its
    /// own latest configuration should still start new elections, as it might still be needed until the C_new entry is
    /// committed" (thesis 4.2.2). Its own vote then doesn't count.
    pub(crate) fn may_stand(&self) -> bool {
        if !self.may_vote() {
            return false;
        }
        let me = self.config.id;
        let mut committed_or_later = self.membership.since(self.commit_index);
        committed_or_later.any(|membership| membership.is_voter(me))
    }

    /// Asks every other voter that has not answered yet for its pre-vote or its vote.
    pub(crate) fn ask_silent_voters(&mut self, out: &mut Effects) {
        let (now, last) = (self.now, self.log.last());
        let (votes, body) = match &mut self.role {
            Role::PreCandidate(candidate) => {
                candidate.asked_at = now;
                (&candidate.votes, Body::PreVote { last })
            }
            Role::Candidate(candidate) => {
                candidate.asked_at = now;
                (&candidate.votes, Body::RequestVote { last, transfer: candidate.transfer })
            }
            Role::Follower(_) | Role::Leader(_) => return,
        };
        let mut silent = self.membership.current().voters();
        silent.retain(|id| votes.of(*id).is_none() && *id != self.config.id);
        for id in silent {
            self.send_durably(id, body.clone(), out);
        }
    }

    /// When this replica next stands for election, or asks for votes again: "Servers retry RPCs if they do not receive
    /// a response in a timely manner" (5.1).
    pub(crate) fn next_election_deadline(&self) -> Time {
        let asked_at = match &self.role {
            Role::PreCandidate(candidate) => Some(candidate.asked_at),
            Role::Candidate(candidate) => Some(candidate.asked_at),
            Role::Follower(_) | Role::Leader(_) => None,
        };
        let ask_again = asked_at.map_or(Time::NEVER, |asked_at| asked_at.after(self.config.retry_after));
        self.election_deadline.min(ask_again)
    }

    pub(crate) fn on_election_deadline(&mut self, out: &mut Effects) {
        if self.election_deadline <= self.now {
            self.on_election_timeout(out);
        } else if self.next_election_deadline() <= self.now {
            self.ask_silent_voters(out);
        }
    }

    /// Grants a pre-vote if this replica would now vote for the sender in the next term. The message has the sender's
    /// current term. The grant itself is not stored, and does not reset the election timeout.
    pub(crate) fn handle_pre_vote(&mut self, from: NodeId, term: Term, last: Position, out: &mut Effects) {
        if self.hears_leader() {
            probe!(PreVoteIgnored);
            // A follower that stands for election has missed its heartbeats: the leader sends one at once.
            if self.is_leader() {
                self.heartbeat(from, out);
            } else if term <= self.term {
                self.send_durably(from, Body::PreVoteReply { granted: false }, out);
            }
            return;
        }
        if term > self.term {
            self.step_down(term, out);
        }
        // A candidate of an earlier term learns of this one, so that terms spread (S5, S6).
        let granted = term == self.term && self.is_up_to_date(last) && self.may_vote();
        self.send_durably(from, Body::PreVoteReply { granted }, out);
    }

    /// "Grant vote if votedFor is null or candidateId, and candidate's log is at least as
    /// up-to-date as receiver's log" (5.2, 5.4).
    pub(crate) fn handle_request_vote(
        &mut self,
        from: NodeId,
        term: Term,
        last: Position,
        transfer: bool,
        out: &mut Effects,
    ) {
        // "If a server receives a RequestVote request within the minimum election timeout of hearing
        // from a current leader, it does not update its term or grant its vote" (6). An election that the leader
        // itself asked for, in a leadership transfer, is exempt (thesis 4.2.3). The vote is refused even if this
        // replica has learned of the candidate's term in another way: the old leader's lease depends on it.
        let promised = !transfer && self.hears_leader();
        if promised {
            probe!(VoteWithheld);
        }
        if term > self.term && promised {
            return;
        }
        if term > self.term {
            self.step_down(term, out);
        }
        let free = self.voted_for.is_none_or(|candidate| candidate == from);
        let following = self.leader().is_some();
        let mut granted = term == self.term && !promised && free && !following && self.is_up_to_date(last);
        // A suspect replica may have acknowledged entries that this candidate lacks. One that has just come back may
        // have voted already, and lost that vote.
        granted &= self.may_vote();
        if term == self.term && !promised {
            mark_vote(granted, self.voted_for, from, last >= self.log.last());
        }
        if granted {
            if self.voted_for.is_none() {
                self.voted_for = Some(from);
                self.persist_hard_state(out);
            }
            // "Or granting vote to candidate" (Figure 2): the election timeout starts again.
            self.become_follower(None, out);
        }
        self.send_durably(from, Body::RequestVoteReply { granted }, out);
    }

    /// Whether a log that ends at `last` is at least as up-to-date as this one: its last entry has a later term, or
    /// the same term and the log is not shorter (5.4.1).
    fn is_up_to_date(&self, last: Position) -> bool {
        last >= self.log.last()
    }

    /// Whether this replica leads, or has heard from a leader within the minimum election timeout. A leader that has
    /// lost its quorum refuses votes, too, but check-quorum soon makes it step down.
    fn hears_leader(&self) -> bool {
        let promised_until = |contact: Time| contact.after(self.config.election_timeout_min);
        self.is_leader() || self.leader_contact.is_some_and(|contact| self.now < promised_until(contact))
    }

    pub(crate) fn handle_pre_vote_reply(&mut self, from: NodeId, granted: bool, out: &mut Effects) {
        if let Role::PreCandidate(candidate) = &mut self.role {
            candidate.votes.record(from, granted);
            self.count_pre_votes(out);
        }
    }

    fn count_pre_votes(&mut self, out: &mut Effects) {
        let Role::PreCandidate(candidate) = &self.role else { return };
        match self.quorum().vote_result(|id| candidate.votes.of(id)) {
            VoteResult::Won => self.start_election(false, out),
            // It could not win now: it waits for a leader, or for its next election timeout.
            VoteResult::Lost => {
                probe!(PreVoteLost);
                self.become_follower(None, out);
            }
            VoteResult::Pending => {}
        }
    }

    pub(crate) fn handle_vote_reply(&mut self, from: NodeId, granted: bool, out: &mut Effects) {
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.votes.record(from, granted);
            self.count_votes(out);
        }
    }

    /// Counts this replica's own vote once it is on disk (S3).
    pub(crate) fn count_own_vote(&mut self, out: &mut Effects) {
        if let Role::Candidate(candidate) = &mut self.role
            && self.persistence.is_durable(candidate.own_vote)
        {
            candidate.votes.record(self.config.id, true);
            self.count_votes(out);
        }
    }

    fn count_votes(&mut self, out: &mut Effects) {
        let Role::Candidate(candidate) = &self.role else { return };
        match self.quorum().vote_result(|id| candidate.votes.of(id)) {
            VoteResult::Won => self.become_leader(out),
            VoteResult::Lost => {
                probe!(VoteSplit);
                self.become_follower(None, out);
            }
            VoteResult::Pending => {}
        }
    }

    /// "Upon election: send initial empty AppendEntries RPCs to each server" (Figure 2): here they
    /// carry the blank entry, without which nothing could be committed (5.4.2, 8).
    fn become_leader(&mut self, out: &mut Effects) {
        let next_index = self.log.last().index.next();
        self.role = Role::Leader(Box::new(Leader {
            progress: BTreeMap::new(),
            term_start: next_index,
            since: self.now,
            next_session: Session(0),
            reads: LeaderReads::default(),
            transfer: None,
            lease_void: false,
        }));
        self.leader_contact = None;
        self.track_members(next_index);
        self.append_own(Payload::Blank, out);
        // In thrifty mode, too, this goes to everyone: all must learn at once that the election is over.
        self.heartbeat_all(out);
        self.adopt_relays(out);
        self.settle_transfer(out);
    }

    /// Tracks the progress of every other member, and forgets those that are no longer members. A member that was
    /// removed and added again gets a new session (S28).
    pub(crate) fn track_members(&mut self, next_index: Index) {
        let mut members = self.membership.current().members();
        members.remove(&self.config.id);
        let Some(leader) = self.leader_mut() else { return };
        leader.progress.retain(|id, _| members.contains(id));
        for id in members {
            if !leader.progress.contains_key(&id) {
                let session = leader.new_session();
                leader.progress.insert(id, Progress::new(session, next_index));
            }
        }
    }
}

/// Counts the rare reasons why a vote was granted or refused, for the tests' coverage.
fn mark_vote(granted: bool, voted_for: Option<NodeId>, from: NodeId, up_to_date: bool) {
    match (granted, voted_for) {
        (true, Some(_)) => probe!(VoteRepeated),
        (false, Some(candidate)) if candidate != from => probe!(VoteSecondCandidate),
        (false, _) if !up_to_date => probe!(VoteShortLog),
        _ => {}
    }
}
