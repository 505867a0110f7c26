//! Drives the core, tracks the open requests, and tracks the snapshots on their way.

use std::collections::{BTreeMap, VecDeque};

use bowline_raft::{
    Body, ConfigError, Effect, Effects, Index, Input, InstallSnapshot, Message, NodeId, Outcome, Raft, Recovered,
    SnapshotHeader, Time, Token, Write,
};
use bytes::Bytes;

use crate::failure::Failure;
use crate::input::{NodeConfig, NodeInput, Witness};
use crate::job::{ConductorEffect, Job, Report};
use crate::message::{NodeMessage, SnapshotChunk, SnapshotTransfer};
use crate::snapshot_transfer::{Incoming, Outgoing, Stage, Taken};

/// What a client waits for.
#[derive(Clone, Debug)]
enum Waiting {
    /// A write; `proposed_at` is the index of the entry that carries the command.
    Write { command: Bytes, proposed_at: Index },
    /// Any other request, of which nothing must be kept.
    Other,
}

/// One replica without its state machine. It knows up to which index the state machine has applied the log, but
/// nothing of its contents, and it holds no bytes of snapshots. It emits the work on both as [`Job`]s. The results
/// come back as [`Report`]s, at once or much later, while other inputs go on.
///
/// A host calls [`Conductor::handle`] and [`Conductor::report`] as things happen, and [`Conductor::tend`] after all
/// inputs and reports at hand.
pub struct Conductor {
    config: NodeConfig,
    raft: Raft,
    waiting: BTreeMap<Token, Waiting>,
    /// The index that the state machine reaches with the jobs given so far.
    given: Index,
    /// The index of the latest state that was to be stored or dumped.
    dumped: Index,
    /// The host is storing a state or a snapshot: it is not asked for another one meanwhile.
    keeping: bool,
    outgoing: Outgoing,
    incoming: Option<Incoming>,
    /// The snapshot that was restored in full, with its size, while the core decides about it.
    restored: Option<(SnapshotHeader, u64)>,
    /// The same after the core has accepted it, until its record in the log is durable.
    accepted: Option<(SnapshotHeader, u64)>,
    /// Responses of the machine to commands that the core doesn't know to be applied yet.
    responses: BTreeMap<Index, Bytes>,
    effects: Effects,
    /// Inputs for the core, handled next; empty between inputs, and kept for its memory.
    queue: VecDeque<Input>,
    witness: Option<Witness>,
}

impl std::fmt::Debug for Conductor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conductor").field("raft", &self.raft).finish_non_exhaustive()
    }
}

impl Conductor {
    /// A replica that starts, with a state machine that contains everything up to `recovered.applied`.
    ///
    /// # Errors
    /// The configuration is out of range, or what was recovered contradicts itself.
    pub fn new(config: NodeConfig, recovered: Recovered, now: Time) -> Result<Conductor, ConfigError> {
        let applied = recovered.applied;
        let raft = Raft::new(config.raft.clone(), recovered, now)?;
        Ok(Conductor {
            raft,
            waiting: BTreeMap::new(),
            given: applied,
            dumped: applied,
            keeping: false,
            outgoing: Outgoing::new(config.chunk_bytes, config.chunk_retry_after),
            incoming: None,
            restored: None,
            accepted: None,
            responses: BTreeMap::new(),
            effects: Effects::new(),
            queue: VecDeque::new(),
            witness: None,
            config,
        })
    }

    /// Called at the start if the host has a snapshot, of `bytes` bytes, ready to be sent.
    pub fn holds(&mut self, header: SnapshotHeader, bytes: u64) {
        let wanted = self.outgoing.ready(header, bytes, Index(0));
        assert!(wanted.is_empty(), "nobody waits at the start");
    }

    /// Called at the start if the host has kept a part of a snapshot that was arriving. If its sender still sends it,
    /// the transfer continues from there.
    pub fn resume(&mut self, incoming: Incoming) {
        self.incoming = Some(incoming);
    }

