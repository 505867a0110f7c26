//! A short visit to the museum: every mutant of the core is noticed by some layer.
#![cfg(feature = "museum")]

use bowline_sim::museum::{Layer, Mutant, Schedules, Stories, exhibit};

#[test]
fn every_mutant_is_noticed_and_the_core_itself_is_not() {
    let stories = Stories::of_the_core().expect("the core's scripts are there");
    let schedules = Schedules { seeds: 0..std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60) };
    let layers: [&dyn Layer; 2] = [&stories, &schedules];
    for mutant in Mutant::ALL {
        let e = exhibit(Some(*mutant), &layers, 1);
        println!("{:28} {:8}", mutant.name(), mutant.origin());
        for t in &e.findings {
            match &t.finding.kill {
                Some(k) => println!("    {} {} {} {} {:?}: {:.150}", t.layer, k.cost, k.by, k.at, t.took, k.said),
                None => println!("    {} SURVIVED {:?}", t.layer, t.took),
            }
        }
    }
}
