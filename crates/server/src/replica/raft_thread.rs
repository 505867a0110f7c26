//! The replica's thread: owns the [`Node`], and is all that ever touches it.
//!
//! Each round takes a portion of what waits, hands it to the node, and carries out what the node says. It
//! does no I/O: the log has a thread, the network has tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bowline_node::raft::{Body, Fault, Message, Position, Token, Write};
use bowline_node::{Node, NodeEffect, NodeInput, NodeMessage, StoredSnapshot};
use tokio::sync::{oneshot, watch};

use super::answer::Answer;
use super::inbox::{DiskEvent, Inbox, Request, Work};
use super::log_thread::{LogJob, Step};
use super::metrics::Metrics;
use super::status::{Machine, Status};
use crate::clock::Clock;
use crate::peer::Outbox;

/// How long to leave others the machine between two steps of tidying up.
const TIDY_PAUSE: Duration = Duration::from_millis(2);

pub(crate) struct RaftThread<M> {
    pub(crate) node: Node<M>,
    pub(crate) clock: Clock,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) log: SyncSender<LogJob>,
    /// Snapshots of the own state machine, on their way to the thread that stores them.
    pub(crate) snapshots: SyncSender<StoredSnapshot>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether the disk has room for entries.
    pub(crate) room: Arc<AtomicBool>,
    pub(crate) waiting: BTreeMap<Token, oneshot::Sender<Answer>>,
    pub(crate) next_token: u64,
}

/// Why the thread has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It was told to.
    Closed,
    /// The node has seen what must not happen.
    Faulty(Fault),
    /// The log's thread is gone, and has said why.
    LogGone,
}