    /// Takes one input and appends the effects to `out`.
    pub fn handle(&mut self, now: Time, input: NodeInput, out: &mut Vec<ConductorEffect>) {
        if self.raft.fault().is_some() {
            return refuse_after_halt(&input, out);
        }
        match input {
            NodeInput::Wake => self.tell_core(now, Input::Wake, out),
            NodeInput::Receive {
                message: NodeMessage::Raft(Message { body: Body::InstallSnapshot(_), .. }), ..
            } => {
                // Ignored: this replica itself announces a snapshot to the core, when all its pieces have arrived.
            }
            NodeInput::Receive { from, message: NodeMessage::Raft(message) } => {
                self.tell_core(now, Input::Receive { from, message }, out);
            }
            NodeInput::Receive { from, message: NodeMessage::Chunk(chunk) } => self.take_chunk(from, chunk, out),
            NodeInput::Receive { from, message: NodeMessage::ChunkReply(reply) } => {
                if let Some(delivered) = self.outgoing.answered(now, self.raft.term(), from, &reply) {
                    self.tell_core(now, delivered, out);
                }
            }
            NodeInput::Write { token, command, deadline } => {
                // If the core accepts the command, it becomes the next entry.
                let proposed_at = self.raft.log().last().index.next();
                self.waiting.insert(token, Waiting::Write { command: command.clone(), proposed_at });
                self.tell_core(now, Input::Propose { token, command, deadline }, out);
            }
            NodeInput::Read { token, kind, deadline } => {
                self.waiting.insert(token, Waiting::Other);
                self.tell_core(now, Input::Read { token, kind, deadline }, out);
            }
            NodeInput::ChangeMembership { token, change } => {
                self.waiting.insert(token, Waiting::Other);
                self.tell_core(now, Input::ChangeMembership { token, change }, out);
            }
            NodeInput::TransferLeadership { token, to } => {
                self.waiting.insert(token, Waiting::Other);
                self.tell_core(now, Input::TransferLeadership { token, to }, out);
            }
            NodeInput::Persisted { up_to } => self.tell_core(now, Input::Persisted { up_to }, out),
            NodeInput::SnapshotStored { index } => {
                self.keeping = false;
                // A leader's snapshot may be stored before it is installed. The log is reset already then, and needs
                // no compaction.
                if index <= self.raft.last_applied() {
                    self.tell_core(now, Input::SnapshotStored { index }, out);
                }
            }
        }
    }

    /// Takes the report of a job.
    pub fn report(&mut self, now: Time, report: Report, out: &mut Vec<ConductorEffect>) {
        if self.raft.fault().is_some() {
            return;
        }
        match report {
            Report::Applied { index, responses } => {
                self.responses.extend(responses);
                self.tell_core(now, Input::Applied { index }, out);
                // The requests that waited for these have been answered.
                self.responses = self.responses.split_off(&index.next());
            }
            Report::Ready { header, bytes } => {
                let failed = self.outgoing.ready(header, bytes, self.raft.log().base().index);
                self.tell_core_all(now, failed, out);
            }
            Report::NotReady => {
                let failed = self.outgoing.not_made();
                self.tell_core_all(now, failed, out);
            }
            Report::Unreadable { index } => {
                let failed = self.outgoing.unreadable(index);
                self.tell_core_all(now, failed, out);
            }
            Report::Added { transfer, received } => self.added(transfer, received, out),
            Report::Restored { transfer, whole } => self.take_restored(now, transfer, whole, out),
        }
    }

    /// Sends what is due, and has the state stored if the log has grown enough. To be called after all inputs and
    /// reports at hand, and at [`Conductor::next_deadline`].
    pub fn tend(&mut self, now: Time, out: &mut Vec<ConductorEffect>) {
        let halted = self.raft.fault().is_some();
        if !halted {
            self.keep_if_due(out);
        }
        if !self.raft.is_leader() || halted {
            self.outgoing.clear();
        }
        self.outgoing.send_due(now, self.raft.term(), out);
        self.outgoing.release(self.raft.log().base().index, out);
    }

