//! The messages between replicas, one variant for each kind.

use std::fmt;

use crate::effect::{HardState, ReadKind};
use crate::log::Entry;
use crate::membership::Membership;
use crate::types::{Index, Position, Round, Session, Term, Time};

/// A message between two replicas.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// The sender's current term (5.1).
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// "Would you vote for me in the term after mine?" It changes nothing (thesis 9.6).
    PreVote {
        /// Last entry of the sender's log.
        last: Position,
    },
    /// Answer to a [`Body::PreVote`].
    PreVoteReply {
        /// Whether the sender would grant its vote.
        granted: bool,
    },
    /// "Vote for me in this term" (5.2).
    RequestVote {
        /// Last entry of the candidate's log (5.4.1).
        last: Position,
        /// Whether the leader itself asked for this election, so that its followers may vote although they have heard
        /// from it recently (thesis 3.10, 4.2.3).
        transfer: bool,
    },
    /// Answer to a [`Body::RequestVote`].
    RequestVoteReply {
        /// Whether the vote is granted.
        granted: bool,
    },
    /// Entries from the leader; a heartbeat if it has none (5.3).
    AppendEntries(AppendEntries),
    /// Answer to an [`AppendEntries`] or an [`InstallSnapshot`].
    AppendEntriesReply(AppendEntriesReply),
    /// A snapshot from the leader has arrived at the receiver's host (section 7).
    InstallSnapshot(InstallSnapshot),
    /// "Start an election now": the last step of a leadership transfer (thesis 3.10).
    TimeoutNow,
    /// A follower asks for the index from which a read would be linearizable (thesis 6.4).
    ReadIndex {
        /// The follower's name for the read. It is random, so that the follower can't take the answer to another read
        /// for this one's.
        context: u64,
        /// How the leader makes sure that it still leads.
        kind: ReadKind,
    },
    /// Answer to a [`Body::ReadIndex`].
    ReadIndexReply {
        /// The name that the follower gave.
        context: u64,
        /// The index to wait for; `None` if the sender doesn't lead or refuses the read.
        index: Option<Index>,
    },
    /// "I have started, and found this: do you remember more of me?" The sender says nothing else before the answer.
    Returned {
        /// A number for this start of the sender, to tell it from others.
        start_id: u64,
        /// What was on the sender's disk.
        found: Found,
    },
    /// Answer to a [`Body::Returned`].
    Remembered {
        /// The start that the question named.
        start_id: u64,
        /// The latest term of the receiver's promises, if the sender remembers any that are not on the receiver's
        /// disk.
        missing: Option<Term>,
        /// The last entry of the sender's log, if the sender leads.
        leads: Option<Position>,
    },
}

/// What a replica found on its disk when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// Term and vote.
    pub hard_state: HardState,
    /// The last entry of its log.
    pub last: Position,
}

/// The leader's part of log replication (5.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppendEntries {
    /// The session that an answer must name.
    pub session: Session,
    /// The latest confirmation round; an answer to this message confirms it.
    pub round: Round,
    /// When the leader sent this, on the leader's clock. The follower only sends it back: leases and check-quorum
    /// count from here.
    pub sent_at: Time,
    /// The entry just before the new ones: `prevLogIndex` and `prevLogTerm`.
    pub prev: Position,
    /// The new entries, without a gap.
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub commit_index: Index,
    /// Up to where the leader's own log is on its disk; 0 unless peers are to remember it, see
    /// [`crate::Config::return_check`].
    pub durable_index: Index,
}

/// A follower's answer to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppendEntriesReply {
    /// The session of the message that this answers.
    pub session: Session,
    /// The round of the message that this answers.
    pub round: Round,
    /// The time in the message that this answers.
    pub sent_at: Time,
    /// What became of it.
    pub outcome: AppendOutcome,
}

/// What became of an AppendEntries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppendOutcome {
    /// The follower's log equals the leader's up to here, on disk.
    Accepted {
        /// Last index that is known to match.
        match_index: Index,
    },
    /// The follower has no entry at `prev`, or another one.
    Rejected {
        /// Index of the `prev` that was refused.
        prev_index: Index,
        /// Where the logs may still agree: the follower's last entry before `prev` whose term is at most that of
        /// `prev`.
        hint: Position,
    },
    /// A rejection by a follower whose disk has lost entries: what it acknowledged before, beyond `hint`, is void.
    Damaged {
        /// Index of the `prev` that was refused.
        prev_index: Index,
        /// Where the logs may still agree.
        hint: Position,
        /// A number for this loss, which the follower drew at its start: the same loss is reported more than once.
        loss_id: u64,
    },
}

/// Announces a snapshot that the host has received in full (section 7).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstallSnapshot {
    /// The session that an answer must name.
    pub session: Session,
    /// What the snapshot holds.
    pub snapshot: SnapshotHeader,
}

/// What a snapshot says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotHeader {
    /// The last entry that it contains: `lastIncludedIndex` and `lastIncludedTerm`.
    pub position: Position,
    /// The configuration as of that entry.
    pub membership: Membership,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{} {}", self.term.0, self.body)
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::PreVote { last } => write!(f, "PreVote last={last}"),
            Body::PreVoteReply { granted } => write!(f, "PreVoteReply {}", yes_or_no(*granted)),
            Body::RequestVote { last, transfer: false } => write!(f, "RequestVote last={last}"),
            Body::RequestVote { last, transfer: true } => write!(f, "RequestVote last={last} transfer"),
            Body::RequestVoteReply { granted } => write!(f, "RequestVoteReply {}", yes_or_no(*granted)),
            Body::AppendEntries(append) => append.fmt(f),
            Body::AppendEntriesReply(reply) => match reply.outcome {
                AppendOutcome::Accepted { match_index } => write!(f, "AppendEntriesReply match={match_index}"),
                AppendOutcome::Damaged { prev_index, hint, .. } => {
                    write!(f, "AppendEntriesReply damaged prev={prev_index} hint={hint}")
                }
                AppendOutcome::Rejected { prev_index, hint } => {
                    write!(f, "AppendEntriesReply rejected prev={prev_index} hint={hint}")
                }
            },
            Body::InstallSnapshot(install) => write!(f, "InstallSnapshot last={}", install.snapshot.position),
            Body::TimeoutNow => write!(f, "TimeoutNow"),
            Body::ReadIndex { .. } => write!(f, "ReadIndex"),
            Body::ReadIndexReply { index: Some(index), .. } => write!(f, "ReadIndexReply index={index}"),
            Body::ReadIndexReply { index: None, .. } => write!(f, "ReadIndexReply none"),
            Body::Returned { found, .. } => write!(f, "Returned with {} last={}", found.hard_state.term, found.last),
            Body::Remembered { missing: Some(term), .. } => write!(f, "Remembered more, up to {term}"),
            Body::Remembered { missing: None, .. } => write!(f, "Remembered no more"),
        }
    }
}

impl fmt::Display for AppendEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppendEntries prev={} commit={}", self.prev, self.commit_index)?;
        match (self.entries.first(), self.entries.last()) {
            (Some(first), Some(last)) if first.index == last.index => write!(f, " entry {}", first.position()),
            (Some(first), Some(last)) => write!(f, " entries {}..{}", first.position(), last.position()),
            _ => Ok(()),
        }
    }
}

fn yes_or_no(granted: bool) -> &'static str {
    if granted { "granted" } else { "refused" }
}
