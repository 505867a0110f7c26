//! Faults: one row for each kind, with its number in the catalogue, its title, how often it strikes, and what it does.
//! They hit leaders more often than a random choice would.
//!
//! A new fault needs a row of the table and a function.

mod disks;
mod elections;
mod membership;
mod network;
mod processes;

use bowline_raft::NodeId;

use crate::cluster::clock::Moment;
use crate::cluster::dice::Dice;
use crate::cluster::event::Event;
use crate::cluster::network::Link;
use crate::cluster::plan::{Clocks, MILLI, Plan, SECOND};
use crate::cluster::system::System;

pub(crate) use disks::Restored;
pub(crate) use elections::{AmidVote, asks_for_votes, has_voted, has_won};
use network::Succession;
pub(crate) use network::has_become_joint;

/// The row of a kind of fault.
#[derive(Clone, Copy)]
struct Row {
    code: &'static str,
    title: &'static str,
    kind: Kind,
}

/// How a kind of fault comes about.
#[derive(Clone, Copy)]
struct Kind {
    /// How it strikes, if it does.
    strikes: Option<(Rhythm, Strike)>,
    /// What it changes in the plan besides its strikes, for example in the network.
    part: Option<Part>,
}

/// Carries out a strike. Returns whether it took effect; an effect that comes later is counted then.
type Strike = fn(&mut System<'_>) -> bool;

/// The part of a plan that belongs to a fault.
#[derive(Clone, Copy)]
struct Part {
    is_in: fn(&Plan) -> bool,
    leave_out: fn(&mut Plan),
}

/// How often a fault strikes.
#[derive(Clone, Copy)]
enum Rhythm {
    /// In this percentage of the plans. Drawn from shared dice, in the order of the places.
    Often { place: u8, percent: u32 },
    /// The same, with longer waits.
    Seldom { place: u8 },
    /// In all plans with clocks of this kind, with this mean time between strikes.
    WithClocks(Clocks, Moment),
    /// In this percentage of the plans, with a mean of `low` to `high` election timeouts between strikes. Drawn from
    /// its own dice, for a purpose that no other fault has, so that it changes no other draw of a plan.
    Own { purpose: u64, percent: u32, low: u64, high: u64 },
}

const fn often(place: u8, strike: Strike) -> Kind {
    Kind { strikes: Some((Rhythm::Often { place, percent: 40 }, strike)), part: None }
}

const fn most_often(place: u8, strike: Strike) -> Kind {
    Kind { strikes: Some((Rhythm::Often { place, percent: 60 }, strike)), part: None }
}

const fn seldom(place: u8, strike: Strike) -> Kind {
    Kind { strikes: Some((Rhythm::Seldom { place }, strike)), part: None }
}

const fn strikes(rhythm: Rhythm, strike: Strike) -> Kind {
    Kind { strikes: Some((rhythm, strike)), part: None }
}

/// A fault that is part of a plan's network, disks or clients, and does not strike.
const fn always(is_in: fn(&Plan) -> bool, leave_out: fn(&mut Plan)) -> Kind {
    Kind { strikes: None, part: Some(Part { is_in, leave_out }) }
}

/// A fault that results from others.
const BY_ITSELF: Kind = Kind { strikes: None, part: None };

impl Kind {
    /// Adds what the fault changes in the plan.
    const fn and(self, is_in: fn(&Plan) -> bool, leave_out: fn(&mut Plan)) -> Kind {
        Kind { part: Some(Part { is_in, leave_out }), ..self }
    }

    /// Marks a fault that shapes the plan beyond its strikes.
    const fn and_shapes(self, leave_out: fn(&mut Plan)) -> Kind {
        self.and(|_| false, leave_out)
    }
}

macro_rules! faults {
    ($($name:ident: $code:literal, $title:literal, $kind:expr;)*) => {
        /// A kind of fault, or of other trouble.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $(#[doc = $title] $name,)*
        }

        impl Fault {
            /// All kinds.
            pub const ALL: &'static [Fault] = &[$(Fault::$name,)*];

            fn row(self) -> Row {
                match self { $(Fault::$name => Row { code: $code, title: $title, kind: $kind },)* }
            }
        }
    };
}

