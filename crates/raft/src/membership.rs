//! Cluster membership (section 6; thesis 4): joint consensus, learners, and where a replica's
//! configuration comes from.
//!
//! A configuration is in force from the moment its entry is *appended*, committed or not. So it is not stored beside
//! the log but derived from it: the last membership entry in the log holds it; if there is none, the snapshot does.
//! Truncating the log also takes back the configurations in it.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use crate::quorum::Quorum;
use crate::types::{Index, NodeId};

/// Upper bound on the members of one configuration.
pub const MAX_MEMBERS: usize = 64;

/// Voters and learners: a simple configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// Members whose votes and acknowledgements count.
    pub voters: BTreeSet<NodeId>,
    /// Members that receive the log but don't count for any quorum (thesis 4.2.1).
    pub learners: BTreeSet<NodeId>,
}

impl Group {
    /// A group of voters without learners.
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Group {
        Group { voters: voters.into_iter().collect(), learners: BTreeSet::new() }
    }

    /// Checks whether this can be a configuration.
    ///
    /// # Errors
    /// No voters, a member that is both a voter and a learner, or more than [`MAX_MEMBERS`].
    pub fn validate(&self) -> Result<(), MembershipError> {
        if self.voters.is_empty() {
            return Err(MembershipError::NoVoters);
        }
        if let Some(id) = self.voters.intersection(&self.learners).next() {
            return Err(MembershipError::VoterAndLearner(*id));
        }
        let members = self.voters.len() + self.learners.len();
        if members > MAX_MEMBERS { Err(MembershipError::TooManyMembers(members)) } else { Ok(()) }
    }

    fn contains(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }
}

/// A configuration of the cluster: a group, or two groups while one replaces the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Membership {
    incoming: Group,
    outgoing: Option<Group>,
}

impl Membership {
    /// A simple configuration.
    #[must_use]
    pub fn simple(group: Group) -> Membership {
        Membership { incoming: group, outgoing: None }
    }

    /// The joint configuration between `outgoing` and `incoming`: decisions need a majority of each (section 6).
    #[must_use]
    pub fn joint(outgoing: Group, incoming: Group) -> Membership {
        Membership { incoming, outgoing: Some(outgoing) }
    }

    /// The group of a simple configuration; in a joint one the group that replaces the other.
    #[must_use]
    pub fn incoming(&self) -> &Group {
        &self.incoming
    }

    /// The group that is being replaced; `None` unless the configuration is joint.
    #[must_use]
    pub fn outgoing(&self) -> Option<&Group> {
        self.outgoing.as_ref()
    }

    /// Whether decisions need majorities of two groups.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.outgoing.is_some()
    }

    /// Whether `id` votes, in either half.
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.groups().any(|group| group.voters.contains(&id))
    }

    /// Whether `id` is a voter or a learner, in either half.
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.groups().any(|group| group.contains(id))
    }

    /// All voters and learners.
    #[must_use]
    pub fn members(&self) -> BTreeSet<NodeId> {
        self.groups().flat_map(|group| group.voters.iter().chain(&group.learners)).copied().collect()
    }

    /// All voters of either half.
    #[must_use]
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.groups().flat_map(|group| &group.voters).copied().collect()
    }

    /// The quorums of this configuration.
    #[must_use]
    pub fn quorum(&self) -> Quorum<'_> {
        static NOBODY: BTreeSet<NodeId> = BTreeSet::new();
        Quorum::new(&self.incoming.voters, self.outgoing.as_ref().map_or(&NOBODY, |group| &group.voters))
    }

    /// The configuration that follows a joint one: the incoming group.
    #[must_use]
    pub fn left(&self) -> Membership {
        Membership::simple(self.incoming.clone())
    }

    /// The configuration that undoes a joint one: the outgoing group. The same group if the configuration isn't
    /// joint.
    #[must_use]
    pub fn reverted(&self) -> Membership {
        Membership::simple(self.outgoing.clone().unwrap_or_else(|| self.incoming.clone()))
    }

    /// How many bytes this counts for in limits on bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.groups().map(|group| (group.voters.len() + group.learners.len()) * size_of::<NodeId>()).sum()
    }

    /// Whether each group is valid, see [`Group::validate`].
    pub(crate) fn is_valid(&self) -> bool {
        self.groups().all(|group| group.validate().is_ok())
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        std::iter::once(&self.incoming).chain(&self.outgoing)
    }
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = |set: &BTreeSet<NodeId>| set.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let group = |group: &Group| match group.learners.is_empty() {
            true => format!("[{}]", ids(&group.voters)),
            false => format!("[{} learners {}]", ids(&group.voters), ids(&group.learners)),
        };
        match &self.outgoing {
            None => f.write_str(&group(&self.incoming)),
            Some(outgoing) => write!(f, "{}→{}", group(outgoing), group(&self.incoming)),
        }
    }
}

