//! A member's consensus: owns the [`Conductor`], and knows where the answers to requests go.
//!
//! Each round takes a portion of the queue, hands it to the conductor, and collects what is to be done. It does no I/O and
//! applies no entries: the log, the state and the snapshots have workers of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use bowline_kv::store::{Command, Principal};
use bowline_node::raft::probe::{Probe, hit};
use bowline_node::raft::{Body, ConfigError, Fault, Message, NodeId, ReadKind, Recovered, Time, Token, Write};
use bowline_node::{
    Conductor, ConductorEffect, Failure, Incoming, Job, NodeConfig, NodeInput, NodeMessage, NotDone, Response, Unknown,
};

use crate::apply::ApplyJob;
use crate::disk::StateDisk;
use crate::instruments::Instruments;
use crate::leases::Leases;
use crate::log::{LogJob, LogStep};
use crate::queue::{Event, Request, RequestBody};
use crate::shared::Shared;
use crate::snapshots::SnapshotJob;
use crate::status::{Published, Status};

/// Maximum number of committed entries that are not applied yet; above it, writes are refused, as in etcd.
const MAX_UNAPPLIED: u64 = 5_000;

/// A member's consensus. `R` tells where the answer to a request goes.
#[derive(Debug)]
pub struct Consensus<D: StateDisk, R> {
    conductor: Conductor,
    shared: Arc<Shared<D>>,
    leases: Leases,
    waiting: BTreeMap<Token, R>,
    next_token: u64,
    /// How reads are made linearizable.
    read_kind: ReadKind,
    instruments: Arc<dyn Instruments>,
    effects: Vec<ConductorEffect>,
    round: Round<R>,
}

/// What is to be done after a round, in this order.
#[derive(Debug)]
pub struct Round<R> {
    /// Messages that leave at once.
    pub messages: Vec<(NodeId, NodeMessage)>,
    /// The job for the log, unless it is empty.
    pub log: LogJob,
    /// The jobs for the worker of the state. The core bounds their bytes.
    pub apply: Vec<ApplyJob<R>>,
    /// The jobs for the worker of the snapshots. At most one piece for each peer waits there.
    pub snapshots: Vec<SnapshotJob>,
    /// Events for the next round.
    pub events: Vec<Event<R>>,
    /// The answers to requests. They leave after the status is published, so that a client whose write is done finds it
    /// in the status.
    pub answers: Vec<(R, Response)>,
    /// What the core has seen that must never happen. The member must stop.
    pub fault: Option<Fault>,
}

impl<R> Default for Round<R> {
    fn default() -> Round<R> {
        Round {
            messages: Vec::new(),
            log: LogJob::default(),
            apply: Vec::new(),
            snapshots: Vec::new(),
            events: Vec::new(),
            answers: Vec::new(),
            fault: None,
        }
    }
}

impl<D: StateDisk, R> Consensus<D, R> {
    /// For a member that starts. `arriving` is a snapshot that an earlier run had received in part.
    ///
    /// # Errors
    /// The configuration is out of range, or the recovered data contradicts itself.
    pub fn new(
        config: NodeConfig,
        recovered: Recovered,
        arriving: Option<Incoming>,
        read_kind: ReadKind,
        shared: Arc<Shared<D>>,
        instruments: Arc<dyn Instruments>,
        now: Time,
    ) -> Result<Consensus<D, R>, ConfigError> {
        let mut conductor = Conductor::new(config, recovered, now)?;
        if let Some(arriving) = arriving {
            conductor.resume(arriving);
        }
        let leases = Leases::new(now, shared.read().leases(), Arc::clone(&instruments));
        Ok(Consensus {
            conductor,
            shared,
            leases,
            waiting: BTreeMap::new(),
            next_token: 0,
            read_kind,
            instruments,
            effects: Vec::new(),
            round: Round::default(),
        })
    }

    /// The conductor.
    #[must_use]
    pub fn conductor(&self) -> &Conductor {
        &self.conductor
    }

