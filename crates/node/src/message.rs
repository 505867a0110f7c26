//! The messages between replicas, and the names of snapshot transfers.

use bowline_raft::{Message, NodeId, Session, SnapshotHeader, Term};
use bytes::Bytes;

/// A message between two replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeMessage {
    /// A message of the core.
    Raft(Message),
    /// A piece of a snapshot.
    Chunk(SnapshotChunk),
    /// The answer to a piece.
    ChunkReply(SnapshotChunkReply),
}

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// The leader's term.
    pub term: Term,
    /// The transfer.
    pub session: Session,
    /// Which snapshot.
    pub header: SnapshotHeader,
    /// Bytes of the whole snapshot.
    pub total: u64,
    /// Where this piece begins.
    pub offset: u64,
    /// The piece.
    pub data: Bytes,
}

impl SnapshotChunk {
    /// The transfer that it belongs to if `from` sent it.
    #[must_use]
    pub fn transfer(&self, from: NodeId) -> SnapshotTransfer {
        SnapshotTransfer { from, term: self.term, session: self.session }
    }
}

/// How much of a snapshot a receiver has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotChunkReply {
    /// The term of the piece that this answers.
    pub term: Term,
    /// The transfer.
    pub session: Session,
    /// Bytes received without a gap.
    pub received: u64,
}

/// The part of a snapshot to send: a [`SnapshotChunk`] without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// As in the chunk.
    pub term: Term,
    /// As in the chunk.
    pub session: Session,
    /// As in the chunk.
    pub header: SnapshotHeader,
    /// As in the chunk.
    pub total: u64,
    /// Where the piece begins.
    pub offset: u64,
    /// How many bytes the piece has.
    pub length: usize,
}

impl Piece {
    /// The chunk with these bytes, which must be the bytes of this piece.
    #[must_use]
    pub fn filled(self, data: Bytes) -> SnapshotChunk {
        let Piece { term, session, header, total, offset, length } = self;
        debug_assert_eq!(data.len(), length, "a piece has the bytes that it names");
        SnapshotChunk { term, session, header, total, offset, data }
    }
}

/// Names a transfer: a leader never uses a session twice in a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotTransfer {
    /// Who sends.
    pub from: NodeId,
    /// The leader's term.
    pub term: Term,
    /// The leader's name for it.
    pub session: Session,
}
