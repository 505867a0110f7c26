//! Our own replicas in virtual time: the same run from the same seed, and right in every scenario.

// Helpers are tests too, which the lint does not see.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bowline_emulator::judge::{Benchmark, Check, Status, wrong_gets};
use bowline_emulator::mixture::{Mixture, failure_of, mixture};
use bowline_emulator::report::Report;
use bowline_emulator::scenario::{EventKind, Scenario, Tier};
use bowline_emulator::virtual_run::{VirtualOptions, VirtualOutcome, run};
use bowline_lan::profile::Profile;

/// The scenarios that other harnesses have too, with their thresholds.
const KNOWN: [&str; 13] = [
    "simple-1",
    "simple-2",
    "unreliable-1",
    "unreliable-2",
    "unreliable-3",
    "crash-1",
    "crash-2",
    "crash-3",
    "crash-4",
    "partition-1",
    "partition-2",
    "partition-3",
    "partition-4",
];

/// The trace of `simple-2` with the seed 1. CI compares it in a debug and in a release build, so
/// that nothing that a replica does depends on how it was built.
///
/// It changes with every change of what replicas say or when. After such a change, and only if you
/// meant one, take the new number from `bowline sim run simple-2 --seed 1`.
const TRACE_OF_SIMPLE_2: u64 = 0xcbc8_341b_09a7_5b98;

fn play(name: &str, seed: u64, profile: Profile) -> VirtualOutcome {
    let scenario = Scenario::builtin_named(name).unwrap();
    let options = VirtualOptions { seed, profile, ..VirtualOptions::default() };
    run(scenario, options, &mut |_, _| {}).unwrap()
}

fn play_mixture(seed: u64) -> VirtualOutcome {
    let Mixture { scenario, options } = mixture(seed);
    run(scenario, options, &mut |_, _| {}).unwrap()
}

/// Calls `task` with each number below `count`, on as many threads as there are processors.
fn for_each(count: usize, task: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    task(number);
                }
            });
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for name in ["simple-1", "unreliable-3", "crash-4", "partition-4", "storm-4"] {
        for profile in [Profile::Frugal, Profile::Paper] {
            let [first, second] = [play(name, 5, profile), play(name, 5, profile)];
            assert_eq!(first.trace_hash, second.trace_hash, "{name}, {profile:?}");
            assert_eq!(first.steps, second.steps, "{name}, {profile:?}");
            assert_eq!(first.record, second.record, "{name}, {profile:?}");
        }
    }
    for seed in [3, 14, 159] {
        let [first, second] = [play_mixture(seed), play_mixture(seed)];
        assert_eq!(first.trace_hash, second.trace_hash, "mixture {seed}");
        assert_eq!(first.record, second.record, "mixture {seed}");
    }
}

#[test]
fn different_seeds_give_different_runs() {
    let hashes: BTreeSet<u64> = (1..=8).map(|seed| play("simple-2", seed, Profile::Frugal).trace_hash).collect();
    assert_eq!(hashes.len(), 8);
    assert_ne!(
        play("simple-2", 1, Profile::Paper).trace_hash,
        play("simple-2", 1, Profile::Frugal).trace_hash,
        "the profile makes a difference"
    );
}

#[test]
fn every_build_makes_the_same_run() {
    let hash = play("simple-2", 1, Profile::Frugal).trace_hash;
    assert_eq!(hash, TRACE_OF_SIMPLE_2, "now {hash:#018x}: see the constant for what to do");
}

#[test]
fn an_observer_sees_the_timeline_and_changes_nothing() {
    let scenario = Scenario::builtin_named("crash-4").unwrap();
    let options = VirtualOptions { seed: 1, ..VirtualOptions::default() };
    let mut seen = Vec::new();
    let outcome = run(scenario, options, &mut |time, note| seen.push((time, note.clone()))).unwrap();
    let told: Vec<_> = outcome.record.timeline.iter().map(|moment| (moment.at, moment.note.clone())).collect();
    assert_eq!(seen, told);
    assert_eq!(outcome.trace_hash, play("crash-4", 1, Profile::Frugal).trace_hash);
}

#[test]
fn the_known_scenarios_pass_with_every_seed() {
    for_each(KNOWN.len() * 5, |number| {
        let (name, seed) = (KNOWN[number / 5], 1 + number as u64 % 5);
        let outcome = play(name, seed, Profile::Frugal);
        judge_known(name, seed, outcome);
    });
}

