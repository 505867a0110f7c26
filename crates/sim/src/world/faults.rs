//! What strikes: each kind of fault at its own rhythm, aimed at leaders more often than chance would.

mod disks;
mod membership;
mod network;
mod processes;

use crate::world::clock::Moment;
use crate::world::coverage::Fault;
use crate::world::event::Event;
use crate::world::network::Link;
use crate::world::plan::{MILLI, SECOND};
use crate::world::system::System;

pub(crate) use disks::Restored;
use network::Succession;

/// Something that struck goes on, or ends.
#[derive(Debug)]
pub(crate) enum Turn {
    Cut(Vec<Link>),
    Heal(Vec<Link>),
    /// Clients reach a replica again.
    HealClients(usize),
    /// A link has no limit any more.
    Widen(Link),
    /// A link goes up and down until then.
    Flap {
        link: Link,
        cut: bool,
        until: Moment,
    },
    Succession(Succession),
    /// A replica crashes again, so many times.
    CrashAgain {
        host: usize,
        left: u64,
    },
    /// Somebody is looked for to crash midway, so many times more.
    Midway {
        fault: Fault,
        left: u32,
    },
    /// There is room on the disk again.
    Room(usize),
    /// The operator thinks better of a change.
    Regret,
}

/// It is time for a kind of fault to strike.
pub(crate) fn strike(system: &mut System<'_>, fault: Fault) {
    let ctx = &mut system.ctx;
    if ctx.healed {
        return;
    }
    let mean = ctx.plan.faults.iter().find(|(kind, _)| *kind == fault).map_or(SECOND, |(_, mean)| *mean);
    let (mut dice, strikes) = ctx.script.next_strike(fault);
    ctx.after(MILLI + dice.waiting(mean), Event::Strike(fault));
    if strikes {
        // Chance of its own: leaving this strike out changes no other.
        let usual = std::mem::replace(&mut ctx.chances.faults, dice);
        let struck = strike_now(system, fault);
        system.ctx.chances.faults = usual;
        // What strikes only later is counted when it does.
        if struck {
            system.ctx.coverage.struck(fault);
        }
    }
}

fn strike_now(system: &mut System<'_>, fault: Fault) -> bool {
    match fault {
        Fault::Isolate => network::isolate(system),
        Fault::OneWay => network::one_way(system),
        Fault::Bridge => network::bridge(system),
        Fault::Links => network::links(system),
        Fault::Succession => network::succession(system),
        Fault::Flap => network::flap(system),
        Fault::Swizzle => network::swizzle(system),
        Fault::Narrow => network::narrow(system),
        Fault::Stranger => processes::stranger(system),
        Fault::ClientCut => network::client_cut(system),
        Fault::Crash => processes::crash(system),
        Fault::CrashInside => processes::crash_inside(system),
        Fault::CrashLoop => processes::crash_loop(system),
        Fault::PowerLoss => processes::power_loss(system),
        Fault::Pause => processes::pause(system),
        Fault::OldMail => processes::old_mail(system),
        Fault::Retune => processes::retune(system),
        Fault::CrashInTransfer | Fault::CrashInChange => processes::crash_midway(system, fault),
        Fault::SlowApply => processes::slow_apply(system),
        Fault::Handover => system.hand_over(),
        Fault::CutHandover => processes::cut_handover(system),
        Fault::RottenLog => disks::rotten_log(system),
        Fault::RottenSnapshot => disks::rotten_snapshot(system),
        Fault::RottenVote => disks::rotten_vote(system),
        Fault::SyncError => disks::sync_error(system),
        Fault::DiskFull => disks::disk_full(system),
        Fault::SlowDisk => disks::slow_disk(system),
        Fault::ReadError => disks::read_error(system),
        Fault::Wipe => disks::wipe(system),
        Fault::OldImage => disks::old_image(system),
        Fault::Drift => processes::drift(system),
        Fault::WildClock => processes::wild_clock(system),
        Fault::Suspend => processes::suspend(system),
        Fault::Churn => membership::churn(system),
        Fault::RemovedLives => membership::removed_lives(system),
        Fault::EarlyPromotion => membership::early_promotion(system),
        Fault::Rejoin => membership::rejoin(system),
        Fault::RemoveMany => membership::remove_many(system),
        Fault::Huge => {
            system.clients.huge = true;
            false
        }
        _ => false,
    }
}

/// What struck goes on, or ends; once the safety phase is over, it stays as it is.
pub(crate) fn turn(system: &mut System<'_>, turn: Turn) {
    if system.ctx.healed {
        return;
    }
    match turn {
        Turn::Heal(links) => {
            system.ctx.tell(None, || format!("healed: {}", list(&links)));
            system.network.heal(&links);
        }
        Turn::Cut(links) => {
            system.ctx.tell(None, || format!("CUT: {}", list(&links)));
            system.network.cut(&links);
        }
        Turn::HealClients(host) => system.network.cut_clients(host, false),
        Turn::Widen(link) => system.network.narrow(link, 0),
        Turn::Flap { link, cut, until } => network::flap_on(system, link, cut, until),
        Turn::Succession(succession) => network::succeed(system, succession),
        Turn::CrashAgain { host, left } => processes::crash_again(system, host, left),
        Turn::Midway { fault, left } => processes::look_midway(system, fault, left),
        Turn::Room(host) => system.limit_disk(host, None),
        Turn::Regret => membership::regret(system),
    }
}

/// A replica, the leader in every other case.
fn victim(system: &mut System<'_>) -> usize {
    let dice = &mut system.ctx.chances.faults;
    match system.hosts.last_leader() {
        Some(leader) if dice.percent(50) => leader,
        _ => dice.index(system.hosts.len()),
    }
}

/// How long something lasts.
fn span(system: &mut System<'_>) -> Moment {
    let election = system.ctx.plan.settings.election_max;
    system.ctx.chances.faults.magnitude(election / 8, election * 12)
}

fn later(system: &mut System<'_>, after: Moment, turn: Turn) {
    system.ctx.after(after, Event::Turn(Box::new(turn)));
}

fn list(links: &[Link]) -> String {
    let shown: Vec<String> = links.iter().take(12).map(|(from, to)| format!("n{}>n{}", from + 1, to + 1)).collect();
    let more = if links.len() > 12 { format!(" and {} more", links.len() - 12) } else { String::new() };
    format!("{}{more}", shown.join(" "))
}
