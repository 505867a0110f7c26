//! The catalogue of mutants: bugs that Raft implementations have shipped, each as a small change of our sources.
//!
//! Nothing of it is in the code that it changes, and nothing is in a program that anyone runs: the changes are put
//! into a copy of the workspace ([`super::copy`]). A mutant that no test notices is a hole in the tests, or no bug.
//! Numbers are those of the list of seeded bugs; an S-number is a scenario's (`docs/scenarios.md`); `repo#n`
//! is the issue in which the bug was told.

mod disks;
mod durability;
mod elections;
mod membership;
mod reads;
mod replication;
mod snapshots;
mod upgrades;

/// A bug to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Its name.
    pub name: &'static str,
    /// Its numbers in the list of seeded bugs, and the scenarios that it stands for.
    pub origin: &'static str,
    /// What it breaks, in a line.
    pub breaks: &'static str,
    /// What it changes.
    pub edits: &'static [Edit],
}

/// A change of one text in one file. `after` and `original`, one behind the other, must occur exactly once in the
/// file, with the same white space; `original` is what is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// From the workspace's folder.
    pub file: &'static str,
    /// What stands before the place, as far as it takes to tell it from others.
    pub after: &'static str,
    /// What is there; empty for an insertion.
    pub original: &'static str,
    /// What is there in the mutant; empty for a removal.
    pub mutated: &'static str,
    /// How it is put into the text.
    pub kind: Kind,
}

/// How an edit is put into the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An expression, or statements: both texts become branches of an `if` that asks for the mutant.
    Branch,
    /// Anything else: the mutated text is taken as it is, with `MUTANT` replaced by a condition that asks for the
    /// mutant. Without a mutant it must mean what the original means.
    Patch,
}

/// Takes `original` for `mutated`: both an expression, or both statements.
const fn replace(file: &'static str, after: &'static str, original: &'static str, mutated: &'static str) -> Edit {
    Edit { file, after, original, mutated, kind: Kind::Branch }
}

/// Adds statements.
const fn insert(file: &'static str, after: &'static str, mutated: &'static str) -> Edit {
    Edit { file, after, original: "", mutated, kind: Kind::Branch }
}

/// Takes statements out.
const fn remove(file: &'static str, after: &'static str, original: &'static str) -> Edit {
    Edit { file, after, original, mutated: "", kind: Kind::Branch }
}

/// Changes what is no expression and no statement: an arm of a match, a field, an item.
const fn patch(file: &'static str, after: &'static str, original: &'static str, mutated: &'static str) -> Edit {
    Edit { file, after, original, mutated, kind: Kind::Patch }
}

/// The mutants of each area.
const AREAS: [&[Mutant]; 8] = [
    elections::MUTANTS,
    replication::MUTANTS,
    durability::MUTANTS,
    snapshots::MUTANTS,
    membership::MUTANTS,
    reads::MUTANTS,
    disks::MUTANTS,
    upgrades::MUTANTS,
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

/// Numbers of the seeded bugs that are marked as core in their list: those to be built first.
const CORE: &[u32] = &[
    1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23, 24, 30, 31, 32, 33, 34, 35, 36, 37, 38, 40, 41, 43,
    45, 47, 48, 50, 51, 52, 53, 55, 56, 58, 59,
];

/// A bug of the list that is no mutant.
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

const WATCH: &str = "a bug of watches, which are not built yet";

/// Every bug of the list without a mutant.
pub const ABSENT: &[Absent] = &[
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
    absent(
        "64",
        "HashMap-order-in-apply",
        "a bug of the state machine: for the simulated clusters, which compare state hashes",
    ),
];
