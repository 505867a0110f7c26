//! The raft thread: owns the [`Conductor`].
//!
//! Each iteration of its loop takes a portion of the inbox, hands it to the conductor, and carries out the conductor's
//! effects. The thread does no I/O and applies no entries: the log, the state machine and the snapshots have threads of
//! their own, and the network has tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, SyncSender};
use std::time::Duration;

use bowline_kv::store::{Command, Members};
use bowline_node::raft::{Body, Fault, Message, NodeId, ReadKind, Time, Token, Write};
use bowline_node::{Conductor, ConductorEffect, Failure, Job, NodeInput, NodeMessage, NotDone, Response, Unknown};
use tokio::sync::{oneshot, watch};

use super::apply_thread::ApplyJob;
use super::inbox::{Event, Inbox, Request, RequestBody};
use super::leases::Leases;
use super::log_thread::{LogJob, Step};
use super::metrics::Metrics;
use super::shared::Shared;
use super::snapshot_thread::SnapshotJob;
use crate::clock::Clock;
use crate::peer::Outbox;
use bowline_member::{Facts, Status};

/// Maximum number of committed entries that are not applied yet; above it, writes are refused, as in etcd.
const MAX_UNAPPLIED: u64 = 5_000;

pub(crate) struct RaftThread {
    pub(crate) conductor: Conductor,
    pub(crate) clock: Clock,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) log: SyncSender<LogJob>,
    /// Jobs for the apply thread. The core bounds this queue.
    pub(crate) apply: Sender<ApplyJob>,
    /// Jobs for the snapshot thread. At most one piece for each peer waits there.
    pub(crate) snapshots: Sender<SnapshotJob>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether the log has room for entries.
    pub(crate) room: Arc<AtomicBool>,
    pub(crate) leases: Leases,
    pub(crate) waiting: BTreeMap<Token, oneshot::Sender<Response>>,
    pub(crate) next_token: u64,
    /// How reads are made linearizable.
    pub(crate) read_kind: ReadKind,
}

type Answers = Vec<(oneshot::Sender<Response>, Response)>;

/// Why the thread ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The inbox was closed.
    Closed,
    /// The core has seen something that must never happen.
    Faulty(Fault),
    /// Another thread of the replica is gone, and has reported why.
    Deserted,
}

impl RaftThread {
    pub(crate) fn run(mut self) -> Ending {
        let (mut effects, mut answers) = (Vec::new(), Vec::new());
        loop {
            let due = self.conductor.next_deadline();
            let portion = self.inbox.wait(self.clock.until(due.min(self.leases.next_deadline())));
            self.note_lateness(due);
            let mut job = LogJob::default();
            for event in portion.events {
                self.take_event(event, &mut job, &mut effects, &mut answers);
            }
            for (from, mut message) in portion.peers {
                let left = !self.has_room() && leave_entries(&mut message);
                let before = effects.len();
                self.note_answer(from, &message);
                self.conductor.handle(self.clock.now(), NodeInput::Receive { from, message }, &mut effects);
                if left {
                    forget_replies(&mut effects, before);
                }
            }
            for request in portion.requests {
                self.take_request(request, &mut effects);
            }
            let now = self.clock.now();
            if self.conductor.next_deadline() <= now {
                self.conductor.handle(now, NodeInput::Wake, &mut effects);
            }
            self.end_leases(now, &mut effects);
            self.conductor.tend(now, &mut effects);
            let Ok(fault) = self.carry_out(&mut effects, &mut job, &mut answers) else {
                return self.end(Ending::Deserted);
            };
            if !job.is_empty() && self.log.send(job).is_err() {
                return self.end(Ending::Deserted);
            }
            self.publish(fault.as_ref());
            // Answer after publishing, so that a client whose write is done finds it in the status.
            for (reply, answer) in answers.drain(..) {
                // The receiver may have given up.
                let _ = reply.send(answer);
            }
            if let Some(fault) = fault {
                return self.end(Ending::Faulty(fault));
            }
            if portion.closed {
                return self.end(Ending::Closed);
            }
        }
    }

