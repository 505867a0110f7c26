//! Named probes on rare paths. They prove that a test, above all the simulator, took them.
//!
//! A probe only counts. Nothing in the core or its host can see whether one was hit, so results never depend on it.
//! While nobody records, a probe costs the load of a flag and a branch.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

static RECORDING: AtomicBool = AtomicBool::new(false);

thread_local! {
    static COUNTS: [Cell<u64>; Probe::COUNT] = const { [const { Cell::new(0) }; Probe::COUNT] };
}

macro_rules! probes {
    ($($name:ident: $title:literal,)*) => {
        /// A rare path in the core or in the replica around it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Probe {
            $(#[doc = $title] $name,)*
        }

        impl Probe {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [Probe] = &[$(Probe::$name,)*];
            /// How many there are.
            pub const COUNT: usize = Probe::ALL.len();

            /// What happens on this path, in words.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Probe::$name => $title,)* }
            }
        }
    };
}

probes! {
    VoteSplit: "an election was lost",
    PreVoteLost: "a pre-vote was lost",
    PreVoteIgnored: "a pre-vote was ignored, because there is a leader",
    VoteWithheld: "a vote was withheld, because a leader was heard recently",
    VoteSecondCandidate: "a second candidate of a term was refused",
    VoteShortLog: "a candidate with a shorter log was refused",
    VoteRepeated: "a vote was granted again to the same candidate",
    StoodThoughRemoved: "a replica stood for election although an uncommitted configuration removes it",
    CandidateFollows: "a candidate found a leader of its term",
    CheckQuorum: "a leader without a quorum stepped down",
    StaleAnswered: "a message of an earlier term was answered",
    LogConflict: "a follower truncated a conflicting suffix",
    AppendMatched: "a follower already had some of the new entries",
    ProbeRefused: "a refusal moved a search back",
    LateRefusal: "a late refusal was ignored",
    WrongSession: "an answer of another session was ignored",
    WindowFull: "a peer's window was full",
    OverdueRetried: "entries were overdue",
    ThriftyReplaced: "thrifty: another peer took over",
    OldTermHeldBack: "an entry of an earlier term had a quorum and was not committed (Figure 8)",
    SelfNotDurable: "a quorum's entry was committed before it was on the leader's disk",
    ApplyLimited: "the limit of unapplied bytes was reached",
    UncommittedLimited: "a proposal was refused: too many uncommitted bytes",
    ProposalSuperseded: "a proposal was superseded by another leader's entry",
    ProposalCovered: "a snapshot covered a waiting proposal",
    RequestExpired: "a request expired",
    ReadEarly: "a read waited for the first commit of the term",
    ReadLease: "a read was served under the lease",
    ReadShared: "a read joined the next round",
    ReadInJoint: "a round for reads began in a joint configuration",
    ReadBeforeApply: "a read was confirmed before the state machine had applied what it must show",
    ReadRelayed: "a follower asked for a read index",
    ReadRefusedOnLoss: "waiting reads were refused: the leadership was lost",
    RelayAdopted: "a new leader adopted its own relayed reads",
    SnapshotNeeded: "a follower needed a snapshot",
    SnapshotInstalled: "a snapshot replaced the log",
    SnapshotOld: "a snapshot was older than what is committed",
    SnapshotUnreadable: "a snapshot could not be read when a follower needed it",
    SnapshotPassedOn: "a leader sent a snapshot of a state that it had got by a snapshot",
    SnapshotRetained: "the log already had all that a snapshot holds",
    ChunkRepeated: "a piece of a snapshot came twice or out of order",
    ChunkRestarted: "a receiver restarted a transfer",
    JointEntered: "a joint configuration was entered",
    JointLeft: "a joint configuration was left",
    JointReverted: "a joint configuration was reverted",
    ChangeRefused: "a change of the membership was refused: another one is under way",
    PromotionRefused: "a learner was too far behind to be promoted",
    NewVotersRefused: "a change was refused: a majority of the new voters did not answer or keep up",
    ConfigurationTruncated: "an uncommitted configuration was truncated",
    LeaderRemovedItself: "a leader that was no longer a voter stepped down",
    TransferTold: "the target of a transfer was told to stand for election",
    TransferFailed: "a transfer of the leadership was given up",
    TransferFailedInJoint: "a transfer of the leadership was given up in a joint configuration",
    AcknowledgementsVoided: "a leader heard that a peer's disk has lost entries",
    OldImageNoticed: "a replica heard that its peers remember more than its disk",
    OldImageLacksVote: "an old image of a disk lacked only the last vote of its replica",
    Repaired: "a replica whose disk had lost entries was repaired",
    VoteAfterRepair: "a replica voted in the term in which it started with what a copy had repaired",
    RestartInLease: "a replica started while a leader held a lease",
    SnapshotEndsTerm: "a snapshot ended exactly where the entries of a term did",
    Recalled: "the state machine knew what became of a write",
    StateBehindLog: "a state was found in its file, older than the end of its log",
    StateCheckpointed: "a state was made durable in its file, and the log before it could go",
    StateRewritten: "a state moved to a new file without free space",
    StateDiskFull: "the disk of the state was full, with room on that of the log",
    StateDamaged: "a state's file was found damaged",
    StateFetched: "a state came from a leader in place of one that was damaged or gone",
    LeaseExpired: "the end of leases that nobody renewed was proposed",
    LeaseEndRefused: "the end of a lease was refused, and is proposed again",
    LeaseAskedAtEnd: "a question about a lease came in the round in which the leadership ended",
    LeaseFoundLate: "a lease was found by the read that confirms a renewal",
    LeaseGoneMeanwhile: "a lease had ended when its renewal was confirmed",
    WatchLagged: "a watch read history",
    WatchCompacted: "the next events of a watch were compacted",
    WatchResumed: "a watch resumed at a replica",
    WatchAhead: "a watch resumed at a replica that was behind",
    WatchedStateReplaced: "a snapshot replaced a state that was watched",
    WatchPassedByCompaction: "automatic compaction passed a watch that was behind",
    RecordsAhead: "a new leader found records that the configuration did not follow yet",
    LeaderRemovesItself: "a leader found that its record was removed, and removed itself",
    AdditionTooFewStarted: "a member was not added, because too few have started",
    RemovalTooFewStarted: "a member was not removed, because too few others have started",
    RemovedIdRefused: "a removed member was not added again",
    OtherFolderRefused: "a member with another data folder could not publish its record",
}