/// As good as the top asks, in everything that virtual time can measure: the latency is made up.
fn judge_known(name: &str, seed: u64, outcome: VirtualOutcome) {
    let say = |what: &str| format!("{name}, seed {seed}: {what}");
    assert_eq!(wrong_gets(&outcome.record), [], "{}", say("no get is wrong as other harnesses judge it"));
    let killed = outcome.record.scenario.events.iter().filter(|event| event.kind == EventKind::KillLeader).count();
    let report = Report::judged(outcome.record);
    for check in Check::ALL {
        let verdict = report.judgement.verdict(check);
        assert_eq!(verdict.status, Status::Passed, "{}", say(&format!("{}: {}", check.title(), verdict.reason)));
    }
    assert!(report.judgement.passed);
    let statistics = &report.statistics;
    assert_eq!((statistics.duplicates, statistics.fails), (0, 0), "{}", say("duplicates, fails"));
    assert!(statistics.unanswered <= killed as u64, "{}", say("unanswered"));
    assert_eq!(statistics.unanswered_elsewhere, 0, "{}", say("unanswered at replicas that live"));
    let messages = report.judgement.benchmark(Benchmark::TotalMsgs).unwrap();
    assert_eq!(messages.tier, Tier::Top, "{}", say(&format!("{messages:?}")));
    for ignored in outcome.ignored {
        assert_eq!((ignored.unreadable, ignored.foreign, ignored.malformed), (0, 0, 0), "{}", say("ignored"));
    }
}

#[test]
fn the_papers_timing_is_right_too() {
    for_each(KNOWN.len(), |number| {
        let report = Report::judged(play(KNOWN[number], 1, Profile::Paper).record);
        assert!(report.judgement.passed, "{}: {:?}", KNOWN[number], report.judgement.verdicts);
        assert_eq!((report.statistics.fails, report.statistics.duplicates), (0, 0), "{}", KNOWN[number]);
    });
}

#[test]
fn sixty_mixtures_pass() {
    for_each(60, |number| {
        let seed = 1 + number as u64;
        assert_eq!(failure_of(&play_mixture(seed).record), None, "bowline sim lan --seed {seed} --verbose");
    });
}

/// A check that can't fail proves nothing: what a mixture must not do is seen.
#[test]
fn what_must_not_happen_in_a_mixture_is_seen() {
    let good = play_mixture(1).record;
    assert_eq!(failure_of(&good), None);
    let living = |record: &bowline_emulator::emulation::Record, to: Option<usize>| {
        to.is_some_and(|to| record.lost_at(to).is_none())
    };

    let mut lost = good.clone();
    let index = lost.attempts.iter().position(|attempt| living(&good, attempt.to) && attempt.answer.is_some()).unwrap();
    lost.attempts[index].answer = None;
    assert!(failure_of(&lost).unwrap().contains("1 requests at living replicas were never answered"));

    let mut wrong = good.clone();
    for attempt in &mut wrong.attempts {
        if let Some(answer) = &mut attempt.answer
            && let bowline_emulator::emulation::AnswerKind::Ok { value: Some(value) } = &mut answer.outcome
        {
            "never written".clone_into(value);
        }
    }
    assert!(failure_of(&wrong).unwrap().starts_with("linearizable: "));
}

#[test]
fn mixtures_differ_and_stay_within_their_bounds() {
    let drawn: Vec<Mixture> = (1..=200).map(mixture).collect();
    let with_same_mids = drawn.iter().filter(|mixture| mixture.options.faults.same_mids).count();
    assert!((25..75).contains(&with_same_mids), "{with_same_mids} of 200, instead of a quarter");
    for Mixture { scenario, options } in &drawn {
        assert!((3..=9).contains(&scenario.replicas));
        assert!(options.faults.kills.len() < scenario.replicas.div_ceil(2), "a majority lives");
        assert!((0.0..=0.51).contains(&scenario.drops));
        let heals = options.faults.lossless_from.unwrap();
        assert!(options.faults.partitions.iter().all(|cut| cut.from <= cut.until && cut.until <= heals));
        assert!(options.faults.kills.iter().all(|(at, _)| *at < heals));
    }
    let some = |what: &dyn Fn(&Mixture) -> bool| drawn.iter().filter(|mixture| what(mixture)).count() > 20;
    assert!(some(&|mixture| mixture.options.links.duplicates > 0.0));
    assert!(some(&|mixture| mixture.options.links.reorders > 0.0));
    assert!(some(&|mixture| mixture.options.retained_bytes.is_some()));
    assert!(some(&|mixture| mixture.options.faults.kills.is_empty()));
    assert!(some(&|mixture| mixture.options.faults.partitions.len() > 3));
    assert!(some(&|mixture| mixture.options.profile == Profile::Paper));
}
