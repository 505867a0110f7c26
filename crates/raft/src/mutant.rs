//! The museum: bugs that Raft implementations have shipped, each a small patch of this core that is
//! asleep unless it is chosen.
//!
//! Without the feature `museum` there is nothing to choose, and [`mutant!`] is the constant `false`.
//! With it, [`crate::Config`] has a field that names the one mutant of a replica. A mutant that no
//! test notices is a hole in the tests. Numbers are those of the catalogue of seeded bugs; an S-number
//! is a scenario's; `repo#n` is the issue in which the bug was told.

/// Whether this replica carries the mutant: `mutant!(self.config, Name)`.
#[cfg(feature = "museum")]
macro_rules! mutant {
    ($owner:expr, $name:ident) => {
        $owner.mutant == Some($crate::mutant::Mutant::$name)
    };
}

/// Whether this replica carries the mutant: never, in a build without the museum.
#[cfg(not(feature = "museum"))]
macro_rules! mutant {
    ($owner:expr, $name:ident) => {
        $crate::mutant::asleep()
    };
}

pub(crate) use mutant;

/// What every mutant is in a build without the museum.
#[cfg(not(feature = "museum"))]
#[inline(always)]
pub(crate) const fn asleep() -> bool {
    false
}

#[cfg(feature = "museum")]
macro_rules! museum {
    ($($(#[doc = $doc:literal])+ $name:ident = $origin:literal,)+) => {
        /// A bug to carry.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mutant {
            /// All of them, in the order of the catalogue.
            pub const ALL: &'static [Mutant] = &[$(Mutant::$name,)+];

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Mutant::$name => stringify!($name),)+ }
            }

            /// Its numbers in the catalogues.
            #[must_use]
            pub fn origin(self) -> &'static str {
                match self { $(Mutant::$name => $origin,)+ }
            }

            /// What it breaks, in a line.
            #[must_use]
            pub fn breaks(self) -> &'static str {
                match self { $(Mutant::$name => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// The mutant of that name.
            #[must_use]
            pub fn named(name: &str) -> Option<Mutant> {
                Mutant::ALL.iter().copied().find(|mutant| mutant.name().eq_ignore_ascii_case(name))
            }
        }
    };
}

