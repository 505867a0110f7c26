//! The operator: adds newcomers, and replaces members whose disk is lost. It knows which replicas are lost for good, as
//! a person would. It asks the core for each change, or, in clusters with records of their members, writes records.

use bowline_kv::store::{AlarmKind, AlarmRequest, ClusterVersionRequest, Command, Member, MemberChange, MemberUrls};
use bowline_kv::versions;
use bowline_raft::{Index, MembershipChange, NodeId};

use crate::cluster::context::Context;
use crate::cluster::dice::Dice;
use crate::cluster::event::Event;
use crate::cluster::faults::Fault;
use crate::cluster::host::Host;
use crate::cluster::hosts::Hosts;
use crate::cluster::members::{Members, changed, own_record, url};
use crate::cluster::system::System;

/// Most requests of an operator at once, besides those of a strike.
const MOST_OPEN: usize = 2;
/// With so many members an operator adds no more.
const MOST_MEMBERS: usize = 9;
/// With so many hosts an operator buys no more. Some places are left for those that take the place of lost ones.
const MOST_HOSTS: usize = 18;

#[derive(Debug, Default)]
pub(crate) struct Operator {
    /// Replicas to make voters.
    pub(crate) newcomers: Vec<NodeId>,
    /// Members to remove, because their disks are lost.
    to_remove: Vec<NodeId>,
}

/// What makes an operator write records in a hurry.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Urge {
    Any,
    Remove,
    /// To add a member that was removed.
    Rejoin,
    /// To add a learner and to promote it at once.
    PromoteEarly,
    /// To remove all members but one, all at the same time.
    RemoveMost,
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

