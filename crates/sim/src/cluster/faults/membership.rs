//! Changes of the membership that an operator asks for at random, or takes back. In clusters with records of their members
//! the operator writes records instead.

use std::collections::BTreeSet;

use bowline_raft::{Group, MembershipChange, NodeId};

use crate::cluster::operator::Urge;
use crate::cluster::system::System;

/// The replicas that a change can affect.
struct Candidates {
    /// All replicas whose disk is not lost.
    all: Vec<NodeId>,
    members: Vec<NodeId>,
    outside: Vec<NodeId>,
    group: Group,
}

/// The candidates as the leader sees them, if there is one.
fn candidates(system: &System<'_>) -> Option<Candidates> {
    let (_, raft) = system.hosts.leader()?;
    let members: Vec<NodeId> = raft.membership().members().into_iter().collect();
    let all: Vec<NodeId> = system.hosts.iter().filter(|host| !host.lost).map(|host| host.id).collect();
    let outside = all.iter().copied().filter(|id| !members.contains(id)).collect();
    Some(Candidates { all, members, outside, group: raft.membership().incoming().clone() })
}

/// Asks for a change, if there is one to ask for.
fn ask(system: &mut System<'_>, change: Option<MembershipChange>) -> bool {
    change.is_some_and(|change| system.ask_for(change))
}

pub(super) fn early_promotion(system: &mut System<'_>) -> bool {
    if system.ctx.plan.workload.records {
        return system.urge(Urge::PromoteEarly);
    }
    let Some(it) = candidates(system) else { return false };
    let Some(id) = system.ctx.chances.faults.pick(&it.outside) else { return false };
    system.ask_for(MembershipChange::AddLearner(id)) && system.ask_for(MembershipChange::Promote(id))
}

/// Adds a replica that was a member before, so that it has entries on its disk.
pub(super) fn rejoin(system: &mut System<'_>) -> bool {
    if system.ctx.plan.workload.records {
        return system.urge(Urge::Rejoin);
    }
    let Some(it) = candidates(system) else { return false };
    let has_entries = |id: &NodeId| system.hosts[id.0 as usize - 1].disk.last().index.0 > 0;
    let old: Vec<NodeId> = it.outside.into_iter().filter(has_entries).collect();
    let change = system.ctx.chances.faults.pick(&old).map(MembershipChange::AddLearner);
    ask(system, change)
}

pub(super) fn removed_lives(system: &mut System<'_>) -> bool {
    if system.ctx.plan.workload.records {
        return system.urge(Urge::Remove);
    }
    let Some(it) = candidates(system) else { return false };
    let id = system.ctx.chances.faults.pick(&it.members);
    let id = id.filter(|id| it.group.voters.len() > 1 || !it.group.voters.contains(id));
    ask(system, id.map(MembershipChange::Remove))
}

pub(super) fn remove_many(system: &mut System<'_>) -> bool {
    if system.ctx.plan.workload.records {
        return system.urge(Urge::RemoveMost);
    }
    let Some(it) = candidates(system) else { return false };
    let voters = system.ctx.chances.faults.pick(&it.all).into_iter().collect();
    ask(system, Some(MembershipChange::Replace(Group { voters, learners: BTreeSet::new() })))
}

pub(super) fn churn(system: &mut System<'_>) -> bool {
    if system.ctx.plan.workload.records {
        return system.urge(Urge::Any);
    }
    let change = any_change(system);
    ask(system, change)
}

fn any_change(system: &mut System<'_>) -> Option<MembershipChange> {
    let it = candidates(system)?;
    let learners: Vec<NodeId> = it.group.learners.iter().copied().collect();
    let dice = &mut system.ctx.chances.faults;
    Some(match dice.below(10) {
        0..3 => MembershipChange::AddLearner(dice.pick(&it.outside)?),
        3..5 => MembershipChange::Promote(dice.pick(&learners)?),
        5 => MembershipChange::Demote(dice.pick(&it.members)?),
        6..8 => MembershipChange::Remove(dice.pick(&it.members)?),
        8 => MembershipChange::Revert,
        _ => {
            let mut voters: BTreeSet<NodeId> = it.members.iter().copied().filter(|_| dice.percent(70)).collect();
            voters.extend(dice.pick(&it.all));
            MembershipChange::Replace(Group { voters, learners: BTreeSet::new() })
        }
    })
}

/// Takes back a change that is under way. A joint configuration is in force only for a short time, so random changes
/// would hardly ever hit it.
pub(super) fn regret(system: &mut System<'_>) {
    if system.hosts.leader().is_some_and(|(_, raft)| raft.membership().is_joint()) {
        system.ask_for(MembershipChange::Revert);
    }
}
