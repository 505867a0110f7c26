//! The seeded bugs that are not in the core's museum, and why.

use super::Mutant;

/// A bug of the catalogue that is no mutant of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Its number in the catalogue of seeded bugs, or its S-number.
    pub number: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Why there is no mutant for it.
    pub why: &'static str,
}

const fn absent(number: &'static str, name: &'static str, why: &'static str) -> Absent {
    Absent { number, name, why }
}

const WATCH: &str = "a bug of watches, which are not built yet";

/// Numbers of the seeded bugs that are marked as core in their catalogue: those to be built first.
const CORE: &[u32] = &[
    1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23, 24, 30, 31, 32, 33, 34, 35, 36, 37, 38, 40, 41, 43,
    45, 47, 48, 50, 51, 52, 53, 55, 56, 58, 59,
];

/// Whether a mutant is one of the catalogue's core.
#[must_use]
pub fn is_core(mutant: Mutant) -> bool {
    mutant.origin().split(", ").filter_map(|number| number.parse().ok()).any(|number| CORE.contains(&number))
}

/// Every bug of the catalogue without a mutant here.
pub const NOT_IN_THE_CORE: &[Absent] = &[
    absent("28", "heartbeat-commit-not-clamped", "no bug here: a follower never commits beyond what it verified (I12)"),
    absent(
        "58",
        "session-dedupe-lost-on-leader-change",
        "no bug here: what was applied is remembered by the replicated state alone, so no leader has any of it to lose",
    ),
    absent("60", "watch-gap-at-compaction", WATCH),
    absent("61", "duplicate-after-resume", WATCH),
    absent("62", "progress-before-events", WATCH),
    absent("63", "local-clock-in-apply", "a bug of the state machine, which gets no clock"),
    absent("64", "HashMap-order-in-apply", "a bug of the state machine: for the world, which compares state hashes"),
];
