//! Snapshots in memory: those that are kept ready for followers, and the one that arrives in pieces.

use std::collections::BTreeMap;

use bowline_raft::{Index, NodeId};
use bytes::{Bytes, BytesMut};

use crate::job::Report;
use crate::message::{Piece, SnapshotChunk, SnapshotTransfer};

/// The snapshots of a host that keeps them in memory.
#[derive(Debug, Default)]
pub struct HeldSnapshots {
    /// Snapshots to send, by their last index.
    ready: BTreeMap<Index, Bytes>,
    arriving: BytesMut,
    /// The transfer that these pieces belong to.
    arriving_in: Option<SnapshotTransfer>,
}

impl HeldSnapshots {
    /// Keeps a snapshot ready to be sent.
    pub fn hold(&mut self, index: Index, data: Bytes) {
        self.ready.insert(index, data);
    }

    /// Drops a snapshot that nobody needs any more.
    pub fn release(&mut self, index: Index) {
        self.ready.remove(&index);
    }

    /// The bytes of a piece; `None` if its snapshot is not held.
    #[must_use]
    pub fn bytes_of(&self, piece: &Piece) -> Option<Bytes> {
        let data = self.ready.get(&piece.header.position.index)?;
        let start = usize::try_from(piece.offset).ok()?;
        let end = start.checked_add(piece.length).filter(|end| *end <= data.len())?;
        (data.len() as u64 == piece.total).then(|| data.slice(start..end))
    }

    /// Adds a piece that has arrived if it is the next one, and reports how much has arrived.
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

    /// Removes what has arrived, and returns it if it belongs to this transfer.
    pub fn take(&mut self, transfer: SnapshotTransfer) -> Option<Bytes> {
        let data = std::mem::take(&mut self.arriving).freeze();
        (self.arriving_in.take() == Some(transfer)).then_some(data)
    }
}
