//! The state that the records of the log add up to, without the entries' payloads. A log that is being written and one
//! that is being read use the same code.

use std::collections::VecDeque;

use bowline_raft::{HardState, Index, Position, SnapshotHeader, Term};

use crate::record::{Checkpoint, Record};

/// Acknowledged entries may be missing: there was damage that is not repaired yet, or the peers remember entries that
/// are not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// Up to here the log is complete, as of the first write that can't be read. A later truncation may be missing.
    pub valid_up_to: Position,
    /// No entry beyond this one can have been acknowledged; `None` if that is unknown.
    pub last_possible: Option<Index>,
}

impl Suspicion {
    /// The last position at which the log may have ended, in the order of 5.4.1. Its term is `latest`, the
    /// replica's latest term.
    #[must_use]
    pub fn last_possible_position(self, latest: Term) -> Position {
        Position::new(self.last_possible.unwrap_or(Index(u64::MAX)), latest)
    }

    /// Combines two suspicions.
    #[must_use]
    pub(crate) fn and(self, other: Suspicion) -> Suspicion {
        let valid_up_to = if self.valid_up_to.index <= other.valid_up_to.index { self } else { other }.valid_up_to;
        Suspicion {
            valid_up_to,
            last_possible: self.last_possible.zip(other.last_possible).map(|(one, two)| one.max(two)),
        }
    }
}

/// The state after the records so far.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) hard_state: HardState,
    /// How many hard states there were.
    pub(crate) hard_version: u64,
    /// How many records changed the log. Each batch holds both numbers as they were before it, so a reader
    /// sees whether an unreadable batch changed the log.
    pub(crate) log_version: u64,
    /// The log starts after this snapshot.
    pub(crate) base: Option<SnapshotHeader>,
    pub(crate) suspicion: Option<Suspicion>,
    terms: Terms,
}

impl State {
    /// The state before the first record of a new folder.
    pub(crate) fn founding(base: Option<SnapshotHeader>) -> State {
        let start = base.as_ref().map_or(Position::ORIGIN, |base| base.position);
        State {
            hard_state: HardState { term: start.term, voted_for: None },
            hard_version: 0,
            log_version: 0,
            base,
            suspicion: None,
            terms: Terms::after(start),
        }
    }

    /// The state at the beginning of a segment.
    pub(crate) fn at(checkpoint: &Checkpoint) -> State {
        State {
            hard_state: checkpoint.hard_state,
            hard_version: checkpoint.hard_version,
            log_version: checkpoint.log_version,
            base: checkpoint.base.clone(),
            suspicion: checkpoint.suspicion,
            terms: Terms::after(checkpoint.last),
        }
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Position {
        self.terms.last()
    }

    /// Index of the last entry that is in a snapshot.
    pub(crate) fn base_index(&self) -> Index {
        self.base.as_ref().map_or(Index(0), |base| base.position.index)
    }

    /// Forgets the entries, and continues after `last`.
    pub(crate) fn cut_at(&mut self, last: Position) {
        self.terms = Terms::after(last);
    }

    /// Applies a record, or says why it can't follow the ones before it.
    pub(crate) fn apply(&mut self, record: &Record) -> Result<(), String> {
        let last = self.last();
        match record {
            Record::Checkpoint(checkpoint) => {
                self.suspicion = checkpoint.suspicion;
                return Ok(());
            }
            Record::HardState(hard_state) => {
                if hard_state.term < self.hard_state.term {
                    return Err(format!("{} follows {}", hard_state.term, self.hard_state.term));
                }
                self.hard_state = *hard_state;
                self.hard_version += 1;
                return Ok(());
            }
            Record::Truncate(from) => {
                if *from <= self.base_index() {
                    return Err(format!("truncation from {from}, which is in the snapshot {}", self.base_index()));
                }
                self.terms.truncate_from(*from);
            }
            Record::Entry(entry) => {
                if entry.index != last.index.next() || entry.term < last.term {
                    return Err(format!("entry {} follows {last}", entry.position()));
                }
                self.terms.append(entry.position());
            }
            Record::Snapshot(header) => {
                self.terms = Terms::after(header.position);
                self.base = Some(header.clone());
            }
            Record::Compacted(header) => {
                let index = header.position.index;
                if index > last.index || index < self.base_index() {
                    return Err(format!("compaction up to {index} of a log from {} to {last}", self.base_index()));
                }
                self.terms.compact_through(header.position);
                self.base = Some(header.clone());
            }
            Record::Suspect(last_possible) => {
                let valid_up_to = self.suspicion.map_or(last, |earlier| earlier.valid_up_to);
                self.suspicion = Some(Suspicion { valid_up_to, last_possible: *last_possible });
            }
            Record::Repaired => self.suspicion = None,
        }
        self.log_version += 1;
        Ok(())
    }
}

/// The terms of the entries, as runs.
#[derive(Clone, Debug)]
struct Terms {
    start: Position,
    runs: VecDeque<(Index, Term)>,
    last: Index,
}

impl Terms {
    fn after(start: Position) -> Terms {
        Terms { start, runs: VecDeque::new(), last: start.index }
    }

    fn last(&self) -> Position {
        self.runs.back().map_or(self.start, |(_, term)| Position::new(self.last, *term))
    }

    fn append(&mut self, position: Position) {
        if self.runs.back().is_none_or(|(_, term)| *term != position.term) {
            self.runs.push_back((position.index, position.term));
        }
        self.last = position.index;
    }

    fn truncate_from(&mut self, from: Index) {
        let keep = from.previous();
        while self.runs.back().is_some_and(|(first, _)| *first >= from) {
            self.runs.pop_back();
        }
        if keep < self.start.index {
            // A reader that begins after this entry's segment doesn't know its term. It doesn't need to:
            // a snapshot holds those entries by now.
            self.start = Position::new(keep, Term(0));
        }
        self.last = self.last.min(keep);
    }

    fn compact_through(&mut self, position: Position) {
        if position.index < self.start.index {
            return;
        }
        self.start = position;
        while let Some((_, term)) = self.runs.front().copied() {
            let end = self.runs.get(1).map_or(self.last, |(next, _)| next.previous());
            self.runs.pop_front();
            if end > position.index {
                self.runs.push_front((position.index.next(), term));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, term: u64) -> Position {
        Position::new(Index(index), Term(term))
    }

    #[test]
    fn knows_the_last_position_through_truncation_and_compaction() {
        let mut terms = Terms::after(Position::ORIGIN);
        for (index, term) in [(1, 1), (2, 1), (3, 2), (4, 4), (5, 4)] {
            terms.append(at(index, term));
        }
        terms.compact_through(at(2, 1));
        assert_eq!(terms.last(), at(5, 4));
        terms.truncate_from(Index(4));
        assert_eq!(terms.last(), at(3, 2));
        terms.compact_through(at(3, 2));
        assert_eq!((terms.last(), terms.runs.len()), (at(3, 2), 0));
        terms.append(at(4, 6));
        terms.truncate_from(Index(2));
        assert_eq!(terms.last(), at(1, 0));
    }
}
