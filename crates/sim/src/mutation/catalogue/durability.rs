//! What must be on disk before it counts or is sent.

use super::{Mutant, insert, patch, replace};

const COMMIT: &str = "crates/raft/src/commit.rs";
const PERSISTENCE: &str = "crates/raft/src/persistence.rs";
const REPLICATION: &str = "crates/raft/src/replication.rs";

/// The mutants, in the order of their origins.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "AckBeforeDurable",
        origin: "30, S32",
        breaks: "Entries are acknowledged before they are on disk (etcd#14370).",
        edits: &[replace(
            REPLICATION,
            "let reply = AppendEntriesReply { session, round, sent_at, outcome };\n        ",
            "self.send_durably(from, Body::AppendEntriesReply(reply), out);",
            "self.send_now(from, Body::AppendEntriesReply(reply), out);",
        )],
    },
    Mutant {
        name: "HeartbeatAckBeforeDurable",
        origin: "30, S32",
        breaks: "An empty append is acknowledged ahead of earlier writes (yugabyte#32875).",
        edits: &[
            patch(
                REPLICATION,
                r"let AppendEntries { session, round, sent_at, prev, entries, commit_index, durable_index: _ } = append;
        ",
                "",
                "let empty = entries.is_empty();\n        ",
            ),
            replace(
                REPLICATION,
                "let reply = AppendEntriesReply { session, round, sent_at, outcome };\n        ",
                "self.send_durably(from, Body::AppendEntriesReply(reply), out);",
                r"if empty {
                self.send_now(from, Body::AppendEntriesReply(reply), out);
            } else {
                self.send_durably(from, Body::AppendEntriesReply(reply), out);
            }",
            ),
        ],
    },
    Mutant {
        name: "LateDiskConfirmsReplaced",
        origin: "37, S31",
        breaks: "A write that was replaced counts for its successor when it is confirmed (the ABA of etcd's async writes).",
        edits: &[insert(PERSISTENCE, "fn forget_from(&mut self, from: Index) {\n        ", "return;")],
    },
    Mutant {
        name: "LeaderCountsUnsyncedSelf",
        origin: "38",
        breaks: "A leader counts itself for entries that are not on its disk.",
        edits: &[replace(
            COMMIT,
            "None => ",
            "(id == self.config.id).then(|| self.persistence.durable_index())",
            "Some(self.log.last().index)",
        )],
    },
    Mutant {
        name: "ApplyBeforeDurable",
        origin: "S71",
        breaks: "Entries are applied that this replica could still forget (etcd#10217).",
        edits: &[replace(
            COMMIT,
            "let limit = ",
            "self.commit_index.min(self.persistence.durable_index())",
            "self.commit_index",
        )],
    },
    Mutant {
        name: "InstallBeforeDurable",
        origin: "45",
        breaks: "A snapshot is installed before its mark in the log is on disk.",
        edits: &[replace(COMMIT, "take_if(|(id, _)| ", "self.persistence.is_durable(*id)", "true")],
    },
];