    /// Counts how often this leader acts more than a heartbeat interval too late. Then its heartbeats are late, too,
    /// and its followers may stand for election.
    fn note_lateness(&self, due: Time) {
        let raft = self.conductor.raft();
        if raft.is_leader() && self.clock.now().since(due) > raft.config().heartbeat_interval {
            self.metrics.late_heartbeats.inc();
        }
    }

    /// Measures how long a follower's answer took.
    fn note_answer(&self, from: NodeId, message: &NodeMessage) {
        let NodeMessage::Raft(Message { term, body: Body::AppendEntriesReply(reply) }) = message else { return };
        let (raft, now) = (self.conductor.raft(), self.clock.now());
        // The time in an answer to an earlier process is of another clock.
        if raft.is_leader() && *term == raft.term() && reply.sent_at <= now {
            self.metrics.answered(from, now.since(reply.sent_at));
        }
    }

    /// Answers all waiting requests with the failure that the replica has stopped.
    fn end(self, ending: Ending) -> Ending {
        self.inbox.close();
        for (_, reply) in self.waiting {
            let _ = reply.send(Err(Unknown::Stopped.into()));
        }
        for request in self.inbox.wait(Some(Duration::ZERO)).requests {
            let _ = request.reply.send(Err(Unknown::Stopped.into()));
        }
        ending
    }

    fn take_event(
        &mut self,
        event: Event,
        job: &mut LogJob,
        effects: &mut Vec<ConductorEffect>,
        answers: &mut Answers,
    ) {
        let now = self.clock.now();
        match event {
            Event::Persisted(up_to) => self.conductor.handle(now, NodeInput::Persisted { up_to }, effects),
            Event::StateStored(header) => {
                let index = header.position.index;
                // The log ignores this if it has already removed more, for a later snapshot.
                job.steps.push(Step::Compact(header));
                self.conductor.handle(now, NodeInput::SnapshotStored { index }, effects);
            }
            Event::Report(report) => self.conductor.report(now, report, effects),
            Event::Leases(changes) => self.leases.note(now, changes),
            Event::LeasesReset(leases) => self.leases.reset(now, leases),
            Event::Answered(token, response) => self.answer(token, response, answers),
            Event::Facts => {}
            Event::Done(reply, answer) => answers.push((reply, answer)),
        }
    }

    fn answer(&mut self, token: Token, mut response: Response, answers: &mut Answers) {
        let now = self.clock.now();
        if response.is_ok()
            && let Some(told) = self.leases.confirmed(now, token)
        {
            response = told;
        }
        self.leases.settled(now, token, &response);
        answers.extend(self.waiting.remove(&token).map(|reply| (reply, response)));
    }

    /// Tells [`Leases`] in which term this replica leads, if it does.
    fn follow(&mut self, now: Time) {
        let raft = self.conductor.raft();
        self.leases.follow(now, raft.is_leader().then(|| raft.term().0));
    }

    /// Proposes the end of expired leases, in the term in which they were found expired.
    fn end_leases(&mut self, now: Time, effects: &mut Vec<ConductorEffect>) {
        self.follow(now);
        let token = Token(self.next_token + 1);
        // In a corrupt cluster the store would refuse it.
        let blocked = self.write_refusal().is_some() || self.shared.facts().alarms.corrupt;
        if let Some(request) = self.leases.expired(now, token, blocked) {
            self.next_token = token.0;
            let command = Command::LeaseExpire(request).to_bytes();
            self.conductor.handle(now, NodeInput::Write { token, command, deadline: None }, effects);
        }
    }

