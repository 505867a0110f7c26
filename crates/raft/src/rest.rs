//! For exhaustive search: removes everything from a replica that depends only on time, and renames a replica.
//!
//! Two replicas that differ only in when things happened are the same state in a search where anything may happen at
//! any time. [`Raft::rest`] makes them equal: all clocks show one moment, nothing is due, and the writes are numbered
//! anew. No leader was heard recently, so votes are granted whenever the log and the term allow it. What the search
//! finds safe is therefore safe with every timing, except for leases, which depend on time.

use std::collections::BTreeMap;

use crate::log::Payload;
use crate::membership::{Group, Membership};
use crate::message::{Body, Message};
use crate::raft::Raft;
use crate::random::Random;
use crate::role::{Role, Votes};
use crate::types::{NodeId, PersistId, Session, Time};

const MOMENT: Time = Raft::MOMENT_OF_REST;

impl Raft {
    /// The moment that all clocks show in a search.
    pub const MOMENT_OF_REST: Time = Time(1 << 40);

    /// Removes time from this replica, and returns by how much the ids of its writes went down. No read and no
    /// transfer may be under way.
    pub fn rest(&mut self) -> u64 {
        self.now = MOMENT;
        self.random = Random::new(0);
        self.leader_contact = None;
        self.election_deadline = MOMENT.after(self.config.election_timeout_max);
        let shift = self.persistence.start_anew();
        match &mut self.role {
            Role::Follower(_) => {}
            Role::PreCandidate(candidate) => candidate.asked_at = MOMENT,
            Role::Candidate(candidate) => {
                candidate.asked_at = MOMENT;
                candidate.own_vote = PersistId(candidate.own_vote.0.saturating_sub(shift));
            }
            Role::Leader(leader) => {
                leader.since = MOMENT;
                leader.progress.values_mut().for_each(|progress| progress.rest(MOMENT));
            }
        }
        shift
    }

    /// The same replica in a cluster where the first replica is called `names[0]`, the second `names[1]`, and so on.
    #[must_use]
    pub fn renamed(&self, names: &[NodeId]) -> Raft {
        let mut raft = self.clone();
        let rename = Renaming { names };
        raft.config.id = rename.id(self.config.id);
        raft.voted_for = self.voted_for.map(|id| rename.id(id));
        raft.log.change_payloads(|payload| rename.payload(payload));
        raft.membership.change_all(|membership| rename.membership(membership));
        for change in &mut raft.requests.changes {
            change.goal = rename.group(&change.goal);
        }
        match &mut raft.role {
            Role::Follower(follower) => follower.leader = follower.leader.map(|id| rename.id(id)),
            Role::PreCandidate(candidate) => candidate.votes = rename.votes(&candidate.votes),
            Role::Candidate(candidate) => candidate.votes = rename.votes(&candidate.votes),
            Role::Leader(leader) => {
                let progress = std::mem::take(&mut leader.progress).into_iter().map(|(peer, mut progress)| {
                    progress.session = rename.session(progress.session, self.config.id, peer);
                    (rename.id(peer), progress)
                });
                leader.progress = progress.collect::<BTreeMap<_, _>>();
            }
        }
        raft
    }
}

impl Message {
    /// Removes time from this message.
    pub fn rest(&mut self) {
        match &mut self.body {
            Body::AppendEntries(append) => append.sent_at = MOMENT,
            Body::AppendEntriesReply(reply) => reply.sent_at = MOMENT,
            _ => {}
        }
    }

    /// The same message in a cluster with other names, see [`Raft::renamed`]. `from` and `to` are the names before
    /// the renaming.
    #[must_use]
    pub fn renamed(&self, from: NodeId, to: NodeId, names: &[NodeId]) -> Message {
        let mut message = self.clone();
        let rename = Renaming { names };
        match &mut message.body {
            Body::AppendEntries(append) => {
                append.session = rename.session(append.session, from, to);
                for entry in &mut append.entries {
                    rename.payload(&mut entry.payload);
                }
            }
            Body::AppendEntriesReply(reply) => reply.session = rename.session(reply.session, to, from),
            Body::InstallSnapshot(install) => {
                install.session = rename.session(install.session, from, to);
                install.snapshot.membership = rename.membership(&install.snapshot.membership);
            }
            _ => {}
        }
        message
    }
}

impl Payload {
    /// The same payload in a cluster with other names: see [`Raft::renamed`].
    #[must_use]
    pub fn renamed(&self, names: &[NodeId]) -> Payload {
        let mut payload = self.clone();
        Renaming { names }.payload(&mut payload);
        payload
    }
}

impl Membership {
    /// The same configuration in a cluster with other names: see [`Raft::renamed`].
    #[must_use]
    pub fn renamed(&self, names: &[NodeId]) -> Membership {
        Renaming { names }.membership(self)
    }
}

struct Renaming<'a> {
    names: &'a [NodeId],
}

impl Renaming<'_> {
    fn id(&self, id: NodeId) -> NodeId {
        let at = usize::try_from(id.0).ok().and_then(|at| at.checked_sub(1));
        at.and_then(|at| self.names.get(at)).copied().unwrap_or(id)
    }

    /// A leader numbers the sessions of its first peers in the order of their names.
    fn session(&self, session: Session, leader: NodeId, peer: NodeId) -> Session {
        let first = |leader: NodeId, peer: NodeId| Session(peer.0 - u64::from(peer > leader));
        match session == first(leader, peer) {
            true => first(self.id(leader), self.id(peer)),
            false => session,
        }
    }

    fn group(&self, group: &Group) -> Group {
        Group {
            voters: group.voters.iter().map(|id| self.id(*id)).collect(),
            learners: group.learners.iter().map(|id| self.id(*id)).collect(),
        }
    }

    fn membership(&self, membership: &Membership) -> Membership {
        let incoming = self.group(membership.incoming());
        match membership.outgoing() {
            Some(outgoing) => Membership::joint(self.group(outgoing), incoming),
            None => Membership::simple(incoming),
        }
    }

    fn payload(&self, payload: &mut Payload) {
        if let Payload::Membership(membership) = payload {
            *membership = self.membership(membership);
        }
    }

    fn votes(&self, votes: &Votes) -> Votes {
        let mut renamed = Votes::default();
        for (id, granted) in votes.iter() {
            renamed.record(self.id(id), granted);
        }
        renamed
    }
}
