//! Faults in the midst of an election.
//!
//! [`AmidVote`]: while a replica's vote is on its way to its disk. A strike marks all replicas, and has the leader hand
//! over in half of the cases. The next replica that votes for another one is hit a little later. Only where replicas
//! that start ask their peers, as on a server. Otherwise nobody can tell a replica how little its damaged disk may have
//! lost, so it may be without a vote until the leader has appended as much. If an operator removes another voter
//! meanwhile, the rest can elect no leader.
//!
//! [`restart_in_lease`]: a voter no longer hears a leader that holds a lease. As soon as the voter asks for votes, the
//! leader is cut off, and the other voters start again. They must remember that the leader may rely on them.

use bowline_raft::NodeId;
use bowline_raft::probe::{Probe, hit};

use crate::cluster::disk::Rot;
use crate::cluster::event::Event;
use crate::cluster::faults::{Fault, FollowUp, disks, later};
use crate::cluster::plan::{MICRO, MILLI};
use crate::cluster::system::System;

/// What happens to a replica while its vote is on its way to its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AmidVote {
    /// It crashes, bits of its log or its vote flip, and it starts again at once.
    Rot,
    /// An image of its disk is made, to be restored as soon as the candidate leads.
    Image,
}

fn mark_all(system: &mut System<'_>, what: AmidVote) -> bool {
    if !system.ctx.plan.settings.return_check {
        return false;
    }
    for host in 0..system.hosts.len() {
        system.hosts[host].amid_vote = Some(what);
    }
    if system.ctx.chances.faults.percent(50) {
        system.hand_over();
    }
    false
}

pub(super) fn rotten_in_election(system: &mut System<'_>) -> bool {
    mark_all(system, AmidVote::Rot)
}

pub(super) fn image_without_vote(system: &mut System<'_>) -> bool {
    mark_all(system, AmidVote::Image)
}

/// A replica has voted for another one. Its vote is not on its disk yet.
pub(crate) fn has_voted(system: &mut System<'_>, host: usize) {
    if system.hosts[host].amid_vote.is_none() || system.ctx.healed {
        return;
    }
    let longest = system.ctx.plan.disk.sync_high.max(MICRO);
    let after = system.ctx.chances.faults.magnitude(1, longest);
    let run = system.hosts[host].run;
    later(system, after, FollowUp::AmidVote { host, run });
}

/// The marked replica is hit.
pub(super) fn amid_vote(system: &mut System<'_>, host: usize, run: u32) {
    let Some(what) = system.hosts[host].amid_vote.filter(|_| system.hosts[host].run == run) else { return };
    let hit = match what {
        AmidVote::Rot => rot_now(system, host),
        AmidVote::Image => image_now(system, host),
    };
    if hit {
        (0..system.hosts.len()).for_each(|host| system.hosts[host].amid_vote = None);
    }
}

fn rot_now(system: &mut System<'_>, host: usize) -> bool {
    if !system.may_lose(host) {
        return false;
    }
    let dice = &mut system.ctx.chances.faults;
    let (power, where_to) = (dice.percent(50), if dice.percent(50) { Rot::LogEnd } else { Rot::Vote });
    system.crash(host, power);
    if system.rot(host, where_to) {
        system.ctx.coverage.struck(Fault::RottenInElection);
    }
    let after = system.ctx.chances.faults.magnitude(MICRO, 5 * MILLI);
    system.ctx.after(after, Event::Start { host });
    true
}

/// The term is on the disk, the vote is not.
fn image_now(system: &mut System<'_>, host: usize) -> bool {
    let it = &mut system.hosts[host];
    let Some(raft) = it.node.as_ref().map(|node| node.raft()) else { return false };
    let on_disk = it.disk.hard_state();
    let lacks_vote = on_disk.term == raft.term() && on_disk.voted_for.is_none();
    let Some(candidate) = raft.voted_for().filter(|candidate| lacks_vote && *candidate != it.id) else { return false };
    if it.lost || it.disk.is_suspect() || raft.log().last() != it.disk.last() {
        return false;
    }
    it.image = Some(Box::new(it.disk.image()));
    it.image_awaits = Some(candidate);
    true
}

