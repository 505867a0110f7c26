//! Disks: slow, full, dying, damaged, lost, or restored from an old image.
//!
//! An operator may restore a disk from an old image (D14), for example from a backup. Votes and acknowledgements of its
//! replica are then forgotten, and nothing on the disk says so. Only those who were promised them can tell. So a disk
//! is restored only while a leader runs to which the replica's whole log was acknowledged, and the replica hears that
//! leader before anyone else. Then the core must notice the loss. If the leader's process dies before it was asked,
//! nobody knows of the loss any more, and the operator gives up the disk.

use bowline_raft::NodeId;

use crate::cluster::disk::{Disk, Room, Rot};
use crate::cluster::faults::{FollowUp, later, span, victim};
use crate::cluster::system::System;

pub(super) fn sync_error(system: &mut System<'_>) -> bool {
    let victim = victim(system);
    system.hosts[victim].fail_sync = true;
    false
}

pub(super) fn disk_full(system: &mut System<'_>) -> bool {
    let victim = victim(system);
    let more = system.ctx.chances.faults.below(system.ctx.plan.storage.segment_bytes * 2);
    system.ctx.trace(Some(victim), || format!("its disk takes {more} more bytes until it is full"));
    fill(system, victim, more, false);
    true
}

/// On a server the log and the state may be on different disks.
pub(super) fn state_disk_full(system: &mut System<'_>) -> bool {
    let victim = victim(system);
    if !system.ctx.plan.disk.holds_state {
        return false;
    }
    let more = system.ctx.chances.faults.magnitude(1, 1 << 20);
    system.ctx.trace(Some(victim), || format!("its state's disk takes {more} more bytes until it is full"));
    fill(system, victim, more, true);
    true
}

/// Limits a disk for a while.
fn fill(system: &mut System<'_>, host: usize, more: u64, only_state: bool) {
    system.limit_disk(host, Some(Room { more, only_state }));
    let span = span(system);
    later(system, span, FollowUp::Room(host));
}

/// The next piece of a snapshot that a follower needs can't be read, or the state for it, or what a follower received.
pub(super) fn unreadable_snapshot(system: &mut System<'_>) -> bool {
    let victim = victim(system);
    system.hosts[victim].unreadable_snapshot = true;
    false
}

pub(super) fn slow_disk(system: &mut System<'_>) -> bool {
    let victim = victim(system);
    system.hosts[victim].slow_until = system.ctx.now + span(system);
    system.ctx.trace(Some(victim), || "its disk is slow".to_owned());
    true
}

pub(super) fn read_error(system: &mut System<'_>) -> bool {
    let victim = victim(system);
    system.hosts[victim].unreadable = 1 + system.ctx.chances.faults.index(4);
    system.crash(victim, true);
    system.restart_soon(victim);
    false
}

pub(super) fn rotten_log(system: &mut System<'_>) -> bool {
    let victim = victim(system);
    system.rot(victim, Rot::Log)
}

pub(super) fn rotten_snapshot(system: &mut System<'_>) -> bool {
    let victim = victim(system);
    system.rot(victim, Rot::Snapshot)
}

pub(super) fn rotten_vote(system: &mut System<'_>) -> bool {
    let victim = victim(system);
    system.rot(victim, Rot::Vote)
}

pub(super) fn wipe(system: &mut System<'_>) -> bool {
    let victim = victim(system);
    system.wipe(victim)
}

/// A replica that came back with an old image and doesn't know it yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restored {
    pub(crate) host: usize,
    /// The leader that knows what is missing.
    pub(crate) witness: usize,
}

impl Restored {
    /// Whether a message between these is kept back, because a restored replica must hear its witness first.
    pub(crate) fn keeps_apart(self, from: usize, to: usize) -> bool {
        (from == self.host && to != self.witness) || (to == self.host && from != self.witness)
    }
}

/// Makes an image of a replica's disk, or restores an earlier one.
pub(super) fn old_image(system: &mut System<'_>) -> bool {
    if !system.ctx.plan.settings.return_check || system.restored.is_some() {
        return false;
    }
    let victim = system.ctx.chances.faults.index(system.hosts.len());
    let renewed = system.ctx.chances.faults.percent(30);
    let it = &mut system.hosts[victim];
    if it.image.is_none() || renewed {
        if !it.lost && it.is_idle() && !it.disk.is_suspect() {
            it.image = Some(Box::new(it.disk.image()));
            it.image_awaits = None;
        }
        return false;
    }
    let Some(witness) = witness_of(system, victim) else { return false };
    if !system.may_lose(victim) {
        return false;
    }
    restore(system, victim, witness);
    true
}

/// The leader that would notice.
fn witness_of(system: &System<'_>, victim: usize) -> Option<usize> {
    let (hosts, network) = (&system.hosts, &system.network);
    let witness = hosts.last_leader()?;
    let (it, leader) = (&hosts[victim], &hosts[witness]);
    let (raft, image) = (hosts.raft(victim)?, it.image.as_ref()?);
    let leads = hosts.raft(witness).filter(|_| witness != victim && !leader.paused)?;
    let is_heard = !network.is_cut(victim, witness) && !network.is_cut(witness, victim);
    let last = it.disk.last();
    let follows = raft.term() == leads.term() && raft.leader() == Some(leader.id);
    let on_disk = it.is_idle() && raft.log().last() == last;
    let knows = on_disk && leads.match_index(it.id) == Some(last.index);
    let is_older = image.hard_state().term < raft.term() || image.last().index < last.index;
    (is_heard && follows && knows && is_older && !is_alone(image, it.id)).then_some(witness)
}

/// Whether a replica with this disk takes itself for the only voter. Then it asks nobody, so nobody can tell it what is
/// missing.
pub(super) fn is_alone(disk: &Disk, id: NodeId) -> bool {
    let memberships = disk.memberships_since(disk.last().index);
    memberships.last().is_some_and(|members| members.quorum().is_reached_by(|voter| voter == id))
}

pub(super) fn restore(system: &mut System<'_>, victim: usize, witness: usize) {
    system.crash(victim, true);
    let it = &mut system.hosts[victim];
    let Some(image) = it.image.take() else { return };
    let newer = std::mem::replace(&mut it.disk, *image);
    it.disk.is_older_than(&newer);
    let (id, term, last) = (it.id, it.disk.hard_state().term, it.disk.last());
    system.ctx.oracle.promises.rolled_back(id);
    system.model.rolled_back(id);
    system.restored = Some(Restored { host: victim, witness });
    let (had, had_term) = (newer.last(), newer.hard_state().term);
    system.ctx.trace(Some(victim), || {
        format!("its disk is RESTORED from an old image: {term} and entries up to {last}, not {had_term} and {had}")
    });
    system.restart_soon(victim);
}
