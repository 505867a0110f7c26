//! Consensus, who waits for what, and which piece of which snapshot is where.

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
    /// `proposed_at` is the index of the entry that carries the command.
    Write { command: Bytes, proposed_at: Index },
    /// It needs nothing to be kept of it.
    Other,
}

/// One replica without its state machine: it knows how far that is, never what is in it, and holds no
/// byte of a snapshot. What is to be done with them it says as [`Job`]s; what became of them it is told
/// by [`Report`]s, at once or much later, while other inputs go on.
///
/// A host calls [`Conductor::handle`] and [`Conductor::report`] as things happen, and
/// [`Conductor::tend`] when it has told everything that it has at hand.
pub struct Conductor {
    config: NodeConfig,
    raft: Raft,
    waiting: BTreeMap<Token, Waiting>,
    /// What the machine has been given to do, and no more, brings it to here.
    given: Index,
    /// The latest state that was made durable by itself, or dumped.
    dumped: Index,
    /// The host is making one durable: it is given no other meanwhile.
    keeping: bool,
    outgoing: Outgoing,
    incoming: Option<Incoming>,
    /// What was restored in full, while the core decides about it.
    restored: Option<(SnapshotHeader, u64)>,
    /// The same, once the core has decided for it, until its mark in the log is durable.
    accepted: Option<(SnapshotHeader, u64)>,
    /// What the machine said to commands that the core doesn't know to be applied yet.
    responses: BTreeMap<Index, Bytes>,
    effects: Effects,
    /// What the core is to be told next; empty between inputs, kept for its memory.
    queue: VecDeque<Input>,
    witness: Option<Witness>,
}

impl std::fmt::Debug for Conductor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conductor").field("raft", &self.raft).finish_non_exhaustive()
    }
}

impl Conductor {
    /// A replica that starts, whose state machine contains everything up to `recovered.applied`.
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

    /// At its start: the host holds a snapshot ready to be sent, of so many bytes.
    pub fn holds(&mut self, header: SnapshotHeader, bytes: u64) {
        let wanted = self.outgoing.ready(header, bytes, Index(0));
        assert!(wanted.is_empty(), "nobody waits at the start");
    }

    /// At its start: the host has kept a part of a snapshot that was arriving. If its sender still
    /// sends it, it goes on from there.
    pub fn resume(&mut self, incoming: Incoming) {
        self.incoming = Some(incoming);
    }

    /// Takes one input and appends what is to be done to `out`.
    pub fn handle(&mut self, now: Time, input: NodeInput, out: &mut Vec<ConductorEffect>) {
        if self.raft.fault().is_some() {
            return refuse_after_halt(&input, out);
        }
        match input {
            NodeInput::Wake => self.tell_core(now, Input::Wake, out),
            NodeInput::Receive {
                message: NodeMessage::Raft(Message { body: Body::InstallSnapshot(_), .. }), ..
            } => {
                // Only a snapshot whose pieces have all arrived is announced to the core, by this
                // replica itself.
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
                // If the core takes it, it is the next entry.
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
                // A leader's snapshot can be stored before it is installed: then the log is reset
                // already, and there is nothing to compact.
                if index <= self.raft.last_applied() {
                    self.tell_core(now, Input::SnapshotStored { index }, out);
                }
            }
        }
    }

    /// Takes what became of a job.
    pub fn report(&mut self, now: Time, report: Report, out: &mut Vec<ConductorEffect>) {
        if self.raft.fault().is_some() {
            return;
        }
        match report {
            Report::Applied { index, responses } => {
                self.responses.extend(responses);
                self.tell_core(now, Input::Applied { index }, out);
                // Whoever waited for these has been answered.
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

    /// Sends what is due, and has the state made durable if the log has grown enough. To be called when
    /// all inputs and reports at hand have been taken, and at [`Conductor::next_deadline`].
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

    /// What the state machine contains once it has done what it was given to do.
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

    /// Hands the core an input and passes on what it says.
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

    /// Gives a client its answer, or has it given.
    fn answer(&mut self, token: Token, outcome: Outcome) -> ConductorEffect {
        let waiting = self.waiting.remove(&token).expect("the core answers each request once");
        let response = match (outcome, waiting) {
            (Outcome::Done { position }, _) => Ok(self.responses.remove(&position.index).unwrap_or_default()),
            (Outcome::Expired, Waiting::Write { command, proposed_at }) => {
                // The state itself may know what became of it.
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
    /// Has the state made durable when the log has grown enough since the last time (section 7).
    fn keep_if_due(&mut self, out: &mut Vec<ConductorEffect>) {
        if self.keeping || self.given <= self.dumped || self.raft.log().bytes() <= self.config.snapshot_at_bytes {
            return;
        }
        // None while a leader's snapshot has taken the log's place, but not yet the state machine's.
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
            // Another transfer has taken its place meanwhile.
            out.push(ConductorEffect::Do(Job::Discard { transfer }));
            return;
        };
        if !whole {
            // What can't be restored is no snapshot: it is asked for again, from the start.
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
            // The core had it all, or knows better by now.
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

    /// The mark of a snapshot that the core has decided for is durable: it takes the machine's place.
    fn install(&mut self, snapshot: SnapshotHeader, out: &mut Vec<ConductorEffect>) {
        let accepted = self.accepted.take().filter(|(header, _)| *header == snapshot);
        let (header, bytes) = accepted.expect("the core installs what it has decided for");
        let index = header.position.index;
        (self.given, self.dumped) = (index, index);
        out.push(ConductorEffect::Do(Job::Install { header: header.clone() }));
        // To a follower nobody is sent anything, so nobody can have waited for it.
        self.outgoing.ready(header, bytes, index);
    }
}

/// A replica that has stopped ignores everything, but leaves no client without an answer (law 5).
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
