//! One replica's host in a test world: its disk, its state machine, and what waits for either.

use std::collections::{BTreeMap, VecDeque};

use bowline_raft::{
    Config, Entry, HardState, Index, Membership, Message, NodeId, PersistId, Position, Raft, Recovered, SnapshotHeader,
    Time, Write,
};

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: Option<SnapshotHeader>,
    /// Everything that the snapshot's state machine has applied, from index 1.
    pub(crate) contents: Vec<Entry>,
    pub(crate) entries: Vec<Entry>,
    /// Where the log may have ended before a part of it was lost.
    pub(crate) suspect: Option<Position>,
    /// What was lost, and counts as held until nothing that matters of it is missing.
    pub(crate) owed: Vec<Position>,
}

impl Disk {
    pub(crate) fn base(&self) -> Position {
        self.snapshot.as_ref().map_or(Position::ORIGIN, |snapshot| snapshot.position)
    }

    pub(crate) fn last(&self) -> Position {
        self.entries.last().map_or(self.base(), Entry::position)
    }

    /// Whether this disk holds the position, or a snapshot that covers it.
    pub(crate) fn holds(&self, position: Position) -> bool {
        let held = self.entries.iter().any(|entry| entry.position() == position) || self.owed.contains(&position);
        position.index <= self.base().index || held
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
    /// A founding member, or with no membership one that waits to be added.
    pub(crate) fn new(config: Config, founders: Option<Membership>) -> Host {
        let snapshot = founders.and_then(|membership| Recovered::founding(membership).snapshot);
        let mut host = Host {
            id: config.id,
            raft: None,
            config,
            clock: Time::ZERO,
            starts: 0,
            disk: Disk { snapshot, ..Disk::default() },
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
        let recovered = Recovered {
            hard_state: self.disk.hard_state,
            snapshot: self.disk.snapshot.clone(),
            entries: self.disk.entries.clone(),
            applied: self.applied(),
            suspect: self.disk.suspect,
        };
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
        match write {
            Write::HardState(hard_state) => self.disk.hard_state = hard_state,
            Write::Truncate { from } => self.disk.entries.retain(|entry| entry.index < from),
            Write::Append(entries) => {
                assert_eq!(entries[0].index, self.disk.last().index.next(), "{} leaves a gap on disk", self.id);
                self.disk.entries.extend(entries);
            }
            Write::Suspect { reach } => self.disk.suspect = Some(reach),
            Write::Repaired => {
                self.disk.suspect = None;
                self.disk.owed.clear();
            }
            Write::Snapshot(snapshot) => {
                self.disk.contents = self.received[&snapshot.position].clone();
                self.disk.snapshot = Some(snapshot);
                self.disk.entries.clear();
            }
        }
    }

    /// Stores a snapshot of the state machine as it is. Returns its index.
    pub(crate) fn store_snapshot(&mut self) -> Option<Index> {
        let index = self.applied();
        let header = self.raft().snapshot_header(index)?;
        if index <= self.disk.base().index || index > self.disk.last().index {
            return None;
        }
        self.disk.snapshot = Some(header);
        self.disk.contents.clone_from(&self.machine);
        self.disk.entries.retain(|entry| entry.index > index);
        Some(index)
    }
}
