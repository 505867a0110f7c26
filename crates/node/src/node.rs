//! The replica: what goes in, what comes out, and who waits for what.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bowline_raft::probe::{Probe, hit};
use bowline_raft::{
    Body, Config, ConfigError, Effect, Effects, Entry, Fault, Index, Input, InstallSnapshot, MembershipChange, Message,
    NodeId, Outcome, Payload, PersistId, Raft, ReadKind, Recovered, Refusal, SnapshotHeader, Time, Token, Write,
};
use bytes::Bytes;

use crate::machine::{Recall, StateMachine};
use crate::snapshots::{Incoming, Received, Senders, SnapshotChunk, SnapshotChunkReply, StoredSnapshot};

/// The tunable parts of a replica.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// The consensus core's part.
    pub raft: Config,
    /// A snapshot is made when the log's tail exceeds this many bytes; should be well above the
    /// core's `max_retained_bytes`, or each entry would bring one.
    pub snapshot_at_bytes: usize,
    /// Most bytes of a snapshot in one message.
    pub chunk_bytes: usize,
    /// Largest snapshot that is accepted from a leader, in bytes.
    pub max_snapshot_bytes: u64,
    /// How long a piece of a snapshot may stay unanswered before it is sent again.
    pub chunk_retry_after: Duration,
}

impl NodeConfig {
    /// Defaults around a configuration of the core.
    #[must_use]
    pub fn new(raft: Config) -> NodeConfig {
        NodeConfig {
            snapshot_at_bytes: raft.max_retained_bytes.saturating_mul(2),
            chunk_bytes: 256 << 10,
            max_snapshot_bytes: 4 << 30,
            chunk_retry_after: raft.retry_after,
            raft,
        }
    }
}

/// What a replica finds on its disk when it starts.
#[derive(Clone, Debug, Default)]
pub struct RecoveredNode {
    /// The core's part. Its `applied` is taken from the snapshot: the state machine starts there.
    pub raft: Recovered,
    /// The data of the snapshot that `raft` names; `None` if that is the empty state of a founding
    /// member.
    pub snapshot: Option<Bytes>,
}

/// A message between two replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeMessage {
    /// The core's.
    Raft(Message),
    /// A piece of a snapshot.
    Chunk(SnapshotChunk),
    /// The answer to one.
    ChunkReply(SnapshotChunkReply),
}

/// Something that happened, told to the replica by its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeInput {
    /// The time of [`Node::next_deadline`] has come.
    Wake,
    /// A message from another replica arrived; the host vouches for the sender.
    Receive {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: NodeMessage,
    },
    /// A client writes.
    Write {
        /// The host's name for the request.
        token: Token,
        /// For the state machine.
        command: Bytes,
        /// When to give up waiting, if ever.
        deadline: Option<Time>,
    },
    /// A client reads.
    Read {
        /// The host's name for the request.
        token: Token,
        /// For the state machine.
        query: Bytes,
        /// How fresh the answer must be.
        consistency: Consistency,
        /// When to give up waiting, if ever.
        deadline: Option<Time>,
    },
    /// An operator wants other members.
    ChangeMembership {
        /// The host's name for the request.
        token: Token,
        /// What to change.
        change: MembershipChange,
    },
    /// An operator wants another leader.
    TransferLeadership {
        /// The host's name for the request.
        token: Token,
        /// Who shall lead; the most up-to-date voter if none is named.
        to: Option<NodeId>,
    },
    /// Every [`NodeEffect::Persist`] up to this one is durable.
    Persisted {
        /// The last durable one.
        up_to: PersistId,
    },
    /// The snapshot of a [`NodeEffect::StoreSnapshot`] is durable.
    SnapshotStored {
        /// Its last index.
        index: Index,
    },
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every write that was acknowledged before it began.
    Linearizable(ReadKind),
    /// It sees some earlier state of this replica.
    Serializable,
}

