//! A replica that is a whole member, as on a server: the workers of `bowline-member`, each with its queue. The host plans
//! when each of them works; here is what they hand each other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bowline_kv::store::EngineError;
use bowline_member::{
    AppliedEntry, ApplyJob, Event, Fatal, Instruments, LogJob, LogStep, MAX_JOBS, OpenedMember, Outlet, Portion,
    Published, Queue, QueueBytes, Request, RequestBody, Round, Settings, SnapshotJob, Workers,
};
use bowline_node::{ConductorEffect, Failure, Job, NodeConfig, NodeInput, NodeMessage, Report, Response, Witness};
use bowline_raft::{ConfigError, Entry, Index, NodeId, Payload, Raft, ReadKind, SnapshotHeader, Time, Token, Write};
use bowline_storage::{DiskError, SimDisk, SpareJob};

use crate::cluster::dice::Dice;
use crate::cluster::leader_rules::Heard;
use crate::cluster::machine::{Machine, SCRUB_BUDGET, number_of};
use crate::cluster::plan::SECOND;

/// The version of the peer protocol of all simulated programs.
const PROGRAM: u32 = u32::MAX;

/// How many bytes may wait in its queues: so few that much more than that goes through one life of a process.
const QUEUE_BYTES: QueueBytes = QueueBytes { peers: 64 << 10, requests: 16 << 10 };

/// The state's file is rewritten only if somebody asks for it.
const NEVER_SHRINKS: u64 = u64::MAX;

/// After so many records and leases, a store writes to its file what waits.
const FLUSH_RECORDS: usize = 16;

/// No run is longer, in nanoseconds.
const LONGEST_PAUSE: u64 = 1_800 * SECOND;

/// Who works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Worker {
    Consensus,
    Log,
    /// Prepares a segment of the log.
    Segment,
    Apply,
    Snapshots,
}

impl Worker {
    pub(crate) const ALL: [Worker; 5] =
        [Worker::Consensus, Worker::Log, Worker::Segment, Worker::Apply, Worker::Snapshots];
}

/// What a job of the snapshots reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// The state, for a new snapshot.
    State,
    /// A piece of a snapshot, for a follower.
    Piece,
    /// What has arrived of a leader's snapshot.
    Received,
}

/// What came out of a worker.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) messages: Vec<(NodeId, NodeMessage)>,
    /// All writes up to the last of this job are durable.
    pub(crate) logged: Vec<LogStep>,
    /// The states that are durable.
    pub(crate) stored: Vec<SnapshotHeader>,
    /// Another state has replaced the one in use.
    pub(crate) replaced: bool,
    /// A new file holds the state.
    pub(crate) rewritten: bool,
    applied: Vec<AppliedEntry>,
    events: Vec<Event<Token>>,
    snapshot_jobs: Vec<SnapshotJob>,
    /// A report came before what it reports on.
    early: bool,
}

impl Outlet<Token> for Output {
    fn event(&mut self, event: Event<Token>) {
        if let Event::Report(Report::Applied { responses, .. }) = &event {
            self.early |= responses.len() > self.applied.len();
        }
        if let Event::StateStored(header) = &event {
            self.stored.push(header.clone());
        }
        self.events.push(event);
    }

    fn snapshot_job(&mut self, job: SnapshotJob) {
        self.rewritten |= matches!(job, SnapshotJob::Drop(_));
        self.snapshot_jobs.push(job);
    }

    fn send(&mut self, to: NodeId, message: NodeMessage) {
        self.messages.push((to, message));
    }

    fn applied(&mut self, applied: &[AppliedEntry], _: &Published) -> Result<(), EngineError> {
        self.applied.extend_from_slice(applied);
        Ok(())
    }

    fn replaced(&mut self, _: &Published) {
        self.replaced = true;
    }
}

/// An input that the consensus has taken.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The message, if it was one of the core.
    pub(crate) heard: Option<Heard>,
    /// It asks for the time of a lease, or keeps one alive.
    pub(crate) asks_lease: bool,
    /// What is written because of it.
    pub(crate) writes: Vec<Write>,
}

/// The process.
#[derive(Debug)]
pub(crate) struct Whole {
    workers: Workers<SimDisk, SimDisk, Token>,
    machine: Machine,
    queue: Queue<Token>,
    log_jobs: VecDeque<LogJob>,
    /// The steps that the log works on.
    logging: Vec<LogStep>,
    apply_jobs: VecDeque<ApplyJob<Token>>,
    snapshot_jobs: VecDeque<SnapshotJob>,
    segment: Option<SpareJob<SimDisk>>,
    /// The workers whose next work is planned.
    planned: BTreeMap<Worker, u64>,
}

