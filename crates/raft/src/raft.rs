//! The owner of a replica's consensus state. It hands each input to the module that handles it.

use std::collections::BTreeMap;

use crate::commit::Applying;
use crate::config::{Config, ConfigError};
use crate::damage::Suspect;
use crate::effect::{Effect, Effects, Fault, HardState, Input, Outcome, Write};
use crate::log::{Entry, Log, Payload};
use crate::membership::{Membership, MembershipHistory};
use crate::message::{Body, Found, Message, SnapshotHeader};
use crate::persistence::Persistence;
use crate::probe::probe;
use crate::quorum::Quorum;
use crate::random::Random;
use crate::read::Relay;
use crate::requests::Requests;
use crate::returning::{Memory, Returning};
use crate::role::{Follower, Leader, Role};
use crate::types::{Index, NodeId, PersistId, Position, Session, Term, Time, Token};

/// What a replica finds on its disk when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Term and vote.
    pub hard_state: HardState,
    /// The snapshot under the log. At a cluster's first start it is at the origin, with the configuration that all
    /// founding members agree on.
    pub snapshot: Option<SnapshotHeader>,
    /// The log after the snapshot.
    pub entries: Vec<Entry>,
    /// The last entry that the state machine contains; entries up to here are known to be committed.
    pub applied: Index,
    /// Set if a part of the log was lost that this replica may have acknowledged: an upper bound, in the order of
    /// 5.4.1, of where its log ever ended. If nothing better is known, it is the greatest index in the term of
    /// `hard_state`. `entries` then hold the log before the loss.
    pub suspect: Option<Position>,
}

impl Recovered {
    /// What a founding member of a new cluster starts with.
    #[must_use]
    pub fn founding(membership: Membership) -> Recovered {
        Recovered { snapshot: Some(SnapshotHeader { position: Position::ORIGIN, membership }), ..Recovered::default() }
    }
}

/// One replica's consensus (Figure 2 of the paper), sans I/O.
///
/// Its one owner drives it through [`Raft::handle`], and it says what to do in [`Effects`]. It reads no clock and
/// draws no randomness that the host didn't give it: the same inputs always give the same effects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    pub(crate) config: Config,
    pub(crate) random: Random,
    pub(crate) now: Time,

    // Persistent state (5.1).
    pub(crate) term: Term,
    pub(crate) voted_for: Option<NodeId>,
    pub(crate) log: Log,
    pub(crate) membership: MembershipHistory,
    pub(crate) persistence: Persistence,
    /// The host has a snapshot of the log up to here.
    pub(crate) snapshot_index: Index,

    // Volatile state (5.1).
    pub(crate) commit_index: Index,
    pub(crate) applying: Applying,
    pub(crate) role: Role,
    /// When this replica last heard from a leader: it refuses votes for a while after that (4.2.3).
    pub(crate) leader_contact: Option<Time>,
    pub(crate) election_deadline: Time,

    // Requests.
    pub(crate) requests: Requests,
    /// Reads of this follower's clients, by the context that was sent to the leader.
    pub(crate) relays: BTreeMap<u64, Relay>,
    pub(crate) fault: Option<Fault>,
    /// Where the log may have ended before a part of it was lost, see `damage.rs`.
    pub(crate) suspect: Option<Suspect>,
    /// How far the return check of `returning.rs` has come, if there is one.
    pub(crate) returning: Option<Returning>,
    /// What the peers have promised this replica, to tell them when they come back.
    pub(crate) memories: BTreeMap<NodeId, Memory>,
}

impl Raft {
    /// A replica that starts, for the first time or after a stop.
    ///
    /// # Errors
    /// A value of `config` is out of range, or `recovered` contradicts itself.
    pub fn new(config: Config, recovered: Recovered, now: Time) -> Result<Raft, ConfigError> {
        config.validate()?;
        let (log, membership) = restore_log(&recovered)?;
        // The id is mixed before it is combined with the seed: however a host derives its seeds, two replicas must
        // not draw the same timeouts (S12).
        let mut random = Random::new(config.seed ^ Random::new(config.id.0).next_u64());
        let timeout = random.span(config.election_timeout_min, config.election_timeout_max);
        // Before it stopped, this replica may have acknowledged a leader that reads under a lease: it keeps that
        // promise as if it had just heard from the leader.
        let leader_contact = (recovered.hard_state.term > Term(0)).then_some(now);
        let mut raft = Raft {
            random,
            now,
            term: recovered.hard_state.term,
            voted_for: recovered.hard_state.voted_for,
            persistence: Persistence::new(log.last().index),
            snapshot_index: log.base().index,
            commit_index: recovered.applied,
            applying: Applying::new(recovered.applied),
            role: Role::Follower(Follower::default()),
            leader_contact,
            election_deadline: now.after(timeout),
            requests: Requests::default(),
            relays: BTreeMap::new(),
            fault: None,
            suspect: None,
            returning: None,
            memories: BTreeMap::new(),
            config,
            log,
            membership,
        };
        raft.suspect =
            recovered.suspect.map(|last_possible| Suspect { last_possible, loss_id: raft.random.next_u64() });
        if raft.config.return_check {
            let start_id = raft.random.next_u64();
            let found = Found { hard_state: recovered.hard_state, last: raft.log.last() };
            raft.returning = Some(Returning::new(start_id, found, recovered.suspect.is_some(), now, &raft.config));
        }
        Ok(raft)
    }