impl<M: Machine> RaftThread<M> {
    pub(crate) fn run(mut self) -> Ending {
        let (mut effects, mut answers) = (Vec::new(), Vec::new());
        let mut untidy = false;
        loop {
            let until = self.clock.until(self.node.next_deadline());
            let portion =
                self.inbox.wait(if untidy { Some(until.unwrap_or(TIDY_PAUSE).min(TIDY_PAUSE)) } else { until });
            let mut job = LogJob::default();
            for event in portion.disk {
                self.node.handle(self.clock.now(), self.disk_input(event, &mut job), &mut effects);
            }
            for (from, mut message) in portion.peers {
                let left = !self.room.load(Ordering::Relaxed) && leave_entries(&mut message);
                let before = effects.len();
                self.node.handle(self.clock.now(), NodeInput::Receive { from, message }, &mut effects);
                if left {
                    forget_replies(&mut effects, before);
                }
            }
            for request in portion.requests {
                self.take_request(request, &mut effects);
            }
            if self.node.next_deadline() <= self.clock.now() {
                self.node.handle(self.clock.now(), NodeInput::Wake, &mut effects);
            }
            let fault = self.carry_out(&mut effects, &mut job, &mut answers);
            if !job.is_empty() && self.log.send(job).is_err() {
                return self.end(Ending::LogGone);
            }
            untidy = self.node.machine().tidy();
            self.publish(fault.as_ref());
            // After that: who hears that a write is done finds it in the status too.
            for (reply, answer) in answers.drain(..) {
                // Who has given up needs no answer.
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

    /// Everyone who still waits is told that nothing more will come.
    fn end(self, ending: Ending) -> Ending {
        self.inbox.close();
        for (_, reply) in self.waiting {
            let _ = reply.send(Answer::Stopped);
        }
        for request in self.inbox.wait(Some(Duration::ZERO)).requests {
            let _ = request.reply.send(Answer::Stopped);
        }
        ending
    }

    fn disk_input(&self, event: DiskEvent, job: &mut LogJob) -> NodeInput {
        match event {
            DiskEvent::Persisted(up_to) => NodeInput::Persisted { up_to },
            DiskEvent::SnapshotStored(header) => {
                let index = header.position.index;
                job.steps.push(Step::Compact(header));
                NodeInput::SnapshotStored { index }
            }
        }
    }

    fn take_request(&mut self, request: Request, effects: &mut Vec<NodeEffect>) {
        let Request { work, deadline, reply } = request;
        if reply.is_closed() {
            // Nobody waits any more, and nothing was done yet.
            return;
        }
        if matches!(work, Work::Write(_)) && !self.room.load(Ordering::Relaxed) {
            let _ = reply.send(Answer::NoSpace);
            return;
        }
        self.next_token += 1;
        let token = Token(self.next_token);
        self.waiting.insert(token, reply);
        let deadline = Some(deadline);
        let input = match work {
            Work::Write(command) => NodeInput::Write { token, command, deadline },
            Work::Read(query, consistency) => NodeInput::Read { token, query, consistency, deadline },
            Work::Transfer(to) => NodeInput::TransferLeadership { token, to },
        };
        self.node.handle(self.clock.now(), input, effects);
    }

    fn carry_out(
        &mut self,
        effects: &mut Vec<NodeEffect>,
        job: &mut LogJob,
        answers: &mut Vec<(oneshot::Sender<Answer>, Answer)>,
    ) -> Option<Fault> {
        let mut fault = None;
        let installed: Vec<Position> = effects.iter().filter_map(installed_position).collect();
        for effect in effects.drain(..) {
            match effect {
                NodeEffect::Persist { id, write } => job.steps.push(Step::Write(id, write)),
                // A leader's snapshot must be durable before the write that names it.
                NodeEffect::StoreSnapshot { snapshot } if installed.contains(&snapshot.header.position) => {
                    job.steps.push(Step::Snapshot(snapshot));
                }
                // The own one may take its time. The node makes no other before it hears of this one, so
                // there is always room for it.
                NodeEffect::StoreSnapshot { snapshot } => {
                    let _ = self.snapshots.try_send(snapshot);
                }
                NodeEffect::Send { to, message, after: None } => self.outbox.send(to, message),
                NodeEffect::Send { to, message, after: Some(_) } => job.messages.push((to, message)),
                NodeEffect::Respond { token, response } => {
                    answers.extend(self.waiting.remove(&token).map(|reply| (reply, response.into())));
                }
                NodeEffect::Halt { fault: seen } => fault = Some(seen),
            }
        }
        fault
    }

    fn publish(&mut self, fault: Option<&Fault>) {
        let (raft, facts) = (self.node.raft(), self.node.machine().facts());
        let waiting = self.node.waiting();
        let metrics = &self.metrics;
        self.status.send_if_modified(|status| {
            let before = (status.term, status.leader, status.applied_index, status.commit_index);
            let (old_facts, had_leader) = (status.facts, status.leader);
            status.term = raft.term().0;
            status.leader = raft.leader();
            status.is_leader = raft.is_leader();
            status.commit_index = raft.commit_index().0;
            status.applied_index = raft.last_applied().0;
            status.last_index = raft.log().last().index.0;
            status.leader_contact = raft.leader_contact();
            status.waiting = waiting;
            status.facts = facts;
            status.fault = fault.map(ToString::to_string);
            if *status.membership != *raft.membership() {
                status.membership = Arc::new(raft.membership().clone());
            }
            if status.leader.is_some() && status.leader != had_leader {
                metrics.leader_changes.fetch_add(1, Ordering::Relaxed);
            }
            let after = (status.term, status.leader, status.applied_index, status.commit_index);
            before != after || old_facts != facts || fault.is_some()
        });
    }
}

/// The disk is full: the leader is heard, but its entries have no place here. It sends them again.
/// Returns whether there were some.
fn leave_entries(message: &mut NodeMessage) -> bool {
    match message {
        NodeMessage::Raft(Message { body: Body::AppendEntries(append), .. }) => {
            !std::mem::take(&mut append.entries).is_empty()
        }
        _ => false,
    }
}

/// Takes the answers to a leader out of what came since: that nothing of its entries arrived would bring them
/// again at once, with all that follows them, in a storm that nothing ends but room. Heartbeats are answered.
fn forget_replies(effects: &mut Vec<NodeEffect>, since: usize) {
    let mut at = 0;
    effects.retain(|effect| {
        at += 1;
        let reply = matches!(effect, NodeEffect::Send { message: NodeMessage::Raft(message), .. }
            if matches!(message.body, Body::AppendEntriesReply(_)));
        at <= since || !reply
    });
}

/// The position of the snapshot that a write puts in the log's place.
fn installed_position(effect: &NodeEffect) -> Option<Position> {
    match effect {
        NodeEffect::Persist { write: Write::Snapshot(header), .. } => Some(header.position),
        _ => None,
    }
}

/// The first status, before the first round.
pub(crate) fn first_status<M: Machine>(node: &Node<M>) -> Status {
    let raft = node.raft();
    Status {
        term: raft.term().0,
        leader: None,
        is_leader: false,
        commit_index: raft.commit_index().0,
        applied_index: raft.last_applied().0,
        last_index: raft.log().last().index.0,
        leader_contact: None,
        membership: Arc::new(raft.membership().clone()),
        waiting: 0,
        facts: node.machine().facts(),
        fault: None,
    }
}

/// The queue of the thread that stores the own snapshots: one at a time.
pub(crate) fn snapshot_queue() -> (SyncSender<StoredSnapshot>, Receiver<StoredSnapshot>) {
    sync_channel(1)
}
