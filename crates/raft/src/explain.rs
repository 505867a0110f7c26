//! Structured answers to an operator's questions: why there is no leader, why an entry is not committed, why a peer
//! receives nothing. They are made from the state, not from logs.

use std::fmt;
use std::time::Duration;

use crate::effect::Fault;
use crate::membership::Membership;
use crate::progress::Pause;
use crate::raft::Raft;
use crate::role::{Role, Votes};
use crate::types::{Index, NodeId, Position, Term};

/// What a replica says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The replica.
    pub id: NodeId,
    /// Its term.
    pub term: Term,
    /// What it is, and what it waits for.
    pub role: RoleExplanation,
    /// The configuration in force.
    pub membership: Membership,
    /// Whether that configuration is committed.
    pub membership_committed: bool,
    /// The last entry of its log.
    pub last: Position,
    /// The last entry that is on its own disk.
    pub durable: Index,
    /// The last entry that it knows to be committed.
    pub commit_index: Index,
    /// The last entry that the state machine contains.
    pub last_applied: Index,
    /// Why the next entry is not committed, if there is one.
    pub uncommitted: Option<Uncommitted>,
    /// A leader's view of its peers.
    pub peers: Vec<PeerExplanation>,
    /// Why it has stopped, if it has.
    pub fault: Option<Fault>,
}

/// What a replica is, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleExplanation {
    /// It follows this leader.
    Following {
        /// The leader.
        leader: NodeId,
        /// How long ago it was last heard.
        heard_ago: Duration,
    },
    /// It knows no leader, and stands for election soon if it doesn't hear from one.
    Waiting {
        /// The time until then.
        stands_in: Duration,
    },
    /// It knows no leader and may not stand for election: it is not a voter of any configuration that may be in
    /// force.
    NotAVoter,
    /// It knows no leader and may not stand for election: its disk has lost entries that it may have acknowledged.
    Suspect {
        /// Where its log may have ended.
        last_possible: Position,
    },
    /// It has started and knows no leader. It may not vote before enough of its peers have said whether they remember
    /// more of it than its disk does.
    Returning {
        /// The voters that have not answered.
        silent: Vec<NodeId>,
    },
    /// It asks voters whether they would vote for it, or for their votes.
    Standing {
        /// Whether this is the pre-vote.
        pre_vote: bool,
        /// Who granted.
        granted: Vec<NodeId>,
        /// Who refused.
        refused: Vec<NodeId>,
        /// Who has not answered.
        silent: Vec<NodeId>,
    },
    /// It leads.
    Leading {
        /// Whether it may answer reads under its lease.
        lease: bool,
        /// How many reads wait for a confirmation.
        waiting_reads: usize,
        /// How soon it steps down if no quorum answers.
        steps_down_in: Duration,
        /// Whether it is handing over its leadership.
        transferring: bool,
    },
}

/// Why an entry is not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncommitted {
    /// The first entry that is not committed.
    pub index: Index,
    /// Voters that have it on disk.
    pub held_by: Vec<NodeId>,
    /// Voters that don't have it on disk, as far as this replica knows.
    pub missing_at: Vec<NodeId>,
    /// Whether it is of an earlier term, so that an entry of this term must be committed first (5.4.2).
    pub needs_entry_of_own_term: bool,
    /// Whether only a leader can tell more.
    pub ask_leader: bool,
}

/// A leader's view of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerExplanation {
    /// The peer.
    pub id: NodeId,
    /// Whether it votes.
    pub voter: bool,
    /// Up to where its log is known to match the leader's.
    pub match_index: Index,
    /// How many entries it lacks.
    pub lag: u64,
    /// How long ago it answered, counted from when the leader sent the question.
    pub answered_ago: Option<Duration>,
    /// Why it is sent no entries now, if so.
    pub paused: Option<Pause>,
    /// How many messages in a row had no answer in time.
    pub misses: u32,
}

