//! Snapshots and log compaction (7).

use super::{Mutant, insert, patch, replace};

const MAP: &str = "crates/lan/src/map.rs";
const CONDUCTOR: &str = "crates/node/src/conductor.rs";
const HELD: &str = "crates/node/src/held.rs";
const RAFT: &str = "crates/raft/src/raft.rs";
const REPLICATION: &str = "crates/raft/src/replication.rs";
const SNAPSHOT: &str = "crates/raft/src/snapshot.rs";

/// The mutants, in the order of their origins.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "SnapshotBoundary",
        origin: "40",
        breaks: "A peer that needs the first entry after the snapshot gets the snapshot again (WRaft#2).",
        edits: &[replace(
            REPLICATION,
            "Some(next_index) => ",
            "self.log.position_at(next_index.previous())",
            r"if next_index > Index(1) {
                    self.log.entry(next_index.previous()).map(Entry::position)
                } else {
                    self.log.position_at(next_index.previous())
                }",
        )],
    },
    Mutant {
        name: "InstallOlderSnapshot",
        origin: "41, S45",
        breaks: "A snapshot older than what is committed replaces the log (openraft#1930).",
        edits: &[replace(SNAPSHOT, "let match_index = if ", "position.index <= self.commit_index", "false")],
    },
    Mutant {
        name: "TermRegressOnInstall",
        origin: "42",
        breaks: "Installing a snapshot sets the term back to the snapshot's (WRaft#4).",
        edits: &[insert(
            SNAPSHOT,
            "self.log.reset(snapshot.position);\n        ",
            "self.term = snapshot.position.term;\n            self.persist_hard_state(out);",
        )],
    },
    Mutant {
        name: "StaleConfigSurvivesInstall",
        origin: "44, S41",
        breaks: "The old configuration stays in force after a snapshot (openraft#1808, scylladb#9551).",
        edits: &[replace(
            SNAPSHOT,
            "self.membership.reset(",
            "snapshot.membership.clone()",
            "self.membership.current().clone()",
        )],
    },
    Mutant {
        name: "SnapshotPromotesLearners",
        origin: "S42",
        breaks: "A snapshot turns learners into voters (dragonboat#94).",
        edits: &[replace(
            SNAPSHOT,
            "self.membership.reset(",
            "snapshot.membership.clone()",
            r"{
                use crate::membership::{Group, Membership};
                Membership::simple(Group::of_voters(snapshot.membership.members()))
            }",
        )],
    },
    Mutant {
        name: "ConflictKeptUnderSnapshot",
        origin: "S40",
        breaks: "A conflicting entry at the snapshot's end is kept (hashicorp#697).",
        edits: &[replace(
            SNAPSHOT,
            "} else if ",
            "self.log.contains(position)",
            "self.log.contains(position) || self.log.term_at(position.index).is_some()",
        )],
    },
    Mutant {
        name: "SnapshotFailureForgotten",
        origin: "S39",
        breaks: "A leader waits for ever for a failed transfer (etcd#10225, dgraph#2707).",
        edits: &[insert(
            SNAPSHOT,
            "!matches!(progress.state, State::Snapshot) {\n            return;\n        }\n        ",
            "if !delivered {\n                return;\n            }",
        )],
    },
    Mutant {
        name: "SnapshotCarriesLatestConfig",
        origin: "S47",
        breaks: "A snapshot names the configuration in force, committed or not (hashicorp#617).",
        edits: &[replace(RAFT, "let membership = ", "self.membership.at(index)", "self.membership.current()")],
    },
    Mutant {
        name: "SnapshotWithoutSessions",
        origin: "43",
        breaks: "A snapshot leaves out which commands were applied already.",
        edits: &[
            replace(MAP, "write_field(&mut out, &", "self.forgotten_through.to_string()", "Index(0).to_string()"),
            replace(MAP, "write_field(&mut out, &", "self.order.len().to_string()", "0.to_string()"),
            insert(MAP, "for (index, origin) in &self.order {\n            ", "break;"),
        ],
    },
    Mutant {
        name: "ChunksMixed",
        origin: "46",
        breaks: "A piece of another transfer is added to the pieces that are there.",
        edits: &[
            patch(
                CONDUCTOR,
                "Some(incoming) if incoming.is_continued_by(from, &chunk) => incoming,\n            ",
                "",
                r"Some(incoming) if MUTANT && incoming.received < incoming.total => {
                let received = incoming.received.min(chunk.total);
                Incoming { received, ..Incoming::new(from, &chunk) }
            }
            ",
            ),
            replace(HELD, "chunk.offset == 0 || ", "self.arriving_in != Some(transfer)", "false"),
        ],
    },
];
