//! The inputs and effects of a replica, as plain values.

use std::time::Duration;

use bowline_raft::{
    Config, Effect, Fault, Index, Input, MembershipChange, NodeId, PersistId, Raft, ReadKind, Recovered,
    SnapshotHeader, Time, Token, Write,
};
use bytes::Bytes;

use crate::failure::Response;
use crate::message::NodeMessage;

/// The tunable parts of a replica.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// The consensus core's part.
    pub raft: Config,
    /// A snapshot is made when the log's tail exceeds this many bytes. It should be well above the core's
    /// `max_retained_bytes`, or each entry would cause a snapshot.
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
    /// The core's part. [`Node::new`](crate::Node::new) sets its `applied` to the snapshot's index, where the state
    /// machine starts.
    pub raft: Recovered,
    /// The data of the snapshot that `raft` names; `None` for the empty state of a founding member.
    pub snapshot: Option<Bytes>,
}

/// A snapshot with its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// Its index, term and configuration.
    pub header: SnapshotHeader,
    /// The state machine's bytes.
    pub data: Bytes,
}

/// Something that happened, as the host tells the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeInput {
    /// The time of [`Node::next_deadline`] has come.
    Wake,
    /// A message from another replica arrived; the host is sure of the sender.
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
    /// A client wants to see every write that was acknowledged before: see [`Response`]. A client that accepts an
    /// earlier state may read the state machine without this input.
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
    /// Store a snapshot, then report [`NodeInput::SnapshotStored`]. One that precedes the
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
        /// What must be durable first; `None` if nothing.
        after: Option<PersistId>,
    },
    /// Answer a request. Each is answered exactly once.
    Respond {
        /// The request.
        token: Token,
        /// The answer.
        response: Response,
    },
    /// This replica must stop for good. Every open request has been answered. Later requests are answered
    /// [`NotDone::NotLeader`](crate::NotDone::NotLeader) at once, and all other inputs are ignored.
    Halt {
        /// Why.
        fault: Fault,
    },
}

/// Sees each step of a replica's core: the time, the input, the effects, and the core after it.
pub type Witness = Box<dyn FnMut(Time, &Input, &[Effect], &Raft) + Send>;
