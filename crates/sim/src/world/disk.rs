//! A simulated disk: it takes the node's ordered stream of writes, and keeps for sure only what was
//! synced. After a crash a prefix of the unsynced rest is there, the last write perhaps torn.

use std::collections::{BTreeMap, VecDeque};

use bowline_node::{RecoveredNode, StoredSnapshot};
use bowline_raft::{
    Entry, HardState, Index, Membership, NodeId, Payload, PersistId, Position, Recovered, SnapshotHeader, Term, Write,
};

use crate::world::dice::Dice;
use crate::world::oracle::digest;

/// One write of the stream.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// A snapshot from the leader, which precedes the write that needs it.
    File(StoredSnapshot),
    Write(PersistId, Write),
}

/// What a sync has made durable.
#[derive(Debug, Default)]
pub(crate) struct Synced {
    pub(crate) up_to: Option<PersistId>,
    /// Snapshots that are durable now.
    pub(crate) files: Vec<Index>,
}

/// What a crash did to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Unsynced writes that are gone.
    pub(crate) lost: usize,
    /// Whether the last surviving one was torn.
    pub(crate) torn: bool,
}

/// What is durable.
#[derive(Clone, Debug, Default)]
struct Durable {
    hard_state: HardState,
    /// The log starts after this one.
    base: Option<SnapshotHeader>,
    entries: VecDeque<Entry>,
    files: Vec<File>,
    /// A bit of a file was flipped once: from then on they are looked at.
    flipped: bool,
    votes: BTreeMap<Term, NodeId>,
    /// Where the log may have ended before a part of it was lost.
    suspect: Option<Position>,
    /// What was lost since.
    owed: Vec<Position>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    durable: Durable,
    pending: VecDeque<Item>,
    /// How many of them the sync under way covers.
    syncing: Option<usize>,
    /// A snapshot of the own state machine that is being stored, beside the stream.
    storing: VecDeque<StoredSnapshot>,
    /// Sabotage for tests of the world: says that it has synced, and has not.
    pub(crate) lies: bool,
    lied: VecDeque<Item>,
    losses: u32,
}

/// A snapshot in its file, with the checksum that was written beside it.
#[derive(Clone, Debug)]
struct File {
    snapshot: StoredSnapshot,
    checksum: u64,
}

impl File {
    fn of(snapshot: StoredSnapshot) -> File {
        File { checksum: digest(&snapshot.data), snapshot }
    }

    fn is_rotten(&self) -> bool {
        digest(&self.snapshot.data) != self.checksum
    }
}

impl Disk {
    /// The disk of a founding member.
    pub(crate) fn founding(membership: Membership) -> Disk {
        let mut disk = Disk::default();
        disk.durable.base = Some(SnapshotHeader { position: Position::ORIGIN, membership });
        disk
    }

    pub(crate) fn write(&mut self, item: Item) {
        self.pending.push_back(item);
    }

    /// Starts a sync of the first `share` percent of what is written, if there is anything and no
    /// other sync is under way.
    pub(crate) fn start_sync(&mut self, share: u64) -> bool {
        if self.syncing.is_some() || self.pending.is_empty() {
            return false;
        }
        let all = self.pending.len();
        self.syncing = Some((all * share as usize).div_ceil(100).clamp(1, all));
        true
    }

    /// The sync under way has ended.
    pub(crate) fn finish_sync(&mut self) -> Synced {
        let mut synced = Synced::default();
        for _ in 0..self.syncing.take().unwrap_or(0) {
            let Some(item) = self.pending.pop_front() else { break };
            match &item {
                Item::File(snapshot) => synced.files.push(snapshot.header.position.index),
                Item::Write(id, _) => synced.up_to = Some(*id),
            }
            match self.lies {
                true => self.lied.push_back(item),
                false => self.durable.take(item),
            }
        }
        synced
    }

    pub(crate) fn start_storing(&mut self, snapshot: StoredSnapshot) {
        self.storing.push_back(snapshot);
    }

