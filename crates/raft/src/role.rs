//! The roles of a replica (5.1). Each owns only its own state: a follower has no `next_index` to misuse.

use std::collections::BTreeMap;

use crate::leadership_transfer::LeadershipTransfer;
use crate::progress::Progress;
use crate::read::LeaderReads;
use crate::types::{Index, NodeId, PersistId, Session, Time};

/// What a replica is at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Follows a leader, or waits for one.
    Follower(Follower),
    /// Asks whether an election could be won, before it disturbs anyone (thesis 9.6).
    PreCandidate(PreCandidate),
    /// Asks for votes (5.2).
    Candidate(Candidate),
    /// Leads.
    Leader(Box<Leader>),
}

/// A follower's own state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Follower {
    /// The leader of this term, once this replica has heard from it.
    pub(crate) leader: Option<NodeId>,
    /// The log is known to equal this leader's up to here; its commit index counts no further.
    pub(crate) verified: Index,
}

/// A pre-candidate's own state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PreCandidate {
    /// Who would vote for it.
    pub(crate) votes: Votes,
    /// When the voters that have not answered were last asked.
    pub(crate) asked_at: Time,
}

/// A candidate's own state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Candidate {
    /// Who voted for it.
    pub(crate) votes: Votes,
    /// The write of its own vote, which counts once it is durable.
    pub(crate) own_vote: PersistId,
    /// Whether the leader itself asked for this election.
    pub(crate) transfer: bool,
    /// When the voters that have not answered were last asked.
    pub(crate) asked_at: Time,
}

/// A leader's own state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Leader {
    /// The progress of every other member.
    pub(crate) progress: BTreeMap<NodeId, Progress>,
    /// The blank entry of this term: once it is committed, everything before it is too (5.4.2).
    pub(crate) term_start: Index,
    /// When the term began.
    pub(crate) since: Time,
    /// The session to give to the next peer.
    pub(crate) next_session: Session,
    /// Reads that wait for a confirmation.
    pub(crate) reads: LeaderReads,
    /// The transfer of leadership under way.
    pub(crate) transfer: Option<LeadershipTransfer>,
    /// Whether a peer was told to start an election at once. From then on no lease of this term is valid, since that
    /// message may arrive at any later time.
    pub(crate) lease_void: bool,
}

impl Leader {
    /// A session that was never used in this term.
    pub(crate) fn new_session(&mut self) -> Session {
        self.next_session = Session(self.next_session.0 + 1);
        self.next_session
    }
}

/// Who granted and who refused. Only a voter's first answer counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Votes {
    answers: BTreeMap<NodeId, bool>,
}

impl Votes {
    /// Notes an answer.
    pub(crate) fn record(&mut self, from: NodeId, granted: bool) {
        self.answers.entry(from).or_insert(granted);
    }

    /// All answers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, bool)> {
        self.answers.iter().map(|(id, granted)| (*id, *granted))
    }

    /// What a voter answered.
    pub(crate) fn of(&self, id: NodeId) -> Option<bool> {
        self.answers.get(&id).copied()
    }
}