faults! {
    Drop: "N1", "message lost", always(|plan| plan.network.lost > 0, |plan| plan.network.lost = 0);
    Duplicate: "N2", "message doubled", always(|plan| plan.network.doubled > 0, |plan| plan.network.doubled = 0);
    Replay: "N2", "message replayed much later",
        always(|plan| plan.network.replayed > 0, |plan| plan.network.replayed = 0);
    Reorder: "N3", "message overtaken", always(|plan| !plan.network.in_order, |plan| plan.network.in_order = true);
    Slow: "N4", "message in the slow tail", always(|plan| plan.network.tail > 0, |plan| plan.network.tail = 0);
    Isolate: "N5", "replica isolated", most_often(0, network::isolate);
    OneWay: "N6", "replica deaf or mute", often(1, network::one_way);
    Bridge: "N7", "cluster split, with or without a bridge", often(2, network::bridge);
    Links: "N7", "single links cut", often(3, network::links);
    SplitGroups: "N7", "cluster split between the two groups of a joint configuration",
        strikes(Rhythm::Own { purpose: 21, percent: 50, low: 2, high: 20 }, network::split_groups);
    Succession: "N5", "leaders isolated one after the other", often(29, network::succession);
    Flap: "N8", "link flapping", often(4, network::flap);
    Swizzle: "N9", "replicas cut one by one, back in another order", seldom(5, network::swizzle);
    Narrow: "N10", "link with little capacity", often(6, network::narrow);
    Mangle: "N11/N12", "message that makes no sense",
        always(|plan| plan.network.mangled > 0, |plan| plan.network.mangled = 0);
    LineBreaks: "N13", "connection for forwarded requests lost",
        always(|plan| plan.disk.holds_state && plan.network.breaks > 0, |plan| plan.network.breaks = 0);
    Stranger: "N14", "message from a stranger", often(7, processes::stranger);
    ClientCut: "N15", "clients cut off from the leader", often(8, network::client_cut);
    Crash: "P1", "crash", most_often(9, processes::crash);
    CrashInside: "P1", "crash between two effects of one step", often(10, processes::crash_inside);
    CrashLoop: "P2", "crash loop", seldom(11, processes::crash_loop);
    PowerLoss: "P3", "power loss of the whole cluster", seldom(12, processes::power_loss);
    Pause: "P4", "pause (SIGSTOP)", often(13, processes::pause);
    OldMail: "P4", "leader paused, and deaf to all but the mail that waited", often(30, processes::old_mail);
    Retune: "P5", "restart with other settings", often(14, processes::retune);
    CrashInTransfer: "P6", "crash during a transfer of a snapshot", often(15, processes::crash_in_transfer);
    CrashInChange: "P7", "crash during a change of the membership", often(16, processes::crash_in_change);
    Terminate: "P12", "process told to stop (SIGTERM), with all that it had taken in made durable",
        strikes(Rhythm::Own { purpose: 19, percent: 60, low: 2, high: 30 }, processes::terminate);
    Rewrite: "P13", "state's file rewritten without its free space",
        strikes(Rhythm::Own { purpose: 20, percent: 60, low: 2, high: 20 }, processes::rewrite);
    SlowApply: "P8", "slow apply", seldom(32, processes::slow_apply);
    Handover: "P10", "transfer of the leadership", often(17, |system| system.hand_over());
    CutHandover: "P10", "leader cut off while it hands over", often(31, processes::cut_handover);
    LostWrites: "D1", "unsynced writes lost in a crash",
        always(|plan| plan.disk.lost_writes, |plan| plan.disk.lost_writes = false);
    TornWrite: "D2", "write torn in a crash", BY_ITSELF.and_shapes(|plan| plan.disk.lost_writes = false);
    RottenLog: "D3/D4", "bit rot in the log, found at the start", often(33, disks::rotten_log);
    RottenSnapshot: "D5", "bit rot in a stored snapshot or state, found at the start",
        seldom(34, disks::rotten_snapshot);
    RottenVote: "D6", "bit rot in term and vote, or in the identity", seldom(36, disks::rotten_vote);
    RottenInElection: "D3/D6", "bit rot in the log or the vote of a voter that crashes during an election",
        strikes(Rhythm::Own { purpose: 22, percent: 50, low: 2, high: 20 }, elections::rotten_in_election);
    SyncError: "D9", "sync failed, process stopped", often(18, disks::sync_error);
    DiskFull: "D10", "disk full, writes refused until there is room", seldom(19, disks::disk_full);
    StateDiskFull: "D10", "state's disk full, with room on the log's disk",
        strikes(Rhythm::Own { purpose: 23, percent: 40, low: 5, high: 40 }, disks::state_disk_full);
    SlowDisk: "D11", "slow disk", often(20, disks::slow_disk);
    ReadError: "D12", "disk not readable at the start", often(35, disks::read_error);
    UnreadableSnapshot: "D12", "snapshot not readable when a follower needs it",
        strikes(Rhythm::Own { purpose: 24, percent: 60, low: 2, high: 20 }, disks::unreadable_snapshot);
    Wipe: "D13", "disk lost, replaced by a new member", seldom(21, disks::wipe);
    OldImage: "D14", "disk restored from an old image",
        strikes(Rhythm::Own { purpose: 11, percent: 40, low: 2, high: 30 }, disks::old_image);
    RestartInLease: "P14", "restart of all other voters while a leader holds a lease and a candidate asks for votes",
        strikes(Rhythm::Own { purpose: 26, percent: 60, low: 2, high: 15 }, elections::restart_in_lease);
    ImageWithoutVote: "D14", "disk restored from an image that lacks nothing but the last vote",
        strikes(Rhythm::Own { purpose: 25, percent: 50, low: 1, high: 8 }, elections::image_without_vote);
    Drift: "C1", "clocks at the ends of their bound",
        strikes(Rhythm::WithClocks(Clocks::Drifting, 3 * SECOND), processes::drift)
            .and(|plan| plan.clocks != Clocks::True, |plan| plan.clocks = Clocks::True);
    WildClock: "C1/C2", "clocks far beyond any bound (no leases)",
        strikes(Rhythm::WithClocks(Clocks::Wild, 2 * SECOND), processes::wild_clock)
            .and_shapes(|plan| plan.clocks = Clocks::True);
    Suspend: "C3", "machine suspended, clock jumps at the end", often(22, processes::suspend);
    LeaseMoves: "C4", "lease kept alive under another leader than before",
        always(|plan| plan.workload.keepers > 0, |plan| plan.workload.keepers = 0);
    Churn: "M1", "change of the membership asked for", often(23, membership::churn).and_shapes(|_| ());
    RemovedLives: "M2", "removed replica keeps running", often(24, membership::removed_lives);
    EarlyPromotion: "M3", "promotion of a learner that may lag", often(25, membership::early_promotion);
    Rejoin: "M4", "removed replica added again, with its old disk", often(26, membership::rejoin);
    RemoveMany: "M5", "removal of most members asked for", often(27, membership::remove_many);
    Retry: "K1", "client tries again", always(|plan| plan.workload.tries > 1, |plan| plan.workload.tries = 1);
    Unknown: "K2", "client gives up, outcome unknown", BY_ITSELF;
    Huge: "K3", "value above a limit",
        often(28, huge).and_shapes(|plan| plan.workload.value_high = plan.workload.value_high.min(1_000));
    RecordedJoin: "M6", "member added by its record, and a voter since",
        always(|plan| plan.workload.records, without_records);
    RecordedRemoval: "M6", "member removed by its record",
        always(|plan| plan.workload.records, without_records);
    Replacement: "M7", "member without its data replaced through the records",
        always(|plan| plan.workload.records, without_records);
    Forwarded: "K11", "request forwarded to the leader, and answered", BY_ITSELF;
    AutoCompaction: "K9", "old revisions compacted automatically",
        always(|plan| plan.workload.compaction.is_some(), |plan| plan.workload.compaction = None);
    Comparison: "K10", "states of all members compared and found equal",
        always(|plan| plan.workload.comparison.is_some(), |plan| plan.workload.comparison = None);
}