/// The operator of a cluster whose members follow their records: it writes records, and replaces members that have lost
/// their data.
impl System<'_> {
    /// Inspects the cluster, and makes at most one request.
    pub(crate) fn operate_by_records(&mut self) {
        let losses = std::mem::take(&mut self.losses);
        self.members.note_losses(&losses);
        if self.ctx.healed {
            return;
        }
        self.ctx.after(self.ctx.patience() / 4, Event::Operate);
        self.count_changes();
        self.switch_off_removed();
        if self.members.open() >= MOST_OPEN {
            return;
        }
        let mut dice = Dice::new(self.members.dice.word(), 0);
        if self.members.needs_version() && self.hosts.iter().any(|host| host.lost) {
            // The leader waits for ever for what the lost member speaks, so the change would never be possible.
            let version = ClusterVersionRequest { version: versions::MEMBERS };
            return self.request(&mut dice, Command::ClusterVersion(version));
        }
        if let Some(command) = self.due_alarm(&mut dice) {
            return self.request(&mut dice, command);
        }
        if let Some(change) = self.due_change(&mut dice) {
            self.request(&mut dice, changed(change));
        }
    }

    /// Sends a request to the supposed leader, or to any host.
    fn request(&mut self, dice: &mut Dice, command: Command) {
        let any = dice.index(self.hosts.len());
        let guess = self.hosts.last_leader().filter(|_| dice.percent(80)).unwrap_or(any);
        self.members.ask(&mut self.ctx, &mut self.network, None, guess, command);
    }

    /// An alarm that an operator activates, or ends: by itself, or with its member.
    fn due_alarm(&mut self, dice: &mut Dice) -> Option<Command> {
        let rules = &self.members.rules;
        let alarm = |member, active| {
            Command::Alarm(AlarmRequest { member, kind: AlarmKind::NoSpace.into(), active, automatic: false })
        };
        match rules.alarmed().first() {
            Some(member) if dice.percent(20) => Some(changed(MemberChange::Remove(*member))),
            Some(member) if dice.percent(30) => Some(alarm(*member, false)),
            None if dice.percent(2) => dice.pick(&rules.ids()).map(|member| alarm(member, true)),
            _ => None,
        }
    }

    /// What an operator does next: it replaces lost members, adds newcomers, promotes learners, and sometimes does
    /// anything else.
    fn due_change(&mut self, dice: &mut Dice) -> Option<MemberChange> {
        let Members { rules, newcomers, .. } = &mut self.members;
        let hosts = &self.hosts;
        newcomers.retain(|id| !hosts.is_lost(*id) && rules.get(id.0).is_none() && !rules.is_removed(id.0));
        let lost = rules.ids().into_iter().find(|id| hosts.is_lost(NodeId(*id)));
        if let Some(lost) = lost.filter(|_| dice.percent(40)) {
            return Some(MemberChange::Remove(lost));
        }
        if let Some(NodeId(id)) = dice.pick(newcomers).filter(|_| dice.percent(40)) {
            return Some(MemberChange::Add(added(id, dice.percent(30))));
        }
        let learner = rules.ids().into_iter().find(|id| rules.get(*id).is_some_and(|record| record.is_learner));
        if let Some(learner) = learner.filter(|_| dice.percent(30)) {
            return Some(MemberChange::Promote(learner));
        }
        if dice.percent(12) { self.any_change(dice) } else { None }
    }

    /// Any request, also one that must be refused.
    fn any_change(&mut self, dice: &mut Dice) -> Option<MemberChange> {
        let (ids, removed) = (self.members.rules.ids(), self.members.rules.removed());
        Some(match dice.below(14) {
            0..5 => return self.addition(dice),
            5..8 => MemberChange::Remove(dice.pick(&ids)?),
            8 => MemberChange::Promote(dice.pick(&ids)?),
            9 => {
                let (id, other) = (dice.pick(&ids)?, dice.pick(&ids)?);
                let peer_urls = vec![format!("http://n{id}:{}", dice.between(2380, 2383)), url(other)];
                let own = dice.index(2);
                MemberChange::Update(MemberUrls { id, peer_urls: peer_urls.into_iter().skip(own).collect() })
            }
            10 => MemberChange::Publish(Member { incarnation: 77, ..own_record(NodeId(dice.pick(&ids)?)) }),
            11 => MemberChange::Add(added(dice.pick(&removed)?, dice.percent(30))),
            // A leader that was slow, and does not know of the removal.
            12 => MemberChange::Adopt(added(dice.pick(&removed)?, false)),
            _ => MemberChange::Add(Member { peer_urls: Vec::new(), ..added(dice.pick(&ids)?, false) }),
        })
    }

    /// Adds a host that never was a member, with an empty disk.
    fn addition(&mut self, dice: &mut Dice) -> Option<MemberChange> {
        let rules = &self.members.rules;
        if rules.ids().len() >= MOST_MEMBERS {
            return None;
        }
        let is_new = |host: &Host| {
            let id = host.id.0;
            !host.lost && rules.get(id).is_none() && !rules.is_removed(id) && host.disk.last().index == Index(0)
        };
        let outside: Vec<NodeId> = self.hosts.iter().filter(|host| is_new(host)).map(|host| host.id).collect();
        let id = match dice.pick(&outside) {
            Some(id) => id,
            None if self.hosts.len() < MOST_HOSTS => self.add_host(None)?,
            None => return None,
        };
        Some(MemberChange::Add(added(id.0, dice.percent(30))))
    }

    /// Strikes of an operator that makes mistakes, or is in a hurry.
    pub(crate) fn urge(&mut self, urge: Urge) -> bool {
        if self.members.needs_version() {
            return false;
        }
        let mut dice = Dice::new(self.ctx.chances.faults.word(), 0);
        let (ids, removed) = (self.members.rules.ids(), self.members.rules.removed());
        let changes: Vec<MemberChange> = match urge {
            Urge::Any => self.any_change(&mut dice).into_iter().collect(),
            Urge::Remove => dice.pick(&ids).map(MemberChange::Remove).into_iter().collect(),
            Urge::Rejoin => dice.pick(&removed).map(|id| MemberChange::Add(added(id, false))).into_iter().collect(),
            Urge::PromoteEarly => match self.addition(&mut dice) {
                Some(MemberChange::Add(member)) => {
                    let id = member.id;
                    let learner = Member { is_learner: true, ..member };
                    vec![MemberChange::Add(learner), MemberChange::Promote(id)]
                }
                _ => Vec::new(),
            },
            Urge::RemoveMost => {
                let kept = dice.index(ids.len().max(1));
                ids.iter().enumerate().filter(|(at, _)| *at != kept).map(|(_, id)| MemberChange::Remove(*id)).collect()
            }
        };
        let any = !changes.is_empty();
        changes.into_iter().for_each(|change| self.request(&mut dice, changed(change)));
        any
    }

    /// Switches off some of the hosts that are members no longer.
    fn switch_off_removed(&mut self) {
        let Some((leader, raft)) = self.hosts.leader() else { return };
        if raft.membership().is_joint() || !self.hosts[leader].shadow.membership_is_committed() {
            return;
        }
        let gone = |id: &u64| !raft.membership().contains(NodeId(*id)) && self.hosts[*id as usize - 1].is_up();
        let gone = self.members.rules.removed().into_iter().find(gone);
        if let Some(id) = gone.filter(|_| self.members.dice.percent(10)) {
            let host = id as usize - 1;
            self.ctx.trace(Some(host), || "is no member any more, and is switched off".to_owned());
            self.hosts[host].stays_down = true;
            self.crash(host, false);
        }
    }

    /// Counts the changes that the configuration has followed.
    pub(crate) fn count_changes(&mut self) {
        let Some((leader, raft)) = self.hosts.leader() else { return };
        if raft.membership().is_joint() || !self.hosts[leader].shadow.membership_is_committed() {
            return;
        }
        let (membership, members) = (raft.membership(), &mut self.members);
        let votes = |id: u64| membership.is_voter(NodeId(id));
        let is_gone = |id: u64| !membership.contains(NodeId(id));
        let (joined, left) = (members.joining.len(), members.leaving.len());
        members.joining.retain(|id| !votes(*id));
        members.leaving.retain(|id| !is_gone(*id));
        let replacements = members.replaced.len();
        let leaving = &members.leaving;
        let rules = &members.rules;
        let is_replaced =
            |lost: u64, by: u64| rules.is_removed(lost) && !leaving.contains(&lost) && is_gone(lost) && votes(by);
        members.replaced.retain(|lost, by| !is_replaced(*lost, *by));
        let counts = [
            (Fault::RecordedJoin, joined - members.joining.len()),
            (Fault::RecordedRemoval, left - members.leaving.len()),
            (Fault::Replacement, replacements - members.replaced.len()),
        ];
        for (fault, count) in counts {
            (0..count).for_each(|_| self.ctx.coverage.struck(fault));
        }
    }
}

/// A record of a member that has not started yet.
fn added(id: u64, is_learner: bool) -> Member {
    Member { id, peer_urls: vec![url(id)], is_learner, ..Member::default() }
}
