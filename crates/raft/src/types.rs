//! The basic types of the protocol: identities, terms, indexes, time.
//!
//! Each is its own type, so that the compiler refuses a term where an index is meant. Absence is an `Option`, not a
//! zero.

use std::fmt;
use std::time::Duration;

/// Identity of a replica, unique in its cluster and never reused after its data was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// A term: Raft's logical clock. Each has at most one leader (5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl Term {
    /// The greatest term that a replica accepts. At a million elections a second, a cluster would take more than a
    /// hundred thousand years to get here: no replica sends a message of a later term.
    pub const GREATEST: Term = Term(1 << 62);

    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Term {
        Term(self.0.checked_add(1).expect("2^64 terms outlive the universe"))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

/// Index of a log entry. The first entry has index 1; 0 is the place before it, as in the paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

impl Index {
    /// The greatest index that a replica accepts where no entry proves it. As with terms, no cluster gets here, and
    /// sums with it don't overflow.
    pub const GREATEST: Index = Index(1 << 62);

    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Index {
        Index(self.0.checked_add(1).expect("2^64 entries outlive the universe"))
    }

    /// The index before this one; 0 for 0.
    #[must_use]
    pub fn previous(self) -> Index {
        Index(self.0.saturating_sub(1))
    }

    /// The index `count` entries further on.
    #[must_use]
    pub fn plus(self, count: usize) -> Index {
        Index(self.0 + count as u64)
    }

    /// How many entries lie after `earlier`, up to this one; 0 if `earlier` is not earlier.
    #[must_use]
    pub fn distance_from(self, earlier: Index) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A place in a log: an index and the term of the entry there. Ordered by term, then by index:
/// the order of "more up-to-date" (5.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Term of the entry. Compared first.
    pub term: Term,
    /// Index of the entry.
    pub index: Index,
}

impl Position {
    /// The place before the first entry of every log.
    pub const ORIGIN: Position = Position { term: Term(0), index: Index(0) };

    /// The place of the entry with this `index` and `term`.
    #[must_use]
    pub fn new(index: Index, term: Term) -> Position {
        Position { term, index }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term.0)
    }
}

/// A moment: nanoseconds on the host's monotonic clock, from any fixed start. The core never reads a clock: the time
/// comes with every input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The start of the clock.
    pub const ZERO: Time = Time(0);
    /// Later than any moment: a deadline that never comes.
    pub const NEVER: Time = Time(u64::MAX);

    /// How long after `earlier` this moment is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `span` later, at most [`Time::NEVER`].
    #[must_use]
    pub fn after(self, span: Duration) -> Time {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanos))
    }
}

/// Names a client's request within one replica; chosen by the host, answered exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Position in the one ordered stream of durable writes of a replica; starts at 1, has no gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// Names one period of replication from a leader (of one term) to a peer. An acknowledgement counts only in the
/// session that it answers: if a peer is removed and added again, an answer from before its removal doesn't count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

/// Sequence number of a leader's confirmation rounds, unique within its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(pub u64);
