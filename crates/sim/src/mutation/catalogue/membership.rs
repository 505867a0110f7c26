//! Changes of the membership (6; thesis 4).

use super::{Mutant, insert, remove, replace};

const RAFT: &str = "crates/raft/src/raft.rs";
const READ: &str = "crates/raft/src/read.rs";
const RECONFIGURE: &str = "crates/raft/src/reconfigure.rs";
const REPLICATION: &str = "crates/raft/src/replication.rs";

/// The mutants, in the order of their origins.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "ChangeBeforeTermCommit",
        origin: "47, S49",
        breaks: "A leader changes the membership before it has committed in its term.",
        edits: &[replace(RECONFIGURE, "if ", "!term_committed", "false")],
    },
    Mutant {
        name: "SingleServerOf2015",
        origin: "47, S49",
        breaks: "The algorithm before its fix of 2015: one server at a time, no joint configuration, at once (copycat#23, hydro#3192).",
        edits: &[
            replace(RECONFIGURE, "if ", "!term_committed", "false"),
            replace(
                RECONFIGURE,
                "let next = if ",
                "goal.voters == group.voters",
                r"goal.voters == group.voters
                || goal.voters.symmetric_difference(&group.voters).count() == 1",
            ),
            replace(RECONFIGURE, "if goal.voters != group.voters && ", "!self.can_commit_with(&goal)", "false"),
        ],
    },
    Mutant {
        name: "JointNeedsOnlyNew",
        origin: "48",
        breaks: "In a joint configuration the incoming group decides alone.",
        edits: &[
            replace(
                RAFT,
                "pub(crate) fn quorum(&self) -> Quorum<'_> {\n        ",
                "self.membership.current().quorum()",
                r"static NOBODY: std::collections::BTreeSet<NodeId> = std::collections::BTreeSet::new();
            crate::quorum::Quorum::new(&self.membership.current().incoming().voters, &NOBODY)",
            ),
            replace(
                READ,
                "let Some(confirmed) = ",
                "self.membership.current().quorum()",
                r"static NOBODY: std::collections::BTreeSet<NodeId> = std::collections::BTreeSet::new();
            crate::quorum::Quorum::new(&self.membership.current().incoming().voters, &NOBODY)",
            ),
        ],
    },
    Mutant {
        name: "TwoChangesInFlight",
        origin: "49",
        breaks: "A change may begin before the last one has ended.",
        edits: &[replace(
            RECONFIGURE,
            "let under_way = ",
            "current.is_joint() || !self.membership_is_committed()",
            "false",
        )],
    },
    Mutant {
        name: "NoJointForReplace",
        origin: "S56",
        breaks: "A whole group is exchanged without a joint configuration.",
        edits: &[replace(
            RECONFIGURE,
            "let next = if ",
            "goal.voters == group.voters",
            "goal.voters.symmetric_difference(&group.voters).count() != 1",
        )],
    },
    Mutant {
        name: "ConfigNotRolledBack",
        origin: "50, S58",
        breaks: "Truncating the log leaves its configuration in force (camunda#57386).",
        edits: &[remove(REPLICATION, "", "self.membership.truncate_from(from);")],
    },
    Mutant {
        name: "JointNotLeft",
        origin: "S51",
        breaks: "Only the leader that began a joint configuration leaves it (etcd#12136).",
        edits: &[insert(
            RECONFIGURE,
            r"!self.membership_is_committed() {
            return;
        }
        let current = self.membership.current();
        ",
            r"if current.is_joint() && self.membership.current_index().is_none_or(|index| index < leader.term_start) {
                return;
            }",
        )],
    },
    Mutant {
        name: "RemovedLeaderStays",
        origin: "S53",
        breaks: "A leader that was removed goes on leading (etcd#11038).",
        edits: &[remove(RECONFIGURE, "", "self.leave_office(out);")],
    },
];