#[cfg(feature = "museum")]
museum! {
    // Elections.
    /// A vote is granted without being written down.
    VoteNotPersisted = "1",
    /// A vote leaves before it is on disk.
    VoteReplyBeforeDurable = "2",
    /// A newer term is adopted in memory only.
    TermNotPersisted = "3",
    /// A second candidate of the same term gets a vote too.
    GrantIgnoresVotedFor = "4",
    /// A vote is granted whatever the candidate's log holds.
    SkipUpToDateCheck = "5",
    /// The longer log wins, whatever its terms.
    UpToDateByLength = "6",
    /// Only a candidate whose log is strictly newer gets a vote.
    UpToDateStrictly = "7",
    /// Votes of an earlier term count in this one.
    CountStaleVotes = "8",
    /// A doubled vote counts as the vote of another replica (coyote-samples#8, jgroups-raft#24).
    CountDuplicateVotes = "8, S15",
    /// Half of the voters are a majority.
    QuorumOffByOne = "9",
    /// Learners count for a quorum (camunda#57387, raft-rs#221).
    LearnerCounted = "10, S18",
    /// Answers of a newer term are ignored.
    NoStepDownOnReply = "11",
    /// A pre-candidate enters the next term before anyone would vote for it.
    PreVoteBumpsTerm = "12",
    /// A leader without a quorum leads for ever.
    NoCheckQuorum = "13",
    /// Every election timeout is the shortest one.
    FixedElectionTimeout = "14, S12",
    /// Learners and removed members stand for election (redpanda#8495, hashicorp#476).
    LearnerStands = "15, S17",
    /// Stepping down within a term forgets its vote (redpanda#19).
    VoteClearedOnStepDown = "S2",
    /// A candidate asks for votes before its own is on disk (nebula#3415).
    RequestVoteBeforeDurable = "S3",
    /// Votes are granted while a leader is being heard (NuRaft#134).
    NoStickiness = "S7",
    /// A candidate of an old term is not told of the newer one (etcd#8501, openraft#1796).
    PreVoteSilentWhenStale = "S5, S6",
    /// A replica votes only if its own configuration makes it a voter (raft-rs#57).
    PromotedLearnerRefuses = "S16",
    // Replication.
    /// An entry of any term will do at `prev`.
    SkipPrevLogTerm = "16",
    /// What lies behind a message's last entry is cut, also if all of it matched (hashicorp#113).
    TruncateOnStaleAppend = "17, S21",
    /// A conflicting entry stays, and is acknowledged as if it were the leader's.
    NoTruncateOnConflict = "18",
    /// A late refusal takes back what is known to match (CCF#5991).
    StaleRefusalLowersMatch = "19",
    /// A late refusal moves the next entry to send below what matches (etcd-io/raft#148).
    StaleRefusalMovesNextBack = "S27",
    /// A follower acknowledges its whole log instead of what the message verified.
    AckLastIndex = "20",
    /// A late acknowledgement lowers what is known to match (PySyncObj#4, RaftOS#1).
    MatchNotMonotonic = "21",
    /// Entries of a deposed leader are taken.
    AcceptStaleTermAppend = "22",
    /// The leader's commit index counts for entries that were not verified (copycat#265).
    FollowerCommitUnverified = "23, S22",
    /// An entry of an earlier term is committed by counting replicas (Figure 8; logcabin#44, PySyncObj#5).
    CommitOldTermByCounting = "24, S20",
    /// A follower's commit index follows the leader's message downwards (PySyncObj#2).
    CommitNotMonotonic = "25",
    /// A leader whose next entry is of an old term commits nothing any more (RaftOS#4).
    CommitStopsAtOldTerm = "26",
    /// An entry that is compacted here already is taken for a conflict (openraft#511, WRaft#1).
    CompactedReadAsConflict = "27, S23",
    /// A message's entries are always written anew, with nothing behind them (RaftOS#2).
    EraseMatchedSuffix = "29",
    /// The quorum's value is taken from an unsorted list (openraft#1802).
    UnsortedQuorum = "S26",
    /// A leader's message that can't be taken doesn't count as hearing it (redpanda#30817).
    RefusalKeepsTimer = "S10",
    /// An acknowledgement from before a removal counts after it (raft-rs#571).
    AckOfEarlierSession = "S28",
    /// A search goes back one entry at a time (hashicorp#73).
    OneEntryPerProbe = "S38",
    /// Proposals are taken without a bound while nothing can be committed (etcd#10167).
    UncommittedUnbounded = "S37",
    // Durability.
    /// Entries are acknowledged before they are on disk (etcd#14370).
    AckBeforeDurable = "30, S32",
    /// An empty append is acknowledged ahead of earlier writes (yugabyte#32875).
    HeartbeatAckBeforeDurable = "30, S32",
    /// A write that was replaced counts for its successor when it is confirmed (the ABA of etcd's async writes).
    LateDiskConfirmsReplaced = "37, S31",
    /// A leader counts itself for entries that are not on its disk.
    LeaderCountsUnsyncedSelf = "38",
    /// Entries are applied that this replica could still forget (etcd#10217).
    ApplyBeforeDurable = "S71",
    /// A snapshot is installed before its mark in the log is on disk.
    InstallBeforeDurable = "45",
    // Snapshots.
    /// A peer that needs the first entry after the snapshot gets the snapshot again (WRaft#2).
    SnapshotBoundary = "40",
    /// A snapshot older than what is committed replaces the log (openraft#1930).
    InstallOlderSnapshot = "41, S45",
    /// Installing a snapshot sets the term back to the snapshot's (WRaft#4).
    TermRegressOnInstall = "42",
    /// The old configuration stays in force after a snapshot (openraft#1808, scylladb#9551).
    StaleConfigSurvivesInstall = "44, S41",
    /// A snapshot makes voters of learners (dragonboat#94).
    SnapshotPromotesLearners = "S42",
    /// A conflicting entry at the snapshot's end is kept (hashicorp#697).
    ConflictKeptUnderSnapshot = "S40",
    /// A failed transfer is waited for without end (etcd#10225, dgraph#2707).
    SnapshotFailureForgotten = "S39",
    /// A snapshot names the configuration in force, committed or not (hashicorp#617).
    SnapshotCarriesLatestConfig = "S47",
    /// A snapshot leaves out which commands were applied already.
    SnapshotWithoutSessions = "43",
    /// A piece of another transfer is added to the pieces that are there.
    ChunksMixed = "46",
    // Membership.
    /// A leader changes the membership before it has committed in its term.
    ChangeBeforeTermCommit = "47, S49",
    /// The algorithm before its fix of 2015: one server at a time, no joint configuration, at once (copycat#23,
    /// hydro#3192).
    SingleServerOf2015 = "47, S49",
    /// In a joint configuration the incoming group decides alone.
    JointNeedsOnlyNew = "48",
    /// A change may begin before the last one has ended.
    TwoChangesInFlight = "49",
    /// A whole group is exchanged without a joint configuration.
    NoJointForReplace = "S56",
    /// Truncating the log leaves its configuration in force (camunda#57386).
    ConfigNotRolledBack = "50, S58",
    /// Only the leader that began a joint configuration leaves it (etcd#12136).
    JointNotLeft = "S51",
    /// A leader that was removed goes on leading (etcd#11038).
    RemovedLeaderStays = "S53",
    // Reads and answers.
    /// A leader answers reads without asking anyone.
    ReadWithoutQuorum = "52",
    /// Any answer confirms the latest round of reads (etcd-io/raft#397).
    ReadRoundIgnored = "53, S64",
    /// Reads that wait together share the first one's index (tikv#7971).
    BatchedReadsShareIndex = "54",
    /// A read is served before the state machine is there.
    ReadBeforeApplied = "55",
    /// A new leader serves reads from a commit index that may be old (etcd#7331, tikv#6340).
    ReadBeforeTermCommit = "S63",
    /// A lease lasts twice the drift bound too long.
    LeaseWithoutDriftBound = "56, S68",
    /// A lease is counted from the arrival of an answer instead of the sending of its question.
    LeaseFromReceipt = "S67",
    /// A lease survives the order to stand for election (openraft#1748, etcd#12704).
    LeaseKeptDuringTransfer = "57, S66",
    /// Reads that wait at a leader are forgotten when it steps down (etcd#9566).
    ReadsDroppedOnStepDown = "S65",
    /// A proposal is answered with success when anything is applied at its index.
    SuccessIgnoringTerm = "59",
    /// A transfer that fails is under way for ever (hashicorp#696).
    TransferNeverCleared = "S60",

    // Disks.
    /// A replica whose disk has lost entries votes and stands all the same.
    SuspectVotes = "D3",
    /// A replica whose disk has lost entries takes the first word of a leader for its repair.
    RepairedTooEarly = "D3",
    /// Who is asked by a replica that comes back says that it remembers no more.
    NothingRemembered = "D14",
    /// A replica whose disk has lost entries refuses like any other, and is never repaired.
    DamageUnsaid = "D4",
    /// A sync that failed is tried again, and what it covered counts as durable when that succeeds.
    FailedSyncRetried = "31",
    /// A snapshot's name is not made durable: after a loss of power the file may be gone that the log relies on.
    NoDirSyncAfterRename = "32",
    /// A last write that a crash tore is taken as whole: its checksum is not looked at.
    TornTailAccepted = "33",
    /// Damage at the end of the log is cut like a write that a crash tore.
    DamageTakenForTornTail = "34, D3",
    /// Term and vote are in a file that is not synced with the log, and the file is believed after a crash.
    HardStateBehindLog = "35",
    /// What a truncation took away is there again after a restart.
    SuffixResurrected = "36",
    /// What an earlier life of a segment's file has left is read as if it belonged to this one.
    RecordWithoutPlace = "39",
    /// The log is cut though the state that holds its entries is not synced.
    StateNotSynced = "D1",
    /// A replica whose disk was lost starts from nothing under its old name (RethinkDB#5289).
    WipedKeepsItsName = "51",
}
