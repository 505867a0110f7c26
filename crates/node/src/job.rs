//! What is to be done with the state machine and its snapshots, and what became of it: plain values
//! between the [`Conductor`](crate::Conductor), which decides, and whoever does it.

use bowline_raft::{Entry, Fault, Index, NodeId, PersistId, SnapshotHeader, Token, Write};
use bytes::Bytes;

use crate::failure::Response;
use crate::message::{NodeMessage, Piece, SnapshotChunk, SnapshotTransfer};

/// Something that the host of a [`Conductor`](crate::Conductor) must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConductorEffect {
    /// Make this durable, in the order of the ids.
    Persist {
        /// Its place in the stream.
        id: PersistId,
        /// What to write.
        write: Write,
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
    /// Answer a request.
    Respond {
        /// The request.
        token: Token,
        /// The answer.
        response: Response,
    },
    /// Do this with the state machine, or with a snapshot.
    Do(Job),
    /// This replica must stop for good: see [`NodeEffect::Halt`](crate::NodeEffect::Halt).
    Halt {
        /// Why.
        fault: Fault,
    },
}

/// Work on the state machine and its snapshots. To be done in the order in which it was given: but what
/// concerns only the snapshots that are sent, or only the one that arrives, may be done beside the rest. The reports
/// may come as late as they will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Apply these entries, each exactly once, then say [`Report::Applied`].
    Apply {
        /// The entries, in order.
        entries: Vec<Entry>,
    },
    /// Answer a write that the core lost sight of with what the state machine remembers of it: see
    /// [`recalled`](crate::recalled).
    Recall {
        /// The request.
        token: Token,
        /// What was written.
        command: Bytes,
        /// The index of the entry that carried it.
        proposed_at: Index,
        /// The state machine contains at least everything up to here.
        contains: Index,
    },
    /// Make the state as it is now, which this header describes, durable by itself, so that the log
    /// before it may go; then say [`NodeInput::SnapshotStored`](crate::NodeInput::SnapshotStored).
    StoreState {
        /// What a snapshot of it has to say of itself.
        header: SnapshotHeader,
    },
    /// Make a snapshot of the state as it is now, and hold it ready for [`Job::Send`] until
    /// [`Job::Release`]; then say [`Report::Ready`], or [`Report::NotReady`].
    Dump {
        /// What it says of itself.
        header: SnapshotHeader,
    },
    /// Send a piece of a snapshot that is held ready. If it can't be read, say [`Report::Unreadable`].
    Send {
        /// The receiver.
        to: NodeId,
        /// Which piece.
        piece: Piece,
    },
    /// This snapshot is not needed any more.
    Release {
        /// Its last index.
        index: Index,
    },
    /// Add a piece to the snapshot that arrives, if it is the next one of its transfer, and say
    /// [`Report::Added`] in any case. One at offset 0 begins a new one, in place of what was there.
    Add {
        /// Who sent it.
        from: NodeId,
        /// The piece.
        chunk: SnapshotChunk,
    },
    /// All pieces are there: make a state machine of them, beside the one in use, and say
    /// [`Report::Restored`].
    Restore {
        /// In which transfer they came.
        transfer: SnapshotTransfer,
        /// What the snapshot says of itself.
        header: SnapshotHeader,
    },
    /// What was restored of this transfer is of no use.
    Discard {
        /// As in [`Report::Restored`].
        transfer: SnapshotTransfer,
    },
    /// What was restored is to be installed, if nothing better comes before that. It must be durable
    /// before the [`Write::Snapshot`] that follows is; then say
    /// [`NodeInput::SnapshotStored`](crate::NodeInput::SnapshotStored).
    Accept {
        /// What it says of itself.
        header: SnapshotHeader,
    },
    /// What was accepted takes the state machine's place: say [`Report::Applied`] with its index. From
    /// now on it is also held ready for [`Job::Send`].
    Install {
        /// What it says of itself.
        header: SnapshotHeader,
    },
}

/// What became of a [`Job`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The state machine contains everything up to here. Reports of this kind come in the order of the
    /// jobs.
    Applied {
        /// The last entry.
        index: Index,
        /// What the clients of the commands are told, by their index, in order.
        responses: Vec<(Index, Bytes)>,
    },
    /// A snapshot is held ready.
    Ready {
        /// What it says of itself.
        header: SnapshotHeader,
        /// Its size.
        bytes: u64,
    },
    /// The snapshot of the last [`Job::Dump`] can't be made.
    NotReady,
    /// A snapshot that was held ready can't be read.
    Unreadable {
        /// Its last index.
        index: Index,
    },
    /// A piece was added, or could not be.
    Added {
        /// In which transfer it came.
        transfer: SnapshotTransfer,
        /// Bytes that are there now, without a gap.
        received: u64,
    },
    /// A state machine was made of the pieces, or could not be.
    Restored {
        /// In which transfer they came.
        transfer: SnapshotTransfer,
        /// Whether they are a snapshot.
        whole: bool,
    },
}
