//! Bugs that show in one rare situation only, which a probe marks. The simulator notices these mutants without the
//! directed tests of those situations.

use super::{Mutant, insert, remove, replace};

const DAMAGE: &str = "crates/raft/src/damage.rs";
const LOG: &str = "crates/raft/src/log.rs";
const RAFT: &str = "crates/raft/src/raft.rs";
const READ: &str = "crates/raft/src/read.rs";
const RECOVERY: &str = "crates/storage/src/recovery.rs";
const RETURNING: &str = "crates/raft/src/returning.rs";
const TRANSFER: &str = "crates/raft/src/leadership_transfer.rs";

/// The mutants; the origin is the probe.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "PeersForgetVotes",
        origin: "OldImageLacksVote",
        breaks: "Nobody tells a replica that comes back that its disk lacks a vote, if it lacks nothing else.",
        edits: &[replace(RETURNING, "term < self.term || ", "self.vote.is_some_and(votes_otherwise)", "false")],
    },
    Mutant {
        name: "RepairForgetsDamage",
        origin: "VoteAfterRepair",
        breaks: "A start writes the copy of term and vote anew before the log has its record again.",
        edits: &[insert(RECOVERY, "copy.version < version);\n    ", "replay.copy_is_stale = true;")],
    },
    Mutant {
        name: "FailedTransferStaysJoint",
        origin: "TransferFailedInJoint",
        breaks: "A leader whose transfer of the leadership fails does not leave the joint configuration.",
        edits: &[remove(
            TRANSFER,
            "during the transfer has not been left yet.\n            ",
            "self.advance_membership(out);",
        )],
    },
    Mutant {
        name: "VoidedStillCounted",
        origin: "AcknowledgementsVoided",
        breaks: "What a peer acknowledged before its disk lost entries counts on.",
        edits: &[remove(DAMAGE, "", "progress.lost_after(agreed);")],
    },
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
        name: "ReadsByIncoming",
        origin: "ReadInJoint",
        breaks: "In a joint configuration the incoming group alone confirms a read.",
        edits: &[replace(
            READ,
            "let Some(confirmed) = ",
            "self.membership.current().quorum()",
            r"static NOBODY: std::collections::BTreeSet<NodeId> = std::collections::BTreeSet::new();
            crate::quorum::Quorum::new(&self.membership.current().incoming().voters, &NOBODY)",
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
