//! What must be on a replica's disk, computed from its stream of writes. The oracle uses this, and compares every
//! recovery of the real folder with it.

use std::collections::{BTreeMap, VecDeque};

use bowline_raft::{
    Entry, HardState, Index, Membership, NodeId, Payload, Position, Recovered, SnapshotHeader, Term, Write,
};

use super::Item;

/// What is durable.
#[derive(Clone, Debug, Default)]
pub(super) struct Durable {
    pub(super) hard_state: HardState,
    /// The log starts after this snapshot.
    pub(super) base: Option<SnapshotHeader>,
    pub(super) entries: VecDeque<Entry>,
    pub(super) votes: BTreeMap<Term, NodeId>,
    /// Where the log may have ended before a part of it was lost.
    pub(super) suspect: Option<Position>,
    /// An old image took the place of what was promised, so entries may be missing that nobody has noticed yet.
    pub(super) rolled_back: bool,
    /// Entries that were lost and not brought back.
    owed: Vec<Position>,
    /// Everything up to this index counts as lost and not brought back.
    owed_through: Index,
}

impl Durable {
    pub(super) fn founding(base: Option<SnapshotHeader>) -> Durable {
        Durable { base, ..Durable::default() }
    }

    pub(super) fn base(&self) -> Position {
        self.base.as_ref().map_or(Position::ORIGIN, |header| header.position)
    }

    pub(super) fn last(&self) -> Position {
        self.entries.back().map_or(self.base(), Entry::position)
    }

    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
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

    pub(super) fn owes(&self, position: Position) -> bool {
        position.index <= self.owed_through || self.owed.contains(&position)
    }

    /// The configuration at `index`, as far as the disk knows it, and every later one.
    pub(super) fn memberships_since(&self, index: Index) -> Vec<&Membership> {
        let mut found: Vec<&Membership> = self.base.iter().map(|header| &header.membership).collect();
        for entry in &self.entries {
            if let Payload::Membership(membership) = &entry.payload {
                if entry.index <= index {
                    found.clear();
                }
                found.push(membership);
            }
        }
        found
    }

    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
        if let Some(candidate) = hard_state.voted_for {
            self.votes.insert(hard_state.term, candidate);
        }
    }

    pub(super) fn take(&mut self, item: Item) {
        match item {
            Item::File(_) => {}
            Item::Compact(header) => self.compact(&header),
            Item::Write(_, Write::HardState(hard_state)) => self.set_hard_state(hard_state),
            Item::Write(_, Write::Truncate { from }) => {
                while self.entries.back().is_some_and(|entry| entry.index >= from) {
                    self.entries.pop_back();
                }
            }
            Item::Write(_, Write::Append(entries)) => self.entries.extend(entries),
            Item::Write(_, Write::Suspect { last_possible }) => self.suspect = Some(last_possible),
            Item::Write(_, Write::Repaired) => {
                self.suspect = None;
                self.rolled_back = false;
                self.owed.clear();
                self.owed_through = Index(0);
            }
            Item::Write(_, Write::Snapshot(header)) => {
                self.entries.clear();
                self.base = Some(header);
            }
        }
    }

    /// A snapshot of the replica's own state replaces the log before it.
    fn compact(&mut self, header: &SnapshotHeader) {
        let position = header.position;
        if position.index <= self.base().index {
            return;
        }
        assert!(self.holds(position), "a snapshot never reaches beyond what is durable in the log");
        while self.entries.front().is_some_and(|entry| entry.index <= position.index) {
            self.entries.pop_front();
        }
        self.base = Some(header.clone());
    }

    /// Whether a recovery found this log, apart from term and vote. A later snapshot of the replica's own state may
    /// replace the first entries.
    pub(super) fn is_the_log_of(&self, found: &Recovered) -> bool {
        let from = found.snapshot.as_ref().map_or(Position::ORIGIN, |header| header.position);
        let last = found.entries.last().map_or(from, Entry::position);
        if last != self.last() || from.index < self.base().index || !self.holds(from) {
            return false;
        }
        if from == self.base() && found.snapshot != self.base {
            return false;
        }
        let skipped = from.index.distance_from(self.base().index);
        let own = self.entries.iter().skip(usize::try_from(skipped).unwrap_or(usize::MAX));
        own.eq(&found.entries)
    }

    /// This old image takes the place of `newer`.
    pub(super) fn rolls_back(&mut self, newer: &Durable) {
        self.rolled_back = true;
        self.owed_through = newer.owed_through;
        if newer.base().index > self.base().index {
            self.owed_through = self.owed_through.max(newer.base().index);
        }
        let missing = newer.entries.iter().map(Entry::position).filter(|position| !self.holds(*position));
        self.owed = newer.owed.iter().copied().chain(missing).collect();
    }

    /// Only `found` is left after a loss. What is missing is owed to those who counted on it.
    pub(super) fn is_left_with(&mut self, found: &Recovered) {
        let base = found.snapshot.as_ref().map_or(Position::ORIGIN, |header| header.position);
        if base.index < self.base().index {
            self.owed_through = self.owed_through.max(self.base().index);
        }
        let before = std::mem::take(&mut self.entries);
        self.base.clone_from(&found.snapshot);
        self.entries = found.entries.iter().cloned().collect();
        let missing = before
            .iter()
            .map(Entry::position)
            .filter(|position| position.index > base.index && self.term_at(position.index) != Some(position.term));
        let missing: Vec<Position> = missing.collect();
        self.owed.extend(missing);
        self.suspect = found.suspect;
    }
}
