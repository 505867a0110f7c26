//! Log replication and commitment (5.3, 5.4.2).

use super::{Mutant, insert, patch, replace};

const COMMIT: &str = "crates/raft/src/commit.rs";
const QUORUM: &str = "crates/raft/src/quorum.rs";
const RAFT: &str = "crates/raft/src/raft.rs";
const READ: &str = "crates/raft/src/read.rs";
const REPLICATION: &str = "crates/raft/src/replication.rs";

/// The mutants, in the order of their origins.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "SkipPrevLogTerm",
        origin: "16",
        breaks: "An entry of any term is accepted at `prev`.",
        edits: &[replace(
            REPLICATION,
            "prev.index <= self.commit_index || ",
            "self.log.contains(prev)",
            "self.log.contains(prev) || prev.index <= self.log.last().index",
        )],
    },
    Mutant {
        name: "TruncateOnStaleAppend",
        origin: "17, S21",
        breaks: "Entries behind a message's last one are cut even if the whole message matched (hashicorp#113).",
        edits: &[insert(
            REPLICATION,
            "let Some(new_from) = entries.iter().position(|entry| !known(entry)) else { ",
            r"if verified < self.log.last().index {
                self.truncate_log(verified.next(), out);
            }",
        )],
    },
    Mutant {
        name: "NoTruncateOnConflict",
        origin: "18",
        breaks: "A conflicting entry stays, and is acknowledged as if it were the leader's.",
        edits: &[replace(REPLICATION, "", "self.truncate_log(first, out);", "return Some(verified);")],
    },
    Mutant {
        name: "StaleRefusalLowersMatch",
        origin: "19",
        breaks: "A late refusal takes back what is known to match (CCF#5991).",
        edits: &[insert(
            REPLICATION,
            r"AppendOutcome::Damaged { prev_index, hint, .. } => {
                progress.answered(now, sent_at, round);
                ",
            "progress.match_index = progress.match_index.min(hint.index);",
        )],
    },
    Mutant {
        name: "StaleRefusalMovesNextBack",
        origin: "S27",
        breaks: "A late refusal moves the next entry to send below what matches (etcd-io/raft#148).",
        edits: &[
            replace(REPLICATION, "if ", "progress.refusal_is_news(prev_index)", "true"),
            insert(
                REPLICATION,
                "progress.probe(next_index);\n                    ",
                "progress.state = crate::progress::State::Probe { next_index, sent_at: None };",
            ),
        ],
    },
    Mutant {
        name: "AckLastIndex",
        origin: "20",
        breaks: "A follower acknowledges its whole log instead of what the message verified.",
        edits: &[replace(
            REPLICATION,
            "self.advance_follower_commit(commit_index, out);\n            ",
            "AppendOutcome::Accepted { match_index }",
            "AppendOutcome::Accepted { match_index: self.log.last().index }",
        )],
    },
    Mutant {
        name: "MatchNotMonotonic",
        origin: "21",
        breaks: "A late acknowledgement lowers what is known to match (PySyncObj#4, RaftOS#1).",
        edits: &[replace(
            REPLICATION,
            "if ",
            "progress.accepted(match_index)",
            "progress.match_index = Index(0);\n                    progress.accepted(match_index)",
        )],
    },
    Mutant {
        name: "AcceptStaleTermAppend",
        origin: "22",
        breaks: "Entries of a deposed leader are taken.",
        edits: &[replace(
            RAFT,
            "if ",
            "term < self.term",
            "term < self.term && !matches!(body, Body::AppendEntries(_))",
        )],
    },
    Mutant {
        name: "FollowerCommitUnverified",
        origin: "23, S22",
        breaks: "The leader's commit index counts for entries that were not verified (copycat#265).",
        edits: &[replace(
            COMMIT,
            "let index = ",
            "leader_commit.min(follower.verified)",
            "leader_commit.min(self.log.last().index)",
        )],
    },
    Mutant {
        name: "CommitOldTermByCounting",
        origin: "24, S20",
        breaks: "An entry of an earlier term is committed by counting replicas (Figure 8; logcabin#44, PySyncObj#5).",
        edits: &[replace(COMMIT, "if ", "self.log.term_at(index) != Some(self.term)", "false")],
    },
    Mutant {
        name: "CommitNotMonotonic",
        origin: "25",
        breaks: "A follower's commit index follows the leader's message downwards (PySyncObj#2).",
        edits: &[replace(COMMIT, "if ", "index > self.commit_index", "true")],
    },
    Mutant {
        name: "CommitStopsAtOldTerm",
        origin: "26",
        breaks: "A leader whose next entry is of an old term commits nothing any more (RaftOS#4).",
        edits: &[insert(
            COMMIT,
            "if index <= self.commit_index {\n            return;\n        }\n        ",
            r"if self.log.term_at(self.commit_index.next()) != Some(self.term) {
                return;
            }",
        )],
    },
    Mutant {
        name: "CompactedReadAsConflict",
        origin: "27, S23",
        breaks: "An entry that is compacted here already is taken for a conflict (openraft#511, WRaft#1).",
        edits: &[replace(REPLICATION, "let known = |entry: &Entry| ", "entry.index <= self.log.base().index", "false")],
    },
    Mutant {
        name: "EraseMatchedSuffix",
        origin: "29",
        breaks: "A message's entries are always written anew, with nothing behind them (RaftOS#2).",
        edits: &[replace(
            REPLICATION,
            "let Some(new_from) = entries.iter().position(|entry| ",
            "!known(entry)",
            "true",
        )],
    },
    Mutant {
        name: "UnsortedQuorum",
        origin: "S26",
        breaks: "The quorum's value is taken from an unsorted list (openraft#1802).",
        edits: &[
            replace(
                RAFT,
                "pub(crate) fn quorum(&self) -> Quorum<'_> {\n        ",
                "self.membership.current().quorum()",
                "self.membership.current().quorum().own()",
            ),
            replace(
                READ,
                "let Some(confirmed) = ",
                "self.membership.current().quorum()",
                "self.membership.current().quorum().own()",
            ),
            patch(
                QUORUM,
                "pub struct Quorum<'a> {\n    ",
                "halves: [&'a BTreeSet<NodeId>; 2],",
                r"halves: [&'a BTreeSet<NodeId>; 2],
    /// Whether a replica counts, and not a judge.
    own: bool,",
            ),
            patch(QUORUM, "Quorum { ", "halves: [incoming, outgoing]", "halves: [incoming, outgoing], own: false"),
            patch(
                QUORUM,
                "impl<'a> Quorum<'a> {\n",
                "",
                r"    /// The quorums by which a replica decides.
    pub(crate) fn own(self) -> Quorum<'a> {
        Quorum { own: true, ..self }
    }

",
            ),
            replace(
                QUORUM,
                "",
                "values.sort_unstable_by(|a, b| b.cmp(a));",
                r"if !self.own {
                    values.sort_unstable_by(|a, b| b.cmp(a));
                }",
            ),
        ],
    },
    Mutant {
        name: "RefusalKeepsTimer",
        origin: "S10",
        breaks: "A leader's message that can't be taken doesn't count as hearing it (redpanda#30817).",
        edits: &[
            patch(
                REPLICATION,
                r"pub(crate) fn handle_append(&mut self, from: NodeId, append: AppendEntries, out: &mut Effects) {
        ",
                "",
                "let heard_before = (self.leader_contact, self.election_deadline);\n        ",
            ),
            insert(
                REPLICATION,
                r"if !is_well_formed(&append, self.term) || !self.follow(from, out) {
            return;
        }
        ",
                r"if !self.is_known_to_match(append.prev) {
                (self.leader_contact, self.election_deadline) = heard_before;
            }",
            ),
        ],
    },
    Mutant {
        name: "AckOfEarlierSession",
        origin: "S28",
        breaks: "An acknowledgement from before a removal counts after it (raft-rs#571).",
        edits: &[replace(REPLICATION, "if ", "progress.session != reply.session", "false")],
    },
    Mutant {
        name: "OneEntryPerProbe",
        origin: "S38",
        breaks: "A search goes back one entry at a time (hashicorp#73).",
        edits: &[replace(
            REPLICATION,
            "let next_index = ",
            "agreed.map_or(Index(1), |position| position.index.next())",
            "prev_index",
        )],
    },
    Mutant {
        name: "UncommittedUnbounded",
        origin: "S37",
        breaks: "Proposals are taken without a bound while nothing can be committed (etcd#10167).",
        edits: &[replace(
            REPLICATION,
            "let full = ",
            "uncommitted > 0 && uncommitted + command.len() > self.config.max_uncommitted_bytes",
            "false",
        )],
    },
];
