//! One replica's host in a small cluster: its disk, its state machine, and what waits for either.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Deref, DerefMut};

use bowline_raft::{
    Config, Entry, Index, Membership, Message, NodeId, PersistId, Position, Raft, SnapshotHeader, Time, Write,
};

use super::log_on_disk::LogOnDisk;

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) log: LogOnDisk,
    /// Everything that the snapshot's state machine has applied, from index 1.
    pub(crate) contents: Vec<Entry>,
    /// What was lost, and counts as held until nothing that matters of it is missing.
    pub(crate) owed: Vec<Position>,
}

impl Deref for Disk {
    type Target = LogOnDisk;

    fn deref(&self) -> &LogOnDisk {
        &self.log
    }
}

impl DerefMut for Disk {
    fn deref_mut(&mut self) -> &mut LogOnDisk {
        &mut self.log
    }
}

impl Disk {
    /// Whether this disk holds the position, or a snapshot that covers it.
    pub(crate) fn holds(&self, position: Position) -> bool {
        position.index <= self.base().index || self.reaches(position) || self.owed.contains(&position)
    }
}

/// A replica and the machine that it runs on.
pub(crate) struct Host {
    pub(crate) id: NodeId,
    /// `None` while it is down.
    pub(crate) raft: Option<Raft>,
    pub(crate) config: Config,
    /// This host's own clock.
    pub(crate) clock: Time,
    starts: u64,

    pub(crate) disk: Disk,
    pub(crate) unsynced: VecDeque<(PersistId, Write)>,
    pub(crate) durable: PersistId,
    pub(crate) disk_held: bool,
    /// Messages that wait for the disk.
    pub(crate) parked: VecDeque<(PersistId, NodeId, Message)>,

    /// Everything that the state machine has applied, from index 1.
    pub(crate) machine: Vec<Entry>,
    pub(crate) unapplied: VecDeque<Work>,
    pub(crate) machine_held: bool,
    /// Contents of the snapshots that were received.
    pub(crate) received: BTreeMap<Position, Vec<Entry>>,
}

/// Work for the state machine.
pub(crate) enum Work {
    Apply(Vec<Entry>),
    Install(SnapshotHeader),
}

impl Host {
    /// The host of a founding member; without `founders`, of a replica that waits to be added.
    pub(crate) fn new(config: Config, founders: Option<Membership>) -> Host {
        let mut host = Host {
            id: config.id,
            raft: None,
            config,
            clock: Time::ZERO,
            starts: 0,
            disk: Disk { log: LogOnDisk::founding(founders), ..Disk::default() },
            unsynced: VecDeque::new(),
            durable: PersistId(0),
            disk_held: false,
            parked: VecDeque::new(),
            machine: Vec::new(),
            unapplied: VecDeque::new(),
            machine_held: false,
            received: BTreeMap::new(),
        };
        host.start();
        host
    }

    pub(crate) fn raft(&self) -> &Raft {
        self.raft.as_ref().expect("the replica is up")
    }

    /// How far its state machine is.
    pub(crate) fn applied(&self) -> Index {
        self.machine.last().map_or(Index(0), |entry| entry.index)
    }

    /// Power fails: what was not synced is gone, and so is what waited in memory.
    pub(crate) fn crash(&mut self) {
        self.raft = None;
        self.unsynced.clear();
        self.parked.clear();
        self.unapplied.clear();
        self.received.clear();
        self.disk_held = false;
        self.machine_held = false;
    }

    /// Starts from what the disk holds. The state machine keeps what it has, unless the log can't
    /// continue from there.
    pub(crate) fn start(&mut self) {
        let (base, last) = (self.disk.base().index, self.disk.last().index);
        if self.applied() < base || self.applied() > last {
            self.machine.clone_from(&self.disk.contents);
        }
        self.starts += 1;
        let mut config = self.config.clone();
        config.seed = config.seed.wrapping_mul(1_000_003).wrapping_add(self.starts);
        let recovered = self.disk.log.clone().recovered(self.applied());
        self.durable = PersistId(0);
        self.raft = Some(Raft::new(config, recovered, self.clock).expect("the disk is consistent"));
    }

    /// The position at `index` in the log as written, synced or not.
    pub(crate) fn unsynced_position(&self, index: Index) -> Position {
        let written = self.unsynced.iter().rev().filter_map(|(_, write)| match write {
            Write::Append(entries) => entries.iter().find(|entry| entry.index == index).map(Entry::position),
            Write::Snapshot(snapshot) if snapshot.position.index == index => Some(snapshot.position),
            _ => None,
        });
        let on_disk = || self.disk.entries.iter().find(|entry| entry.index == index).map(Entry::position);
        written.chain(on_disk()).next().unwrap_or(self.disk.base())
    }

    /// Makes the oldest unsynced write durable.
    pub(crate) fn sync_one(&mut self) {
        let Some((id, write)) = self.unsynced.pop_front() else { return };
        self.durable = id;
        match &write {
            Write::Repaired => self.disk.owed.clear(),
            Write::Snapshot(snapshot) => self.disk.contents = self.received[&snapshot.position].clone(),
            _ => {}
        }
        self.disk.write(write);
    }

    /// Stores a snapshot of the state machine as it is. Returns its index.
    pub(crate) fn store_snapshot(&mut self) -> Option<Index> {
        let index = self.applied();
        let header = self.raft().snapshot_header(index)?;
        if index <= self.disk.base().index || index > self.disk.last().index {
            return None;
        }
        self.disk.start_after(header);
        self.disk.contents.clone_from(&self.machine);
        Some(index)
    }
}
