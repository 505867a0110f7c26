//! Where a replica keeps what must outlive it: its log and its snapshots.
//!
//! Two traits, because two threads use them: a large snapshot is written while the log goes on.

use std::sync::{Arc, Mutex, PoisonError};

use bowline_node::StoredSnapshot;
use bowline_node::raft::{Index, SnapshotHeader, Write};

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

    /// This snapshot is durable: entries up to its position may go, after the next [`LogStore::sync`].
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
}

/// The snapshots.
pub trait SnapshotStore: Send + 'static {
    /// Makes a snapshot durable, in place of the one before.
    ///
    /// # Errors
    /// It can't be kept.
    fn store(&mut self, snapshot: &StoredSnapshot) -> Result<(), StoreError>;

    /// Removes what is older than the snapshot at this index, whose mark in the log is durable.
    ///
    /// # Errors
    /// The disk is broken.
    fn prune(&mut self, before: Index) -> Result<(), StoreError>;
}

/// Keeps nothing beyond the process: for tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    kept: Arc<Mutex<Kept>>,
}

/// What a [`MemoryStore`] was told to keep.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The writes that were made durable.
    pub writes: Vec<Write>,
    /// The latest snapshot.
    pub snapshot: Option<StoredSnapshot>,
    unsynced: Vec<Write>,
}

impl MemoryStore {
    /// What was made durable so far.
    #[must_use]
    pub fn kept(&self) -> Kept {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Kept)) {
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
}

impl SnapshotStore for MemoryStore {
    fn store(&mut self, snapshot: &StoredSnapshot) -> Result<(), StoreError> {
        self.change(|kept| kept.snapshot = Some(snapshot.clone()));
        Ok(())
    }

    fn prune(&mut self, _before: Index) -> Result<(), StoreError> {
        Ok(())
    }
}
