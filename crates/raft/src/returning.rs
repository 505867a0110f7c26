//! A replica that comes back asks its peers whether they remember more of it than its disk does.
//!
//! A disk that was restored from an old image, or that has lost its last writes without a trace, looks whole: nothing
//! on it shows that votes and acknowledgements are missing (D14 of the fault catalogue; D8 where a drive lies about
//! what it has synced). But the peers that received them may still run. So with [`crate::Config::return_check`] each
//! replica remembers what its peers have promised it, and a replica that starts tells each peer what is on its disk
//! before any other message passes between the two. If a peer remembers more, it says so, and the replica is
//! *suspect* from then on, like one whose disk is known to have lost something (`damage.rs`): it has no vote until it
//! is repaired. It also has no vote until a quorum has answered. The configuration that it finds may be an old one
//! with more voters than there are now, so after two election timeouts any one answer is enough.
//!
//! The check has limits. Peers remember in memory only, and none knows what was promised to another. An old image is
//! noticed only if a peer that was promised the difference still runs and answers; as long as a leader leads, it was
//! promised everything that matters in its term. A vote that was given before such a peer answers can't be taken
//! back. And a replica that finds itself to be the only voter has nobody to ask.
//!
//! Messages of a peer are ignored before its answer. Otherwise this replica would respond to them, the peer would
//! remember those promises, and a late copy of the question, which names an older state, would seem to contradict
//! them.

use std::collections::BTreeSet;

use crate::config::Config;
use crate::damage::Suspect;
use crate::effect::{Effects, HardState, Write};
use crate::message::{AppendOutcome, Body, Found};
use crate::probe::probe;
use crate::raft::Raft;
use crate::role::Role;
use crate::types::{Index, NodeId, Position, Term, Time};

/// The state of this replica's own return check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Returning {
    /// A number for this start, to tell it from others; an answer must name it.
    start_id: u64,
    found: Found,
    /// The peers that have answered.
    answered: BTreeSet<NodeId>,
    /// Whether enough peers have answered.
    confirmed: bool,
    /// Until then, enough means a quorum; after it, one peer.
    patient_until: Time,
    /// When the peers that have not answered are asked again.
    ask_at: Time,
    /// The last peer that answered as leader, with its term and the end of its log.
    leader: Option<(NodeId, Term, Position)>,
    /// Its own disk has reported a loss, and a bound on it: no peer's memory can add to it.
    knows: bool,
}

impl Returning {
    pub(crate) fn new(start_id: u64, found: Found, knows: bool, now: Time, config: &Config) -> Returning {
        Returning {
            start_id,
            found,
            answered: BTreeSet::new(),
            confirmed: false,
            patient_until: now.after(config.election_timeout_max * 2),
            ask_at: now,
            leader: None,
            knows,
        }
    }
}

/// How many answers of peers that are not members are remembered at most.
const MAX_STRANGERS: usize = 64;

/// What a peer has promised this replica. A promise of a later term supersedes earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Memory {
    /// The latest term that the peer was in, durably.
    term: Term,
    /// The peer's latest vote that it told this replica.
    vote: Option<(Term, NodeId)>,
    /// The peer's disk had the log of this term's leader up to here.
    kept: (Term, Index),
}

impl Memory {
    /// Whether a disk that holds only this has lost something that the peer promised.
    fn contradicts(&self, found: &Found) -> bool {
        let HardState { term, voted_for } = found.hard_state;
        let votes_otherwise = |(voted_in, candidate)| voted_in == term && voted_for != Some(candidate);
        // In a later term than that of the promise, entries may have been replaced.
        let lacks_entries = self.kept.0 == term && found.last.index < self.kept.1;
        term < self.term || self.vote.is_some_and(votes_otherwise) || lacks_entries
    }
}

/// The replica that comes back.
impl Raft {
    /// Whether this peer has said what it remembers, since this replica started. Before that, no other message is
    /// sent to it or taken from it.
    #[must_use]
    pub fn has_met(&self, peer: NodeId) -> bool {
        self.returning.as_ref().is_none_or(|returning| returning.answered.contains(&peer))
    }

    /// Whether this replica may vote: nothing that it promised is known to be missing, and enough peers have
    /// answered.
    pub(crate) fn may_vote(&self) -> bool {
        let confirmed = self.returning.as_ref().is_none_or(|returning| returning.confirmed);
        confirmed && self.suspect.is_none()
    }

    /// The voters that have not answered yet; `None` unless this replica waits for answers before it votes.
    pub(crate) fn awaited_answers(&self) -> Option<Vec<NodeId>> {
        self.returning.as_ref().filter(|returning| !returning.confirmed)?;
        let voters = self.membership.current().voters().into_iter();
        let silent: Vec<NodeId> = voters.filter(|id| *id != self.config.id && !self.has_met(*id)).collect();
        (!silent.is_empty()).then_some(silent)
    }