    /// Takes one input and appends the effects to `out`. `now` must not go back; if it does, the latest time counts.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Effects) {
        if self.fault.is_some() {
            return;
        }
        self.now = self.now.max(now);
        match input {
            Input::Wake => {}
            Input::Receive { from, message } => self.receive(from, message, out),
            Input::Propose { token, command, deadline } => {
                self.requests.open(token, deadline);
                self.propose(token, command, out);
            }
            Input::Read { token, kind, deadline } => {
                self.requests.open(token, deadline);
                self.read(token, kind, out);
            }
            Input::ChangeMembership { token, change } => {
                self.requests.open(token, None);
                self.change_membership(token, &change, out);
            }
            Input::TransferLeadership { token, to } => {
                self.requests.open(token, None);
                self.transfer_leadership(token, to, out);
            }
            Input::Persisted { up_to } => self.persisted(up_to, out),
            Input::Applied { index } => self.applied(index, out),
            Input::SnapshotStored { index } => self.snapshot_stored(index),
            Input::SnapshotSent { to, session, delivered } => self.snapshot_sent(to, session, delivered),
        }
        if self.next_deadline() <= self.now {
            self.on_deadline(out);
        }
        self.emit_apply(out);
        self.assert_invariants();
    }

    /// When to call [`Raft::handle`] with [`Input::Wake`] at the latest, if nothing else happens before.
    /// [`Time::NEVER`] if it waits only for other inputs.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        if self.fault.is_some() {
            return Time::NEVER;
        }
        let role = match &self.role {
            Role::Leader(leader) => self.leader_deadline(leader),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => self.next_election_deadline(),
        };
        let requests = self.requests.next_deadline().unwrap_or(Time::NEVER);
        let relays = self.next_relay_deadline().unwrap_or(Time::NEVER);
        role.min(requests).min(relays).min(self.next_return_deadline())
    }

    fn on_deadline(&mut self, out: &mut Effects) {
        if self.requests.expire(self.now, out) && self.membership().is_joint() {
            probe!(TransferFailedInJoint);
        }
        self.retry_relays(out);
        self.on_return_deadline(out);
        match &self.role {
            Role::Leader(_) => self.on_leader_deadline(out),
            _ => self.on_election_deadline(out),
        }
    }

    /// The rules for all servers (Figure 2), then the rule of the message.
    fn receive(&mut self, from: NodeId, message: Message, out: &mut Effects) {
        let Message { term, body } = message;
        // If this replica adopted such a term, it could soon run out of terms.
        if term > Term::GREATEST {
            return;
        }
        match body {
            Body::Returned { start_id, found } => return self.handle_returned(from, start_id, &found, out),
            Body::Remembered { start_id, missing, leads } => {
                return self.handle_remembered(from, term, (start_id, missing, leads), out);
            }
            _ if !self.has_met(from) => return self.ask(from, out),
            _ => self.remember(from, term, &body),
        }
        match body {
            // Requests for votes come first: a replica may ignore them without adopting their term.
            Body::PreVote { last } => return self.handle_pre_vote(from, term, last, out),
            Body::RequestVote { last, transfer } => return self.handle_request_vote(from, term, last, transfer, out),
            _ if term > self.term => self.step_down(term, out),
            _ => {}
        }
        if term < self.term {
            return self.answer_stale(from, &body, out);
        }
        match body {
            Body::PreVoteReply { granted } => self.handle_pre_vote_reply(from, granted, out),
            Body::RequestVoteReply { granted } => self.handle_vote_reply(from, granted, out),
            Body::AppendEntries(append) => self.handle_append(from, append, out),
            Body::AppendEntriesReply(reply) => self.handle_append_reply(from, &reply, out),
            Body::InstallSnapshot(install) => self.handle_install(from, install, out),
            Body::TimeoutNow => self.handle_timeout_now(out),
            Body::ReadIndex { context, kind } => self.handle_read_index(from, context, kind, out),
            Body::ReadIndexReply { context, index } => self.handle_read_index_reply(context, index, out),
            Body::PreVote { .. } | Body::RequestVote { .. } | Body::Returned { .. } | Body::Remembered { .. } => {
                unreachable!("handled above")
            }
        }
    }

    /// Adopts a higher term and follows in it (5.1).
    pub(crate) fn step_down(&mut self, term: Term, out: &mut Effects) {
        assert!(term > self.term, "terms only grow");
        self.term = term;
        self.voted_for = None;
        self.persist_hard_state(out);
        self.become_follower(None, out);
    }

    /// Becomes a follower in the current term. It keeps its vote, which is for the term, whatever its role (S2).
    pub(crate) fn become_follower(&mut self, leader: Option<NodeId>, out: &mut Effects) {
        let role = Role::Follower(Follower { leader, verified: Index(0) });
        if let Role::Leader(leader) = std::mem::replace(&mut self.role, role) {
            self.refuse_waiting_reads(*leader, out);
        }
        self.reset_election_deadline();
    }

    pub(crate) fn persist_hard_state(&mut self, out: &mut Effects) -> PersistId {
        let hard_state = HardState { term: self.term, voted_for: self.voted_for };
        self.persistence.write(Write::HardState(hard_state), out)
    }

    fn persisted(&mut self, up_to: PersistId, out: &mut Effects) {
        self.persistence.persisted(up_to);
        self.count_own_vote(out);
        self.advance_leader_commit(out);
    }

    /// Sends a message that promises only what is durable already.
    pub(crate) fn send_now(&self, to: NodeId, body: Body, out: &mut Effects) {
        self.send(to, body, None, out);
    }

    /// Sends a message once everything written so far is durable (law 4).
    pub(crate) fn send_durably(&self, to: NodeId, body: Body, out: &mut Effects) {
        self.send(to, body, self.persistence.barrier(), out);
    }

    /// Sends nothing but introductions to a peer that has not said yet what it remembers. The core treats other
    /// messages to it as lost on the network.
    fn send(&self, to: NodeId, body: Body, after: Option<PersistId>, out: &mut Effects) {
        let introduction = matches!(body, Body::Returned { .. } | Body::Remembered { .. });
        if introduction || self.has_met(to) {
            out.push(Effect::Send { to, message: Message { term: self.term, body }, after });
        }
    }

    /// Stops for good, and answers every open request: see [`Effect::Halt`].
    pub(crate) fn halt(&mut self, fault: Fault, out: &mut Effects) {
        self.fault = Some(fault.clone());
        self.requests.give_up_all(out);
        out.push(Effect::Halt { fault });
    }

    /// Appends an entry of the current term. If it holds a configuration, that is in force from now on.
    pub(crate) fn append_own(&mut self, payload: Payload, out: &mut Effects) -> Position {
        let entry = Entry { index: self.log.last().index.next(), term: self.term, payload };
        let position = entry.position();
        self.append_all(vec![entry], out);
        position
    }

    /// Appends entries that follow the last one.
    pub(crate) fn append_all(&mut self, entries: Vec<Entry>, out: &mut Effects) {
        for entry in &entries {
            if let Payload::Membership(membership) = &entry.payload {
                self.membership.append(entry.index, membership.clone());
                self.ask_new_members();
            }
            self.log.append(entry.clone());
        }
        self.persistence.write(Write::Append(entries), out);
    }

    pub(crate) fn leader_mut(&mut self) -> Option<&mut Leader> {
        match &mut self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    pub(crate) fn leader_ref(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    /// Answers a request that only a leader can serve.
    pub(crate) fn refuse_as_follower(&mut self, token: Token, out: &mut Effects) {
        let outcome = Outcome::NotLeader { leader: self.leader() };
        self.requests.answer(token, outcome, out);
    }

    /// The quorums of the configuration in force.
    pub(crate) fn quorum(&self) -> Quorum<'_> {
        self.membership.current().quorum()
    }

    /// What must hold after every input (I6, I11; law 9).
    fn assert_invariants(&self) {
        assert!(self.applying.applied() <= self.applying.handed_over(), "nothing is applied that was not committed");
        assert!(self.applying.handed_over() <= self.commit_index, "only committed entries are applied");
        assert!(self.commit_index <= self.log.last().index, "what is committed is in the log");
        assert!(self.log.base().index <= self.commit_index, "a snapshot holds committed entries only");
        if let Role::Leader(leader) = &self.role {
            for progress in leader.progress.values() {
                assert!(progress.match_index <= self.log.last().index, "no peer has what the leader has not");
                let next_index = progress.next_index().unwrap_or(Index(u64::MAX));
                assert!(progress.match_index < next_index, "what matches is not sent again");
            }
        }
    }
}