/// Turns counting on or off, for all threads.
pub fn record(on: bool) {
    RECORDING.store(on, Ordering::Relaxed);
}

/// Counts a visit of this thread, while counting is on.
#[inline]
pub fn hit(probe: Probe) {
    if RECORDING.load(Ordering::Relaxed) {
        COUNTS.with(|counts| {
            let count = &counts[probe as usize];
            count.set(count.get().saturating_add(1));
        });
    }
}

/// This thread's visits by probe, in the order of [`Probe::ALL`]; counting starts over.
#[must_use]
pub fn take() -> Vec<u64> {
    COUNTS.with(|counts| counts.iter().map(|count| count.replace(0)).collect())
}

/// Marks a rare path of the core by the name of its [`Probe`].
macro_rules! probe {
    ($name:ident) => {
        $crate::probe::hit($crate::probe::Probe::$name)
    };
}
pub(crate) use probe;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_counts_once_and_only_while_somebody_records() {
        record(true);
        let _ = take();
        hit(Probe::JointLeft);
        hit(Probe::JointLeft);
        let counts = take();
        assert_eq!(counts[Probe::JointLeft as usize], 2);
        assert_eq!(counts.iter().sum::<u64>(), 2);
        assert!(take().iter().all(|count| *count == 0), "what was taken is gone");
    }
}