impl Whole {
    /// Starts a member with what was found in its folder. `witness`: the last command in its state, and the digest after
    /// it.
    ///
    /// # Errors
    /// As [`Consensus::new`].
    pub(crate) fn new(
        config: NodeConfig,
        read_kind: ReadKind,
        opened: OpenedMember<SimDisk>,
        witness: (u64, u64),
        now: Time,
    ) -> Result<Whole, ConfigError> {
        let settings = Settings {
            read_kind,
            version: PROGRAM,
            shrink_bytes: NEVER_SHRINKS,
            flush_records: FLUSH_RECORDS,
            tidy_records: SCRUB_BUDGET,
        };
        let OpenedMember { recovery, log, state, .. } = opened;
        let unmeasured = Arc::new(()) as Arc<dyn Instruments>;
        let workers = Workers::new(config, &settings, recovery.recovered, log, state, &unmeasured, now)?;
        Ok(Whole {
            machine: Machine::on_disk(Arc::clone(&workers.shared), witness),
            workers,
            queue: Queue::with_room(QUEUE_BYTES),
            log_jobs: VecDeque::new(),
            logging: Vec::new(),
            apply_jobs: VecDeque::new(),
            snapshot_jobs: VecDeque::new(),
            segment: None,
            planned: BTreeMap::new(),
        })
    }

    pub(crate) fn raft(&self) -> &Raft {
        self.workers.consensus.conductor().raft()
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(crate) fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    pub(crate) fn set_witness(&mut self, witness: Witness) {
        self.workers.consensus.conductor_mut().set_witness(witness);
    }

    pub(crate) fn next_deadline(&self) -> Time {
        self.workers.consensus.next_deadline()
    }

    pub(crate) fn is_in_transfer(&self) -> bool {
        self.workers.consensus.conductor().is_in_transfer()
    }

    pub(crate) fn snapshot_bytes(&self) -> usize {
        usize::try_from(self.workers.consensus.conductor().snapshot_bytes()).unwrap_or(usize::MAX)
    }

    /// It takes no request any more.
    pub(crate) fn close(&mut self) {
        self.queue.close();
    }

    /// The consensus ends: what the waiting requests are told.
    pub(crate) fn stop(&mut self) -> Vec<(Token, Response)> {
        self.workers.consensus.stop().collect()
    }

    /// Whether nothing is on its way to the disk.
    pub(crate) fn is_idle(&self) -> bool {
        self.log_jobs.is_empty() && self.logging.is_empty() && self.apply_jobs.is_empty()
    }

    /// Puts an input into the queue. Returns a request that is refused at once.
    pub(crate) fn put(&mut self, input: NodeInput) -> Option<(Token, Failure)> {
        let (body, deadline, reply) = match input {
            NodeInput::Receive { from, message } => {
                // What has no room is lost, as the sender's connection would be stuck.
                let _ = self.queue.push_peer(from, message);
                return None;
            }
            NodeInput::Write { token, command, deadline } => (RequestBody::Write(command), deadline, token),
            NodeInput::Read { token, deadline, .. } => (RequestBody::Read, deadline, token),
            NodeInput::ChangeMembership { token, change } => (RequestBody::ChangeMembership(change), None, token),
            NodeInput::TransferLeadership { token, to } => (RequestBody::TransferLeadership(to), None, token),
            NodeInput::Wake | NodeInput::Persisted { .. } | NodeInput::SnapshotStored { .. } => return None,
        };
        self.request(body, deadline, reply)
    }

    /// Puts a request into the queue, or returns it refused.
    pub(crate) fn request(
        &mut self,
        body: RequestBody,
        deadline: Option<Time>,
        reply: Token,
    ) -> Option<(Token, Failure)> {
        self.queue.push_request(Request { body, deadline: deadline.unwrap_or(Time::NEVER), reply }).err()
    }
}

/// When the workers work.
impl Whole {
    /// Whether jobs wait for a worker.
    pub(crate) fn has_jobs(&self, worker: Worker) -> bool {
        match worker {
            Worker::Consensus => !self.queue.is_empty(),
            Worker::Log => !self.log_jobs.is_empty() || !self.logging.is_empty(),
            Worker::Segment => self.segment.is_some(),
            Worker::Apply => !self.apply_jobs.is_empty(),
            Worker::Snapshots => !self.snapshot_jobs.is_empty(),
        }
    }