/// Questions of hosts and tests.
impl Raft {
    /// The identity of this replica.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// The latest term that this replica has seen.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whom it voted for in this term.
    #[must_use]
    pub fn voted_for(&self) -> Option<NodeId> {
        self.voted_for
    }

    /// The leader of this term, as far as it knows; itself if it leads.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(_) => Some(self.config.id),
            Role::Follower(follower) => follower.leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// Whether it leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Whether it leads and would answer a read under its lease at `now`, on this replica's clock.
    #[must_use]
    pub fn holds_lease(&self, now: Time) -> bool {
        let leader = self.leader_ref().filter(|leader| self.commit_index >= leader.term_start);
        leader.is_some_and(|leader| self.lease_is_valid(leader, self.now.max(now)))
    }

    /// When this replica last heard from a leader, on its own clock.
    #[must_use]
    pub fn leader_contact(&self) -> Option<Time> {
        self.leader_contact
    }

    /// The last index that is known to be committed.
    #[must_use]
    pub fn commit_index(&self) -> Index {
        self.commit_index
    }

    /// The last index that the state machine is known to contain.
    #[must_use]
    pub fn last_applied(&self) -> Index {
        self.applying.applied()
    }

    /// The tail of the log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The configuration in force.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.membership.current()
    }

    /// The header of a snapshot of the state machine as of `index`. `None` if the log no longer knows that entry's
    /// term, or if this replica doesn't know the configuration at that index: a replica that was added to a cluster
    /// and got its log from the start knows no configuration before the first entry that holds one.
    #[must_use]
    pub fn snapshot_header(&self, index: Index) -> Option<SnapshotHeader> {
        let position = self.log.position_at(index)?;
        let membership = self.membership.at(index);
        (membership != &Membership::default()).then(|| SnapshotHeader { position, membership: membership.clone() })
    }

    /// Why this replica has stopped, if it has.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Up to where the log of `peer` is known to match, if this replica leads and `peer` is a member. For the checks
    /// of the simulator.
    #[must_use]
    pub fn match_index(&self, peer: NodeId) -> Option<Index> {
        self.leader_ref()?.progress.get(&peer).map(|progress| progress.match_index)
    }

    /// The session in which the answers of `peer` count, if this replica leads and `peer` is a member. For the checks of
    /// the simulator.
    #[must_use]
    pub fn session(&self, peer: NodeId) -> Option<Session> {
        self.leader_ref()?.progress.get(&peer).map(|progress| progress.session)
    }

    /// The configuration that it was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// Restores the log and its configurations, and refuses what no replica can have written.