/// Something that the host must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeEffect {
    /// Make this durable, in the order of the ids.
    Persist {
        /// Its place in the stream.
        id: PersistId,
        /// What to write.
        write: Write,
    },
    /// Store a snapshot, then say [`NodeInput::SnapshotStored`]. One that precedes the
    /// [`Write::Snapshot`] of the same position must be durable before that write.
    StoreSnapshot {
        /// The snapshot.
        snapshot: StoredSnapshot,
    },
    /// Send a message, but not before the write that it promises is durable.
    Send {
        /// The receiver.
        to: NodeId,
        /// What to say.
        message: NodeMessage,
        /// What must be durable first; `None`: nothing.
        after: Option<PersistId>,
    },
    /// Answer a request; each exactly once.
    Respond {
        /// The request.
        token: Token,
        /// The answer.
        response: Response,
    },
    /// This replica must stop for good. Every request that was open has been answered; a later one
    /// is answered [`Response::NotLeader`] at once, and nothing else is taken.
    Halt {
        /// Why.
        fault: Fault,
    },
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// It was done; this is what the state machine says.
    Done(Bytes),
    /// This replica doesn't lead; nothing was done.
    NotLeader {
        /// Who leads, as far as it knows.
        leader: Option<NodeId>,
    },
    /// A bound is reached; nothing was done.
    Overloaded {
        /// Which bound.
        limit: &'static str,
    },
    /// Another leader's entry took the place of the write's: it did not and will not take effect.
    Superseded,
    /// It may or may not have taken effect.
    Expired,
    /// It can't be granted; nothing was done.
    Refused(Refusal),
}

/// What a client waits for.
#[derive(Clone, Debug)]
enum Waiting {
    /// `proposed_at` is the index of the entry that carries the command.
    Write {
        command: Bytes,
        proposed_at: Index,
    },
    Read {
        query: Bytes,
    },
    Operation,
}

/// Sees each step of a replica's core: the time, the input, the effects, and the core after it.
pub type Witness = Box<dyn FnMut(Time, &Input, &[Effect], &Raft) + Send>;

/// One replica.
pub struct Node<S> {
    config: NodeConfig,
    raft: Raft,
    machine: S,
    waiting: BTreeMap<Token, Waiting>,
    /// The latest snapshot of the own state machine, or the leader's that replaced it.
    stored: Option<StoredSnapshot>,
    /// A snapshot is being stored by the host: no other is made meanwhile.
    storing: bool,
    senders: Senders,
    incoming: Option<Incoming>,
    /// A snapshot that arrived in full, with the machine restored from it, until the core decides.
    arrived: Option<(StoredSnapshot, S)>,
    /// The same, once the core has decided for it, until its mark in the log is durable.
    installing: Option<(StoredSnapshot, S)>,
    /// What the machine said to commands that the core doesn't know to be applied yet.
    responses: BTreeMap<Index, Bytes>,
    effects: Effects,
    /// What the core is to be told next; empty between inputs, kept for its memory.
    queue: VecDeque<Input>,
    witness: Option<Witness>,
}

impl<S: std::fmt::Debug> std::fmt::Debug for Node<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("raft", &self.raft).field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl<S: StateMachine> Node<S> {
    /// A replica that starts, with the state machine that belongs to `recovered`.
    ///
    /// # Errors
    /// The configuration is out of range, or what was recovered contradicts itself.
    pub fn new(config: NodeConfig, empty: S, mut recovered: RecoveredNode, now: Time) -> Result<Node<S>, ConfigError> {
        let header = recovered.raft.snapshot.clone();
        recovered.raft.applied = header.as_ref().map_or(Index(0), |header| header.position.index);
        let (machine, stored) = match (recovered.snapshot, header) {
            (Some(data), Some(header)) => {
                let machine = S::restore(&data).map_err(|error| ConfigError::Recovered(error.to_string()))?;
                (machine, Some(StoredSnapshot { header, data }))
            }
            _ => (empty, None),
        };
        let raft = Raft::new(config.raft.clone(), recovered.raft, now)?;
        Ok(Node {
            raft,
            machine,
            waiting: BTreeMap::new(),
            stored,
            storing: false,
            senders: Senders::new(config.chunk_bytes, config.chunk_retry_after),
            incoming: None,
            arrived: None,
            installing: None,
            responses: BTreeMap::new(),
            effects: Effects::new(),
            queue: VecDeque::new(),
            witness: None,
            config,
        })
    }