    /// When this replica asks its peers again.
    pub(crate) fn next_return_deadline(&self) -> Time {
        self.returning.as_ref().map_or(Time::NEVER, |returning| returning.ask_at)
    }

    /// The configuration has changed, and may have members that were never asked.
    pub(crate) fn ask_new_members(&mut self) {
        if let Some(returning) = &mut self.returning {
            returning.ask_at = self.now;
        }
    }

    /// Asks all members that have not answered, if their time has come.
    pub(crate) fn on_return_deadline(&mut self, out: &mut Effects) {
        if self.next_return_deadline() > self.now {
            return;
        }
        self.confirm();
        let mut silent = self.membership.current().members();
        silent.retain(|id| *id != self.config.id && !self.has_met(*id));
        for id in &silent {
            self.ask(*id, out);
        }
        let Some(returning) = &mut self.returning else { return };
        returning.ask_at = match returning.confirmed {
            _ if silent.is_empty() => Time::NEVER,
            false => self.now.after(self.config.retry_after),
            // A peer that is still silent may be down for long.
            true => self.now.after(self.config.election_timeout_min),
        };
    }

    /// Asks a peer whether it remembers more than this replica has found.
    pub(crate) fn ask(&self, peer: NodeId, out: &mut Effects) {
        if let Some(Returning { start_id, found, .. }) = &self.returning {
            self.send_durably(peer, Body::Returned { start_id: *start_id, found: *found }, out);
        }
    }

    fn confirm(&mut self) {
        let Some(returning) = &mut self.returning else { return };
        let membership = self.membership.current();
        // A promoted learner that knows no configuration yet may be needed: it asks every peer that sends it a
        // message.
        let knows_voters = !membership.voters().is_empty();
        let answered = |id| id == self.config.id || returning.answered.contains(&id);
        let by_quorum = knows_voters && membership.quorum().is_reached_by(answered);
        let is_patient = knows_voters && self.now < returning.patient_until;
        returning.confirmed |= by_quorum || (!is_patient && !returning.answered.is_empty());
    }

    /// Takes a peer's answer. `term` is that peer's term.
    pub(crate) fn handle_remembered(
        &mut self,
        from: NodeId,
        term: Term,
        (start_id, missing, leads): (u64, Option<Term>, Option<Position>),
        out: &mut Effects,
    ) {
        let Some(returning) = &mut self.returning else { return };
        if start_id != returning.start_id
            || missing.is_some_and(|term| term > Term::GREATEST)
            || !returning.answered.insert(from)
        {
            return;
        }
        self.bound_strangers();
        let latest = term.max(missing.unwrap_or(term));
        if latest > self.term {
            self.step_down(latest, out);
        }
        let Some(returning) = &mut self.returning else { return };
        if let Some(last) = leads.filter(|last| term == self.term && last.term <= term && last.index <= Index::GREATEST)
        {
            returning.leader = Some((from, term, last));
        }
        if let Some(missing) = missing {
            self.lacks_promises(missing, out);
        }
        self.bound_by_leader(out);
        self.confirm();
        match &self.role {
            Role::Leader(_) => self.heartbeat(from, out),
            Role::PreCandidate(_) | Role::Candidate(_) => self.ask_silent_voters(out),
            Role::Follower(_) => {}
        }
    }

    /// Answers of peers that are not members count as well, but only a bounded number is remembered. A peer that is
    /// forgotten is asked again.
    fn bound_strangers(&mut self) {
        let membership = self.membership.current();
        let Some(returning) = &mut self.returning else { return };
        if returning.answered.iter().filter(|id| !membership.contains(**id)).count() > MAX_STRANGERS {
            returning.answered.retain(|id| membership.contains(*id));
        }
    }

    /// A peer remembers promises, of terms up to `term`, that are not on this replica's disk.
    fn lacks_promises(&mut self, term: Term, out: &mut Effects) {
        let Some(returning) = self.returning.as_ref().filter(|returning| !returning.knows) else { return };
        // Since the start, a leader of a later term may have brought everything that was missing.
        if self.log.term_at(self.commit_index).is_some_and(|committed| committed > term) {
            return;
        }
        // Or a leader of that term, see `bound_by_leader`. Without this, a late answer would take the vote of a replica
        // that is repaired already, until a leader repairs it again; but it may be needed to elect one.
        if let Some((leader, led, last)) = returning.leader
            && (term <= led && self.suspect.is_none())
            && (last.index <= self.commit_index || self.log.term_at(last.index) == Some(last.term))
        {
            return self.keep_vote_for(leader, led, out);
        }
        let last_possible = Position::new(Index(u64::MAX), term);
        match &mut self.suspect {
            Some(suspect) if suspect.last_possible >= last_possible => return,
            Some(suspect) => suspect.last_possible = last_possible,
            None => {
                probe!(OldImageNoticed);
                self.suspect = Some(Suspect { last_possible, loss_id: returning.start_id });
            }
        }
        // It must not stand for election or lead without what it has lost.
        if !matches!(self.role, Role::Follower(_)) {
            self.become_follower(None, out);
        }
        self.write_suspicion(out);
    }

