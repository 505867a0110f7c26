//! What is known after a check.

use std::fmt;

/// The usual bound of a search, in steps: well under a second.
pub const MAX_STEPS: u64 = 20_000_000;

/// What is known after a check. `V` is what is wrong, in the checker's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict<V> {
    /// Some order of the operations explains every answer.
    Linearizable,
    /// None does.
    Violation(V),
    /// The search reached its bound. This is not "fine": treat it as a failure.
    Undecided(Undecided),
}

/// Where a search gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// What was searched, in words. Keys are searched in alphabetical order: later ones were not looked at.
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

    /// Why it is not linearizable, or not known to be; in lines for people.
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
