//! Bugs that show in one rare situation only, which a probe marks. The simulator notices these mutants without the
//! directed tests of those situations.

use super::{Mutant, insert, replace};

const LOG: &str = "crates/raft/src/log.rs";
const RAFT: &str = "crates/raft/src/raft.rs";

/// The mutants; the origin is the probe.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "RestartForgetsLease",
        origin: "RestartInLease",
        breaks: "A replica that starts votes at once, though a leader may rely on a lease.",
        edits: &[replace(
            RAFT,
            "let leader_contact = ",
            "(recovered.hard_state.term > Term(0)).then_some(now)",
            "None",
        )],
    },
    Mutant {
        name: "BaseTermOfNext",
        origin: "SnapshotEndsTerm",
        breaks: "The log remembers for its snapshot's end the term of the entry behind it.",
        edits: &[insert(
            LOG,
            "self.base = slot.entry.position();\n            ",
            "self.base.term = self.slots.front().map_or(self.base.term, |next| next.entry.term);",
        )],
    },
];
