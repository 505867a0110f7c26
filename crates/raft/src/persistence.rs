//! The one ordered stream of durable writes, and how much of it is on disk.

use std::collections::VecDeque;

use crate::effect::{Effect, Effects, Write};
use crate::types::{Index, PersistId};

/// What was written and what of it is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Persistence {
    last: PersistId,
    pending: VecDeque<Pending>,
    durable_index: Index,
}

/// A write that is not durable yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pending {
    id: PersistId,
    /// Up to where the log is durable once this write is.
    log_through: Option<Index>,
}

impl Persistence {
    /// A stream whose log is durable up to `durable_index`.
    pub(crate) fn new(durable_index: Index) -> Persistence {
        Persistence { last: PersistId(0), pending: VecDeque::new(), durable_index }
    }

    /// Emits a write, and returns its place in the stream.
    pub(crate) fn write(&mut self, write: Write, out: &mut Effects) -> PersistId {
        self.last = PersistId(self.last.0 + 1);
        let log_through = match &write {
            Write::HardState(_) | Write::Suspect { .. } | Write::Repaired => None,
            Write::Append(entries) => entries.last().map(|entry| entry.index),
            Write::Snapshot(snapshot) => {
                self.forget_from(Index(0));
                Some(snapshot.position.index)
            }
            Write::Truncate { from } => {
                self.forget_from(*from);
                None
            }
        };
        self.pending.push_back(Pending { id: self.last, log_through });
        out.push(Effect::Persist { id: self.last, write });
        self.last
    }

    /// The write that must be durable before a message may promise everything written so far.
    pub(crate) fn barrier(&self) -> Option<PersistId> {
        self.pending.back().map(|pending| pending.id)
    }

    /// Notes that everything up to `up_to` is durable.
    pub(crate) fn persisted(&mut self, up_to: PersistId) {
        assert!(up_to <= self.last, "only what was written can be durable");
        while self.pending.front().is_some_and(|pending| pending.id <= up_to) {
            let pending = self.pending.pop_front().expect("there is a front");
            if let Some(index) = pending.log_through {
                self.durable_index = self.durable_index.max(index);
            }
        }
    }

    /// Renumbers the writes, from the first that is not durable. Returns by how much the numbers went down.
    pub(crate) fn start_anew(&mut self) -> u64 {
        let shift = self.pending.front().map_or(self.last.0, |pending| pending.id.0 - 1);
        self.last.0 -= shift;
        for pending in &mut self.pending {
            pending.id.0 -= shift;
        }
        shift
    }

    /// Whether this write is durable.
    pub(crate) fn is_durable(&self, id: PersistId) -> bool {
        self.pending.front().is_none_or(|pending| pending.id > id)
    }

    /// Up to where this replica's log is durable.
    pub(crate) fn durable_index(&self) -> Index {
        self.durable_index
    }

    /// Forgets the entries from `from` on, which are about to be replaced. The writes that brought them must not
    /// count for their successors: the same index may be written again, with another term, before the first write is
    /// confirmed (S31).
    fn forget_from(&mut self, from: Index) {
        let keep = from.previous();
        self.durable_index = self.durable_index.min(keep);
        for pending in &mut self.pending {
            pending.log_through = pending.log_through.map(|index| index.min(keep));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Entry, Payload};
    use crate::types::Term;

    fn append(index: u64, term: u64) -> Write {
        Write::Append(vec![Entry { index: Index(index), term: Term(term), payload: Payload::Blank }])
    }

    #[test]
    fn a_late_confirmation_never_counts_for_a_replaced_entry() {
        let mut out = Effects::new();
        let mut persistence = Persistence::new(Index(4));
        let first = persistence.write(append(5, 2), &mut out);
        persistence.write(Write::Truncate { from: Index(5) }, &mut out);
        let second = persistence.write(append(5, 3), &mut out);
        persistence.persisted(first);
        assert_eq!(persistence.durable_index(), Index(4));
        persistence.persisted(second);
        assert_eq!(persistence.durable_index(), Index(5));
        assert_eq!(persistence.barrier(), None);
    }

    #[test]
    fn a_promise_waits_for_the_newest_write() {
        let mut out = Effects::new();
        let mut persistence = Persistence::new(Index(0));
        assert_eq!(persistence.barrier(), None);
        let first = persistence.write(append(1, 1), &mut out);
        let second = persistence.write(append(2, 1), &mut out);
        assert_eq!(persistence.barrier(), Some(second));
        persistence.persisted(first);
        assert!(persistence.is_durable(first) && !persistence.is_durable(second));
        assert_eq!(persistence.barrier(), Some(second));
    }
}