impl Raft {
    /// What this replica is doing, and what it waits for.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        let membership = self.membership.current().clone();
        let membership_committed = self.membership.current_index().is_none_or(|index| index <= self.commit_index);
        Explanation {
            id: self.config.id,
            term: self.term,
            role: self.explain_role(),
            membership,
            membership_committed,
            last: self.log.last(),
            durable: self.persistence.durable_index(),
            commit_index: self.commit_index,
            last_applied: self.applying.applied(),
            uncommitted: self.explain_uncommitted(),
            peers: self.explain_peers(),
            fault: self.fault.clone(),
        }
    }

    fn explain_role(&self) -> RoleExplanation {
        match &self.role {
            Role::Leader(leader) => RoleExplanation::Leading {
                lease: self.lease_is_valid(leader, self.now),
                waiting_reads: leader.reads.len(),
                steps_down_in: self.check_quorum_deadline(leader).since(self.now),
                transferring: leader.transfer.is_some(),
            },
            Role::PreCandidate(candidate) => self.explain_votes(true, &candidate.votes),
            Role::Candidate(candidate) => self.explain_votes(false, &candidate.votes),
            Role::Follower(follower) => match (follower.leader, self.leader_contact, self.suspect) {
                (Some(leader), Some(contact), _) => {
                    RoleExplanation::Following { leader, heard_ago: self.now.since(contact) }
                }
                (_, _, Some(suspect)) => RoleExplanation::Suspect { last_possible: suspect.last_possible },
                _ if let Some(silent) = self.awaited_answers() => RoleExplanation::Returning { silent },
                _ if self.may_stand() => RoleExplanation::Waiting { stands_in: self.election_deadline.since(self.now) },
                _ => RoleExplanation::NotAVoter,
            },
        }
    }

    fn explain_votes(&self, pre_vote: bool, votes: &Votes) -> RoleExplanation {
        let voters = self.membership.current().voters();
        let with = |answer| voters.iter().copied().filter(|id| votes.of(*id) == answer).collect();
        RoleExplanation::Standing {
            pre_vote,
            granted: with(Some(true)),
            refused: with(Some(false)),
            silent: with(None),
        }
    }

    fn explain_uncommitted(&self) -> Option<Uncommitted> {
        let index = self.commit_index.next();
        let term = self.log.term_at(index)?;
        let leader = self.leader_ref();
        let holds = |id: NodeId| match leader.and_then(|leader| leader.progress.get(&id)) {
            Some(progress) => progress.match_index >= index,
            None => id == self.config.id && self.persistence.durable_index() >= index,
        };
        let (held_by, missing_at) = self.membership.current().voters().into_iter().partition(|id| holds(*id));
        Some(Uncommitted {
            index,
            held_by,
            missing_at,
            needs_entry_of_own_term: leader.is_some() && term < self.term,
            ask_leader: leader.is_none(),
        })
    }

    fn explain_peers(&self) -> Vec<PeerExplanation> {
        let Some(leader) = self.leader_ref() else { return Vec::new() };
        let describe = |(id, progress): (&NodeId, &crate::progress::Progress)| PeerExplanation {
            id: *id,
            voter: self.membership.current().is_voter(*id),
            match_index: progress.match_index,
            lag: self.log.last().index.distance_from(progress.match_index),
            answered_ago: progress.contact.map(|contact| self.now.since(contact)),
            paused: progress.paused(&self.config),
            misses: progress.misses,
        };
        leader.progress.iter().map(describe).collect()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} in {} {}", self.id, self.term, self.role)?;
        let committed = if self.membership_committed { "committed" } else { "not committed yet" };
        writeln!(f, "  members {} ({committed})", self.membership)?;
        let Explanation { last, durable, commit_index, last_applied, .. } = self;
        writeln!(f, "  log up to {last}, on disk {durable}, committed {commit_index}, applied {last_applied}")?;
        if let Some(uncommitted) = &self.uncommitted {
            writeln!(f, "  {uncommitted}")?;
        }
        for peer in &self.peers {
            writeln!(f, "  {peer}")?;
        }
        match &self.fault {
            Some(fault) => writeln!(f, "  stopped: {fault}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RoleExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoleExplanation::Following { leader, heard_ago } => {
                write!(f, "follows {leader}, heard {heard_ago:?} ago")
            }
            RoleExplanation::Waiting { stands_in } => {
                write!(f, "knows no leader, stands for election in {stands_in:?}")
            }
            RoleExplanation::Suspect { last_possible } => {
                write!(f, "knows no leader, and has lost entries up to {last_possible}: it waits to be repaired")
            }
            RoleExplanation::Returning { silent } => {
                write!(f, "has started, and asks its peers what they remember: no answer from {}", names(silent))
            }
            RoleExplanation::NotAVoter => write!(f, "knows no leader, and is no voter: it waits to be found"),
            RoleExplanation::Standing { pre_vote, granted, refused, silent } => {
                let what = if *pre_vote { "asks who would vote for it" } else { "stands for election" };
                write!(f, "{what}: granted by {}, refused by {}, ", names(granted), names(refused))?;
                write!(f, "no answer from {}", names(silent))
            }
            RoleExplanation::Leading { lease, waiting_reads, steps_down_in, transferring } => {
                let lease = if *lease { "with a valid lease" } else { "without a lease" };
                write!(f, "leads {lease}, {waiting_reads} reads wait, ")?;
                write!(f, "steps down in {steps_down_in:?} unless a quorum answers")?;
                if *transferring { write!(f, ", is handing over") } else { Ok(()) }
            }
        }
    }
}

impl fmt::Display for Uncommitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Uncommitted { index, held_by, missing_at, .. } = self;
        if self.ask_leader {
            return write!(f, "entry {index} is not known to be committed: the leader can tell why");
        }
        write!(f, "entry {index} is not committed: on disk at {}, not at {}", names(held_by), names(missing_at))?;
        if self.needs_entry_of_own_term {
            write!(f, "; it is of an earlier term, so an entry of this term must be committed first (5.4.2)")?;
        }
        Ok(())
    }
}

impl fmt::Display for PeerExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.voter { "voter" } else { "learner" };
        write!(f, "{} ({kind}) matches up to {}, lacks {}", self.id, self.match_index, self.lag)?;
        match self.answered_ago {
            Some(ago) => write!(f, ", answered {ago:?} ago")?,
            None => write!(f, ", has not answered in this term")?,
        }
        if self.misses > 0 {
            write!(f, ", {} unanswered in a row", self.misses)?;
        }
        match self.paused {
            Some(Pause::Probing) => write!(f, "; paused: one probe at a time"),
            Some(Pause::WindowFull) => write!(f, "; paused: its window is full"),
            Some(Pause::Snapshot) => write!(f, "; paused: a snapshot is on its way"),
            None => Ok(()),
        }
    }
}

fn names(ids: &[NodeId]) -> String {
    match ids {
        [] => "nobody".to_owned(),
        ids => ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    }
}