    /// The own snapshot is durable: the log before it may go.
    pub(crate) fn finish_storing(&mut self) -> Option<Index> {
        let snapshot = self.storing.pop_front()?;
        let index = snapshot.header.position.index;
        self.durable.keep_file(snapshot);
        Some(index)
    }

    /// The process stops, but its machine doesn't: what was written is there.
    pub(crate) fn stop(&mut self) {
        self.syncing = None;
        self.storing.clear();
        for item in std::mem::take(&mut self.pending) {
            self.durable.take(item);
        }
    }

    /// Sabotage for tests of the world: the last vote is gone.
    pub(crate) fn forget_vote(&mut self) {
        self.durable.hard_state.voted_for = None;
    }

    /// The process or the machine stops: of what was not synced a prefix survives.
    pub(crate) fn crash(&mut self, dice: &mut Dice) -> Damage {
        self.syncing = None;
        self.lied.clear();
        let all = self.pending.len();
        let keep = match dice.below(4) {
            0 => 0,
            1 => all,
            _ => dice.index(all + 1),
        };
        let mut damage = Damage { lost: all - keep, torn: false };
        for item in self.pending.drain(..keep) {
            self.durable.take(item);
        }
        if let Some(Item::Write(id, Write::Append(mut entries))) = self.pending.pop_front()
            && entries.len() > 1
            && dice.percent(70)
        {
            entries.truncate(1 + dice.index(entries.len() - 1));
            self.durable.take(Item::Write(id, Write::Append(entries)));
            damage.torn = true;
        }
        self.pending.clear();
        // A file is there whole or not at all: it gets its name last.
        for snapshot in std::mem::take(&mut self.storing) {
            if dice.percent(50) {
                self.durable.keep_file(snapshot);
            }
        }
        damage
    }

    /// A bit of the latest snapshot flips. Returns whether there is one.
    pub(crate) fn rot(&mut self, bit: u64) -> bool {
        let Some(file) = self.durable.files.last_mut().filter(|file| !file.snapshot.data.is_empty()) else {
            return false;
        };
        let mut data = file.snapshot.data.to_vec();
        let at = bit % (data.len() as u64 * 8);
        data[(at / 8) as usize] ^= 1 << (at % 8);
        file.snapshot.data = data.into();
        self.durable.flipped = true;
        true
    }

    /// Whether a snapshot that the log relies on fails its checksum.
    pub(crate) fn is_rotten(&self) -> bool {
        self.durable.flipped && self.durable.files.iter().any(File::is_rotten)
    }

    /// A sector of the log rots: it and all after it can't be read any more, but how far the log reached is
    /// known. Returns what was lost first; `None` if the log is empty. Nothing is on its way to the disk.
    pub(crate) fn rot_log(&mut self, dice: &mut Dice) -> Option<Position> {
        let durable = &mut self.durable;
        let last = durable.entries.back()?.position();
        let within = if dice.percent(60) { durable.entries.len().min(5) } else { durable.entries.len() };
        let keep = durable.entries.len() - 1 - dice.index(within);
        let first = durable.entries[keep].position();
        durable.owed.extend(durable.entries.range(keep..).map(Entry::position));
        durable.entries.truncate(keep);
        durable.suspect = durable.suspect.max(Some(last));
        Some(first)
    }

    /// Whether this was lost and not brought back.
    pub(crate) fn owes(&self, position: Position) -> bool {
        self.durable.owed.contains(&position)
    }

    /// A process finds that the log has lost something, and will say so.
    pub(crate) fn note_suspicion(&mut self) {
        self.losses += u32::from(self.is_suspect());
    }

    /// How often a process has found that the log has lost something.
    pub(crate) fn losses(&self) -> u32 {
        self.losses
    }

    /// Whether a part of the log was lost that nobody has brought back yet.
    pub(crate) fn is_suspect(&self) -> bool {
        self.durable.suspect.is_some()
    }

    /// The disk as it is now, for a copy.
    pub(crate) fn image(&self) -> Disk {
        Disk { durable: self.durable.clone(), ..Disk::default() }
    }

