//! The operator: adds newcomers, and replaces members whose disk is lost. It knows which replicas are lost for good, as
//! a person would.

use bowline_raft::{MembershipChange, NodeId};

use crate::cluster::context::Context;
use crate::cluster::event::Event;
use crate::cluster::hosts::Hosts;

#[derive(Debug, Default)]
pub(crate) struct Operator {
    /// Replicas to make voters.
    pub(crate) newcomers: Vec<NodeId>,
    /// Members to remove, because their disks are lost.
    to_remove: Vec<NodeId>,
}

/// A disk that was lost for good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loss {
    pub(crate) id: NodeId,
    /// The new replica that takes its place.
    pub(crate) newcomer: Option<NodeId>,
}

impl Operator {
    /// Inspects the cluster, with the losses since the last time. Returns a change to ask for.
    pub(crate) fn operate(
        &mut self,
        ctx: &mut Context<'_>,
        hosts: &Hosts,
        losses: Vec<Loss>,
    ) -> Option<MembershipChange> {
        if ctx.healed {
            // Broken replicas stay broken now, so adding one would only weaken the majority.
            return None;
        }
        self.to_remove.extend(losses.iter().map(|loss| loss.id));
        self.newcomers.extend(losses.iter().filter_map(|loss| loss.newcomer));
        ctx.after(ctx.patience() / 4, Event::Operate);
        let membership = hosts.leader()?.1.membership();
        let group = membership.incoming();
        if membership.is_joint() {
            return None;
        }
        if let Some(newcomer) = self.newcomers.first().copied() {
            if group.voters.contains(&newcomer) || hosts.is_lost(newcomer) {
                self.newcomers.remove(0);
                return None;
            }
            let known = group.learners.contains(&newcomer);
            let change =
                if known { MembershipChange::Promote(newcomer) } else { MembershipChange::AddLearner(newcomer) };
            // The others get their turn even if this one makes no progress.
            self.newcomers.rotate_left(1);
            return Some(change);
        }
        self.to_remove.retain(|id| membership.contains(*id));
        self.to_remove.first().map(|id| MembershipChange::Remove(*id))
    }
}