/// The members are compared through their records.
fn without_records(plan: &mut Plan) {
    (plan.workload.records, plan.workload.comparison) = (false, None);
}

impl Fault {
    /// The number of kinds.
    pub const COUNT: usize = Fault::ALL.len();

    /// The kind of that name.
    ///
    /// # Errors
    /// One line that names all kinds.
    pub fn named(name: &str) -> Result<Fault, String> {
        let found = Fault::ALL.iter().copied().find(|fault| format!("{fault:?}").eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            let names: Vec<String> = Fault::ALL.iter().map(|fault| format!("{fault:?}")).collect();
            format!("{name:?} is not a kind of fault; allowed: {}", names.join(", "))
        })
    }

    /// Its number in the catalogue of faults.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.row().code
    }

    /// Its title.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.row().title
    }

    /// Whether a plan contains it apart from its strikes.
    pub(crate) fn is_in(self, plan: &Plan) -> bool {
        self.row().kind.part.is_some_and(|part| (part.is_in)(plan))
    }

    /// Whether it shapes a plan beyond its strikes.
    pub(crate) fn shapes_plans(self) -> bool {
        self.row().kind.part.is_some()
    }

    /// Takes it out of a plan.
    pub(crate) fn leave_out(self, plan: &mut Plan) {
        plan.faults.retain(|(fault, _)| *fault != self);
        if let Some(part) = self.row().kind.part {
            (part.leave_out)(plan);
        }
    }
}

