//! A replica's log as it survives a crash: what its stream of writes has made durable so far.
//!
//! The tests of the core and those of the node run small clusters of their own, and share this.

use bowline_raft::{Entry, HardState, Index, Membership, Position, Recovered, SnapshotHeader, Write};

#[derive(Clone, Debug, Default)]
pub(crate) struct LogOnDisk {
    pub(crate) hard_state: HardState,
    /// The log starts after this one.
    pub(crate) snapshot: Option<SnapshotHeader>,
    pub(crate) entries: Vec<Entry>,
    /// Where the log may have ended before a part of it was lost.
    pub(crate) suspect: Option<Position>,
}

impl LogOnDisk {
    /// The log of a founding member; without `founders`, of a replica that waits to be added.
    pub(crate) fn founding(founders: Option<Membership>) -> LogOnDisk {
        let snapshot = founders.and_then(|membership| Recovered::founding(membership).snapshot);
        LogOnDisk { snapshot, ..LogOnDisk::default() }
    }

    pub(crate) fn base(&self) -> Position {
        self.snapshot.as_ref().map_or(Position::ORIGIN, |snapshot| snapshot.position)
    }

    pub(crate) fn last(&self) -> Position {
        self.entries.last().map_or(self.base(), Entry::position)
    }

    /// Whether it starts after this position, or has an entry there.
    pub(crate) fn reaches(&self, position: Position) -> bool {
        position == self.base() || self.entries.iter().any(|entry| entry.position() == position)
    }

    /// A write becomes durable.
    pub(crate) fn write(&mut self, write: Write) {
        match write {
            Write::HardState(hard_state) => self.hard_state = hard_state,
            Write::Truncate { from } => self.entries.retain(|entry| entry.index < from),
            Write::Append(entries) => {
                assert_eq!(entries[0].index, self.last().index.next(), "no gap is left on the disk");
                self.entries.extend(entries);
            }
            Write::Suspect { last_possible } => self.suspect = Some(last_possible),
            Write::Repaired => self.suspect = None,
            Write::Snapshot(header) => {
                self.snapshot = Some(header);
                self.entries.clear();
            }
        }
    }

    /// The log starts after a snapshot that has its first entries.
    pub(crate) fn start_after(&mut self, header: SnapshotHeader) {
        self.entries.retain(|entry| entry.index > header.position.index);
        self.snapshot = Some(header);
    }

    /// What a replica starts with. Its state machine has applied everything up to `applied`.
    pub(crate) fn recovered(self, applied: Index) -> Recovered {
        let LogOnDisk { hard_state, snapshot, entries, suspect } = self;
        Recovered { hard_state, snapshot, entries, applied, suspect }
    }
}
