//! The result of a check.

use std::fmt;

/// The usual bound of a search, in steps: well under a second.
pub const MAX_STEPS: u64 = 20_000_000;

/// The result of a check. `V` is the checker's own description of what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict<V> {
    /// Some order of the operations explains every answer.
    Linearizable,
    /// No order explains every answer.
    Violation(V),
    /// The search reached its bound. Treat this as a failure.
    Undecided(Undecided),
}

/// Where a search gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// A description of what was searched. Keys are searched in alphabetical order; later ones were not searched.
    pub part: String,
    /// The bound that was reached.
    pub max_steps: u64,
}

impl<V: fmt::Display> Verdict<V> {
    /// The verdict in a word: `linearizable`, `violated` or `undecided`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Linearizable => "linearizable",
            Verdict::Violation(_) => "violated",
            Verdict::Undecided(_) => "undecided",
        }
    }

    /// Why the history is not linearizable, or not known to be, in lines for people.
    #[must_use]
    pub fn explanation(&self) -> Option<String> {
        match self {
            Verdict::Linearizable => None,
            Verdict::Violation(violation) => Some(violation.to_string()),
            Verdict::Undecided(undecided) => Some(undecided.to_string()),
        }
    }
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "undecided: the search over {} reached its bound of {} steps", self.part, self.max_steps)
    }
}
