//! The replicated log (5.3): its tail in memory, and the position of the entry before it.
//!
//! Entries up to `base` are in a snapshot and gone from here (section 7). The log counts the bytes of its tail; its
//! owner bounds them by compaction.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::membership::Membership;
use crate::types::{Index, Position, Term};

/// Bytes that an entry counts for besides its payload: what it needs in memory.
pub const ENTRY_OVERHEAD: usize = 64;

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// Nothing: a leader starts its term with such an entry, so that it may commit (5.4.2, 8).
    Blank,
    /// A command for the state machine, opaque to the core.
    Command(Bytes),
    /// A configuration of the cluster, in force from the moment it is appended (section 6).
    Membership(Membership),
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its place in the log.
    pub index: Index,
    /// The term of the leader that created it.
    pub term: Term,
    /// What it carries.
    pub payload: Payload,
}

impl Entry {
    /// Index and term.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::new(self.index, self.term)
    }

    /// How many bytes the entry counts for in every limit.
    #[must_use]
    pub fn size(&self) -> usize {
        let payload = match &self.payload {
            Payload::Blank => 0,
            Payload::Command(command) => command.len(),
            Payload::Membership(membership) => membership.size(),
        };
        payload + ENTRY_OVERHEAD
    }
}

/// The tail of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    base: Position,
    slots: VecDeque<Slot>,
    /// Sizes of all entries ever appended and not truncated. The bytes between two places are then a difference of
    /// two totals.
    total: u64,
    /// `total` as of the base.
    base_total: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Slot {
    entry: Entry,
    /// `total` up to and including this entry.
    total: u64,
}

impl Log {
    /// An empty log that continues after `base`.
    #[must_use]
    pub fn new(base: Position) -> Log {
        Log { base, slots: VecDeque::new(), total: 0, base_total: 0 }
    }

    /// Position of the last entry that is no longer in the tail.
    #[must_use]
    pub fn base(&self) -> Position {
        self.base
    }

    /// Position of the last entry.
    #[must_use]
    pub fn last(&self) -> Position {
        self.slots.back().map_or(self.base, |slot| slot.entry.position())
    }