/// A replica has become the leader: an image that lacks only a vote for it is restored at once.
pub(crate) fn has_won(system: &mut System<'_>, winner: NodeId) {
    if system.hosts.iter().any(|it| it.image_awaits == Some(winner)) {
        later(system, 0, FollowUp::RestoreVoteless { witness: winner });
    }
}

/// Restores the image whose only lack is the vote for the new leader, which remembers that vote.
pub(super) fn restore_voteless(system: &mut System<'_>, witness: NodeId) {
    let Some(host) = system.hosts.iter().position(|it| it.image_awaits == Some(witness)) else { return };
    system.hosts[host].image_awaits = None;
    let leader = witness.0 as usize - 1;
    let (it, network) = (&system.hosts[host], &system.network);
    let (Some(raft), Some(leads), Some(image)) = (system.hosts.raft(host), system.hosts.raft(leader), &it.image) else {
        return;
    };
    let lacks_only_vote = image.hard_state().term == raft.term()
        && (image.base(), image.last()) == (it.disk.base(), it.disk.last())
        && (it.is_idle() && raft.log().last() == it.disk.last());
    let is_remembered = leads.is_leader() && leads.promised_vote(it.id) == Some(raft.term());
    let is_heard = !network.is_cut(host, leader) && !network.is_cut(leader, host) && !system.hosts[leader].paused;
    let may_be = system.restored.is_none() && !disks::is_alone(image, it.id) && system.may_lose(host);
    if lacks_only_vote && is_remembered && is_heard && may_be {
        hit(Probe::OldImageLacksVote);
        system.ctx.coverage.struck(Fault::ImageWithoutVote);
        disks::restore(system, host, leader);
    }
}

/// Cuts a voter off from a leader that holds a lease. Meanwhile no client writes there: the voter's log must not fall
/// behind, or nobody would vote for it.
pub(super) fn restart_in_lease(system: &mut System<'_>) -> bool {
    let (now, hosts) = (system.ctx.now, &system.hosts);
    let Some(leader) = hosts.running_leader().filter(|leader| hosts[*leader].holds_lease(now)) else { return false };
    let Some(raft) = hosts.raft(leader) else { return false };
    let is_abreast = |id: &NodeId| *id != raft.id() && raft.match_index(*id) == Some(raft.log().last().index);
    let voters: Vec<NodeId> = raft.membership().voters().into_iter().filter(is_abreast).collect();
    let Some(candidate) = system.ctx.chances.faults.pick(&voters) else { return false };
    let candidate = candidate.0 as usize - 1;
    let links = vec![(leader, candidate), (candidate, leader)];
    let span = system.ctx.plan.settings.election_max * 2;
    system.ctx.trace(Some(leader), || format!("is CUT from n{} and from all clients", candidate + 1));
    system.network.cut(&links);
    system.network.cut_clients(leader, true);
    later(system, span, FollowUp::Heal(links));
    later(system, span, FollowUp::HealClients(leader));
    system.hosts[candidate].left_by = Some(leader);
    false
}

/// A replica asks for votes.
pub(crate) fn asks_for_votes(system: &mut System<'_>, candidate: usize) {
    if let Some(leader) = system.hosts[candidate].left_by.take() {
        later(system, 0, FollowUp::RestartVoters { candidate, leader });
    }
}

/// The leader is cut off if it holds a lease, and the other voters start again.
pub(super) fn restart_voters(system: &mut System<'_>, candidate: usize, leader: usize) {
    if system.hosts[leader].paused || !system.hosts[leader].holds_lease(system.ctx.now) {
        return;
    }
    let voters = system.hosts.raft(leader).map(|raft| raft.membership().voters()).unwrap_or_default();
    let links = system.network.around(leader);
    system.ctx.trace(Some(leader), || format!("is CUT off, as n{} asks for votes", candidate + 1));
    system.ctx.coverage.struck(Fault::RestartInLease);
    system.network.cut(&links);
    let span = system.ctx.plan.settings.election_max;
    later(system, span, FollowUp::Heal(links));
    for host in voters.into_iter().map(|id| id.0 as usize - 1).filter(|host| ![leader, candidate].contains(host)) {
        system.crash(host, false);
        let after = system.ctx.chances.faults.magnitude(1, MILLI);
        system.ctx.after(after, Event::Start { host });
    }
}