    fn take_request(&mut self, request: Request, effects: &mut Vec<ConductorEffect>) {
        let Request { body, deadline, reply } = request;
        if reply.is_closed() {
            // The receiver has given up, and nothing was done yet.
            return;
        }
        if let Some(refusal) = self.refusal(&body) {
            let _ = reply.send(Err(refusal));
            return;
        }
        let (now, token) = (self.clock.now(), Token(self.next_token + 1));
        let deadline = Some(deadline);
        let input = match body {
            RequestBody::Write(command) => NodeInput::Write { token, command, deadline },
            RequestBody::Read => NodeInput::Read { token, kind: self.read_kind, deadline },
            RequestBody::Lease { id, renew } => {
                self.follow(now);
                if !self.leases.ask(now, token, id, renew) {
                    let _ = reply.send(Err(Failure::not_leader(self.conductor.raft().leader())));
                    return;
                }
                // This read begins after the question. It confirms that no other member leads, and that the state was
                // recent.
                NodeInput::Read { token, kind: self.read_kind, deadline }
            }
            RequestBody::TransferLeadership(to) => NodeInput::TransferLeadership { token, to },
            RequestBody::ChangeMembership(change) => NodeInput::ChangeMembership { token, change },
            RequestBody::Shrink => {
                // If the thread is gone, the reply is dropped, which tells the receiver.
                let _ = self.apply.send(ApplyJob::Shrink(reply));
                return;
            }
        };
        self.next_token = token.0;
        self.waiting.insert(token, reply);
        self.conductor.handle(now, input, effects);
    }

    /// Whether the disks of the log and of the state have room.
    fn has_room(&self) -> bool {
        self.room.load(Ordering::Relaxed) && self.shared.has_room()
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

    /// Carries out the effects of the conductor. Returns the fault that the core has seen, if any.
    ///
    /// # Errors
    /// Another thread is gone.
    fn carry_out(
        &mut self,
        effects: &mut Vec<ConductorEffect>,
        job: &mut LogJob,
        answers: &mut Answers,
    ) -> Result<Option<Fault>, Deserted> {
        let mut fault = None;
        for effect in effects.drain(..) {
            match effect {
                ConductorEffect::Persist { id, write } => {
                    self.note(&write);
                    job.steps.push(Step::Write(id, write));
                }
                ConductorEffect::Send { to, message, after: None } => self.outbox.send(to, message),
                ConductorEffect::Send { to, message, after: Some(_) } => job.messages.push((to, message)),
                ConductorEffect::Respond { token, response } => self.answer(token, response, answers),
                ConductorEffect::Do(Job::Accept { header }) => {
                    // The restored state was durable before the core heard of it.
                    self.shared.accept(&header);
                    self.inbox.push_event(Event::StateStored(header));
                }
                ConductorEffect::Do(Job::Discard { transfer }) => self.shared.discard(transfer),
                ConductorEffect::Do(
                    apply @ (Job::Apply { .. }
                    | Job::Recall { .. }
                    | Job::StoreState { .. }
                    | Job::Dump { .. }
                    | Job::Install { .. }),
                ) => self.apply.send(ApplyJob::Of(apply)).map_err(|_| Deserted)?,
                ConductorEffect::Do(other) => {
                    self.snapshots.send(SnapshotJob::Other(other)).map_err(|_| Deserted)?;
                }
                ConductorEffect::Halt { fault: seen } => fault = Some(seen),
            }
        }
        Ok(fault)
    }

    /// Logs writes that operators must know of.
    fn note(&self, write: &Write) {
        match write {
            Write::Suspect { .. } => {
                self.metrics.told_losses.inc();
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

    fn publish(&mut self, fault: Option<&Fault>) {
        let (raft, (facts, members)) = (self.conductor.raft(), self.shared.published());
        let waiting = self.conductor.waiting();
        let metrics = &self.metrics;
        self.status.send_if_modified(|status| {
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
            status.waiting = waiting;
            status.facts = facts;
            status.members = members;
            status.fault = fault.map(ToString::to_string);
            if *status.membership != *raft.membership() {
                status.membership = Arc::new(raft.membership().clone());
            }
            if status.leader.is_some() && status.leader != had_leader {
                metrics.leader_changes.inc();
            }
            let after = (status.term, status.leader, status.applied_index, status.commit_index);
            let same = Arc::ptr_eq(&old_members.0, &status.membership) && Arc::ptr_eq(&old_members.1, &status.members);
            before != after || old_facts != facts || fault.is_some() || !same
        });
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

/// Another thread of the replica is gone.
struct Deserted;

/// The status before the first iteration.
pub(crate) fn first_status(conductor: &Conductor, (facts, members): (Facts, Arc<Members>)) -> Status {
    let raft = conductor.raft();
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
        waiting: 0,
        facts,
        fault: None,
    }
}