/// Draws which faults strike, and the mean time between their strikes.
pub(crate) fn draw(seed: u64, dice: &mut Dice, clocks: Clocks, election: Moment) -> Vec<(Fault, Moment)> {
    let all = Fault::ALL.iter().filter_map(|fault| fault.row().kind.strikes.map(|(rhythm, _)| (*fault, rhythm)));
    let mut all: Vec<(Fault, Rhythm)> = all.collect();
    all.sort_by_key(|(_, rhythm)| rhythm.order());
    all.into_iter().filter_map(|(fault, rhythm)| Some((fault, rhythm.draw(seed, dice, clocks, election)?))).collect()
}

impl Rhythm {
    /// The order in which rhythms are drawn.
    fn order(self) -> (u8, u64) {
        match self {
            Rhythm::Often { place, .. } | Rhythm::Seldom { place } => (0, place.into()),
            Rhythm::WithClocks(..) => (1, 0),
            Rhythm::Own { purpose, .. } => (2, purpose),
        }
    }

    /// The mean time between strikes, if there are any.
    fn draw(self, seed: u64, dice: &mut Dice, clocks: Clocks, election: Moment) -> Option<Moment> {
        match self {
            Rhythm::Often { percent, .. } => {
                let mean = dice.magnitude(2, 60) * election;
                dice.percent(percent).then_some(mean)
            }
            Rhythm::Seldom { .. } => {
                let mean = dice.between(10, 60) * election;
                dice.percent(40).then_some(mean)
            }
            Rhythm::WithClocks(kind, mean) => (kind == clocks).then_some(mean),
            Rhythm::Own { purpose, percent, low, high } => {
                let mut own = Dice::new(seed, purpose);
                own.percent(percent).then(|| own.between(low, high) * election)
            }
        }
    }
}

/// What follows a strike: its next step, or its repair.
#[derive(Debug)]
pub(crate) enum FollowUp {
    Cut(Vec<Link>),
    Heal(Vec<Link>),
    /// Clients can reach a replica again.
    HealClients(usize),
    /// A link has no limit again.
    Widen(Link),
    /// A link goes up and down until then.
    Flap {
        link: Link,
        cut: bool,
        until: Moment,
    },
    Succession(Succession),
    /// A replica crashes again, `left` times.
    CrashAgain {
        host: usize,
        left: u64,
    },
    /// A replica that was told to stop in this run of its process does so.
    Stop {
        host: usize,
        run: u32,
    },
    /// A fault waits for its occasion.
    Wait(Wait),
    /// There is room on the disk again.
    Room(usize),
    /// A replica whose vote is on its way to its disk is hit.
    AmidVote {
        host: usize,
        run: u32,
    },
    /// An image that lacks only the vote for the new leader is restored.
    RestoreVoteless {
        witness: NodeId,
    },
    /// A voter asks for votes while a leader may hold a lease: the leader is cut off, and the other voters start again.
    RestartVoters {
        candidate: usize,
        leader: usize,
    },
    /// The groups of a leader's joint configuration are cut apart.
    Split {
        leader: usize,
    },
    /// The operator takes back a change.
    Regret,
}

/// Lets a kind of fault strike, and plans its next strike.
pub(crate) fn strike(system: &mut System<'_>, fault: Fault) {
    let ctx = &mut system.ctx;
    if ctx.healed {
        return;
    }
    let mean = ctx.plan.faults.iter().find(|(kind, _)| *kind == fault).map_or(SECOND, |(_, mean)| *mean);
    let (mut dice, strikes) = ctx.script.next_strike(fault);
    let next = MILLI + dice.waiting(mean);
    if ctx.plan.schedule.is_none() {
        ctx.after(next, Event::Strike(fault));
    }
    if strikes {
        // Each strike has its own dice, so that leaving it out changes no other.
        let usual = std::mem::replace(&mut ctx.chances.faults, dice);
        let struck = fault.row().kind.strikes.is_some_and(|(_, strike)| strike(system));
        system.ctx.chances.faults = usual;
        if struck {
            system.ctx.coverage.struck(fault);
        }
    }
}