    /// Sum of the sizes of the entries in the tail.
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::try_from(self.total - self.base_total).expect("what is in memory has a size that fits")
    }

    /// Sum of the sizes of the entries after `index`.
    #[must_use]
    pub fn bytes_after(&self, index: Index) -> usize {
        let until = self.slot(index).map_or(self.base_total, |slot| slot.total);
        if index >= self.last().index {
            0
        } else {
            usize::try_from(self.total - until).expect("what is in memory has a size that fits")
        }
    }

    /// Term of the entry at `index`; `None` where the log doesn't reach, or no longer knows the term.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index { Some(self.base.term) } else { self.entry(index).map(|entry| entry.term) }
    }

    /// Whether the entry at this position is in the log, or is the last one before its tail.
    #[must_use]
    pub fn contains(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// The position at `index`, if the log knows its term.
    #[must_use]
    pub fn position_at(&self, index: Index) -> Option<Position> {
        self.term_at(index).map(|term| Position::new(index, term))
    }

    /// The entry at `index`, if it is in the tail.
    #[must_use]
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.slot(index).map(|slot| &slot.entry)
    }

    fn slot(&self, index: Index) -> Option<&Slot> {
        let offset = index.0.checked_sub(self.base.index.0 + 1)?;
        self.slots.get(usize::try_from(offset).ok()?)
    }

    /// The entries from `from` on, up to and including `to`, limited to `max_entries` and `max_bytes`. At least one
    /// if there is any: an entry larger than the limit must still get through.
    #[must_use]
    pub fn slice(&self, from: Index, to: Index, max_entries: usize, max_bytes: usize) -> Vec<Entry> {
        let mut picked = Vec::new();
        let mut bytes = 0;
        let mut index = from;
        while index <= to && picked.len() < max_entries {
            let Some(entry) = self.entry(index) else { break };
            bytes += entry.size();
            if bytes > max_bytes && !picked.is_empty() {
                break;
            }
            picked.push(entry.clone());
            index = index.next();
        }
        picked
    }

    /// Adds an entry, which must follow the last one.
    pub fn append(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last().index.next(), "entries follow each other without a gap");
        assert!(entry.term >= self.last().term, "terms never decrease along a log");
        self.total += entry.size() as u64;
        self.slots.push_back(Slot { entry, total: self.total });
    }

    /// Removes the entries from `from` on. `from` must lie after the base.
    pub fn truncate_from(&mut self, from: Index) {
        assert!(from > self.base.index, "what a snapshot holds can't be truncated");
        while self.slots.back().is_some_and(|slot| slot.entry.index >= from) {
            self.slots.pop_back();
        }
        self.total = self.slots.back().map_or(self.base_total, |slot| slot.total);
    }

    /// Removes the entries up to and including `through`, which must be in the log.
    pub fn compact_through(&mut self, through: Index) {
        while self.slots.front().is_some_and(|slot| slot.entry.index <= through) {
            let slot = self.slots.pop_front().expect("there is a front entry");
            self.base = slot.entry.position();
            self.base_total = slot.total;
        }
    }

    /// Replaces everything by a snapshot that ends at `base`.
    pub fn reset(&mut self, base: Position) {
        *self = Log::new(base);
    }

    /// The greatest position at or before `index` whose term is at most `term`. A search for the point where two logs
    /// part can continue there. It skips a whole term at each step, so that it needs one probe for each term, not for
    /// each entry (5.3).
    #[must_use]
    pub fn last_at_most(&self, index: Index, term: Term) -> Option<Position> {
        if index < self.base.index {
            return None;
        }
        let end = usize::try_from(index.distance_from(self.base.index)).unwrap_or(usize::MAX).min(self.slots.len());
        // Terms never decrease along the log: the entries with a term of at most `term` are a prefix.
        let count = self.slots.partition_point(|slot| slot.entry.term <= term).min(end);
        match count.checked_sub(1) {
            Some(offset) => Some(self.slots[offset].entry.position()),
            None => (self.base.term <= term).then_some(self.base),
        }
    }

    /// Changes payloads into others of the same size.
    pub(crate) fn change_payloads(&mut self, mut change: impl FnMut(&mut Payload)) {
        self.slots.iter_mut().for_each(|slot| change(&mut slot.entry.payload));
    }

    /// The entries of the tail, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.slots.iter().map(|slot| &slot.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(terms: &[u64]) -> Log {
        let mut log = Log::new(Position::new(Index(10), Term(2)));
        for (offset, term) in terms.iter().enumerate() {
            log.append(Entry { index: Index(11).plus(offset), term: Term(*term), payload: Payload::Blank });
        }
        log
    }

    #[test]
    fn knows_the_terms_of_its_tail_and_of_its_base() {
        let log = log(&[2, 3, 3, 5]);
        assert_eq!(log.term_at(Index(9)), None);
        assert_eq!(log.term_at(Index(10)), Some(Term(2)));
        assert_eq!(log.term_at(Index(12)), Some(Term(3)));
        assert_eq!(log.term_at(Index(15)), None);
        assert_eq!(log.last(), Position::new(Index(14), Term(5)));
    }

    #[test]
    fn a_slice_keeps_its_limits_but_lets_one_large_entry_through() {
        let log = log(&[2, 3, 3, 5]);
        assert_eq!(log.slice(Index(11), Index(14), 3, usize::MAX).len(), 3);
        assert_eq!(log.slice(Index(11), Index(12), 9, usize::MAX).len(), 2);
        assert_eq!(log.slice(Index(11), Index(14), 9, ENTRY_OVERHEAD * 2).len(), 2);
        assert_eq!(log.slice(Index(11), Index(14), 9, 1).len(), 1);
        assert!(log.slice(Index(15), Index(14), 9, 9).is_empty());
    }

    #[test]
    fn counts_its_bytes_through_truncation_and_compaction() {
        let mut log = log(&[2, 3, 3, 5]);
        log.truncate_from(Index(14));
        log.compact_through(Index(11));
        assert_eq!(log.bytes(), 2 * ENTRY_OVERHEAD);
        assert_eq!(log.bytes_after(Index(11)), 2 * ENTRY_OVERHEAD);
        assert_eq!(log.bytes_after(Index(12)), ENTRY_OVERHEAD);
        assert_eq!(log.bytes_after(Index(13)), 0);
        assert_eq!(log.base(), Position::new(Index(11), Term(2)));
        assert_eq!(log.last(), Position::new(Index(13), Term(3)));
    }

    #[test]
    fn a_search_for_the_parting_point_skips_whole_terms() {
        let log = log(&[2, 3, 3, 5, 5, 5]);
        let at = |index, term| log.last_at_most(Index(index), Term(term)).map(|position| position.index.0);
        assert_eq!(at(16, 4), Some(13));
        assert_eq!(at(16, 9), Some(16));
        assert_eq!(at(99, 9), Some(16));
        assert_eq!(at(12, 9), Some(12));
        assert_eq!(at(16, 2), Some(11));
        assert_eq!(at(16, 1), None);
        assert_eq!(at(10, 2), Some(10));
        assert_eq!(at(9, 2), None);
    }

    #[test]
    #[should_panic(expected = "without a gap")]
    fn refuses_a_gap() {
        log(&[2]).append(Entry { index: Index(13), term: Term(2), payload: Payload::Blank });
    }
}
