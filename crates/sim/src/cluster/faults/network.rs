//! Cuts of the network. Each heals after a while.

use crate::cluster::dice::Dice;
use crate::cluster::faults::{Fault, FollowUp, later, list, span, victim};
use crate::cluster::network::Link;
use crate::cluster::plan::{Clocks, MICRO, MILLI, SECOND};
use crate::cluster::system::System;

/// The random choices for a cut of links.
struct Cut {
    victim: usize,
    deaf: bool,
    bridge: Option<usize>,
    /// By replica: the side it is on.
    side: Vec<bool>,
}

/// Cuts every link that `takes` selects, for a while.
fn cut(system: &mut System<'_>, fault: Fault, takes: impl Fn(&Cut, Link, &mut Dice) -> bool) -> bool {
    let (count, victim) = (system.hosts.len(), victim(system));
    let dice = &mut system.ctx.chances.faults;
    let cut = Cut {
        victim,
        deaf: dice.percent(50),
        bridge: dice.percent(50).then(|| dice.index(count)),
        side: (0..count).map(|_| dice.percent(50)).collect(),
    };
    let all = (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).filter(|(from, to)| from != to);
    let links: Vec<Link> = all.filter(|link| takes(&cut, *link, dice)).collect();
    let span = span(system);
    system.ctx.trace(None, || format!("CUT ({}): {}", fault.title(), list(&links)));
    system.network.cut(&links);
    later(system, span, FollowUp::Heal(links));
    true
}

pub(super) fn isolate(system: &mut System<'_>) -> bool {
    cut(system, Fault::Isolate, |it, (from, to), _| from == it.victim || to == it.victim)
}

pub(super) fn one_way(system: &mut System<'_>) -> bool {
    cut(system, Fault::OneWay, |it, (from, to), _| if it.deaf { to == it.victim } else { from == it.victim })
}

pub(super) fn bridge(system: &mut System<'_>) -> bool {
    let apart = |it: &Cut, (from, to): Link, _: &mut Dice| {
        it.side[from] != it.side[to] && it.bridge != Some(from) && it.bridge != Some(to)
    };
    cut(system, Fault::Bridge, apart)
}

pub(super) fn links(system: &mut System<'_>) -> bool {
    cut(system, Fault::Links, |_, _, dice| dice.percent(25))
}

/// The next leader that begins to change the voters is left alone with voters of one group.
pub(super) fn split_groups(system: &mut System<'_>) -> bool {
    system.splits_groups = true;
    false
}

/// A leader appends a joint configuration. In most cases it is cut off before anybody else has heard of it.
pub(crate) fn has_become_joint(system: &mut System<'_>, leader: usize) {
    if system.ctx.healed || !std::mem::take(&mut system.splits_groups) {
        return;
    }
    if system.ctx.chances.faults.percent(75) {
        split_now(system, leader);
    } else {
        let after = system.ctx.chances.faults.magnitude(MICRO, system.ctx.plan.settings.heartbeat);
        later(system, after, FollowUp::Split { leader });
    }
}

/// The leader keeps the voters that only one of the groups has, mostly the incoming one, and a few of those that both
/// have. The others may elect another leader if they have not heard of the change.
pub(super) fn split_now(system: &mut System<'_>, leader: usize) {
    let raft = system.hosts.raft(leader).filter(|raft| raft.is_leader());
    let Some(membership) = raft.map(|raft| raft.membership().clone()) else { return };
    let Some(outgoing) = membership.outgoing() else { return };
    let dice = &mut system.ctx.chances.faults;
    let (mut kept, mut left) = (&membership.incoming().voters, &outgoing.voters);
    if dice.percent(25) {
        std::mem::swap(&mut kept, &mut left);
    }
    let stays = |host: usize, dice: &mut Dice| {
        let id = system.hosts[host].id;
        host == leader || if left.contains(&id) { kept.contains(&id) && dice.percent(30) } else { kept.contains(&id) }
    };
    let side: Vec<bool> = (0..system.hosts.len()).map(|host| stays(host, dice)).collect();
    let all = (0..side.len()).flat_map(|from| (0..side.len()).map(move |to| (from, to)));
    let links: Vec<Link> = all.filter(|(from, to)| side[*from] != side[*to]).collect();
    let span = span(system);
    if system.ctx.plan.clocks == Clocks::Wild {
        // It is slow to notice that most of the voters are gone.
        let now = system.ctx.now;
        system.hosts[leader].clock.retune(now, -400_000);
        system.hosts[leader].reschedule_anew(&mut system.ctx);
    }
    system.ctx.trace(Some(leader), || format!("its groups are CUT apart: {}", list(&links)));
    system.ctx.coverage.struck(Fault::SplitGroups);
    system.network.cut(&links);
    later(system, span, FollowUp::Heal(links));
}

