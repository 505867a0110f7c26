//! The catalogue of mutants: bugs that Raft implementations have shipped, each as a small change of these sources.
//!
//! The code that a mutant changes doesn't know it, and no released program contains it: the changes go into a copy of
//! the workspace ([`super::copy`]). Numbers are those of the list of seeded bugs; an S-number is a scenario's
//! (`docs/scenarios.md`); `repo#n` is the issue that reports the bug.

mod disks;
mod durability;
mod duties;
mod elections;
mod forwarding;
mod members;
mod membership;
mod reads;
mod records;
mod replication;
mod situations;
mod snapshots;
mod upgrades;
mod watches;

/// A known bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Its name.
    pub name: &'static str,
    /// Its numbers in the list of seeded bugs, and its scenarios.
    pub origin: &'static str,
    /// What it breaks, in one line.
    pub breaks: &'static str,
    /// What it changes.
    pub edits: &'static [Edit],
}

/// A change of one text in one file. `after` followed by `original` must occur exactly once in the file, with the same
/// white space; `original` is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Relative to the workspace's folder.
    pub file: &'static str,
    /// The text before the place, enough to identify it.
    pub after: &'static str,
    /// The original text; empty for an insertion.
    pub original: &'static str,
    /// The mutant's text; empty for a removal.
    pub mutated: &'static str,
    /// How the edit is put into the text.
    pub kind: Kind,
}

/// How an edit is put into the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An expression, or statements: both texts become branches of an `if` on the mutant's switch.
    Branch,
    /// Anything else: the mutated text is used as it is, with `MUTANT` replaced by the mutant's switch. With the switch
    /// off it must mean the same as the original.
    Patch,
}

/// Replaces `original` by `mutated`: both expressions, or both statements.
const fn replace(file: &'static str, after: &'static str, original: &'static str, mutated: &'static str) -> Edit {
    Edit { file, after, original, mutated, kind: Kind::Branch }
}

/// Adds statements.
const fn insert(file: &'static str, after: &'static str, mutated: &'static str) -> Edit {
    Edit { file, after, original: "", mutated, kind: Kind::Branch }
}

/// Removes statements.
const fn remove(file: &'static str, after: &'static str, original: &'static str) -> Edit {
    Edit { file, after, original, mutated: "", kind: Kind::Branch }
}

/// Changes something else than an expression or statements: an arm of a match, a field, an item.
const fn patch(file: &'static str, after: &'static str, original: &'static str, mutated: &'static str) -> Edit {
    Edit { file, after, original, mutated, kind: Kind::Patch }
}

/// The mutants of each area.
const AREAS: [&[Mutant]; 14] = [
    elections::MUTANTS,
    replication::MUTANTS,
    durability::MUTANTS,
    snapshots::MUTANTS,
    membership::MUTANTS,
    reads::MUTANTS,
    disks::MUTANTS,
    upgrades::MUTANTS,
    watches::MUTANTS,
    records::MUTANTS,
    members::MUTANTS,
    forwarding::MUTANTS,
    duties::MUTANTS,
    situations::MUTANTS,
];

/// All mutants, in the order of the catalogue.
#[must_use]
pub fn mutants() -> Vec<&'static Mutant> {
    AREAS.iter().copied().flatten().collect()
}

impl Mutant {
    /// The mutant of that name, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Mutant> {
        mutants().into_iter().find(|mutant| mutant.name.eq_ignore_ascii_case(name))
    }

    /// Whether it is one of those that the list marks as core.
    #[must_use]
    pub fn is_core(&self) -> bool {
        self.origin.split(", ").filter_map(|number| number.parse().ok()).any(|number: u32| CORE.contains(&number))
    }
}

/// Numbers of the seeded bugs that their list marks as core.
const CORE: &[u32] = &[
    1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23, 24, 30, 31, 32, 33, 34, 35, 36, 37, 38, 40, 41, 43,
    45, 47, 48, 50, 51, 52, 53, 55, 56, 58, 59,
];

/// A bug of the list that has no mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Its number in the list of seeded bugs.
    pub number: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Why there is no mutant for it.
    pub why: &'static str,
}

const fn absent(number: &'static str, name: &'static str, why: &'static str) -> Absent {
    Absent { number, name, why }
}

/// Every bug of the list without a mutant.
pub const ABSENT: &[Absent] = &[
    absent(
        "28",
        "heartbeat-commit-not-clamped",
        "not a bug here: a follower never commits beyond what it verified (I12)",
    ),
    absent(
        "58",
        "session-dedupe-lost-on-leader-change",
        "not a bug here: only the replicated state remembers what was applied, so a leader has nothing to lose",
    ),
    absent("63", "local-clock-in-apply", "a bug of the state machine, which has no access to a clock"),
    absent("64", "HashMap-order-in-apply", "a bug of the state machine; the simulated clusters compare state hashes"),
];