    /// What a process finds when it starts.
    pub(crate) fn recover(&self) -> RecoveredNode {
        let durable = &self.durable;
        let file = durable.files.iter().map(|file| &file.snapshot).rev();
        let file = file.clone().find(|file| durable.holds(file.header.position));
        let (snapshot, data) = match file {
            Some(file) => (Some(file.header.clone()), Some(file.data.clone())),
            None => (durable.base.clone(), None),
        };
        let base = snapshot.as_ref().map_or(Index(0), |header| header.position.index);
        let entries: Vec<Entry> = durable.entries.iter().filter(|entry| entry.index > base).cloned().collect();
        let (hard_state, suspect) = (durable.hard_state, durable.suspect);
        let raft = Recovered { hard_state, snapshot, entries, applied: base, suspect };
        RecoveredNode { raft, snapshot: data }
    }

    /// The term of the durable entry at `index`; `None` beyond the end and below the log's start.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        self.durable.term_at(index)
    }

    pub(crate) fn base(&self) -> Position {
        self.durable.base()
    }

    pub(crate) fn last(&self) -> Position {
        self.durable.entries.back().map_or(self.durable.base(), Entry::position)
    }

    /// The configuration as of `index`, as far as the disk knows it, and every later one.
    pub(crate) fn memberships_since(&self, index: Index) -> Vec<&Membership> {
        let mut found: Vec<&Membership> = self.durable.base.iter().map(|header| &header.membership).collect();
        for entry in &self.durable.entries {
            if let Payload::Membership(membership) = &entry.payload {
                if entry.index <= index {
                    found.clear();
                }
                found.push(membership);
            }
        }
        found
    }

    pub(crate) fn hard_state(&self) -> HardState {
        self.durable.hard_state
    }

    /// Whom the durable vote of a term was for.
    pub(crate) fn vote_in(&self, term: Term) -> Option<NodeId> {
        self.durable.votes.get(&term).copied()
    }

    /// Whether a snapshot is on its way to the disk.
    pub(crate) fn is_storing(&self) -> bool {
        !self.storing.is_empty() || self.pending.iter().any(|item| matches!(item, Item::File(_)))
    }
}

impl Durable {
    fn base(&self) -> Position {
        self.base.as_ref().map_or(Position::ORIGIN, |header| header.position)
    }

    fn term_at(&self, index: Index) -> Option<Term> {
        let base = self.base();
        if index == base.index {
            return Some(base.term);
        }
        let offset = index.0.checked_sub(base.index.0 + 1)?;
        self.entries.get(usize::try_from(offset).ok()?).map(|entry| entry.term)
    }

    fn holds(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::File(snapshot) => self.files.push(File::of(snapshot)),
            Item::Write(_, Write::HardState(hard_state)) => {
                self.hard_state = hard_state;
                if let Some(candidate) = hard_state.voted_for {
                    self.votes.insert(hard_state.term, candidate);
                }
            }
            Item::Write(_, Write::Truncate { from }) => {
                while self.entries.back().is_some_and(|entry| entry.index >= from) {
                    self.entries.pop_back();
                }
            }
            Item::Write(_, Write::Append(entries)) => self.entries.extend(entries),
            Item::Write(_, Write::Repaired) => {
                self.suspect = None;
                self.owed.clear();
            }
            Item::Write(_, Write::Snapshot(header)) => {
                self.files.retain(|file| file.snapshot.header == header);
                assert!(!self.files.is_empty(), "a snapshot is stored before the log relies on it");
                self.entries.clear();
                self.base = Some(header);
            }
        }
    }

    /// A snapshot of the own state takes the place of the log before it.
    fn keep_file(&mut self, snapshot: StoredSnapshot) {
        let position = snapshot.header.position;
        if position.index <= self.base().index && self.base() != position {
            return;
        }
        assert!(self.holds(position), "a snapshot never reaches beyond what is durable in the log");
        while self.entries.front().is_some_and(|entry| entry.index <= position.index) {
            self.entries.pop_front();
        }
        self.base = Some(snapshot.header.clone());
        self.files.retain(|file| file.snapshot.header.position.index > position.index);
        self.files.push(File::of(snapshot));
        self.files.sort_by_key(|file| file.snapshot.header.position.index);
    }
}
