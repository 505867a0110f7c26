//! Elections (5.2, 5.4.1; thesis 4.2.3, 9.6).

use super::{Mutant, insert, patch, remove, replace};

const ELECTION: &str = "crates/raft/src/election.rs";
const QUORUM: &str = "crates/raft/src/quorum.rs";
const RAFT: &str = "crates/raft/src/raft.rs";
const READ: &str = "crates/raft/src/read.rs";
const REPLICATION: &str = "crates/raft/src/replication.rs";

/// The mutants, in the order of their origins.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "VoteNotPersisted",
        origin: "1",
        breaks: "A vote is granted without being written down.",
        edits: &[remove(ELECTION, "self.voted_for = Some(from);\n                ", "self.persist_hard_state(out);")],
    },
    Mutant {
        name: "VoteReplyBeforeDurable",
        origin: "2",
        breaks: "A vote leaves before it is on disk.",
        edits: &[replace(
            ELECTION,
            "",
            "self.send_durably(from, Body::RequestVoteReply { granted }, out);",
            "self.send_now(from, Body::RequestVoteReply { granted }, out);",
        )],
    },
    Mutant {
        name: "TermNotPersisted",
        origin: "3",
        breaks: "A newer term is adopted in memory only.",
        edits: &[remove(RAFT, "self.voted_for = None;\n        ", "self.persist_hard_state(out);")],
    },
    Mutant {
        name: "GrantIgnoresVotedFor",
        origin: "4",
        breaks: "A second candidate of the same term gets a vote too.",
        edits: &[replace(ELECTION, "let free = ", "self.voted_for.is_none_or(|candidate| candidate == from)", "true")],
    },
    Mutant {
        name: "SkipUpToDateCheck",
        origin: "5",
        breaks: "A vote is granted whatever the candidate's log holds.",
        edits: &[replace(
            ELECTION,
            "fn is_up_to_date(&self, last: Position) -> bool {\n        ",
            "last >= self.log.last()",
            "true",
        )],
    },
    Mutant {
        name: "UpToDateByLength",
        origin: "6",
        breaks: "The longer log wins, whatever its terms.",
        edits: &[replace(
            ELECTION,
            "fn is_up_to_date(&self, last: Position) -> bool {\n        ",
            "last >= self.log.last()",
            "last.index >= self.log.last().index",
        )],
    },
    Mutant {
        name: "UpToDateStrictly",
        origin: "7",
        breaks: "Only a candidate whose log is strictly newer gets a vote.",
        edits: &[replace(
            ELECTION,
            "fn is_up_to_date(&self, last: Position) -> bool {\n        ",
            "last >= self.log.last()",
            "last > self.log.last()",
        )],
    },
    Mutant {
        name: "CountStaleVotes",
        origin: "8",
        breaks: "Votes of an earlier term count in this one.",
        edits: &[replace(
            RAFT,
            "if ",
            "term < self.term",
            "term < self.term && !matches!(body, Body::RequestVoteReply { .. })",
        )],
    },
    Mutant {
        name: "CountDuplicateVotes",
        origin: "8, S15",
        breaks: "A doubled vote counts as the vote of another replica (coyote-samples#8, jgroups-raft#24).",
        edits: &[insert(
            ELECTION,
            "if let Role::Candidate(candidate) = &mut self.role {\n            ",
            r"if candidate.votes.of(from).is_some() {
                let silent = |id: &NodeId| candidate.votes.of(*id).is_none();
                let other = self.membership.current().voters().into_iter().find(silent);
                candidate.votes.record(other.unwrap_or(from), granted);
            }",
        )],
    },
    Mutant {
        name: "QuorumOffByOne",
        origin: "9",
        breaks: "Half of the voters are a majority.",
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
                "let needed = ",
                "majority(half.len())",
                "if self.own { (half.len() / 2).max(1) } else { majority(half.len()) }",
            ),
            replace(
                QUORUM,
                "*values.get(",
                "majority(half.len())",
                "if self.own { (half.len() / 2).max(1) } else { majority(half.len()) }",
            ),
        ],
    },
    Mutant {
        name: "LearnerCounted",
        origin: "10, S18",
        breaks: "Learners count for a quorum (camunda#57387, raft-rs#221).",
        edits: &[
            replace(
                RAFT,
                "pub(crate) fn quorum(&self) -> Quorum<'_> {\n        ",
                "self.membership.current().quorum()",
                "crate::quorum::of_all_members(self.membership.current())",
            ),
            replace(
                READ,
                "let Some(confirmed) = ",
                "self.membership.current().quorum()",
                "crate::quorum::of_all_members(self.membership.current())",
            ),
            patch(
                QUORUM,
                "use crate::types::NodeId;\n",
                "",
                r#"
/// The quorums of all members, learners too. The sets live as long as the process: there are few.
pub(crate) fn of_all_members(membership: &crate::membership::Membership) -> Quorum<'static> {
    static KNOWN: std::sync::Mutex<BTreeSet<&'static BTreeSet<NodeId>>> = std::sync::Mutex::new(BTreeSet::new());
    let members = |group: &crate::membership::Group| -> &'static BTreeSet<NodeId> {
        let voters = !group.voters.is_empty();
        let all: BTreeSet<NodeId> = group.voters.union(&group.learners).copied().filter(|_| voters).collect();
        let mut known = KNOWN.lock().expect("nobody panics while holding it");
        if let Some(set) = known.get(&all) {
            return set;
        }
        let set: &'static BTreeSet<NodeId> = Box::leak(Box::new(all));
        known.insert(set);
        set
    };
    let outgoing = membership.outgoing().cloned().unwrap_or_default();
    Quorum::new(members(membership.incoming()), members(&outgoing))
}
"#,
            ),
        ],
    },
    Mutant {
        name: "NoStepDownOnReply",
        origin: "11",
        breaks: "Answers of a newer term are ignored.",
        edits: &[replace(
            RAFT,
            "_ if term > self.term => ",
            "self.step_down(term, out)",
            r"if matches!(body, Body::AppendEntriesReply(_) | Body::RequestVoteReply { .. }) {
                    return;
                }
                self.step_down(term, out)",
        )],
    },
    Mutant {
        name: "PreVoteBumpsTerm",
        origin: "12",
        breaks: "A pre-candidate enters the next term before anyone would vote for it.",
        edits: &[insert(
            ELECTION,
            "probe!(StoodThoughRemoved);\n        }\n        ",
            r"self.term = self.term.next();
            self.voted_for = None;
            self.persist_hard_state(out);",
        )],
    },
    Mutant {
        name: "NoCheckQuorum",
        origin: "13",
        breaks: "A leader without a quorum leads for ever.",
        edits: &[replace(
            REPLICATION,
            "",
            "heard.map_or(Time::NEVER, |heard| heard.after(self.config.election_timeout_max))",
            "Time::NEVER",
        )],
    },
    Mutant {
        name: "FixedElectionTimeout",
        origin: "14, S12",
        breaks: "Every election timeout is the shortest one.",
        edits: &[replace(
            ELECTION,
            "self.election_deadline = self.now.after(",
            "timeout",
            "self.config.election_timeout_min",
        )],
    },
    Mutant {
        name: "LearnerStands",
        origin: "15, S17",
        breaks: "Learners and removed members stand for election (redpanda#8495, hashicorp#476).",
        edits: &[insert(ELECTION, "pub(crate) fn may_stand(&self) -> bool {\n        ", "return true;")],
    },
    Mutant {
        name: "VoteClearedOnStepDown",
        origin: "S2",
        breaks: "Stepping down within a term forgets its vote (redpanda#19).",
        edits: &[insert(
            RAFT,
            "let role = Role::Follower(Follower { leader, verified: Index(0) });\n        ",
            "self.voted_for = None;",
        )],
    },
    Mutant {
        name: "RequestVoteBeforeDurable",
        origin: "S3",
        breaks: "A candidate asks for votes before its own is on disk (nebula#3415).",
        edits: &[replace(
            ELECTION,
            "",
            "self.send_durably(id, body.clone(), out);",
            "self.send_now(id, body.clone(), out);",
        )],
    },
    Mutant {
        name: "NoStickiness",
        origin: "S7",
        breaks: "Votes are granted while a leader is being heard (NuRaft#134).",
        edits: &[insert(
            ELECTION,
            "fn hears_leader(&self) -> bool {\n        ",
            "if !self.is_leader() {\n                return false;\n            }",
        )],
    },
    Mutant {
        name: "PreVoteSilentWhenStale",
        origin: "S5, S6",
        breaks: "A candidate of an old term is not told of the newer one (etcd#8501, openraft#1796).",
        edits: &[insert(
            ELECTION,
            r"// A candidate of an earlier term learns of this one, so that terms spread (S5, S6).
        ",
            "if term < self.term {\n                return;\n            }",
        )],
    },
    Mutant {
        name: "PromotedLearnerRefuses",
        origin: "S16",
        breaks: "A replica votes only if its own configuration makes it a voter (raft-rs#57).",
        edits: &[insert(
            ELECTION,
            "granted &= self.may_vote();\n        ",
            "granted &= self.membership.current().is_voter(self.config.id);",
        )],
    },
];