    /// When to call [`Conductor::handle`] with [`NodeInput::Wake`], and then [`Conductor::tend`], at the
    /// latest.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        self.raft.next_deadline().min(self.outgoing.next_deadline())
    }

    /// Lets `witness` see each step of the core from now on.
    pub fn set_witness(&mut self, witness: Witness) {
        self.witness = Some(witness);
    }

    /// The consensus core.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The last index that the state machine contains once it has done all jobs given so far.
    #[must_use]
    pub fn given(&self) -> Index {
        self.given
    }

    /// Whether a snapshot is on its way, from or to this replica.
    #[must_use]
    pub fn is_in_transfer(&self) -> bool {
        self.incoming.is_some() || !self.outgoing.is_empty()
    }

    /// Bytes of the latest snapshot that is held ready; 0 if there is none.
    #[must_use]
    pub fn snapshot_bytes(&self) -> u64 {
        self.outgoing.latest_bytes()
    }

    /// How many requests wait for their answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn tell_core_all(&mut self, now: Time, inputs: Vec<Input>, out: &mut Vec<ConductorEffect>) {
        inputs.into_iter().for_each(|input| self.tell_core(now, input, out));
    }

    /// Hands the core an input and passes on its effects.
    fn tell_core(&mut self, now: Time, input: Input, out: &mut Vec<ConductorEffect>) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.push_back(input);
        while let Some(input) = queue.pop_front() {
            let mut effects = std::mem::take(&mut self.effects);
            self.step_core(now, input, &mut effects);
            for effect in effects.drain() {
                self.pass_on(effect, &mut queue, out);
            }
            self.effects = effects;
        }
        self.queue = queue;
    }

    /// One step of the core.
    fn step_core(&mut self, now: Time, input: Input, effects: &mut Effects) {
        let seen = self.witness.is_some().then(|| input.clone());
        self.raft.handle(now, input, effects);
        if let Some((witness, input)) = self.witness.as_mut().zip(seen) {
            witness(now, &input, effects.as_slice(), &self.raft);
        }
    }

    fn pass_on(&mut self, effect: Effect, queue: &mut VecDeque<Input>, out: &mut Vec<ConductorEffect>) {
        match effect {
            Effect::Persist { id, write } => {
                if let Write::Snapshot(header) = &write {
                    let restored = self.restored.take().filter(|(restored, _)| restored == header);
                    self.accepted = Some(restored.expect("the core takes what has just arrived"));
                    self.keeping = true;
                    out.push(ConductorEffect::Do(Job::Accept { header: header.clone() }));
                }
                out.push(ConductorEffect::Persist { id, write });
            }
            Effect::Send { to, message, after } => {
                out.push(ConductorEffect::Send { to, message: NodeMessage::Raft(message), after });
            }
            Effect::Apply { entries } => {
                self.given = entries.last().map_or(self.given, |last| last.index);
                out.push(ConductorEffect::Do(Job::Apply { entries }));
            }
            Effect::Answer { token, outcome } => out.push(self.answer(token, outcome)),
            Effect::FetchSnapshot { to, session } => {
                let base = self.raft.log().base().index;
                match self.outgoing.fetch(to, session, base, || self.raft.snapshot_header(self.given)) {
                    Ok(None) => {}
                    Ok(Some(header)) => {
                        self.dumped = header.position.index;
                        out.push(ConductorEffect::Do(Job::Dump { header }));
                    }
                    Err(()) => queue.push_back(Input::SnapshotSent { to, session, delivered: false }),
                }
            }
            Effect::InstallSnapshot { snapshot } => self.install(snapshot, out),
            Effect::Halt { fault } => out.push(ConductorEffect::Halt { fault }),
        }
    }

    /// Answers a client, or has the state machine answer it.
    fn answer(&mut self, token: Token, outcome: Outcome) -> ConductorEffect {
        let waiting = self.waiting.remove(&token).expect("the core answers each request once");
        let response = match (outcome, waiting) {
            (Outcome::Done { position }, _) => Ok(self.responses.remove(&position.index).unwrap_or_default()),
            (Outcome::Expired, Waiting::Write { command, proposed_at }) => {
                // The state machine may know what became of the write.
                let contains = self.dumped.max(self.raft.last_applied());
                return ConductorEffect::Do(Job::Recall { token, command, proposed_at, contains });
            }
            (outcome, _) => Failure::of(&outcome).map_or(Ok(Bytes::new()), Err),
        };
        ConductorEffect::Respond { token, response }
    }
}

/// Snapshots: made, received and installed.
impl Conductor {
    /// Has the state stored when the log has grown enough since the last time (section 7).
    fn keep_if_due(&mut self, out: &mut Vec<ConductorEffect>) {
        if self.keeping || self.given <= self.dumped || self.raft.log().bytes() <= self.config.snapshot_at_bytes {
            return;
        }
        // There is no header while a leader's snapshot has replaced the log, but not yet the state machine.
        let Some(header) = self.raft.snapshot_header(self.given) else { return };
        self.dumped = header.position.index;
        self.keeping = true;
        out.push(ConductorEffect::Do(Job::StoreState { header }));
    }