    /// Whether a worker has something to do at once.
    pub(crate) fn has_work(&self, worker: Worker) -> bool {
        self.has_jobs(worker) || worker == Worker::Snapshots && self.workers.snapshots.is_rewriting()
    }

    /// When a worker must look again without new work, in nanoseconds from now.
    pub(crate) fn looks_again(&self, worker: Worker) -> Option<u64> {
        let pause = match worker {
            Worker::Apply => self.workers.apply.pause(),
            Worker::Log => self.workers.log.pause(),
            Worker::Consensus | Worker::Segment | Worker::Snapshots => return None,
        };
        u64::try_from(pause.as_nanos()).ok().filter(|pause| *pause < LONGEST_PAUSE)
    }

    /// Plans a worker's next work, unless it is planned for an earlier time. Returns whether it was planned.
    pub(crate) fn plan(&mut self, worker: Worker, at: u64) -> bool {
        if self.planned.get(&worker).is_some_and(|planned| *planned <= at) {
            return false;
        }
        self.planned.insert(worker, at);
        true
    }

    /// Whether a worker's work was planned for this time or, while the process was paused, for an earlier one. It begins
    /// now.
    pub(crate) fn begins(&mut self, worker: Worker, now: u64) -> bool {
        let due = self.planned.get(&worker).is_some_and(|planned| *planned <= now);
        if due {
            self.planned.remove(&worker);
        }
        due
    }
}

/// A round of the consensus.
impl Whole {
    /// Begins with a portion of the queue.
    pub(crate) fn begin_round(&mut self, now: Time, most: usize) -> Portion<Token> {
        self.workers.consensus.begin(now);
        self.queue.take_at_most(most)
    }

    /// Takes the next input of the portion; `None` if there is none left.
    pub(crate) fn take_input(&mut self, now: Time, portion: &mut Portion<Token>) -> Option<Taken> {
        let (consensus, mut heard, mut asks_lease) = (&mut self.workers.consensus, None, false);
        let before = consensus.effects().len();
        if let Some(event) = portion.events.pop_front() {
            consensus.take_event(now, event);
        } else if let Some((peer, message)) = portion.peers.pop_front() {
            heard = Heard::of(peer, &message, consensus.conductor().raft());
            consensus.take_message(now, peer, message);
        } else {
            let request = portion.requests.pop_front()?;
            asks_lease = matches!(request.body, RequestBody::Lease { .. });
            consensus.take_request(now, request);
        }
        let write = |effect: &ConductorEffect| match effect {
            ConductorEffect::Persist { write, .. } => Some(write.clone()),
            _ => None,
        };
        Some(Taken { heard, asks_lease, writes: consensus.effects()[before..].iter().filter_map(write).collect() })
    }

    pub(crate) fn finish_round(&mut self, now: Time) -> Round<Token> {
        self.workers.consensus.finish(now)
    }

    /// Hands over the jobs of a round.
    pub(crate) fn hand_over(&mut self, round: &mut Round<Token>) {
        let log = std::mem::take(&mut round.log);
        if !log.is_empty() {
            self.log_jobs.push_back(log);
        }
        self.apply_jobs.extend(round.apply.drain(..));
        self.snapshot_jobs.extend(round.snapshots.drain(..));
        round.events.drain(..).for_each(|event| self.queue.push_event(event));
    }
}

/// The work of the others.
impl Whole {
    /// Begins to write a part of the waiting jobs, unless the log works already.
    pub(crate) fn begin_logging(&mut self, share: u64) {
        if !self.logging.is_empty() || self.log_jobs.is_empty() {
            return;
        }
        let all = self.log_jobs.len().min(MAX_JOBS);
        let count = (all * share as usize).div_ceil(100).clamp(1, all);
        for job in self.log_jobs.drain(..count) {
            self.logging.extend_from_slice(&job.steps);
            self.workers.log.take(job);
        }
    }