    /// The conductor, to set its witness.
    pub fn conductor_mut(&mut self) -> &mut Conductor {
        &mut self.conductor
    }

    /// What the conductor wants since the last round.
    #[must_use]
    pub fn effects(&self) -> &[ConductorEffect] {
        &self.effects
    }

    /// When the next round must begin, at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        self.conductor.next_deadline().min(self.leases.next_deadline())
    }

    /// A round begins.
    ///
    /// Counts how often a leader acts more than a heartbeat interval too late. Then its heartbeats are late, too, and its
    /// followers may stand for election.
    pub fn begin(&self, now: Time) {
        let raft = self.conductor.raft();
        if raft.is_leader() && now.since(self.conductor.next_deadline()) > raft.config().heartbeat_interval {
            self.instruments.late_heartbeat();
        }
    }

    /// Takes an event of another worker.
    pub fn take_event(&mut self, now: Time, event: Event<R>) {
        match event {
            Event::Persisted(up_to) => {
                self.conductor.handle(now, NodeInput::Persisted { up_to }, &mut self.effects);
            }
            Event::StateStored(header) => {
                let index = header.position.index;
                // The log ignores this if it has already removed more, for a later snapshot.
                self.round.log.steps.push(LogStep::Compact(header));
                self.conductor.handle(now, NodeInput::SnapshotStored { index }, &mut self.effects);
            }
            Event::Report(report) => self.conductor.report(now, report, &mut self.effects),
            Event::Leases(changes) => self.leases.note(now, changes),
            Event::LeasesReset(leases) => self.leases.reset(now, leases),
            Event::Answered(token, response) => self.answer(now, token, response),
            Event::Facts => {}
            Event::Done(reply, answer) => self.round.answers.push((reply, answer)),
        }
    }

    /// Takes a message of a peer.
    pub fn take_message(&mut self, now: Time, from: NodeId, mut message: NodeMessage) {
        let left = !self.has_room() && leave_entries(&mut message);
        let before = self.effects.len();
        self.note_answer(now, from, &message);
        self.conductor.handle(now, NodeInput::Receive { from, message }, &mut self.effects);
        if left {
            forget_replies(&mut self.effects, before);
        }
    }

    /// Takes a request.
    pub fn take_request(&mut self, now: Time, request: Request<R>) {
        let Request { body, deadline, reply } = request;
        if let Some(refusal) = self.refusal(&body) {
            self.round.answers.push((reply, Err(refusal)));
            return;
        }
        let token = Token(self.next_token + 1);
        let deadline = Some(deadline);
        let input = match body {
            RequestBody::Write(command) => NodeInput::Write { token, command, deadline },
            RequestBody::Read => NodeInput::Read { token, kind: self.read_kind, deadline },
            RequestBody::Lease { id, renew } => {
                self.follow(now);
                if !self.leases.ask(now, token, id, renew) {
                    let refusal = Failure::not_leader(self.conductor.raft().leader());
                    self.round.answers.push((reply, Err(refusal)));
                    return;
                }
                // This read begins after the question. It confirms that no other member leads, and that the state was
                // recent.
                NodeInput::Read { token, kind: self.read_kind, deadline }
            }
            RequestBody::TransferLeadership(to) => NodeInput::TransferLeadership { token, to },
            RequestBody::ChangeMembership(change) => NodeInput::ChangeMembership { token, change },
            RequestBody::Shrink => {
                self.round.apply.push(ApplyJob::Shrink(reply));
                return;
            }
        };
        self.next_token = token.0;
        self.waiting.insert(token, reply);
        self.conductor.handle(now, input, &mut self.effects);
    }

    /// Does what is due after all events, messages and requests of a round, and returns what is to be done.
    pub fn finish(&mut self, now: Time) -> Round<R> {
        if self.conductor.next_deadline() <= now {
            self.conductor.handle(now, NodeInput::Wake, &mut self.effects);
        }
        self.end_leases(now);
        self.conductor.tend(now, &mut self.effects);
        self.carry_out(now);
        std::mem::take(&mut self.round)
    }

    /// The member stops: returns where the failures of all waiting requests go.
    pub fn stop(&mut self) -> impl Iterator<Item = (R, Response)> {
        std::mem::take(&mut self.waiting).into_values().map(|reply| (reply, Err(Unknown::Stopped.into())))
    }

    /// Measures how long a follower's answer took.
    fn note_answer(&self, now: Time, from: NodeId, message: &NodeMessage) {
        let NodeMessage::Raft(Message { term, body: Body::AppendEntriesReply(reply) }) = message else { return };
        let raft = self.conductor.raft();
        // The time in an answer to an earlier process is of another clock.
        if raft.is_leader() && *term == raft.term() && reply.sent_at <= now {
            self.instruments.answered(from, now.since(reply.sent_at));
        }
    }

    fn answer(&mut self, now: Time, token: Token, mut response: Response) {
        if response.is_ok()
            && let Some(told) = self.leases.confirmed(now, token)
        {
            response = told;
        }
        self.leases.settled(now, token, &response);
        self.round.answers.extend(self.waiting.remove(&token).map(|reply| (reply, response)));
    }

    /// Tells [`Leases`] in which term this replica leads, if it does.
    fn follow(&mut self, now: Time) {
        let raft = self.conductor.raft();
        self.leases.follow(now, raft.is_leader().then(|| raft.term().0));
    }

    /// Proposes the end of expired leases, in the term in which they were found expired.
    fn end_leases(&mut self, now: Time) {
        self.follow(now);
        let token = Token(self.next_token + 1);
        // In a corrupt cluster the store would refuse it.
        let blocked = self.write_refusal().is_some() || self.shared.facts().alarms.corrupt;
        if let Some(request) = self.leases.expired(now, token, blocked) {
            self.next_token = token.0;
            let command = Command::LeaseExpire(request).to_bytes_by(&Principal::Member);
            self.conductor.handle(now, NodeInput::Write { token, command, deadline: None }, &mut self.effects);
        }
    }

    /// Whether the disks of the log and of the state have room.
    fn has_room(&self) -> bool {
        let (log, state) = (self.shared.log_has_room(), self.shared.has_room());
        if log && !state {
            hit(Probe::StateDiskFull);
        }
        log && state
    }

    /// Why this request must be refused now; `None` if it need not be.
    fn refusal(&self, body: &RequestBody) -> Option<Failure> {
        if let RequestBody::Write(_) = body { self.write_refusal() } else { None }
    }

    fn write_refusal(&self) -> Option<Failure> {
        let raft = self.conductor.raft();
        if !self.has_room() {
            return Some(NotDone::NoSpace.into());
        }
        let unapplied = raft.commit_index().0 - raft.last_applied().0;
        (unapplied > MAX_UNAPPLIED).then(|| Failure::overloaded("entries that are not applied yet"))
    }

    /// Sorts the effects of the conductor by who carries them out.
    fn carry_out(&mut self, now: Time) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            let round = &mut self.round;
            match effect {
                ConductorEffect::Persist { id, write } => {
                    self.note(&write);
                    self.round.log.steps.push(LogStep::Write(id, write));
                }
                ConductorEffect::Send { to, message, after: None } => round.messages.push((to, message)),
                ConductorEffect::Send { to, message, after: Some(_) } => round.log.messages.push((to, message)),
                ConductorEffect::Respond { token, response } => self.answer(now, token, response),
                ConductorEffect::Do(Job::Accept { header }) => {
                    // The restored state was durable before the core heard of it.
                    self.shared.accept(&header);
                    round.events.push(Event::StateStored(header));
                }
                ConductorEffect::Do(Job::Discard { transfer }) => self.shared.discard(transfer),
                ConductorEffect::Do(
                    apply @ (Job::Apply { .. }
                    | Job::Recall { .. }
                    | Job::StoreState { .. }
                    | Job::Dump { .. }
                    | Job::Install { .. }),
                ) => round.apply.push(ApplyJob::Of(apply)),
                ConductorEffect::Do(other) => round.snapshots.push(SnapshotJob::Other(other)),
                ConductorEffect::Halt { fault } => round.fault = Some(fault),
            }
        }
        self.effects = effects;
    }

    /// Logs writes that operators must know of.
    fn note(&self, write: &Write) {
        match write {
            Write::Suspect { .. } => {
                self.instruments.told_of_loss();
                tracing::error!(
                    "the other members remember votes or entries that are not on this disk (was it restored from a \
                     backup?): this member neither votes nor leads until a leader has sent them again"
                );
            }
            Write::Repaired => {
                tracing::info!("repaired: everything that this member acknowledged is on its disk again")
            }
            _ => {}
        }
    }

    /// The status before the first round.
    #[must_use]
    pub fn first_status(&self) -> Status {
        let (raft, Published { facts, members, auth }) = (self.conductor.raft(), self.shared.published());
        Status {
            term: raft.term().0,
            leader: None,
            is_leader: false,
            commit_index: raft.commit_index().0,
            applied_index: raft.last_applied().0,
            last_index: raft.log().last().index.0,
            leader_contact: None,
            membership: Arc::new(raft.membership().clone()),
            members,
            auth,
            waiting: 0,
            facts,
            fault: None,
        }
    }

    /// Brings the status up to date after a round. Returns whether it has changed in what others wait for.
    pub fn update(&self, status: &mut Status, fault: Option<&Fault>) -> bool {
        let (raft, Published { facts, members, auth }) = (self.conductor.raft(), self.shared.published());
        let before = (status.term, status.leader, status.applied_index, status.commit_index);
        let (old_facts, had_leader) = (status.facts, status.leader);
        let old_members = (Arc::clone(&status.membership), Arc::clone(&status.members));
        status.term = raft.term().0;
        status.leader = raft.leader();
        status.is_leader = raft.is_leader();
        status.commit_index = raft.commit_index().0;
        status.applied_index = raft.last_applied().0;
        status.last_index = raft.log().last().index.0;
        status.leader_contact = raft.leader_contact();
        status.waiting = self.conductor.waiting();
        status.facts = facts;
        (status.members, status.auth) = (members, auth);
        status.fault = fault.map(ToString::to_string);
        if *status.membership != *raft.membership() {
            status.membership = Arc::new(raft.membership().clone());
        }
        if status.leader.is_some() && status.leader != had_leader {
            self.instruments.leader_changed();
        }
        let after = (status.term, status.leader, status.applied_index, status.commit_index);
        let same = Arc::ptr_eq(&old_members.0, &status.membership) && Arc::ptr_eq(&old_members.1, &status.members);
        before != after || old_facts != facts || fault.is_some() || !same
    }
}

/// On a full disk, removes the entries from a leader's message, so that it counts as a heartbeat only. The leader sends
/// the entries again later. Returns whether the message had any.
fn leave_entries(message: &mut NodeMessage) -> bool {
    match message {
        NodeMessage::Raft(Message { body: Body::AppendEntries(append), .. }) => {
            !std::mem::take(&mut append.entries).is_empty()
        }
        _ => false,
    }
}

/// Removes the answers to AppendEntries from the effects after `since`. They would make the leader send the missing
/// entries again at once, over and over, until the disk has room. Messages without entries are answered.
fn forget_replies(effects: &mut Vec<ConductorEffect>, since: usize) {
    let mut at = 0;
    effects.retain(|effect| {
        at += 1;
        let reply = matches!(effect, ConductorEffect::Send { message: NodeMessage::Raft(message), .. }
            if matches!(message.body, Body::AppendEntriesReply(_)));
        at <= since || !reply
    });
}
