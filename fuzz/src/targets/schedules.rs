//! A simulated cluster: its seed, and what is postponed and strikes, event by event.

use std::cell::RefCell;
use std::panic::{set_hook, take_hook};
use std::sync::Once;

use bowline_sim::cluster;

/// Maximum number of runs to make a violation smaller.
const TRIES: usize = 200;

thread_local! {
    static REPLAY: RefCell<String> = const { RefCell::new(String::new()) };
}

pub(crate) fn run(data: &[u8]) {
    static HOOKED: Once = Once::new();
    // The fuzzer ends the process at a panic, before the simulator can make a violation of it.
    HOOKED.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            REPLAY.with_borrow(|command| eprintln!("to see it: {command}"));
            usual(panic);
        }));
    });
    let (plan, reduction) = cluster::scheduled(data);
    REPLAY.set(format!("bowline sim replay {}{reduction} --shrink {TRIES}", plan.seed));
    if let Some(violation) = cluster::run(&plan, None).violation {
        let (smaller, violation) = cluster::shrink(&plan, &reduction, &violation, TRIES);
        panic!("{violation}\n  bowline sim replay {}{smaller}", plan.seed);
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let kept = include_str!("../../corpus/schedules.txt").lines().filter(|line| !line.starts_with('#'));
    let kept = kept.map(|line| {
        let schedule: cluster::Schedule = line.parse().expect("the file has comments and inputs only");
        schedule.bytes().to_vec()
    });
    let schedule = |seed: u8| {
        let step = |place: u8| [0x20 + place % 0x20, 0x40 + place % 12, 0x80 + place.wrapping_mul(seed | 1) % 0x80];
        [0, seed].into_iter().chain((0..24).flat_map(step)).collect()
    };
    kept.chain((0..16).map(|number| schedule(number * 5))).collect()
}