/// A fault takes its next step or is repaired. After the safety phase it stays as it is.
pub(crate) fn follow_up(system: &mut System<'_>, next: FollowUp) {
    if system.ctx.healed {
        return;
    }
    match next {
        FollowUp::Stop { host, run } => processes::stop(system, host, run),
        FollowUp::Heal(links) => {
            system.ctx.trace(None, || format!("healed: {}", list(&links)));
            system.network.heal(&links);
        }
        FollowUp::Cut(links) => {
            system.ctx.trace(None, || format!("CUT: {}", list(&links)));
            system.network.cut(&links);
        }
        FollowUp::HealClients(host) => system.network.cut_clients(host, false),
        FollowUp::Widen(link) => system.network.narrow(link, 0),
        FollowUp::Flap { link, cut, until } => network::flap_on(system, link, cut, until),
        FollowUp::Succession(succession) => network::succeed(system, succession),
        FollowUp::CrashAgain { host, left } => processes::crash_again(system, host, left),
        FollowUp::Wait(wait) => look(system, wait),
        FollowUp::Room(host) => system.limit_disk(host, None),
        FollowUp::AmidVote { host, run } => elections::amid_vote(system, host, run),
        FollowUp::RestoreVoteless { witness } => elections::restore_voteless(system, witness),
        FollowUp::RestartVoters { candidate, leader } => elections::restart_voters(system, candidate, leader),
        FollowUp::Split { leader } => network::split_now(system, leader),
        FollowUp::Regret => membership::regret(system),
    }
}

/// A fault that waits for a situation that is seldom there when it strikes.
#[derive(Debug)]
pub(crate) struct Wait {
    fault: Fault,
    /// Looks whether the situation is there, and takes effect if it is.
    attempt: Strike,
    /// The time between two looks.
    every: Moment,
    /// The number of looks that are left.
    left: u32,
}

/// Looks once.
fn look(system: &mut System<'_>, wait: Wait) {
    if (wait.attempt)(system) {
        system.ctx.coverage.struck(wait.fault);
    } else if wait.left > 0 {
        later(system, wait.every, FollowUp::Wait(Wait { left: wait.left - 1, ..wait }));
    }
}

/// Has a fault wait for its occasion, a few heartbeats long. `per_heartbeat` looks are made in each of them.
fn wait_for(system: &mut System<'_>, fault: Fault, per_heartbeat: u64, attempt: Strike) {
    /// How long it waits, in heartbeats.
    const PATIENCE: u32 = 10;
    let every = system.ctx.plan.settings.heartbeat / per_heartbeat;
    later(system, 0, FollowUp::Wait(Wait { fault, attempt, every, left: PATIENCE * per_heartbeat as u32 }));
}

/// Picks a replica: in half of the cases the leader, else any.
fn victim(system: &mut System<'_>) -> usize {
    let dice = &mut system.ctx.chances.faults;
    match system.hosts.last_leader() {
        Some(leader) if dice.percent(50) => leader,
        _ => dice.index(system.hosts.len()),
    }
}

/// Draws how long a fault lasts.
fn span(system: &mut System<'_>) -> Moment {
    let election = system.ctx.plan.settings.election_max;
    system.ctx.chances.faults.magnitude(election / 8, election * 12)
}

fn later(system: &mut System<'_>, after: Moment, next: FollowUp) {
    system.ctx.after(after, Event::FollowUp(Box::new(next)));
}

fn list(links: &[Link]) -> String {
    let shown: Vec<String> = links.iter().take(12).map(|(from, to)| format!("n{}>n{}", from + 1, to + 1)).collect();
    let more = if links.len() > 12 { format!(" and {} more", links.len() - 12) } else { String::new() };
    format!("{}{more}", shown.join(" "))
}

/// The next write is huge.
fn huge(system: &mut System<'_>) -> bool {
    system.clients.huge = true;
    false
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_rhythms_are_drawn_in_the_same_place() {
        let strikes = Fault::ALL.iter().filter_map(|fault| fault.row().kind.strikes);
        let mut seen = BTreeSet::new();
        for (rhythm, _) in strikes.filter(|(rhythm, _)| !matches!(rhythm, Rhythm::WithClocks(..))) {
            assert!(seen.insert(rhythm.order()), "{:?} twice", rhythm.order());
        }
    }

    #[test]
    fn what_is_left_out_of_a_plan_is_not_in_it() {
        for seed in 1..50 {
            for fault in Fault::ALL {
                let mut plan = Plan::drawn(seed);
                plan.without(*fault);
                assert!(!plan.kinds().contains(fault), "{fault:?} of seed {seed}");
            }
        }
    }
}
