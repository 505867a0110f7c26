//! The interface of a replica's log.

use std::sync::{Arc, Mutex, PoisonError};

use bowline_node::raft::{SnapshotHeader, Write};

/// Why something can't be made durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Writes may be lost, and the contents of the disk are no longer known. The process must stop, and read the disk
    /// when it starts again.
    #[error("{0}")]
    Fatal(String),
}

/// A log: an ordered stream of writes.
pub trait LogStore: Send + 'static {
    /// Adds a write to the stream. It is durable after the next [`LogStore::sync`].
    ///
    /// # Errors
    /// The write failed.
    fn append(&mut self, write: &Write) -> Result<(), StoreError>;

    /// Makes all earlier writes durable.
    ///
    /// # Errors
    /// A write failed.
    fn sync(&mut self) -> Result<(), StoreError>;

    /// The state that this header describes is durable: entries up to it may be removed after the next
    /// [`LogStore::sync`].
    ///
    /// # Errors
    /// The log can't be used any more.
    fn compact(&mut self, snapshot: &SnapshotHeader) -> Result<(), StoreError>;

    /// Prepares for later writes. Called after each sync, and regularly while there is no room.
    ///
    /// # Errors
    /// The log can't be used any more.
    fn tend(&mut self) -> Result<(), StoreError>;

    /// Whether there is room for `bytes` of entries. If not, no entries may be appended; votes may.
    fn admits(&self, bytes: u64) -> bool;

    /// Bytes written since the start, including overhead.
    fn bytes_written(&self) -> u64;
}

/// A log in memory, for tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    kept: Arc<Mutex<StoredWrites>>,
}

/// The contents of a [`MemoryStore`].
#[derive(Clone, Debug, Default)]
pub struct StoredWrites {
    /// The writes that were made durable.
    pub writes: Vec<Write>,
    unsynced: Vec<Write>,
}

impl MemoryStore {
    /// The writes that were synced so far.
    #[must_use]
    pub fn kept(&self) -> StoredWrites {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut StoredWrites)) {
        change(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl LogStore for MemoryStore {
    fn append(&mut self, write: &Write) -> Result<(), StoreError> {
        self.change(|kept| kept.unsynced.push(write.clone()));
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.change(|kept| {
            let unsynced = std::mem::take(&mut kept.unsynced);
            kept.writes.extend(unsynced);
        });
        Ok(())
    }

    fn compact(&mut self, _snapshot: &SnapshotHeader) -> Result<(), StoreError> {
        Ok(())
    }

    fn tend(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn admits(&self, _bytes: u64) -> bool {
        true
    }

    fn bytes_written(&self) -> u64 {
        0
    }
}
