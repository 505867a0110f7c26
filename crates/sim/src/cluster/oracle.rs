//! The oracle: checks the rules that must hold after every step. It sees everything and remembers what replicas have
//! promised over the wire, also over their restarts.

mod commits;
mod fates;
mod links;
mod promises;
mod shadow;

use std::collections::BTreeMap;
use std::fmt;

use bowline_raft::{NodeId, Term};

use crate::cluster::clock::Moment;

pub(crate) use commits::Commits;
pub(crate) use fates::Fates;
pub(crate) use links::Links;
pub(crate) use promises::Promises;
pub(crate) use shadow::Shadow;

macro_rules! rules {
    ($($name:ident: $title:literal;)*) => {
        /// The rules, with their numbers: I and L are in `docs/invariants.md`, C in `docs/faults.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule {
            $(#[doc = $title] $name,)*
        }

        impl Rule {
            /// All rules.
            pub const ALL: &'static [Rule] = &[$(Rule::$name,)*];

            /// A title for people.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Rule::$name => $title,)* }
            }
        }
    };
}

rules! {
    ElectionSafety: "Election Safety (I1)";
    LeaderAppendOnly: "Leader Append-Only (I2)";
    LogMatching: "Log Matching (I3)";
    LeaderCompleteness: "Leader Completeness (I4)";
    StateMachineSafety: "State Machine Safety (I5)";
    CommitNeverDecreases: "the commit index never decreases (I6)";
    TermNeverDecreases: "the term never decreases (I7)";
    VoteIsDurable: "a vote is durable before it is told (I8)";
    AcknowledgedIsDurable: "what is acknowledged is durable (I9)";
    CommittedIsDurableOnQuorum: "what is committed is durable on a quorum (I10)";
    MatchNeverDecreases: "what is known to match never decreases (I11)";
    NothingCommittedIsTruncated: "nothing committed is truncated (I13)";
    CommitIsNotOverstated: "no message overstates the commit index (I14)";
    Membership: "quorums of successive configurations intersect (I15)";
    StatesAreEqual: "states are equal at the same index (I16, I17)";
    RestartKeepsPromises: "a restart keeps every promise (I18)";
    ExactlyOnce: "a command takes effect once (I19)";
    ReadsSeeWhatWasCommitted: "a read sees what was committed before it (I20)";
    OneLease: "nobody else leads while a lease lasts (I21)";
    AnswersAreTrue: "what is answered is true (I22)";
    RevisionsCount: "each change is one revision, and answers say which (I23)";
    WatchesAreComplete: "a watch gets each event once, in order (I24)";
    MembersAreRecorded: "members and their records follow the rules (I29)";
    HistoryIsKept: "automatic compaction keeps what it must (I30)";
    LeasesAreKept: "a lease lives as long as was promised (C4)";
    LeasesEnd: "a lease that nobody keeps alive ends (C4)";
    Refinement: "each step is one of the model's (I28)";
    BoundsHold: "no more is taken than the limits allow (I25)";
    StrangersChangeNothing: "no message of a stranger changes anything (I26)";
    StreamIsComplete: "the stream of writes holds the whole log";
    EveryRequestEndsOnce: "every request ends, once";
    Linearizable: "linearizability";
    Elects: "a whole majority elects a leader (L1)";
    Stays: "a whole majority keeps its leader (L2)";
    Serves: "a whole majority serves (L3)";
    Converges: "a whole majority converges (L4, L5)";
    WatchesCatchUp: "watches catch up (L6)";
    Deterministic: "the same seed gives the same run (I27)";
    Assertion: "an assertion of the core";
    NoReplicaHalts: "no replica sees a broken promise";
}

impl Rule {
    /// Whether it is about progress. A run that is to break it again needs the liveness phase.
    #[must_use]
    pub fn is_of_liveness(self) -> bool {
        matches!(
            self,
            Rule::Elects
                | Rule::Stays
                | Rule::Serves
                | Rule::Converges
                | Rule::WatchesCatchUp
                | Rule::LeasesEnd
                | Rule::EveryRequestEndsOnce
        )
    }
}

/// A violation of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// What happened.
    pub what: String,
    /// When, in nanoseconds of true time since the start.
    pub at: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at {:.6} s", self.rule.title(), self.what, self.at as f64 / 1e9)
    }
}

/// The result of a check.
pub(crate) type Judged = Result<(), (Rule, String)>;

/// The oracle's memory of a whole run.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    leaders: BTreeMap<Term, NodeId>,
    pub(crate) links: Links,
    pub(crate) commits: Commits,
    pub(crate) promises: Promises,
    pub(crate) fates: Fates,
    pub(crate) violation: Option<Violation>,
}

impl Oracle {
    /// Keeps the first violation.
    pub(crate) fn judge(&mut self, now: Moment, judged: Judged) {
        if let Err((rule, what)) = judged
            && self.violation.is_none()
        {
            self.violation = Some(Violation { rule, what, at: now });
        }
    }

    /// I1: a term has at most one leader, ever.
    pub(crate) fn leads(&mut self, id: NodeId, term: Term) -> Judged {
        let leader = *self.leaders.entry(term).or_insert(id);
        if leader == id {
            Ok(())
        } else {
            Err((Rule::ElectionSafety, format!("{id} leads in {term}, but {leader} already led in it")))
        }
    }

    pub(crate) fn elections(&self) -> usize {
        self.leaders.len()
    }
}

/// Mixes a word into a digest. It is fast, and good enough to tell states apart.
pub(crate) fn mix(digest: u64, word: u64) -> u64 {
    let mut mixed = (digest.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 32;
    mixed.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// A digest of bytes.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut state = bytes.len() as u64;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        state = mix(state, u64::from_le_bytes(word.try_into().expect("eight bytes")));
    }
    words.remainder().iter().fold(state, |state, byte| mix(state, u64::from(*byte)))
}