    /// Takes one input and appends what is to be done to `out`.
    pub fn handle(&mut self, now: Time, input: NodeInput, out: &mut Vec<NodeEffect>) {
        if self.raft.fault().is_some() {
            return refuse_after_halt(&input, out);
        }
        match input {
            NodeInput::Wake => self.consent(now, Input::Wake, out),
            NodeInput::Receive {
                message: NodeMessage::Raft(Message { body: Body::InstallSnapshot(_), .. }), ..
            } => {
                // Only a snapshot whose pieces have all arrived is announced to the core, by this
                // replica itself.
            }
            NodeInput::Receive { from, message: NodeMessage::Raft(message) } => {
                self.consent(now, Input::Receive { from, message }, out);
            }
            NodeInput::Receive { from, message: NodeMessage::Chunk(chunk) } => self.take_chunk(now, from, chunk, out),
            NodeInput::Receive { from, message: NodeMessage::ChunkReply(reply) } => {
                if let Some(delivered) = self.senders.answered(now, self.raft.term(), from, &reply) {
                    self.consent(now, delivered, out);
                }
            }
            NodeInput::Write { token, command, deadline } => {
                // If the core takes it, it is the next entry.
                let proposed_at = self.raft.log().last().index.next();
                self.waiting.insert(token, Waiting::Write { command: command.clone(), proposed_at });
                self.consent(now, Input::Propose { token, command, deadline }, out);
            }
            NodeInput::Read { token, query, consistency: Consistency::Serializable, .. } => {
                out.push(NodeEffect::Respond { token, response: Response::Done(self.machine.query(&query)) });
            }
            NodeInput::Read { token, query, consistency: Consistency::Linearizable(kind), deadline } => {
                self.waiting.insert(token, Waiting::Read { query });
                self.consent(now, Input::Read { token, kind, deadline }, out);
            }
            NodeInput::ChangeMembership { token, change } => {
                self.waiting.insert(token, Waiting::Operation);
                self.consent(now, Input::ChangeMembership { token, change }, out);
            }
            NodeInput::TransferLeadership { token, to } => {
                self.waiting.insert(token, Waiting::Operation);
                self.consent(now, Input::TransferLeadership { token, to }, out);
            }
            NodeInput::Persisted { up_to } => self.consent(now, Input::Persisted { up_to }, out),
            NodeInput::SnapshotStored { index } => {
                self.storing = false;
                // A leader's snapshot can be stored before it is installed: then the log is reset
                // already, and there is nothing to compact.
                if index <= self.raft.last_applied() {
                    self.consent(now, Input::SnapshotStored { index }, out);
                }
            }
        }
        if !self.raft.is_leader() || self.raft.fault().is_some() {
            self.senders.clear();
        }
        self.senders.send_due(now, self.raft.term(), out);
    }

