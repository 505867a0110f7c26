//! The records of the members, the steps from them to the configuration, and automatic compaction.

use super::{Mutant, remove, replace};

const COMPARISON: &str = "crates/kv/src/store/comparison.rs";
const COMPACTION: &str = "crates/kv/src/compaction.rs";
const MEMBERS: &str = "crates/kv/src/store/members.rs";
const RECONFIGURE: &str = "crates/raft/src/reconfigure.rs";
const SNAPSHOT: &str = "crates/kv/src/store/snapshot.rs";
const STEPS: &str = "crates/kv/src/membership.rs";

/// The mutants. None is from the list, which predates the records.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "RemovedIdAddedAgain",
        origin: "records",
        breaks: "A member that was removed may be added again, with its old disk.",
        edits: &[replace(
            MEMBERS,
            "if self.records.contains_key(&member.id) || ",
            "self.is_removed(member.id)",
            "false",
        )],
    },
    Mutant {
        name: "RemovedIdAdopted",
        origin: "records",
        breaks: "A leader that doesn't know of a removal gives the removed member its record back.",
        edits: &[replace(
            MEMBERS,
            "let known = self.records.contains_key(&member.id) || ",
            "self.is_removed(member.id)",
            "false",
        )],
    },
    Mutant {
        name: "LastStartedRemoved",
        origin: "records",
        breaks: "A voter may be removed although too few of the others have started.",
        edits: &[replace(MEMBERS, "if !is_learner && ", "started < majority(voters)", "false")],
    },
    Mutant {
        name: "EmptyFolderPublishes",
        origin: "records",
        breaks: "A member may come back with another data folder under its old id.",
        edits: &[replace(MEMBERS, "if ", "![0, member.incarnation].contains(&record.incarnation)", "false")],
    },
    Mutant {
        name: "SnapshotWithoutMembers",
        origin: "records",
        breaks: "A snapshot leaves out the records of the members.",
        edits: &[replace(SNAPSHOT, "if ", "!self.meta.members.is_empty()", "false")],
    },
    Mutant {
        name: "SnapshotWithoutComparison",
        origin: "records",
        breaks: "A snapshot leaves out the checksum by which the members are compared.",
        edits: &[replace(SNAPSHOT, "if ", "!self.meta.comparison.is_empty()", "false")],
    },
    Mutant {
        name: "ReportOfAnotherMark",
        origin: "records",
        breaks: "A member's report counts for a later mark than its own.",
        edits: &[replace(
            COMPARISON,
            "let board = &mut self.meta.comparison.mark;\n                if ",
            "report.at == board.at",
            "true",
        )],
    },
    Mutant {
        name: "RemovalsForgotten",
        origin: "records",
        breaks: "A snapshot and the store's note leave out which members were removed.",
        edits: &[replace(MEMBERS, "Note { members, removed: ", "self.removed.iter().copied().collect()", "Vec::new()")],
    },
    Mutant {
        name: "AlarmOfRemovedKept",
        origin: "records",
        breaks: "The alarm of a member outlives its removal, so that writes are refused for ever.",
        edits: &[remove(MEMBERS, "", "self.meta.alarms.forget(*id);")],
    },
    Mutant {
        name: "FollowerTakesSteps",
        origin: "records",
        breaks: "A member that leads no more goes on changing the configuration.",
        edits: &[replace(
            STEPS,
            "",
            "leads && cluster_version >= versions::MEMBERS",
            "cluster_version >= versions::MEMBERS",
        )],
    },
    Mutant {
        name: "PromotedBeforeItStarted",
        origin: "records",
        breaks: "A new member becomes a voter before it has published its record.",
        edits: &[replace(STEPS, "learners.contains(&id) && !member.is_learner && ", "member.has_started()", "true")],
    },
    Mutant {
        name: "RemovedWithoutMajority",
        origin: "records",
        breaks: "A leader removes a voter although no majority of the others can be reached.",
        edits: &[replace(STEPS, "let survives = learners.contains(&id) || ", "reached > count / 2", "true")],
    },
    Mutant {
        name: "SilentVotersDecide",
        origin: "records",
        breaks: "A change is made although a majority of the new voters does not answer, or is damaged.",
        edits: &[replace(RECONFIGURE, "if goal.voters != group.voters && ", "!self.can_commit_with(&goal)", "false")],
    },
    Mutant {
        name: "OneRevisionTooFew",
        origin: "compaction",
        breaks: "Automatic compaction keeps one revision less than it was told.",
        edits: &[replace(
            COMPACTION,
            "Retention::Revisions(kept) => ",
            "revision.saturating_sub(kept)",
            "revision.saturating_sub(kept - 1)",
        )],
    },
    Mutant {
        name: "OneRoundTooFew",
        origin: "compaction",
        breaks: "Automatic compaction keeps the history of nine tenths of the time.",
        edits: &[replace(COMPACTION, "self.seen.len() as u128 > ", "rounds + 1", "rounds - 1")],
    },
];
