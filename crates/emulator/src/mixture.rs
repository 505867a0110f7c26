//! Random mixtures of LAN faults, and the conditions that must hold in each.

use std::collections::BTreeSet;
use std::time::Duration;

use bowline_lan::profile::Profile;

use crate::Random;
use crate::emulation::{ExtraFaults, LinkCut, Record};
use crate::history;
use crate::judge::{Check, Status};
use crate::report::Report;
use crate::scenario::Scenario;
use crate::virtual_run::{Links, VirtualOptions};

/// A random run, drawn by [`mixture`].
#[derive(Clone, Debug)]
pub struct Mixture {
    /// The scenario of the mixture.
    pub scenario: Scenario,
    /// The other options of the run.
    pub options: VirtualOptions,
}

/// A random mixture of LAN faults: 3 to 9 replicas, losses of up to a half, duplicated and overtaken
/// messages, clients that use the same `MID`s, up to five cuts of all shapes, including one-way cuts,
/// and up to a minority of replicas killed. The network heals before the end, with time left to answer all requests.
#[must_use]
pub fn mixture(seed: u64) -> Mixture {
    let mut random = Random::stream(seed, 200);
    let replicas = 3 + random.below(7) as usize;
    let scenario = Scenario {
        lifetime: Duration::from_secs(10 + random.below(11)),
        replicas,
        requests: 100 + random.below(301),
        mix: 0.1 + 0.1 * random.below(8) as f64,
        start_wait: Duration::from_secs(random.below(4)),
        end_wait: Duration::from_secs(20),
        drops: if random.chance(0.3) { 0.0 } else { 0.05 * random.below(11) as f64 },
        seed: Some(seed),
        max_packets: 1_000_000,
        events: Vec::new(),
        ..Scenario::builtin_named("simple-2").expect("the main job is built in")
    };
    let end = scenario.start_wait + scenario.lifetime;
    let links = Links {
        duplicates: if random.chance(0.5) { 0.1 * random.below(4) as f64 } else { 0.0 },
        reorders: if random.chance(0.5) { 0.1 * random.below(4) as f64 } else { 0.0 },
        delay_max: Duration::from_micros(60 + random.below(20_000)),
        ..Links::default()
    };
    let mut faults = draw_faults(&mut random, replicas, end);
    faults.same_mids = Random::stream(seed, 201).chance(0.25);
    let retained_bytes = random.chance(0.3).then(|| 256 << random.below(6));
    let profile = if random.chance(0.5) { Profile::Frugal } else { Profile::Paper };
    Mixture { scenario, options: VirtualOptions { seed, profile, links, faults, retained_bytes } }
}

fn draw_faults(random: &mut Random, replicas: usize, end: Duration) -> ExtraFaults {
    let moment = |random: &mut Random, end: Duration| Duration::from_millis(random.below(end.as_millis() as u64));
    let mut faults = ExtraFaults { lossless_from: Some(end), ..ExtraFaults::default() };
    for _ in 0..random.below(6) {
        let from = moment(random, end);
        let until = (from + Duration::from_millis(200 + random.below(8_000))).min(end);
        let blocked = draw_cut(random, replicas);
        faults.partitions.push(LinkCut { from, until, blocked });
    }
    let mut victims: Vec<usize> = (0..replicas).collect();
    random.shuffle(&mut victims);
    let kills = random.below(replicas.div_ceil(2) as u64) as usize;
    for victim in victims.into_iter().take(kills) {
        faults.kills.push((moment(random, end), victim));
    }
    faults
}

/// A cut of a random shape: two sides, one isolated replica, one replica that can't send or can't
/// receive, two sides joined by one replica, or random links.
fn draw_cut(random: &mut Random, replicas: usize) -> BTreeSet<(usize, usize)> {
    let mut order: Vec<usize> = (0..replicas).collect();
    random.shuffle(&mut order);
    let (lone, bridge) = (order[0], order[order.len() - 1]);
    let split = 1 + random.below(replicas as u64 - 1) as usize;
    let left: BTreeSet<usize> = order[..split].iter().copied().collect();
    let shape = random.below(6);
    let mut blocked = BTreeSet::new();
    for from in 0..replicas {
        for to in (0..replicas).filter(|to| *to != from) {
            let crosses = left.contains(&from) != left.contains(&to);
            let cut = match shape {
                0 => crosses,
                1 => from == lone || to == lone,
                2 => from == lone,
                3 => to == lone,
                4 => crosses && from != bridge && to != bridge,
                _ => random.chance(0.3),
            };
            if cut {
                blocked.insert((from, to));
            }
        }
    }
    blocked
}

/// Why a mixture failed, if it did. Its history must be linearizable, replicas must follow the
/// protocol, and every request to a replica that lives to the end must be answered once, without `fail`.
#[must_use]
pub fn failure_of(record: &Record) -> Option<String> {
    let word = history::check(record);
    let report = Report::new(record.clone(), &word);
    for check in [Check::Linearizable, Check::ReplicasLived, Check::NoMessageStorm, Check::GoodManners] {
        let verdict = report.judgement.verdict(check);
        if verdict.status != Status::Passed {
            return Some(format!("{}: {}", check.title(), verdict.reason));
        }
    }
    let statistics = &report.statistics;
    if statistics.duplicates > 0 {
        return Some(format!("{} requests were answered twice", statistics.duplicates));
    }
    if statistics.fails > 0 {
        return Some(format!("{} requests were answered with fail", statistics.fails));
    }
    let lost = record.attempts.iter().filter(|attempt| {
        let at_living = attempt.to.is_some_and(|to| record.lost_at(to).is_none());
        attempt.answer.is_none() && at_living
    });
    match lost.count() {
        0 => None,
        count => Some(format!("{count} requests at living replicas were never answered")),
    }
}
