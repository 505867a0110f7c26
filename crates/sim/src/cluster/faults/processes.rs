//! Faults of processes and machines: crashes, pauses, requests of the operator, messages of strangers, and clock
//! changes.

use bowline_node::{NodeInput, NodeMessage};
use bowline_raft::{Body, Index, Message, NodeId, Position, Raft, Term};

use crate::cluster::faults::{Fault, FollowUp, later, span, victim, wait_for};
use crate::cluster::host::{Asker, Host};
use crate::cluster::oracle::Rule;
use crate::cluster::plan::{Clocks, MILLI, SECOND, Sabotage};
use crate::cluster::system::System;
use crate::cluster::trace::describe;

/// Crashes a replica that will start again. Returns whether it ran.
fn crash_one(system: &mut System<'_>, victim: usize) -> bool {
    let power = system.ctx.chances.faults.percent(60);
    let ran = system.hosts[victim].is_up();
    system.crash(victim, power);
    system.restart_soon(victim);
    ran
}

pub(super) fn crash(system: &mut System<'_>) -> bool {
    let victim = victim(system);
    crash_one(system, victim)
}

pub(super) fn retune(system: &mut System<'_>) -> bool {
    let victim = victim(system);
    system.hosts[victim].own_ways = true;
    crash_one(system, victim)
}

pub(super) fn crash_inside(system: &mut System<'_>) -> bool {
    let victim = victim(system);
    let after = system.ctx.chances.faults.below(12);
    system.hosts[victim].crash_in.get_or_insert(after);
    false
}

pub(super) fn crash_loop(system: &mut System<'_>) -> bool {
    let host = victim(system);
    let left = system.ctx.chances.faults.between(2, 20);
    later(system, 0, FollowUp::CrashAgain { host, left });
    true
}

pub(super) fn crash_again(system: &mut System<'_>, host: usize, left: u64) {
    system.crash(host, true);
    system.start(host);
    if left > 0 {
        let after = system.ctx.chances.faults.magnitude(MILLI / 10, 20 * MILLI);
        later(system, after, FollowUp::CrashAgain { host, left: left - 1 });
    }
}

pub(super) fn power_loss(system: &mut System<'_>) -> bool {
    let _ = victim(system);
    system.ctx.trace(None, || "POWER LOSS".to_owned());
    for host in 0..system.hosts.len() {
        system.crash(host, true);
        system.restart_soon(host);
    }
    true
}

/// Tells a whole member to stop: it hands the leadership over, and stops a while later. Returns whether it was told.
pub(super) fn terminate(system: &mut System<'_>) -> bool {
    let host = victim(system);
    let it = &system.hosts[host];
    if it.paused || it.node.as_ref().is_none_or(|node| node.whole().is_none()) {
        return false;
    }
    system.ctx.trace(Some(host), || "is told to stop".to_owned());
    let run = it.run;
    let longest = system.ctx.plan.settings.election_max * 2;
    let after = system.ctx.chances.faults.magnitude(MILLI / 10, longest);
    if system.hosts[host].leads() {
        let token = system.hosts[host].token(Asker::Operator);
        system.step(host, NodeInput::TransferLeadership { token, to: None });
    }
    later(system, after, FollowUp::Stop { host, run });
    true
}

/// A whole member is asked to rewrite its state's file (Defragment). Returns whether it was asked.
pub(super) fn rewrite(system: &mut System<'_>) -> bool {
    let host = victim(system);
    if system.hosts[host].node.as_ref().is_none_or(|node| node.whole().is_none()) {
        return false;
    }
    system.ctx.trace(Some(host), || "is asked to rewrite its state's file".to_owned());
    system.rewrite_state(host);
    true
}

/// A member stops in good order, unless its process has died meanwhile.
pub(super) fn stop(system: &mut System<'_>, host: usize, run: u32) {
    if system.hosts[host].run != run {
        return;
    }
    if system.hosts[host].paused {
        let after = system.ctx.chances.faults.magnitude(MILLI, SECOND);
        return later(system, after, FollowUp::Stop { host, run });
    }
    system.stop(host);
    system.restart_soon(host);
}

pub(super) fn crash_in_transfer(system: &mut System<'_>) -> bool {
    wait_for(system, Fault::CrashInTransfer, 4, |system| {
        crash_midway(system, |it| it.disk.is_storing() || it.node.as_ref().is_some_and(|node| node.is_in_transfer()))
    });
    false
}

pub(super) fn crash_in_change(system: &mut System<'_>) -> bool {
    wait_for(system, Fault::CrashInChange, 4, |system| {
        crash_midway(system, |it| it.node.as_ref().is_some_and(|node| node.raft().membership().is_joint()))
    });
    false
}

/// Crashes one of the replicas that are in the midst of something. Returns whether there was one.
fn crash_midway(system: &mut System<'_>, is_midway: fn(&Host) -> bool) -> bool {
    let is_midway_and_up = |host: &usize| system.hosts[*host].is_up() && is_midway(&system.hosts[*host]);
    let midway: Vec<usize> = (0..system.hosts.len()).filter(is_midway_and_up).collect();
    let dice = &mut system.ctx.chances.faults;
    match dice.pick(&midway) {
        // Work on a state's file takes no simulated time, so only the disk can interrupt it.
        Some(host) if system.ctx.plan.disk.holds_state && dice.percent(60) => system.hosts[host].disk.die_soon(dice),
        Some(host) => {
            system.crash(host, true);
            system.restart_soon(host);
        }
        None => return false,
    }
    true
}

