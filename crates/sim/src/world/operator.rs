//! The operator: adds newcomers, replaces members whose disk is lost, and changes the membership at
//! random when told to. It knows which replicas are lost for good, as a person would, and never
//! asks for a group in which they are a majority.

use std::collections::BTreeSet;

use bowline_node::NodeInput;
use bowline_raft::{Group, Index, Membership, MembershipChange, NodeId, Position};

use crate::world::coverage::Fault;
use crate::world::host::Asker;
use crate::world::nemesis::Mending;
use crate::world::oracle::Rule;
use crate::world::stage::{Event, World};

/// Most voters of any group that is asked for.
const MOST_VOTERS: usize = 9;

#[derive(Debug, Default)]
pub(crate) struct Operator {
    /// Replicas that shall become voters.
    pub(crate) newcomers: Vec<NodeId>,
    /// Members that shall go, their disk being lost.
    pub(crate) to_remove: Vec<NodeId>,
}

impl World<'_> {
    /// A look at the cluster, and one thing done about it.
    pub(crate) fn operate(&mut self) {
        if !self.may_strike() {
            // Whoever is broken now stays so: adding it would only weaken the majority.
            return;
        }
        let wait = self.patience() / 4;
        self.queue.push(self.now + wait, Event::Operate);
        let Some(change) = self.next_change() else { return };
        self.ask_for(change);
    }

    fn next_change(&mut self) -> Option<MembershipChange> {
        let leader = *self.leading.last()?;
        let membership = self.hosts[leader].node.as_ref()?.raft().membership().clone();
        let group = membership.incoming();
        if membership.is_joint() {
            return None;
        }
        if let Some(newcomer) = self.operator.newcomers.first().copied() {
            if group.voters.contains(&newcomer) || self.is_lost(newcomer) {
                self.operator.newcomers.remove(0);
                return None;
            }
            let known = group.learners.contains(&newcomer);
            let change =
                if known { MembershipChange::Promote(newcomer) } else { MembershipChange::AddLearner(newcomer) };
            // Others come to their turn even if this one doesn't get on.
            self.operator.newcomers.rotate_left(1);
            return Some(change);
        }
        self.operator.to_remove.retain(|id| membership.contains(*id));
        self.operator.to_remove.first().map(|id| MembershipChange::Remove(*id))
    }

    fn is_lost(&self, id: NodeId) -> bool {
        self.hosts.get(id.0 as usize - 1).is_none_or(|host| host.is_lost())
    }

    fn is_suspect(&self, id: NodeId) -> bool {
        self.hosts.get(id.0 as usize - 1).is_some_and(|host| host.disk.is_suspect())
    }

    /// Whether a majority of these voters still has its disk.
    fn is_alive(&self, voters: &BTreeSet<NodeId>) -> bool {
        let intact = voters.iter().filter(|id| !self.is_lost(**id) && !self.is_suspect(**id)).count();
        intact * 2 > voters.len()
    }

    /// Asks the leader for a change, unless that would leave the cluster to the dead.
    fn ask_for(&mut self, change: MembershipChange) -> bool {
        let Some(leader) = self.leading.last().copied().filter(|host| !self.hosts[*host].paused) else { return false };
        let Some(node) = &self.hosts[leader].node else { return false };
        let mut voters = node.raft().membership().incoming().voters.clone();
        match &change {
            MembershipChange::Promote(id) => {
                voters.insert(*id);
            }
            MembershipChange::Remove(id) | MembershipChange::Demote(id) => {
                voters.remove(id);
            }
            MembershipChange::Replace(group) => voters = group.voters.clone(),
            MembershipChange::AddLearner(_) | MembershipChange::Revert => {}
        }
        if !self.is_alive(&voters) || voters.len() > MOST_VOTERS {
            return false;
        }
        let token = self.hosts[leader].token(Asker::Operator);
        self.tell(Some(leader), || format!("is asked to change the membership: {change:?}"));
        let reverts = change == MembershipChange::Revert;
        self.step(leader, NodeInput::ChangeMembership { token, change });
        if !reverts && self.may_strike() && self.chances.nemesis.percent(30) {
            let heartbeat = self.plan.settings.heartbeat;
            let at = self.now + self.chances.nemesis.magnitude(heartbeat / 64, heartbeat * 2);
            self.later(at, Mending::Regret);
        }
        true
    }

    /// Takes back a change that is under way: a joint configuration is in force for a short time only,
    /// so chance alone would hardly ever meet it.
    pub(crate) fn regret(&mut self) {
        let leader = self.leading.last().and_then(|leader| self.hosts[*leader].node.as_ref());
        if leader.is_some_and(|node| node.raft().membership().is_joint()) {
            self.ask_for(MembershipChange::Revert);
        }
    }

    /// A disk is lost for good, with all that it held; a new replica takes its place. Never so many
    /// that a configuration which may be in force would lose its majority.
    pub(crate) fn wipe(&mut self, host: usize) -> bool {
        if !self.may_lose(host) {
            return false;
        }
        if !self.hosts[host].disk.refuses_nothing() {
            let what = format!("n{} starts from nothing, as if it had promised nothing", host + 1);
            self.judge(Err((Rule::RestartKeepsPromises, what)));
        }
        self.lose(host);
        true
    }

    /// Whether nothing that may be in force depends on this disk.
    pub(crate) fn may_lose(&mut self, host: usize) -> bool {
        // What the one has lost, the others must keep until it is repaired.
        if self.hosts.iter().any(|it| it.disk.is_suspect()) {
            return false;
        }
        if self.hosts[host].is_lost() || self.hosts.iter().filter(|it| it.is_lost()).count() >= 4 {
            return false;
        }
        let in_force = self.memberships_in_force();
        self.hosts[host].lost = true;
        let survives = in_force.iter().all(|group| self.is_alive(group));
        let left = (0..self.hosts.len()).filter(|host| !self.hosts[*host].is_lost()).collect();
        let elect = self.can_elect(&left);
        self.hosts[host].lost = false;
        survives && elect
    }

    /// Whether these could elect one of them if they were all well: somebody whose own configuration lets it
    /// stand, and in which those whose logs are not newer have a quorum.
    pub(crate) fn can_elect(&self, hosts: &BTreeSet<usize>) -> bool {
        let able: BTreeSet<usize> = hosts.iter().copied().filter(|host| !self.hosts[*host].disk.is_suspect()).collect();
        able.iter().any(|candidate| {
            let (last, membership) = self.log_of(*candidate);
            let votes = |id: NodeId| {
                let host = id.0 as usize - 1;
                able.contains(&host) && self.log_of(host).0 <= last
            };
            let voters = membership.voters();
            !voters.is_empty()
                && voters.contains(&self.hosts[*candidate].id)
                && membership.quorum().is_reached_by(votes)
        })
    }

    /// Where a replica's log ends, and the configuration in it.
    fn log_of(&self, host: usize) -> (Position, Membership) {
        let it = &self.hosts[host];
        if it.node.is_some() {
            return (it.shadow.last(), it.shadow.membership().clone());
        }
        let last = it.disk.last();
        (last, it.disk.memberships_since(last.index).last().map_or_else(Membership::default, |last| (*last).clone()))
    }

    /// A disk is lost; a new replica takes its place.
    pub(crate) fn lose(&mut self, host: usize) {
        self.hosts[host].lost = true;
        self.tell(Some(host), || "its DISK IS LOST".to_owned());
        self.crash(host, true);
        let id = self.hosts[host].id;
        self.operator.to_remove.push(id);
        if let Some(newcomer) = self.add_host(None) {
            self.operator.newcomers.push(NodeId(newcomer as u64 + 1));
        }
    }

    /// The voters of every group that may decide something, now or after a crash: those of all logs
    /// that hold what is committed, as of there and later. A log that lacks it decides nothing: no
    /// majority of the group in force would elect its replica.
    pub(crate) fn memberships_in_force(&self) -> BTreeSet<BTreeSet<NodeId>> {
        let committed = Index(self.oracle.commits.len());
        let mut groups = BTreeSet::new();
        let mut note = |membership: &Membership| {
            groups.insert(membership.incoming().voters.clone());
            groups.extend(membership.outgoing().map(|group| group.voters.clone()));
        };
        for host in self.hosts.iter().filter(|host| !host.is_lost()) {
            if host.node.is_some() && host.shadow.last().index >= committed {
                host.shadow.memberships_since(committed).for_each(&mut note);
            } else if host.node.is_none() && host.disk.last().index >= committed {
                host.disk.memberships_since(committed).into_iter().for_each(&mut note);
            }
        }
        groups.remove(&BTreeSet::new());
        groups
    }

    pub(crate) fn strike_membership(&mut self, fault: Fault) -> bool {
        let Some(leader) = self.leading.last().copied() else { return false };
        let Some(node) = &self.hosts[leader].node else { return false };
        let membership = node.raft().membership().clone();
        let members: Vec<NodeId> = membership.members().into_iter().collect();
        let group = membership.incoming().clone();
        let all: Vec<NodeId> = self.hosts.iter().filter(|host| !host.is_lost()).map(|host| host.id).collect();
        let outside: Vec<NodeId> = all.iter().copied().filter(|id| !members.contains(id)).collect();
        let dice = &mut self.chances.nemesis;
        match fault {
            Fault::EarlyPromotion => {
                let Some(id) = dice.pick(&outside) else { return false };
                self.ask_for(MembershipChange::AddLearner(id)) && self.ask_for(MembershipChange::Promote(id))
            }
            Fault::Rejoin => {
                // One that was a member before: it has entries on its disk.
                let old: Vec<NodeId> = outside
                    .iter()
                    .copied()
                    .filter(|id| self.hosts[id.0 as usize - 1].disk.last().index.0 > 0)
                    .collect();
                let Some(id) = self.chances.nemesis.pick(&old) else { return false };
                self.ask_for(MembershipChange::AddLearner(id))
            }
            Fault::RemovedLives => {
                let Some(id) = dice.pick(&members).filter(|id| group.voters.len() > 1 || !group.voters.contains(id))
                else {
                    return false;
                };
                self.ask_for(MembershipChange::Remove(id))
            }
            Fault::RemoveMany => {
                let keep = dice.pick(&all).into_iter().collect();
                self.ask_for(MembershipChange::Replace(Group { voters: keep, learners: BTreeSet::new() }))
            }
            _ => {
                let change = self.any_change(&all, &outside, &members, &group);
                change.is_some_and(|change| self.ask_for(change))
            }
        }
    }

    fn any_change(
        &mut self,
        all: &[NodeId],
        outside: &[NodeId],
        members: &[NodeId],
        group: &Group,
    ) -> Option<MembershipChange> {
        let learners: Vec<NodeId> = group.learners.iter().copied().collect();
        let dice = &mut self.chances.nemesis;
        Some(match dice.below(10) {
            0..3 => MembershipChange::AddLearner(dice.pick(outside)?),
            3..5 => MembershipChange::Promote(dice.pick(&learners)?),
            5 => MembershipChange::Demote(dice.pick(members)?),
            6..8 => MembershipChange::Remove(dice.pick(members)?),
            8 => MembershipChange::Revert,
            _ => {
                let mut voters: BTreeSet<NodeId> = members.iter().copied().filter(|_| dice.percent(70)).collect();
                voters.extend(dice.pick(all));
                MembershipChange::Replace(Group { voters, learners: BTreeSet::new() })
            }
        })
    }
}