    /// Limits what this suspect replica must get back. The leader of the last promise's term, or of a later one, has
    /// every entry that was committed with this replica's help, so that leader's log is enough. A disk knows only how
    /// much its damaged part may have held, which may be more than that leader will ever have. And since that leader is
    /// elected, a vote for it in this term does no harm, whatever the lost vote was.
    fn bound_by_leader(&mut self, out: &mut Effects) {
        let leader = self.returning.as_ref().and_then(|returning| returning.leader);
        let Some((leader, term, last)) = leader.filter(|(_, term, _)| *term == self.term) else { return };
        let Some(suspect) = self.suspect.as_mut().filter(|suspect| suspect.last_possible.term <= term) else { return };
        if last < suspect.last_possible {
            suspect.last_possible = last;
            self.write_suspicion(out);
        }
        self.keep_vote_for(leader, term, out);
    }

    /// This replica may have voted for the leader of this term, and have lost that vote: it must vote for nobody else.
    fn keep_vote_for(&mut self, leader: NodeId, term: Term, out: &mut Effects) {
        if term == self.term && self.voted_for.is_none() {
            self.voted_for = Some(leader);
            self.persist_hard_state(out);
        }
    }

    fn write_suspicion(&mut self, out: &mut Effects) {
        if let Some(Suspect { last_possible, .. }) = self.suspect {
            self.persistence.write(Write::Suspect { last_possible }, out);
        }
    }
}

/// The peers that are asked.
impl Raft {
    /// Answers a peer that has come back and says what it found.
    pub(crate) fn handle_returned(&self, from: NodeId, start_id: u64, found: &Found, out: &mut Effects) {
        let memory = self.memories.get(&from).filter(|memory| memory.contradicts(found));
        let missing = memory.map(|memory| memory.term);
        let leads = self.is_leader().then(|| self.log.last());
        self.send_durably(from, Body::Remembered { start_id, missing, leads }, out);
        if !self.has_met(from) {
            self.ask(from, out);
        }
    }

    /// The term of the latest vote for this replica that `peer` has told it of. For the checks of the simulator.
    #[must_use]
    pub fn promised_vote(&self, peer: NodeId) -> Option<Term> {
        let (term, candidate) = self.memories.get(&peer)?.vote?;
        (candidate == self.config.id).then_some(term)
    }

    /// Notes what a message from a member promises.
    pub(crate) fn remember(&mut self, from: NodeId, term: Term, body: &Body) {
        // A question promises nothing. A snapshot arrives through the hosts, perhaps from a leader whose own question
        // this replica has not answered yet.
        let other = matches!(body, Body::ReadIndex { .. } | Body::ReadIndexReply { .. } | Body::InstallSnapshot(_));
        if !self.config.return_check || other {
            return;
        }
        // Nobody can have acknowledged more than this log holds.
        let acknowledgeable = self.log.last().index;
        let leads = self.is_leader() && term == self.term;
        let me = self.config.id;
        let memory = match self.memories.get_mut(&from) {
            Some(memory) => memory,
            None if self.membership.current().contains(from) => self.memories.entry(from).or_default(),
            None => return,
        };
        memory.term = memory.term.max(term);
        match body {
            Body::RequestVote { .. } => memory.vote = memory.vote.max(Some((term, from))),
            Body::RequestVoteReply { granted: true } => memory.vote = memory.vote.max(Some((term, me))),
            Body::AppendEntries(append) => memory.kept = memory.kept.max((term, append.durable_index)),
            Body::AppendEntriesReply(reply) if leads => {
                if let AppendOutcome::Accepted { match_index } = reply.outcome
                    && match_index <= acknowledgeable
                {
                    memory.kept = memory.kept.max((term, match_index));
                }
            }
            _ => {}
        }
    }
}

/// Up to where this replica tells its peers that its log is on its own disk.
pub(crate) fn told_durable(config: &Config, durable: Index) -> Index {
    if config.return_check { durable } else { Index(0) }
}
