//! Where a replica keeps its log.

use std::sync::{Arc, Mutex, PoisonError};

use bowline_node::raft::{SnapshotHeader, Write};

/// Why something can't be made durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// What was promised can't be kept, and what the disk holds is no longer known: the process must stop,
    /// and find out when it starts again.
    #[error("{0}")]
    Fatal(String),
}

/// The log: one ordered stream of writes.
pub trait LogStore: Send + 'static {
    /// Adds a write to the stream. It is durable after the next [`LogStore::sync`].
    ///
    /// # Errors
    /// It can't be kept.
    fn append(&mut self, write: &Write) -> Result<(), StoreError>;

    /// Makes all that was added durable.
    ///
    /// # Errors
    /// It can't be kept.
    fn sync(&mut self) -> Result<(), StoreError>;

    /// The state that this describes is durable: entries up to it may go, after the next [`LogStore::sync`].
    ///
    /// # Errors
    /// The log can't be used any more.
    fn compact(&mut self, snapshot: &SnapshotHeader) -> Result<(), StoreError>;

    /// Looks after what will be needed. Called after each sync, and now and then while there is no room.
    ///
    /// # Errors
    /// The log can't be used any more.
    fn tend(&mut self) -> Result<(), StoreError>;

    /// Whether there is room for entries of so many bytes. If not, they must not be appended; votes may.
    fn admits(&self, bytes: u64) -> bool;

    /// Bytes written since the start, with all overhead.
    fn bytes_written(&self) -> u64;
}

/// Keeps nothing beyond the process: for tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    kept: Arc<Mutex<StoredWrites>>,
}

/// What a [`MemoryStore`] was told to keep.
#[derive(Clone, Debug, Default)]
pub struct StoredWrites {
    /// The writes that were made durable.
    pub writes: Vec<Write>,
    unsynced: Vec<Write>,
}

impl MemoryStore {
    /// What was made durable so far.
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

    /// None: it is memory.
    fn bytes_written(&self) -> u64 {
        0
    }
}