    /// When to call [`Node::handle`] with [`NodeInput::Wake`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        self.raft.next_deadline().min(self.senders.next_deadline())
    }

    /// Lets `witness` see each step of the core from now on: for the judges of a simulation. It
    /// changes nothing; without one a step costs what it did.
    pub fn set_witness(&mut self, witness: Witness) {
        self.witness = Some(witness);
    }

    /// The consensus core.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The state machine.
    #[must_use]
    pub fn machine(&self) -> &S {
        &self.machine
    }

    /// Whether a snapshot is on its way, from or to this replica.
    #[must_use]
    pub fn is_in_transfer(&self) -> bool {
        self.incoming.is_some() || !self.senders.is_empty()
    }

    /// Bytes of the latest snapshot; 0 if there is none.
    #[must_use]
    pub fn snapshot_bytes(&self) -> usize {
        self.stored.as_ref().map_or(0, |stored| stored.data.len())
    }

    /// How many requests wait for their answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Hands the core an input and carries out what it says, until nothing is left to do.
    fn consent(&mut self, now: Time, input: Input, out: &mut Vec<NodeEffect>) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.push_back(input);
        while let Some(input) = queue.pop_front() {
            let applied = if let Input::Applied { index } = &input { Some(*index) } else { None };
            let mut effects = std::mem::take(&mut self.effects);
            self.think(now, input, &mut effects);
            for effect in effects.drain() {
                self.carry_out(effect, &mut queue, out);
            }
            self.effects = effects;
            if let Some(index) = applied {
                // Whoever waited for these has been answered.
                self.responses = self.responses.split_off(&index.next());
            }
        }
        self.queue = queue;
        self.make_snapshot_if_due(out);
    }

    /// One step of the core.
    fn think(&mut self, now: Time, input: Input, effects: &mut Effects) {
        let seen = self.witness.is_some().then(|| input.clone());
        self.raft.handle(now, input, effects);
        if let Some((witness, input)) = self.witness.as_mut().zip(seen) {
            witness(now, &input, effects.as_slice(), &self.raft);
        }
    }

    fn carry_out(&mut self, effect: Effect, queue: &mut VecDeque<Input>, out: &mut Vec<NodeEffect>) {
        match effect {
            Effect::Persist { id, write } => {
                if let Write::Snapshot(header) = &write {
                    let (snapshot, machine) = self.arrived.take().expect("the core takes what has just arrived");
                    assert_eq!(header, &snapshot.header, "the core takes what has just arrived");
                    out.push(NodeEffect::StoreSnapshot { snapshot: snapshot.clone() });
                    self.storing = true;
                    self.installing = Some((snapshot, machine));
                }
                out.push(NodeEffect::Persist { id, write });
            }
            Effect::Send { to, message, after } => {
                out.push(NodeEffect::Send { to, message: NodeMessage::Raft(message), after });
            }
            Effect::Apply { entries } => self.apply(&entries, queue),
            Effect::Answer { token, outcome } => self.answer(token, outcome, out),
            Effect::FetchSnapshot { to, session } => match self.snapshot_to_send() {
                Some(snapshot) => self.senders.start(to, session, snapshot),
                None => queue.push_back(Input::SnapshotSent { to, session, delivered: false }),
            },
            Effect::InstallSnapshot { snapshot } => self.install(&snapshot, queue),
            Effect::Halt { fault } => out.push(NodeEffect::Halt { fault }),
        }
    }

    /// Applies committed entries. Their responses are kept until the core, told that they are applied,
    /// says who waits for them. It is told by way of the queue: with small batches and a long backlog,
    /// doing so from within would nest without a bound.
    fn apply(&mut self, entries: &[Entry], queue: &mut VecDeque<Input>) {
        for entry in entries {
            if let Payload::Command(command) = &entry.payload {
                self.responses.insert(entry.index, self.machine.apply(entry.index, command));
            }
        }
        queue.extend(entries.last().map(|last| Input::Applied { index: last.index }));
    }

    /// Gives a client its answer.
    fn answer(&mut self, token: Token, outcome: Outcome, out: &mut Vec<NodeEffect>) {
        let waiting = self.waiting.remove(&token).expect("the core answers each request once");
        let response = match (outcome, waiting) {
            (Outcome::Done { position }, _) => {
                Response::Done(self.responses.remove(&position.index).unwrap_or_default())
            }
            (Outcome::Readable { .. }, Waiting::Read { query }) => Response::Done(self.machine.query(&query)),
            (Outcome::Readable { .. }, _) => unreachable!("only reads become readable"),
            (Outcome::NotLeader { leader }, _) => Response::NotLeader { leader },
            (Outcome::Overloaded { limit }, _) => Response::Overloaded { limit },
            (Outcome::Superseded, _) => Response::Superseded,
            (Outcome::Expired, Waiting::Write { command, proposed_at }) => self.recall(&command, proposed_at),
            (Outcome::Expired, _) => Response::Expired,
            (Outcome::Refused(refusal), _) => Response::Refused(refusal),
        };
        out.push(NodeEffect::Respond { token, response });
    }

    /// A write that the core lost sight of, mostly because a snapshot took its entry's place: the
    /// state itself may know what became of it.
    fn recall(&self, command: &[u8], proposed_at: Index) -> Response {
        let installed = self.stored.as_ref().map_or(Index(0), |stored| stored.header.position.index);
        let contains = installed.max(self.raft.last_applied());
        match self.machine.recall(command, proposed_at) {
            Recall::Applied(response) => {
                hit(Probe::Recalled);
                Response::Done(response)
            }
            // Its place in the log is behind, and another entry had it.
            Recall::NotApplied if proposed_at <= contains => Response::Superseded,
            Recall::NotApplied | Recall::Forgotten => Response::Expired,
        }
    }
}