    fn take_chunk(&mut self, from: NodeId, chunk: SnapshotChunk, out: &mut Vec<ConductorEffect>) {
        if chunk.term < self.raft.term() || chunk.total > self.config.max_snapshot_bytes {
            return;
        }
        let incoming = match self.incoming.take() {
            Some(incoming) if incoming.is_continued_by(from, &chunk) => incoming,
            _ => Incoming::new(from, &chunk),
        };
        match self.incoming.insert(incoming).take(chunk) {
            Taken::Add(chunk) => out.push(ConductorEffect::Do(Job::Add { from, chunk })),
            Taken::Reply(reply) => {
                let message = NodeMessage::ChunkReply(reply);
                out.push(ConductorEffect::Send { to: from, message, after: None });
            }
            Taken::Nothing => {}
        }
    }

    fn added(&mut self, transfer: SnapshotTransfer, received: u64, out: &mut Vec<ConductorEffect>) {
        let Some(incoming) = self.incoming.as_mut().filter(|incoming| incoming.transfer == transfer) else { return };
        if incoming.stage != Stage::Adding {
            return;
        }
        incoming.received = received.min(incoming.total);
        if incoming.received == incoming.total {
            incoming.stage = Stage::Restoring;
            out.push(ConductorEffect::Do(Job::Restore { transfer, header: incoming.header.clone() }));
        } else {
            incoming.stage = Stage::Open;
            self.reply(out);
        }
    }

    fn take_restored(&mut self, now: Time, transfer: SnapshotTransfer, whole: bool, out: &mut Vec<ConductorEffect>) {
        let awaited = |incoming: &&mut Incoming| incoming.transfer == transfer && incoming.stage == Stage::Restoring;
        let Some(incoming) = self.incoming.as_mut().filter(awaited) else {
            // Another transfer has replaced this one meanwhile.
            out.push(ConductorEffect::Do(Job::Discard { transfer }));
            return;
        };
        if !whole {
            // Bytes that can't be restored are not a snapshot: the next piece starts the transfer again.
            self.incoming = None;
            return;
        }
        incoming.stage = Stage::Finished;
        let header = incoming.header.clone();
        self.restored = Some((header.clone(), incoming.total));
        let body = Body::InstallSnapshot(InstallSnapshot { session: transfer.session, snapshot: header });
        let message = Message { term: transfer.term, body };
        self.tell_core(now, Input::Receive { from: transfer.from, message }, out);
        if self.restored.take().is_some() {
            // The core has not accepted it, mostly because its log already has all of it.
            out.push(ConductorEffect::Do(Job::Discard { transfer }));
        }
        self.reply(out);
    }

    fn reply(&self, out: &mut Vec<ConductorEffect>) {
        if let Some(incoming) = &self.incoming {
            let message = NodeMessage::ChunkReply(incoming.reply());
            out.push(ConductorEffect::Send { to: incoming.transfer.from, message, after: None });
        }
    }

    /// The record in the log of an accepted snapshot is durable: the snapshot replaces the state machine.
    fn install(&mut self, snapshot: SnapshotHeader, out: &mut Vec<ConductorEffect>) {
        let accepted = self.accepted.take().filter(|(header, _)| *header == snapshot);
        let (header, bytes) = accepted.expect("the core installs what it has decided for");
        let index = header.position.index;
        (self.given, self.dumped) = (index, index);
        out.push(ConductorEffect::Do(Job::Install { header: header.clone() }));
        // A follower sends no snapshots, so no peer can have waited for this one.
        self.outgoing.ready(header, bytes, index);
    }
}

/// A stopped replica ignores everything else, but leaves no client without an answer (law 5).
fn refuse_after_halt(input: &NodeInput, out: &mut Vec<ConductorEffect>) {
    if let NodeInput::Write { token, .. }
    | NodeInput::Read { token, .. }
    | NodeInput::ChangeMembership { token, .. }
    | NodeInput::TransferLeadership { token, .. } = input
    {
        let response = Err(Failure::not_leader(None));
        out.push(ConductorEffect::Respond { token: *token, response });
    }
}
