//! Random schedules of a few replicas: everything that may go wrong does, and what Raft promises
//! (Figure 3 of the paper) holds after every step. Then the network heals, and the cluster serves.

mod support;

use support::schedule::{Flavour, Schedule};

/// Runs `seeds` schedules. Returns how many commands were done and reads were served.
fn run(flavour: Flavour, seeds: std::ops::Range<u64>) -> (usize, usize) {
    let (done, readable, _) = run_all(flavour, seeds);
    (done, readable)
}

/// Returns also how often a disk lost something.
fn run_all(flavour: Flavour, seeds: std::ops::Range<u64>) -> (usize, usize, usize) {
    let (mut done, mut readable, mut damages) = (0, 0, 0);
    // More of them for a longer search: BOWLINE_SCHEDULES=50 runs fifty times as many.
    let times = std::env::var("BOWLINE_SCHEDULES").ok().and_then(|times| times.parse::<u64>().ok()).unwrap_or(1);
    let end = seeds.start + (seeds.end - seeds.start) * times;
    for seed in seeds.start..end {
        // A failing seed is named by the output of the test.
        println!("seed {seed}");
        let mut schedule = Schedule::new(seed, flavour);
        schedule.run();
        done += schedule.cluster.oracle.done;
        readable += schedule.cluster.oracle.readable;
        damages += schedule.damages;
    }
    (done, readable, damages)
}

#[test]
fn replicas_agree_while_messages_disks_and_machines_fail() {
    let (done, readable) = run(Flavour::Plain, 0..400);
    assert!(done > 1000 && readable > 500, "the schedules get something done: {done} commands, {readable} reads");
}

#[test]
fn replicas_agree_while_members_come_and_go() {
    let (done, readable) = run(Flavour::Membership, 1000..1400);
    assert!(done > 1000 && readable > 500, "the schedules get something done: {done} commands, {readable} reads");
}

#[test]
fn replicas_agree_while_logs_are_compacted() {
    let (done, readable) = run(Flavour::Snapshots, 2000..2400);
    assert!(done > 1000 && readable > 500, "the schedules get something done: {done} commands, {readable} reads");
}

#[test]
fn replicas_agree_while_everything_happens_at_once() {
    let (done, readable) = run(Flavour::Everything, 3000..3800);
    assert!(done > 1000 && readable > 500, "the schedules get something done: {done} commands, {readable} reads");
}

#[test]
fn replicas_agree_while_disks_lose_what_they_promised() {
    let (done, readable, damages) = run_all(Flavour::Damage, 4000..4400);
    assert!(done > 1000 && readable > 500, "the schedules get something done: {done} commands, {readable} reads");
    assert!(damages > 100, "disks lose something: {damages} times");
}
