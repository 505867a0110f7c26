//! Snapshots in memory: those that are held ready for followers, and the one that arrives in pieces.

use std::collections::BTreeMap;

use bowline_raft::{Index, NodeId};
use bytes::{Bytes, BytesMut};

use crate::job::Report;
use crate::message::{Piece, SnapshotChunk, SnapshotTransfer};

/// What a host that has no files for snapshots keeps of them.
#[derive(Debug, Default)]
pub struct HeldSnapshots {
    /// By their last index.
    ready: BTreeMap<Index, Bytes>,
    arriving: BytesMut,
    /// Whose pieces those are.
    arriving_in: Option<SnapshotTransfer>,
}

impl HeldSnapshots {
    /// Holds one ready.
    pub fn hold(&mut self, index: Index, data: Bytes) {
        self.ready.insert(index, data);
    }

    /// Nobody needs it any more.
    pub fn release(&mut self, index: Index) {
        self.ready.remove(&index);
    }

    /// The bytes of a piece; `None` if the snapshot is not held, or is another one.
    #[must_use]
    pub fn bytes_of(&self, piece: &Piece) -> Option<Bytes> {
        let data = self.ready.get(&piece.header.position.index)?;
        let start = usize::try_from(piece.offset).ok()?;
        let end = start.checked_add(piece.length).filter(|end| *end <= data.len())?;
        (data.len() as u64 == piece.total).then(|| data.slice(start..end))
    }

    /// Adds a piece that has arrived, and says what is there.
    pub fn add(&mut self, from: NodeId, chunk: &SnapshotChunk) -> Report {
        let transfer = chunk.transfer(from);
        if chunk.offset == 0 || self.arriving_in != Some(transfer) {
            self.arriving.clear();
        }
        self.arriving_in = Some(transfer);
        // Memory grows with what has arrived, never with what was announced.
        if chunk.offset == self.arriving.len() as u64 {
            self.arriving.extend_from_slice(&chunk.data);
        }
        Report::Added { transfer, received: self.arriving.len() as u64 }
    }

    /// All that has arrived, if it is of this transfer. Nothing of it stays here.
    pub fn take(&mut self, transfer: SnapshotTransfer) -> Option<Bytes> {
        let data = std::mem::take(&mut self.arriving).freeze();
        (self.arriving_in.take() == Some(transfer)).then_some(data)
    }
}