/// Pauses a replica. Returns whether it ran.
fn pause_one(system: &mut System<'_>, leap: bool) -> bool {
    let (victim, span) = (victim(system), span(system));
    let runs = system.hosts[victim].is_up() && !system.hosts[victim].paused;
    system.pause(victim, span, leap && system.ctx.plan.clocks != Clocks::True);
    runs
}

pub(super) fn pause(system: &mut System<'_>) -> bool {
    pause_one(system, false)
}

pub(super) fn suspend(system: &mut System<'_>) -> bool {
    pause_one(system, true)
}

/// Pauses a leader and cuts it off from incoming messages. Messages that arrived before the cut still wait for it. When
/// it resumes, others may have led for long, and it has only old news of them.
pub(super) fn old_mail(system: &mut System<'_>) -> bool {
    let Some(leader) = system.hosts.running_leader() else { return false };
    let election = system.ctx.plan.settings.election_max;
    let dice = &mut system.ctx.chances.faults;
    let (before, pause, after) =
        (dice.below(election / 2), dice.between(election / 4, election * 4), dice.between(election / 4, election * 2));
    let deaf = system.network.links_into(leader);
    system.pause(leader, pause, false);
    later(system, before.min(pause), FollowUp::Cut(deaf.clone()));
    later(system, before.min(pause) + pause + after, FollowUp::Heal(deaf));
    true
}

/// A leader hands over and is cut off meanwhile, so it does not hear of its successor.
pub(super) fn cut_handover(system: &mut System<'_>) -> bool {
    let Some(leader) = system.hosts.last_leader() else { return false };
    if !system.hand_over() {
        return false;
    }
    let heartbeat = system.ctx.plan.settings.heartbeat;
    let soon = system.ctx.chances.faults.magnitude(1_000, heartbeat);
    let span = span(system);
    let deaf = system.ctx.chances.faults.percent(50);
    let links = if deaf { system.network.links_into(leader) } else { system.network.around(leader) };
    later(system, soon, FollowUp::Cut(links.clone()));
    later(system, soon + span, FollowUp::Heal(links));
    true
}

pub(super) fn slow_apply(system: &mut System<'_>) -> bool {
    let victim = victim(system);
    system.hosts[victim].busy_until = system.ctx.now + span(system);
    false
}

/// Picks a replica whose clock changes.
fn retimed(system: &mut System<'_>) -> usize {
    system.ctx.chances.faults.index(system.hosts.len())
}

pub(super) fn drift(system: &mut System<'_>) -> bool {
    let victim = retimed(system);
    let bound = i64::from(system.ctx.plan.settings.drift_ppm);
    let gains = if system.ctx.chances.faults.percent(50) { bound } else { -bound };
    system.hosts[victim].clock.retune(system.ctx.now, gains);
    clock_changed(system, victim)
}

pub(super) fn wild_clock(system: &mut System<'_>) -> bool {
    let victim = retimed(system);
    let (now, dice) = (system.ctx.now, &mut system.ctx.chances.faults);
    let clock = &mut system.hosts[victim].clock;
    clock.retune(now, dice.between(0, 800_000) as i64 - 400_000);
    if dice.percent(50) {
        let by = dice.magnitude(MILLI, 3_600 * SECOND);
        clock.jump(now, by);
        system.keepers.leapt(now, by);
    }
    clock_changed(system, victim)
}

fn clock_changed(system: &mut System<'_>, victim: usize) -> bool {
    system.ctx.trace(Some(victim), || "its clock changes".to_owned());
    system.hosts[victim].reschedule_anew(&mut system.ctx);
    true
}

/// The state that no message of a stranger may change.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    term: Term,
    voted_for: Option<NodeId>,
    leads: bool,
    leader: Option<NodeId>,
    last: Position,
    commit: Index,
}

impl Standing {
    fn of(raft: &Raft) -> Standing {
        Standing {
            term: raft.term(),
            voted_for: raft.voted_for(),
            leads: raft.is_leader(),
            leader: raft.leader(),
            last: raft.log().last(),
            commit: raft.commit_index(),
        }
    }
}

/// A stranger, which is not a member of the cluster, sends a message to a replica.
pub(super) fn stranger(system: &mut System<'_>) -> bool {
    let victim = victim(system);
    let Some(raft) = system.hosts.raft(victim).filter(|_| !system.hosts[victim].paused) else { return false };
    let (term, last) = (raft.term(), raft.log().last());
    let dice = &mut system.ctx.chances.faults;
    let term = Term(term.0.saturating_sub(dice.below(2)));
    let last = if dice.percent(50) { last } else { Position::ORIGIN };
    let body = match dice.below(3) {
        0 => Body::PreVote { last },
        1 => Body::PreVoteReply { granted: true },
        _ => Body::RequestVoteReply { granted: true },
    };
    let message = NodeMessage::Raft(Message { term, body });
    let mut from = NodeId(1_000 + dice.below(3));
    if system.ctx.plan.sabotage == Some(Sabotage::TrustedStrangers) {
        from = NodeId(1 + from.0 % system.ctx.plan.voters as u64);
    }
    system.ctx.trace(Some(victim), || format!("<- {from}, a stranger: {}", describe(&message)));
    let due = system.hosts[victim].is_due(system.ctx.now);
    let before = system.hosts.raft(victim).filter(|_| !due).map(Standing::of);
    system.step(victim, NodeInput::Receive { from, message });
    // It may have crashed in this step.
    if let Some((before, after)) = before.zip(system.hosts.raft(victim).map(Standing::of))
        && before != after
    {
        let what = format!("a message of a stranger changed n{}", victim + 1);
        system.ctx.judge(Err((Rule::StrangersChangeNothing, what)));
    }
    true
}
