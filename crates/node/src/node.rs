//! The replica as a whole: what goes in, and what comes out.

use std::collections::VecDeque;
use std::time::Duration;

use bowline_raft::{
    Config, ConfigError, Effect, Fault, Index, Input, MembershipChange, Message, NodeId, PersistId, Raft, ReadKind,
    Recovered, Time, Token, Write,
};
use bytes::Bytes;

use crate::applier::{Applier, StoredSnapshot};
use crate::conductor::Conductor;
use crate::failure::Response;
use crate::job::{ConductorEffect, Report};
use crate::machine::StateMachine;
use crate::transfer::{SnapshotChunk, SnapshotChunkReply};

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
    /// A client wants to see every write that was acknowledged before: see [`Response`]. Whoever is content
    /// with an earlier state may look at the state machine without asking.
    Read {
        /// The host's name for the request.
        token: Token,
        /// How the leader makes sure that it still leads.
        kind: ReadKind,
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
    /// is answered [`NotDone::NotLeader`](crate::NotDone::NotLeader) at once, and nothing else is taken.
    Halt {
        /// Why.
        fault: Fault,
    },
}

/// Sees each step of a replica's core: the time, the input, the effects, and the core after it.
pub type Witness = Box<dyn FnMut(Time, &Input, &[Effect], &Raft) + Send>;

/// One replica: a [`Conductor`] and its state machine, in which every job is done at once.
pub struct Node<S> {
    conductor: Conductor,
    applier: Applier<S>,
    /// What the conductor wants done, and what it is to be told next; both are empty between inputs, and
    /// kept for their memory.
    work: Vec<ConductorEffect>,
    reports: VecDeque<Report>,
}

impl<S: std::fmt::Debug + StateMachine> std::fmt::Debug for Node<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (raft, machine) = (self.conductor.raft(), self.applier.machine());
        f.debug_struct("Node").field("raft", raft).field("machine", machine).finish_non_exhaustive()
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
        let applier = Applier::new(machine, stored.as_ref());
        let mut conductor = Conductor::new(config, recovered.raft, now)?;
        if let Some(StoredSnapshot { header, data }) = stored {
            conductor.holds(header, data.len() as u64);
        }
        Ok(Node { conductor, applier, work: Vec::new(), reports: VecDeque::new() })
    }

    /// Takes one input and appends what is to be done to `out`.
    pub fn handle(&mut self, now: Time, input: NodeInput, out: &mut Vec<NodeEffect>) {
        self.conductor.handle(now, input, &mut self.work);
        self.settle(now, out);
        self.conductor.tend(now, &mut self.work);
        self.settle(now, out);
    }

    /// Does the jobs and tells the conductor what became of them, until nothing is left to do. It is told
    /// by way of a queue: with small batches and a long backlog, doing so from within would nest without
    /// a bound.
    fn settle(&mut self, now: Time, out: &mut Vec<NodeEffect>) {
        loop {
            for effect in self.work.drain(..) {
                match effect {
                    ConductorEffect::Persist { id, write } => out.push(NodeEffect::Persist { id, write }),
                    ConductorEffect::Send { to, message, after } => out.push(NodeEffect::Send { to, message, after }),
                    ConductorEffect::Respond { token, response } => out.push(NodeEffect::Respond { token, response }),
                    ConductorEffect::Do(job) => self.applier.run(job, out, &mut self.reports),
                    ConductorEffect::Halt { fault } => out.push(NodeEffect::Halt { fault }),
                }
            }
            let Some(report) = self.reports.pop_front() else { return };
            self.conductor.report(now, report, &mut self.work);
        }
    }

    /// When to call [`Node::handle`] with [`NodeInput::Wake`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        self.conductor.next_deadline()
    }

    /// Lets `witness` see each step of the core from now on: for the judges of a simulation. It
    /// changes nothing; without one a step costs what it did.
    pub fn set_witness(&mut self, witness: Witness) {
        self.conductor.set_witness(witness);
    }

    /// The consensus core.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        self.conductor.raft()
    }

    /// The state machine.
    #[must_use]
    pub fn machine(&self) -> &S {
        self.applier.machine()
    }

    /// Whether a snapshot is on its way, from or to this replica.
    #[must_use]
    pub fn is_in_transfer(&self) -> bool {
        self.conductor.is_in_transfer()
    }

    /// Bytes of the latest snapshot; 0 if there is none.
    #[must_use]
    pub fn snapshot_bytes(&self) -> usize {
        usize::try_from(self.conductor.snapshot_bytes()).unwrap_or(usize::MAX)
    }

    /// How many snapshots have arrived in full since the start, and no state machine could be made of them: none, as
    /// long as every sender sends what it has made, and pieces of two are never mixed.
    #[must_use]
    pub fn unrestored_snapshots(&self) -> u64 {
        self.applier.unrestored()
    }

    /// How many requests wait for their answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.conductor.waiting()
    }
}