fn restore_log(recovered: &Recovered) -> Result<(Log, MembershipHistory), ConfigError> {
    let contradiction = |what: String| Err(ConfigError::Recovered(what));
    let (base, membership) = match &recovered.snapshot {
        Some(snapshot) => (snapshot.position, snapshot.membership.clone()),
        None => (Position::ORIGIN, Membership::default()),
    };
    let mut log = Log::new(base);
    let mut history = MembershipHistory::new(membership);
    for entry in &recovered.entries {
        let last = log.last();
        if entry.index != last.index.next() || entry.term < last.term {
            return contradiction(format!("entry {} follows {last}", entry.position()));
        }
        if let Payload::Membership(membership) = &entry.payload {
            history.append(entry.index, membership.clone());
        }
        log.append(entry.clone());
    }
    let last = log.last();
    if recovered.suspect.is_some_and(|last_possible| last_possible.term > recovered.hard_state.term) {
        return contradiction("the lost entries are of a later term than the hard state".to_owned());
    }
    if last.term > recovered.hard_state.term {
        return contradiction(format!("the last entry {last} is of a later term than {}", recovered.hard_state.term));
    }
    if recovered.applied < base.index || recovered.applied > last.index {
        let applied = recovered.applied;
        return contradiction(format!("applied up to {applied}, but the log reaches from {base} to {last}"));
    }
    Ok((log, history))
}