/// A replica that has stopped ignores everything, but leaves no client without an answer (law 5).
fn refuse_after_halt(input: &NodeInput, out: &mut Vec<NodeEffect>) {
    if let NodeInput::Write { token, .. }
    | NodeInput::Read { token, .. }
    | NodeInput::ChangeMembership { token, .. }
    | NodeInput::TransferLeadership { token, .. } = input
    {
        out.push(NodeEffect::Respond { token: *token, response: Response::NotLeader { leader: None } });
    }
}

/// Snapshots: made, received and installed.
impl<S: StateMachine> Node<S> {
    /// Makes a snapshot when the log has grown enough since the last one (section 7).
    fn make_snapshot_if_due(&mut self, out: &mut Vec<NodeEffect>) {
        if self.storing || self.raft.log().bytes() <= self.config.snapshot_at_bytes {
            return;
        }
        let made_at = self.stored.as_ref().map_or(Index(0), |stored| stored.header.position.index);
        if self.raft.last_applied() > made_at
            && let Some(snapshot) = self.make_snapshot()
        {
            self.storing = true;
            out.push(NodeEffect::StoreSnapshot { snapshot });
        }
    }

    fn make_snapshot(&mut self) -> Option<StoredSnapshot> {
        let header = self.raft.snapshot_header(self.raft.last_applied())?;
        let snapshot = StoredSnapshot { header, data: self.machine.snapshot() };
        self.stored = Some(snapshot.clone());
        Some(snapshot)
    }

    /// What to send to a follower whose entries are gone. The stored snapshot always reaches up to
    /// the log's base, or the entries would still be there.
    fn snapshot_to_send(&mut self) -> Option<StoredSnapshot> {
        let base = self.raft.log().base().index;
        match &self.stored {
            Some(stored) if stored.header.position.index >= base => Some(stored.clone()),
            _ => self.make_snapshot(),
        }
    }

    fn take_chunk(&mut self, now: Time, from: NodeId, chunk: SnapshotChunk, out: &mut Vec<NodeEffect>) {
        if chunk.term < self.raft.term() || chunk.total > self.config.max_snapshot_bytes {
            return;
        }
        let incoming = match self.incoming.take() {
            Some(incoming) if incoming.is_continued_by(from, &chunk) => incoming,
            _ => Incoming::new(from, &chunk),
        };
        let incoming = self.incoming.insert(incoming);
        let (reply, received) = incoming.take(chunk);
        if let Received::Complete { term, session, snapshot } = received {
            // What can't be restored is no snapshot: it is asked for again, from the start.
            let Ok(machine) = S::restore(&snapshot.data) else {
                self.incoming = None;
                return;
            };
            let header = snapshot.header.clone();
            self.arrived = Some((snapshot, machine));
            let body = Body::InstallSnapshot(InstallSnapshot { session, snapshot: header });
            self.consent(now, Input::Receive { from, message: Message { term, body } }, out);
            self.arrived = None;
        }
        out.push(NodeEffect::Send { to: from, message: NodeMessage::ChunkReply(reply), after: None });
    }

    /// The mark of a snapshot that the core has decided for is durable: it takes the machine's place.
    fn install(&mut self, header: &SnapshotHeader, queue: &mut VecDeque<Input>) {
        let (snapshot, machine) = self.installing.take().expect("the core installs what it has decided for");
        assert_eq!(header, &snapshot.header, "the core installs what it has decided for");
        self.machine = machine;
        self.stored = Some(snapshot);
        queue.push_back(Input::Applied { index: header.position.index });
    }
}
