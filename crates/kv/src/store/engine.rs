//! The interface of the store to the engine that keeps its records.

use std::fmt;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::Record;
use super::leases::{Lease, LeaseChange};

/// The place of a record in the history: its transaction, and its number in the transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The revision that clients see; at least 2 for a record.
    pub main: i64,
    /// Counts the writes of one transaction, from 0.
    pub sub: u32,
}

impl Revision {
    /// The first place that a record of this main revision can have.
    #[must_use]
    pub const fn start_of(main: i64) -> Revision {
        Revision { main, sub: 0 }
    }

    /// The next possible place.
    #[must_use]
    pub const fn next(self) -> Revision {
        match self.sub.checked_add(1) {
            Some(sub) => Revision { main: self.main, sub },
            None => Revision::start_of(self.main.saturating_add(1)),
        }
    }
}

/// Reads the records of an engine, as of one moment.
pub trait Records {
    /// The record at a revision.
    ///
    /// # Errors
    /// The engine can't be read.
    fn get(&self, at: Revision) -> Result<Option<Record>, EngineError>;

    /// Visits the records from `from` on and before `until`, in order, until `visit` breaks.
    ///
    /// # Errors
    /// The engine can't be read.
    fn scan(
        &self,
        from: Revision,
        until: Revision,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), EngineError>;

    /// The leases, in the order of their identities.
    ///
    /// # Errors
    /// The engine can't be read.
    fn leases(&self) -> Result<Vec<Lease>, EngineError>;
}

/// Writes that take effect together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch<'a> {
    /// Drops every record and every lease first.
    pub clear: bool,
    /// Replaces the store's notes about itself, the applied index among them.
    pub meta: Bytes,
    /// Records to add, in the order of their revisions.
    pub puts: &'a [(Revision, Record)],
    /// Records to remove.
    pub deletes: &'a [Revision],
    /// Changes of the leases, one after the other.
    pub leases: &'a [LeaseChange],
}

/// The size of an engine, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineSize {
    /// Occupied space.
    pub total: u64,
    /// The part that holds data; the rest is free.
    pub in_use: u64,
}

/// An ordered map from revisions to records, a map of leases, and a note that changes together with them.
///
/// Nothing has to survive a crash before [`Engine::checkpoint`], because the log still holds everything that was
/// applied since. But what survives must be exactly the state after some [`Engine::write`].
pub trait Engine {
    /// For short reads.
    type Reader<'a>: Records
    where
        Self: 'a;
    /// For long reads of a fixed state, possibly on another thread, while the engine is in use.
    type View: Records + Send + 'static;

    /// The note that was written last; empty if there was none.
    ///
    /// # Errors
    /// The engine can't be read.
    fn meta(&self) -> Result<Bytes, EngineError>;

    /// A reader of the present state.
    ///
    /// # Errors
    /// The engine can't be read.
    fn reader(&self) -> Result<Self::Reader<'_>, EngineError>;

    /// A view of the present state. The engine may need more space while the view exists.
    ///
    /// # Errors
    /// The engine can't be read.
    fn view(&self) -> Result<Self::View, EngineError>;

    /// Applies a batch as a whole.
    ///
    /// # Errors
    /// The batch had no effect, or the engine is broken.
    fn write(&mut self, batch: &Batch<'_>) -> Result<(), EngineError>;

    /// Makes everything that was written durable, together with the host's label, if there is a new one.
    ///
    /// # Errors
    /// It may not be durable; the engine must not be used any more (a failed fsync is never retried).
    fn checkpoint(&mut self, label: Option<&[u8]>) -> Result<(), EngineError>;

    /// The host's label, as of the last checkpoint that had one; empty if there was none.
    ///
    /// # Errors
    /// The engine can't be read.
    fn label(&self) -> Result<Bytes, EngineError>;

    /// How large it is.
    fn size(&self) -> EngineSize;

    /// Whether there is room to write this many bytes of records now, and to make everything durable. If the disk
    /// becomes full during a batch, the engine breaks, so callers ask first. An engine that doesn't know says yes.
    fn has_room(&self, bytes: u64) -> bool {
        let _ = bytes;
        true
    }
}

/// The engine failed, or its content is invalid. The replica must stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineError {
    action: &'static str,
    reason: String,
    refused: bool,
}

impl EngineError {
    /// `action` completes "the storage engine could not ...".
    pub fn new(action: &'static str, reason: impl fmt::Display) -> EngineError {
        EngineError { action, reason: reason.to_string(), refused: false }
    }

    /// As [`EngineError::new`], if the system refused the operation: the engine's content may be undamaged.
    pub fn refused(action: &'static str, reason: impl fmt::Display) -> EngineError {
        EngineError { refused: true, ..EngineError::new(action, reason) }
    }

    /// Whether the system refused to read or to write. If so, the engine may be opened again later, with all its
    /// content; if not, its content can't be trusted.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.refused
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the storage engine could not {}: {}", self.action, self.reason)
    }
}

impl std::error::Error for EngineError {}