/// A change that a client may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// Adds a learner, which receives the log but counts for no quorum.
    AddLearner(NodeId),
    /// Turns a learner that has caught up into a voter.
    Promote(NodeId),
    /// Turns a voter into a learner.
    Demote(NodeId),
    /// Removes a voter or a learner.
    Remove(NodeId),
    /// Replaces the whole group at once; every new voter must be a learner that has caught up.
    Replace(Group),
    /// Undoes a joint configuration: its outgoing group becomes the configuration. This helps when no majority of the
    /// incoming group answers.
    Revert,
}

/// Why a configuration or a change of it is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// A group needs at least one voter.
    #[error("a configuration needs at least one voter")]
    NoVoters,
    /// A member can't be both a voter and a learner.
    #[error("{0} can't be both a voter and a learner")]
    VoterAndLearner(NodeId),
    /// More members than [`MAX_MEMBERS`].
    #[error("{0} members are more than the {MAX_MEMBERS} allowed")]
    TooManyMembers(usize),
    /// The member to add is a member already.
    #[error("{0} is a member already")]
    AlreadyMember(NodeId),
    /// The member to change is not a member.
    #[error("{0} is not a member")]
    NotMember(NodeId),
    /// A voter must first be a learner, so that it can catch up without weakening the cluster.
    #[error("{0} is not a learner: add it as one first, and promote it when it has caught up")]
    NotLearner(NodeId),
    /// The learner to promote lacks too much of the log (thesis 4.2.1).
    #[error("{0} has not caught up: promote it when it has")]
    NotCaughtUp(NodeId),
    /// Without a majority that answers and keeps up, the new voters could commit nothing, and so not even go back.
    #[error("no majority of the new voters answers and keeps up with the log: repair or remove those that don't first")]
    NewVotersLag,
    /// One change at a time: the last one isn't committed yet, or the configuration is joint.
    #[error("another change of the membership is under way")]
    ChangeUnderWay,
    /// There is no joint configuration to undo.
    #[error("the configuration is not joint: there is nothing to take back")]
    NothingToRevert,
    /// The leader must first commit an entry of its own term (the single-server bug of 2015).
    #[error("the leader has not committed an entry of its term yet: try again in a moment")]
    TermNotCommitted,
}

/// The group that `change` makes of the `current` one. [`MembershipChange::Revert`] makes none and is refused here.
///
/// # Errors
/// The member to add is a member already, the member to change isn't what the change needs (a voter, a learner, or
/// either), a new voter is not a learner, or the resulting group isn't valid.
pub(crate) fn target_of(current: &Group, change: &MembershipChange) -> Result<Group, MembershipError> {
    let mut target = current.clone();
    match change {
        MembershipChange::AddLearner(id) if current.contains(*id) => return Err(MembershipError::AlreadyMember(*id)),
        MembershipChange::AddLearner(id) => {
            target.learners.insert(*id);
        }
        MembershipChange::Promote(id) if !target.learners.remove(id) => return Err(MembershipError::NotLearner(*id)),
        MembershipChange::Promote(id) => {
            target.voters.insert(*id);
        }
        MembershipChange::Demote(id) if !target.voters.remove(id) => return Err(MembershipError::NotMember(*id)),
        MembershipChange::Demote(id) => {
            target.learners.insert(*id);
        }
        MembershipChange::Remove(id) if !current.contains(*id) => return Err(MembershipError::NotMember(*id)),
        MembershipChange::Remove(id) => {
            target.voters.remove(id);
            target.learners.remove(id);
        }
        MembershipChange::Replace(group) => target = group.clone(),
        MembershipChange::Revert => return Err(MembershipError::NothingToRevert),
    }
    target.validate()?;
    match target.voters.difference(&current.voters).find(|id| !current.learners.contains(id)) {
        Some(stranger) => Err(MembershipError::NotLearner(*stranger)),
        None => Ok(target),
    }
}

/// The configurations in the snapshot and in the log after it, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MembershipHistory {
    /// The configuration as of the log's base.
    base: Membership,
    changes: VecDeque<(Index, Membership)>,
}

impl MembershipHistory {
    /// The history of an empty log over a snapshot (or a bootstrap) with this configuration.
    #[must_use]
    pub fn new(base: Membership) -> MembershipHistory {
        MembershipHistory { base, changes: VecDeque::new() }
    }

    /// The configuration in force: the last one in the log, committed or not (section 6).
    #[must_use]
    pub fn current(&self) -> &Membership {
        self.changes.back().map_or(&self.base, |(_, membership)| membership)
    }

    /// Index of the entry that holds the configuration in force; `None` if it is the snapshot's.
    #[must_use]
    pub fn current_index(&self) -> Option<Index> {
        self.changes.back().map(|(index, _)| *index)
    }

    /// The configuration as of `index`, for a snapshot that ends there.
    #[must_use]
    pub fn at(&self, index: Index) -> &Membership {
        self.changes.iter().rev().find(|(at, _)| *at <= index).map_or(&self.base, |(_, membership)| membership)
    }

    /// The configuration as of `index`, and every later one.
    pub(crate) fn since(&self, index: Index) -> impl Iterator<Item = &Membership> {
        let later = self.changes.iter().filter(move |(at, _)| *at > index).map(|(_, membership)| membership);
        std::iter::once(self.at(index)).chain(later)
    }

