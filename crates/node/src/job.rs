//! Work on the state machine and its snapshots, and its results, as plain values between the
//! [`Conductor`](crate::Conductor), which decides, and the host, which does the work.

use bowline_raft::{Entry, Fault, Index, NodeId, PersistId, SnapshotHeader, Token, Write};
use bytes::Bytes;

use crate::failure::Response;
use crate::message::{NodeMessage, Piece, SnapshotChunk, SnapshotTransfer};

/// Something that the host of a [`Conductor`](crate::Conductor) must do. It must carry out effects in their order.
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
        /// What must be durable first; `None` if nothing.
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

/// Work on the state machine and its snapshots. Jobs must be done in their order, except that those which concern
/// only the snapshots to send, or only the arriving snapshot, may be done beside the rest. The reports may come at
/// any later time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Apply these entries, each exactly once, then report [`Report::Applied`].
    Apply {
        /// The entries, in order.
        entries: Vec<Entry>,
    },
    /// Answer a write whose end the core can't tell with what the state machine remembers of it: see
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
    /// Store the current state, which this header describes, so that the log up to there may go; then report
    /// [`NodeInput::SnapshotStored`](crate::NodeInput::SnapshotStored).
    StoreState {
        /// The header of the state.
        header: SnapshotHeader,
    },
    /// Make a snapshot of the current state, and keep it ready for [`Job::Send`] until [`Job::Release`]; then report
    /// [`Report::Ready`] or [`Report::NotReady`].
    Dump {
        /// Its header.
        header: SnapshotHeader,
    },
    /// Send a piece of a snapshot that is kept ready. If it can't be read, report [`Report::Unreadable`].
    Send {
        /// The receiver.
        to: NodeId,
        /// Which piece.
        piece: Piece,
    },
    /// This snapshot is no longer needed.
    Release {
        /// Its last index.
        index: Index,
    },
    /// Add a piece to the arriving snapshot if it is the next one of its transfer, and report [`Report::Added`] in
    /// any case. A piece at offset 0 starts a new snapshot in place of the old one.
    Add {
        /// Who sent it.
        from: NodeId,
        /// The piece.
        chunk: SnapshotChunk,
    },
    /// All pieces have arrived: restore a state machine from them, beside the one in use, and report
    /// [`Report::Restored`].
    Restore {
        /// In which transfer they came.
        transfer: SnapshotTransfer,
        /// The header of the snapshot.
        header: SnapshotHeader,
    },
    /// Drop what was restored from this transfer.
    Discard {
        /// As in [`Report::Restored`].
        transfer: SnapshotTransfer,
    },
    /// The core has accepted the restored snapshot: keep it until [`Job::Install`] of this one or of a later one. If a
    /// later one is accepted first, this one may never be installed, but a crash may leave a log that begins after it.
    /// It must be durable before the [`Write::Snapshot`] that follows; then report
    /// [`NodeInput::SnapshotStored`](crate::NodeInput::SnapshotStored).
    Accept {
        /// Its header.
        header: SnapshotHeader,
    },
    /// Replace the state machine by the accepted one, and report [`Report::Applied`] with its index. From now on its
    /// snapshot is also kept ready for [`Job::Send`].
    Install {
        /// Its header.
        header: SnapshotHeader,
    },
}

/// What became of a [`Job`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The state machine contains everything up to here. These reports come in the order of their jobs.
    Applied {
        /// The last entry.
        index: Index,
        /// The responses to the commands, with their indexes, in order.
        responses: Vec<(Index, Bytes)>,
    },
    /// A snapshot is kept ready.
    Ready {
        /// Its header.
        header: SnapshotHeader,
        /// Its size.
        bytes: u64,
    },
    /// The snapshot of the last [`Job::Dump`] can't be made.
    NotReady,
    /// A snapshot that was kept ready can't be read.
    Unreadable {
        /// Its last index.
        index: Index,
    },
    /// A piece was added, or could not be.
    Added {
        /// In which transfer it came.
        transfer: SnapshotTransfer,
        /// How many bytes have arrived, without a gap.
        received: u64,
    },
    /// A state machine was restored from the pieces, or could not be.
    Restored {
        /// In which transfer they came.
        transfer: SnapshotTransfer,
        /// Whether they are a valid snapshot.
        whole: bool,
    },
}
