//! What the tests of the core add to a host: its clock, and its state machine.

use std::collections::{BTreeSet, VecDeque};

use bowline_raft::{Config, Entry, Index, Position, Raft, SnapshotHeader, Time, Write};

use super::simulation;

pub(crate) type Host = simulation::Host<Raft>;

/// A crash drops all of it but the clock, `owed` and `machine`.
#[derive(Default)]
pub(crate) struct CoreHost {
    /// This host's own clock.
    pub(crate) clock: Time,
    /// What the disk has lost, and counts as held until nothing that matters of it is missing.
    pub(crate) owed: Vec<Position>,
    /// Nothing becomes durable until the test says so.
    pub(crate) disk_held: bool,
    /// Everything that the state machine has applied, from index 1.
    pub(crate) machine: Vec<Entry>,
    pub(crate) unapplied: VecDeque<Work>,
    pub(crate) machine_held: bool,
    /// The snapshots that were received since the start.
    pub(crate) received: BTreeSet<Position>,
}

/// Work for the state machine.
pub(crate) enum Work {
    Apply(Vec<Entry>),
    Install(SnapshotHeader),
}

impl Host {
    pub(crate) fn raft(&self) -> &Raft {
        self.replica.as_ref().expect("the replica is up")
    }

    /// How far its state machine is.
    pub(crate) fn applied(&self) -> Index {
        self.own.machine.last().map_or(Index(0), |entry| entry.index)
    }

    /// Whether its disk holds the position, or a snapshot that covers it.
    pub(crate) fn holds(&self, position: Position) -> bool {
        position.index <= self.disk.base().index || self.disk.reaches(position) || self.own.owed.contains(&position)
    }

    /// A replica that starts from what the disk holds, of which the snapshot has these contents. The state
    /// machine keeps what it has, unless the log can't continue from there.
    pub(crate) fn recover(&mut self, mut config: Config, contents: &[Entry]) -> Raft {
        let (base, last) = (self.disk.base().index, self.disk.last().index);
        if self.applied() < base || self.applied() > last {
            self.own.machine = contents.to_vec();
        }
        config.seed = config.seed.wrapping_mul(1_000_003).wrapping_add(self.starts);
        let recovered = self.disk.clone().recovered(self.applied());
        Raft::new(config, recovered, self.own.clock).expect("the disk is consistent")
    }

    /// The position at `index` in the log as written, synced or not.
    pub(crate) fn unsynced_position(&self, index: Index) -> Position {
        let written = self.jobs.iter().rev().filter_map(|(_, write)| match write {
            Write::Append(entries) => entries.iter().find(|entry| entry.index == index).map(Entry::position),
            Write::Snapshot(snapshot) if snapshot.position.index == index => Some(snapshot.position),
            _ => None,
        });
        let on_disk = || self.disk.entries.iter().find(|entry| entry.index == index).map(Entry::position);
        written.chain(on_disk()).next().unwrap_or(self.disk.base())
    }
}