/// Picks a victim, another replica, and how long the fault lasts.
fn pair(system: &mut System<'_>) -> (usize, usize, u64) {
    let (victim, other) = (victim(system), system.ctx.chances.faults.index(system.hosts.len()));
    (victim, other, span(system))
}

pub(super) fn client_cut(system: &mut System<'_>) -> bool {
    let (victim, _, span) = pair(system);
    system.ctx.trace(Some(victim), || "CUT from all clients".to_owned());
    system.network.cut_clients(victim, true);
    later(system, span, FollowUp::HealClients(victim));
    true
}

pub(super) fn narrow(system: &mut System<'_>) -> bool {
    let (victim, other, span) = pair(system);
    let bytes_per_milli = system.ctx.chances.faults.magnitude(2, 200) as u32;
    system.ctx.trace(Some(victim), || format!("its link to n{} takes {bytes_per_milli} kB/s", other + 1));
    system.network.narrow((victim, other), bytes_per_milli);
    later(system, span, FollowUp::Widen((victim, other)));
    true
}

pub(super) fn flap(system: &mut System<'_>) -> bool {
    let (victim, other, span) = pair(system);
    later(system, 0, FollowUp::Flap { link: (victim, other), cut: false, until: system.ctx.now + span });
    true
}

pub(super) fn flap_on(system: &mut System<'_>, link: Link, cut: bool, until: u64) {
    let both = [link, (link.1, link.0)];
    match cut {
        true => system.network.heal(&both),
        false if system.ctx.now < until => system.network.cut(&both),
        false => return,
    }
    let after = system.ctx.chances.faults.magnitude(10 * MILLI, 2 * SECOND);
    later(system, after, FollowUp::Flap { link, cut: !cut, until });
}

/// Cuts a random part of the replicas off, one after the other, and brings them back in another order.
pub(super) fn swizzle(system: &mut System<'_>) -> bool {
    let _ = pair(system);
    let dice = &mut system.ctx.chances.faults;
    let mut part: Vec<usize> = (0..system.hosts.len()).filter(|_| dice.percent(60)).collect();
    let mut after = 0;
    for host in &part {
        let links = system.network.around(*host);
        later(system, after, FollowUp::Cut(links));
        after += span(system) / 4;
    }
    system.ctx.chances.faults.shuffle(&mut part);
    for host in part {
        after += span(system) / 4;
        let links = system.network.around(host);
        later(system, after, FollowUp::Heal(links));
    }
    true
}

/// Leaders that are cut off one after the other, each as soon as it leads.
#[derive(Debug)]
pub(crate) struct Succession {
    /// The leader that is cut off now; it comes back when the next one is cut off.
    cut: Option<(usize, Vec<Link>)>,
    /// How many more leaders are cut off.
    left: u64,
    /// How many more times a new leader is looked for.
    looks: u32,
}

pub(super) fn succession(system: &mut System<'_>) -> bool {
    let left = system.ctx.chances.faults.between(2, 6);
    succeed(system, Succession { cut: None, left, looks: 300 });
    true
}

/// The situation of Figure 8: each new leader is cut off with the entries that it has just appended, and its
/// predecessor comes back with its own.
pub(super) fn succeed(system: &mut System<'_>, succession: Succession) {
    let Succession { mut cut, mut left, looks } = succession;
    let others = |leader: &&usize| cut.as_ref().is_none_or(|(gone, _)| gone != *leader);
    if let Some(leader) = system.hosts.leading().iter().rfind(others).copied() {
        let links = system.network.around(leader);
        system.ctx.trace(Some(leader), || "is CUT off after it became the leader".to_owned());
        system.network.cut(&links);
        if let Some((_, links)) = cut.replace((leader, links)) {
            system.network.heal(&links);
        }
        left = left.saturating_sub(1);
    }
    let heartbeat = system.ctx.plan.settings.heartbeat;
    let after = system.ctx.chances.faults.magnitude(heartbeat / 16, heartbeat * 2);
    match cut {
        Some((_, links)) if left == 0 || looks == 0 => later(system, after, FollowUp::Heal(links)),
        None if looks == 0 => {}
        cut => later(system, after, FollowUp::Succession(Succession { cut, left, looks: looks.saturating_sub(1) })),
    }
}