    /// The first configuration at or after `index` that is not joint.
    pub(crate) fn first_simple_from(&self, index: Index) -> Option<(Index, &Membership)> {
        let mut later = self.changes.iter().filter(move |(at, membership)| *at >= index && !membership.is_joint());
        later.next().map(|(at, membership)| (*at, membership))
    }

    /// Adds the configuration of an entry that was appended to the log.
    pub fn append(&mut self, index: Index, membership: Membership) {
        assert!(self.current_index().is_none_or(|last| last < index), "configurations follow the log's order");
        self.changes.push_back((index, membership));
    }

    /// Removes the configurations of the entries from `from` on.
    pub fn truncate_from(&mut self, from: Index) {
        while self.changes.back().is_some_and(|(index, _)| *index >= from) {
            self.changes.pop_back();
        }
    }

    /// Folds the configurations up to and including `through` into the base.
    pub fn compact_through(&mut self, through: Index) {
        while self.changes.front().is_some_and(|(index, _)| *index <= through) {
            let (_, membership) = self.changes.pop_front().expect("there is a front entry");
            self.base = membership;
        }
    }

    /// Replaces every configuration by what `change` makes of it.
    pub(crate) fn change_all(&mut self, change: impl Fn(&Membership) -> Membership) {
        self.base = change(&self.base);
        for (_, membership) in &mut self.changes {
            *membership = change(membership);
        }
    }

    /// Replaces everything by a snapshot's configuration: no older one may remain.
    pub fn reset(&mut self, base: Membership) {
        *self = MembershipHistory::new(base);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn group(voters: &[u64], learners: &[u64]) -> Group {
        Group { voters: ids(voters), learners: ids(learners) }
    }

    #[test]
    fn a_voter_must_have_been_a_learner() {
        let current = group(&[1, 2, 3], &[4]);
        assert_eq!(target_of(&current, &MembershipChange::Promote(NodeId(4))), Ok(group(&[1, 2, 3, 4], &[])));
        assert_eq!(
            target_of(&current, &MembershipChange::Promote(NodeId(5))),
            Err(MembershipError::NotLearner(NodeId(5)))
        );
        assert_eq!(
            target_of(&current, &MembershipChange::Replace(group(&[1, 9], &[]))),
            Err(MembershipError::NotLearner(NodeId(9)))
        );
    }

    #[test]
    fn the_last_voter_can_not_be_removed() {
        let current = group(&[1], &[2]);
        assert_eq!(target_of(&current, &MembershipChange::Remove(NodeId(1))), Err(MembershipError::NoVoters));
        assert_eq!(target_of(&current, &MembershipChange::Demote(NodeId(1))), Err(MembershipError::NoVoters));
    }

    #[test]
    fn unknown_and_doubled_members_are_named() {
        let current = group(&[1, 2], &[3]);
        assert_eq!(
            target_of(&current, &MembershipChange::AddLearner(NodeId(2))),
            Err(MembershipError::AlreadyMember(NodeId(2)))
        );
        assert_eq!(
            target_of(&current, &MembershipChange::Remove(NodeId(7))),
            Err(MembershipError::NotMember(NodeId(7)))
        );
        assert_eq!(
            target_of(&current, &MembershipChange::Replace(group(&[1], &[1]))),
            Err(MembershipError::VoterAndLearner(NodeId(1)))
        );
    }

    #[test]
    fn the_configuration_rolls_back_with_the_log() {
        let first = Membership::simple(group(&[1, 2, 3], &[]));
        let second = Membership::joint(group(&[1, 2, 3], &[]), group(&[1, 2], &[]));
        let mut history = MembershipHistory::new(first.clone());
        history.append(Index(5), second.clone());
        history.append(Index(8), second.left());
        assert_eq!(history.current(), &second.left());
        assert_eq!(history.at(Index(7)), &second);
        history.truncate_from(Index(8));
        assert_eq!(history.current(), &second);
        history.truncate_from(Index(2));
        assert_eq!(history.current(), &first);
    }

    #[test]
    fn compaction_keeps_what_is_in_force() {
        let mut history = MembershipHistory::new(Membership::simple(group(&[1], &[])));
        history.append(Index(5), Membership::simple(group(&[1], &[2])));
        history.append(Index(9), Membership::simple(group(&[1], &[2, 3])));
        history.compact_through(Index(6));
        assert_eq!(history.at(Index(6)), &Membership::simple(group(&[1], &[2])));
        assert_eq!(history.current_index(), Some(Index(9)));
    }

    #[test]
    fn a_joint_configuration_can_be_left_both_ways() {
        let joint = Membership::joint(group(&[1, 2, 3], &[]), group(&[3, 4, 5], &[1]));
        assert_eq!(joint.left(), Membership::simple(group(&[3, 4, 5], &[1])));
        assert_eq!(joint.reverted(), Membership::simple(group(&[1, 2, 3], &[])));
        assert!(joint.is_voter(NodeId(1)) && joint.is_voter(NodeId(4)));
        assert_eq!(joint.members(), ids(&[1, 2, 3, 4, 5]));
    }
}
