//! The inputs and effects of the core, as plain values.

use std::fmt;

use bytes::Bytes;

use crate::log::Entry;
use crate::membership::{MembershipChange, MembershipError};
use crate::message::{Message, SnapshotHeader};
use crate::types::{Index, NodeId, PersistId, Position, Session, Term, Time, Token};

/// Something that happened, as the host tells the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The time of [`crate::Raft::next_deadline`] has come. Harmless at any other time.
    Wake,
    /// A message arrived. It may be late, duplicated, or from a replica that is not a member.
    Receive {
        /// Who sent it; the host is sure of that.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// A client wants a command appended.
    Propose {
        /// The host's name for the request.
        token: Token,
        /// The command.
        command: Bytes,
        /// When to give up waiting, if ever; the command may still take effect after that.
        deadline: Option<Time>,
    },
    /// A client wants to read the latest state.
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
    /// Every [`Effect::Persist`] up to this one is durable.
    Persisted {
        /// The last durable one.
        up_to: PersistId,
    },
    /// The state machine contains every entry up to here.
    Applied {
        /// The last applied entry.
        index: Index,
    },
    /// The host has stored a snapshot of its own state machine: the log up to there may go.
    SnapshotStored {
        /// The last entry that it contains; at most the last applied one.
        index: Index,
    },
    /// The transfer that [`Effect::FetchSnapshot`] asked for has ended.
    SnapshotSent {
        /// Who was to receive it.
        to: NodeId,
        /// The session that the effect named.
        session: Session,
        /// Whether the receiver has all of it.
        delivered: bool,
    },
}

/// How the leader makes sure that it still leads, so that a read is linearizable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadKind {
    /// Under the leader's lease if it is valid, else by a quorum.
    Lease,
    /// Always confirmed by a quorum; relies on no clock.
    Quorum,
}

/// Something that the host must do. It must carry out effects in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make this durable, in the order of the ids: term, vote and entries are one stream.
    Persist {
        /// Its place in the stream of writes.
        id: PersistId,
        /// What to write.
        write: Write,
    },
    /// Send a message, but not before the write that it promises is durable.
    Send {
        /// The receiver.
        to: NodeId,
        /// What to say.
        message: Message,
        /// What must be durable first; `None` if nothing.
        after: Option<PersistId>,
    },
    /// Apply these committed entries to the state machine, then report [`Input::Applied`].
    Apply {
        /// The entries, in order, each exactly once.
        entries: Vec<Entry>,
    },
    /// Answer a request. Each token is answered exactly once.
    Answer {
        /// The request.
        token: Token,
        /// How it ended.
        outcome: Outcome,
    },
    /// Bring the latest snapshot to a follower that needs entries which are gone from the log, then report
    /// [`Input::SnapshotSent`].
    FetchSnapshot {
        /// The follower.
        to: NodeId,
        /// The session to name.
        session: Session,
    },
    /// Replace the state machine by this snapshot, which the host has received, then report [`Input::Applied`] with
    /// its index. This effect comes after the snapshot's [`Write::Snapshot`] is durable. Otherwise, after a crash
    /// between the two, the state machine would be ahead of the log, and its [`crate::Recovered::applied`] would make
    /// entries of the log count as committed that the snapshot replaces.
    InstallSnapshot {
        /// Which snapshot.
        snapshot: SnapshotHeader,
    },
    /// This replica must stop: it has seen a fault of its own or of a peer. Every open request has been answered
    /// already, and every input from here on is ignored.
    Halt {
        /// What was seen.
        fault: Fault,
    },
}

/// A durable write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// The current term and the vote in it.
    HardState(HardState),
    /// Remove the entries from this index on.
    Truncate {
        /// The first one to go.
        from: Index,
    },
    /// Add entries at the end of the log.
    Append(Vec<Entry>),
    /// The log now starts after this snapshot; all its entries go.
    Snapshot(SnapshotHeader),
    /// The peers remember that this replica acknowledged something that is missing here: the replica is suspect, and
    /// this position replaces any earlier one of [`crate::Recovered::suspect`].
    Suspect {
        /// Where the log may have ended; its index is the greatest one if that is not known.
        last_possible: Position,
    },
    /// The replica is no longer suspect: see [`crate::Recovered::suspect`].
    Repaired,
}

/// What a replica must remember of elections (5.1, 5.2), in one write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// The latest term that it has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted_for: Option<NodeId>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The entry is committed and applied.
    Done {
        /// Where it stands in the log.
        position: Position,
    },
    /// A read may be served now: the state machine contains everything up to this index.
    Readable {
        /// The index that the read was confirmed at.
        index: Index,
    },
    /// This replica doesn't lead; nothing was done.
    NotLeader {
        /// Who leads, as far as this replica knows.
        leader: Option<NodeId>,
    },
    /// A limit is reached; nothing was done. Try again later.
    Overloaded {
        /// Which limit.
        limit: &'static str,
    },
    /// Another leader's entry took its place; it did not and will not take effect.
    Superseded,
    /// This replica stopped waiting, or can no longer tell: the request may or may not take effect.
    Expired,
    /// The request can't be granted; nothing was done.
    Refused(Refusal),
}

/// Why a request can't be granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A change of the membership that isn't possible.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The leader is handing over its leadership and takes no new entries meanwhile.
    #[error("the leadership is being handed over: try again in a moment")]
    TransferUnderWay,
    /// Leadership can only go to another voter.
    #[error("{0} is not another voter of this cluster")]
    NotAVoter(NodeId),
    /// There is no other voter to hand leadership to.
    #[error("there is no other voter")]
    NoOtherVoter,
}

/// Something that must not happen: a replica that sees it stops (law 9).
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// A leader contradicts an entry that this replica knows to be committed.
    #[error("{from} contradicts the committed entry at index {index}")]
    CommittedConflict {
        /// The sender.
        from: NodeId,
        /// The entry.
        index: Index,
    },
    /// A leader contradicts what it sent in the same term: it only ever appends (5.3).
    #[error("{from}, the leader of {term}, contradicts its own entry at index {index}")]
    LeaderContradictsItself {
        /// The sender.
        from: NodeId,
        /// The term.
        term: Term,
        /// The entry.
        index: Index,
    },
    /// Two replicas lead in one term.
    #[error("{other} leads in {term}, which already has another leader")]
    TwoLeaders {
        /// The leader that this replica didn't know.
        other: NodeId,
        /// The term.
        term: Term,
    },
}

/// The effects of one input, in order.
#[derive(Debug, Default)]
pub struct Effects {
    list: Vec<Effect>,
}

impl Effects {
    /// No effects.
    #[must_use]
    pub fn new() -> Effects {
        Effects::default()
    }

    /// Takes all effects out, in order.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Effect> {
        self.list.drain(..)
    }

    /// The effects, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Effect] {
        &self.list
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done { position } => write!(f, "done at {position}"),
            Outcome::Readable { index } => write!(f, "readable at {index}"),
            Outcome::NotLeader { leader: Some(leader) } => write!(f, "not leader, ask {leader}"),
            Outcome::NotLeader { leader: None } => write!(f, "not leader, none known"),
            Outcome::Overloaded { limit } => write!(f, "overloaded: {limit} reached"),
            Outcome::Superseded => write!(f, "superseded"),
            Outcome::Expired => write!(f, "expired"),
            Outcome::Refused(refusal) => write!(f, "refused: {refusal}"),
        }
    }
}