    /// Ends the work that was begun. `None`: the disk has no room for it now.
    ///
    /// # Errors
    /// The member can't go on.
    pub(crate) fn end_logging(&mut self) -> Result<Option<Output>, Fatal> {
        let mut output = Output::default();
        if !self.workers.log.work(&mut output)? {
            return Ok(None);
        }
        output.logged = std::mem::take(&mut self.logging);
        if self.segment.is_none() {
            self.segment = self.workers.log.tend()?;
        }
        self.workers.shared.set_log_room(self.workers.log.has_room());
        self.settle(&mut output);
        Ok(Some(output))
    }

    /// Prepares a segment of the log.
    pub(crate) fn prepare_segment(&mut self) {
        if let Some(job) = self.segment.take() {
            let outcome: Result<(), DiskError> = job.run();
            self.workers.log.prepared(outcome);
            self.workers.shared.set_log_room(self.workers.log.has_room());
        }
    }

    /// Does the next job of the state, and what is due there.
    ///
    /// # Errors
    /// The member can't go on.
    pub(crate) fn work_on_state(&mut self, now: Time) -> Result<Output, Fatal> {
        let (job, mut output) = (self.apply_jobs.pop_front(), Output::default());
        let entries = match &job {
            Some(ApplyJob::Of(Job::Apply { entries })) => entries.clone(),
            _ => Vec::new(),
        };
        self.workers.apply.work(now, job, &mut output)?;
        if output.early {
            return Err(Fatal("a command was reported before its writes were told".to_owned()));
        }
        for applied in std::mem::take(&mut output.applied) {
            let (op, own) = origin(&entries, applied.index);
            self.machine.note(op, own, applied);
        }
        self.settle(&mut output);
        Ok(output)
    }

    /// What the next job of the snapshots reads; `None` if it reads nothing.
    pub(crate) fn reads_next(&self) -> Option<Reads> {
        match self.snapshot_jobs.front()? {
            SnapshotJob::Dump(..) => Some(Reads::State),
            SnapshotJob::Other(Job::Restore { .. }) => Some(Reads::Received),
            SnapshotJob::Other(Job::Send { .. }) => Some(Reads::Piece),
            SnapshotJob::Other(_) | SnapshotJob::Rewrite | SnapshotJob::Drop(_) => None,
        }
    }

    /// Does the next job of the snapshots.
    ///
    /// # Errors
    /// The member can't go on.
    pub(crate) fn work_on_snapshots(&mut self) -> Result<Output, Fatal> {
        let mut output = Output::default();
        self.workers.snapshots.work(self.snapshot_jobs.pop_front(), &mut output)?;
        self.settle(&mut output);
        Ok(output)
    }

    fn settle(&mut self, output: &mut Output) {
        output.events.drain(..).for_each(|event| self.queue.push_event(event));
        self.snapshot_jobs.extend(output.snapshot_jobs.drain(..));
    }

    /// The process dies in the middle of the work of some of the workers, and nobody hears of what they still did.
    /// Returns the steps of the log that were under way, and how many had not been begun. `on_state`: whether it may
    /// still work on the state's file.
    pub(crate) fn die_amid(&mut self, now: Time, on_state: bool, dice: &mut Dice) -> (Vec<LogStep>, usize) {
        let never_begun = self.log_jobs.iter().map(|job| job.steps.len()).sum();
        let logging = std::mem::take(&mut self.logging);
        let mut workers = vec![Worker::Log, Worker::Apply, Worker::Snapshots];
        dice.shuffle(&mut workers);
        for worker in workers {
            let mut unheard = Output::default();
            match worker {
                Worker::Log if !logging.is_empty() => _ = self.workers.log.work(&mut unheard),
                Worker::Apply if on_state && dice.percent(70) => {
                    _ = self.workers.apply.work(now, self.apply_jobs.pop_front(), &mut unheard);
                }
                Worker::Snapshots if on_state && dice.percent(70) => {
                    _ = self.workers.snapshots.work(self.snapshot_jobs.pop_front(), &mut unheard);
                }
                _ => {}
            }
        }
        (logging, never_begun)
    }
}

/// Who proposed the command at this index: the number of the operation, or the command of the member itself.
fn origin(entries: &[Entry], index: Index) -> (u64, Option<bytes::Bytes>) {
    let entry = entries.iter().find(|entry| entry.index == index);
    let Some(Payload::Command(command)) = entry.map(|entry| &entry.payload) else { return (u64::MAX, None) };
    match number_of(command) {
        Some(op) => (op, None),
        None => (u64::MAX, Some(command.clone())),
    }
}
