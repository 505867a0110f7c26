//! Events, the keys that are watched, and the interface to the history.

use std::sync::Arc;

use bytes::Bytes;

use crate::store::{AuthBook, EngineError, KeyValue, Record, Revision};

/// Whether a key was set or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The key was set.
    Put,
    /// The key was deleted.
    Delete,
}

/// A write of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether the key was set or deleted.
    pub kind: EventKind,
    /// The key as it was set. Of a deletion: the key and the revision of the deletion.
    pub kv: KeyValue,
    /// The key before the write, for a watcher that asked for it. `None` if there was no such key, or if its revision is
    /// compacted.
    pub prev_kv: Option<KeyValue>,
}

impl Event {
    /// The event of a record at a revision.
    ///
    /// # Errors
    /// The record is damaged.
    pub fn of(at: Revision, record: &Record) -> Result<Event, EngineError> {
        let mut kv = record.key_value()?;
        let kind = if record.is_tombstone() { EventKind::Delete } else { EventKind::Put };
        kv.mod_revision = at.main;
        Ok(Event { kind, kv, prev_kv: None })
    }

    /// The revision of the write.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.kv.mod_revision
    }

    /// Its size for bounds, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let size = |kv: &KeyValue| kv.key.len() + kv.value.len() + 64;
        size(&self.kv) + self.prev_kv.as_ref().map_or(0, size)
    }
}

/// Keys that are watched: one, or a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub(crate) start: Bytes,
    pub(crate) end: End,
}

/// The end of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// There is only the start.
    Single,
    /// The range ends before this key.
    Before(Bytes),
    /// The range has no end.
    Unbounded,
}

impl KeyRange {
    /// The range of a request, with etcd's meaning: an empty key is `\0`, an empty end means the key alone, and the end
    /// `\0` means that there is none. `None` if the range is empty.
    #[must_use]
    pub fn of(key: &Bytes, range_end: &Bytes) -> Option<KeyRange> {
        let start = if key.is_empty() { Bytes::from_static(&[0]) } else { key.clone() };
        let end = match &range_end[..] {
            [] => End::Single,
            [0] => End::Unbounded,
            end if end <= &start[..] => return None,
            _ => End::Before(range_end.clone()),
        };
        Some(KeyRange { start, end })
    }

    /// Whether it holds a key.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => key == &self.start[..],
            End::Before(end) => (&self.start[..]..&end[..]).contains(&key),
            End::Unbounded => key >= &self.start[..],
        }
    }
}

/// Bounds of a portion of history. A portion ends with the revision in which it reaches one of them.
#[derive(Clone, Copy, Debug)]
pub struct PortionLimits {
    /// Most revisions that have events.
    pub revisions: usize,
    /// Most records to read, whether they are of interest or not.
    pub records: usize,
    /// Most bytes of events.
    pub bytes: usize,
}

impl Default for PortionLimits {
    /// As many revisions as etcd sends at once, and what takes a few milliseconds.
    fn default() -> PortionLimits {
        PortionLimits { revisions: 1_000, records: 10_000, bytes: 1 << 20 }
    }
}

/// A part of the history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Portion {
    /// The events of interest, in the order of their revisions; those of one transaction in its order.
    pub events: Vec<Event>,
    /// There are no other events of interest up to this revision.
    pub through: i64,
}

/// The past of a store, by revision.
pub trait History {
    /// The latest revision.
    fn revision(&self) -> i64;

    /// The oldest readable revision; -1 before the first compaction.
    fn compacted_revision(&self) -> i64;

    /// The users and roles after the latest command.
    fn auth(&self) -> Arc<AuthBook>;

    /// The events from the revision `from` on, of keys that have watchers. `watchers` says how many a key has: an event
    /// counts towards the limit of bytes for each of them.
    ///
    /// # Errors
    /// The store is broken.
    fn events(
        &self,
        from: i64,
        limits: &PortionLimits,
        watchers: &mut dyn FnMut(&[u8]) -> usize,
    ) -> Result<Portion, EngineError>;

    /// A key as it was just before a revision; `None` if there was none, or if that is compacted.
    ///
    /// # Errors
    /// The store is broken.
    fn before(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, EngineError>;
}
