//! What the store needs of the place where it keeps its records.

use std::fmt;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::Record;
use super::leases::{Lease, LeaseChange};

/// The place of a record in the history: of which transaction it is, and the how-manieth in it.
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

    /// The place behind this one.
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

    /// Shows the records from `from` on and before `until`, in order, until told to stop.
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

/// Bytes that an engine takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineSize {
    /// All that it occupies.
    pub total: u64,
    /// Of what it holds; the rest is free.
    pub in_use: u64,
}

/// An ordered map from revisions to records, and one of leases, with a note that changes together with them.
///
/// Nothing has to survive a crash until [`Engine::checkpoint`], because the log still holds what was
/// applied since; but what survives must be the state after some [`Engine::write`], whole.
pub trait Engine {
    /// Reads for a moment.
    type Reader<'a>: Records
    where
        Self: 'a;
    /// Reads for long, elsewhere perhaps, what is there now, while the engine goes on.
    type View: Records + Send + 'static;

    /// The note that was written last; empty if there was none.
    ///
    /// # Errors
    /// The engine can't be read.
    fn meta(&self) -> Result<Bytes, EngineError>;

    /// Reads what is there now.
    ///
    /// # Errors
    /// The engine can't be read.
    fn reader(&self) -> Result<Self::Reader<'_>, EngineError>;

    /// Keeps what is there now readable. Holding it for long may cost the engine space.
    ///
    /// # Errors
    /// The engine can't be read.
    fn view(&self) -> Result<Self::View, EngineError>;

    /// Does a batch, as one.
    ///
    /// # Errors
    /// Nothing of it took effect, or the engine is broken.
    fn write(&mut self, batch: &Batch<'_>) -> Result<(), EngineError>;

    /// Makes all that was written durable, and the host's label with it, if there is a new one.
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

    /// Whether so many bytes of records can be written now, and all that was written made durable. A disk that
    /// turns out to be full in the middle of a batch breaks an engine; who asks before keeps it. An engine that
    /// can't tell says yes.
    fn has_room(&self, bytes: u64) -> bool {
        let _ = bytes;
        true
    }
}

/// An engine that failed, or does not hold what it should. The replica must stop.
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

    /// The same, where the system refused something: what the engine holds may be whole.
    pub fn refused(action: &'static str, reason: impl fmt::Display) -> EngineError {
        EngineError { refused: true, ..EngineError::new(action, reason) }
    }

    /// Whether the system refused to read or to write. The same engine may be opened again later, with all that it
    /// held; else what it holds can't be trusted.
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
