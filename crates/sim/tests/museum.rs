//! A short visit to the museum: every mutant of the core is noticed by some layer, and the core itself by
//! none. The long one is `bowline sim museum`.
#![cfg(feature = "museum")]

use bowline_sim::museum::{Layer, Mutant, NOT_IN_THE_CORE, Schedules, Search, Stories, exhibit};

/// These take longer than a short visit: with more seeds the schedules find them.
const LONG: [Mutant; 2] = [Mutant::UpToDateByLength, Mutant::CountStaleVotes];

#[test]
fn every_mutant_is_noticed_and_the_core_itself_is_not() {
    let stories = Stories::of_the_core().expect("the core's scripts are there");
    let (schedules, search) = (Schedules { seeds: 0..100 }, Search { states: 10_000 });
    let layers: [&dyn Layer; 3] = [&stories, &schedules, &search];
    let control = exhibit(None, &layers, 2);
    assert!(!control.killed(), "the core itself raises an alarm: {control:#?}");
    // The layers in turn, until one notices.
    let noticed = |mutant: &Mutant| layers.iter().any(|layer| exhibit(Some(*mutant), &[*layer], 1).killed());
    let surviving: Vec<_> = Mutant::ALL.iter().filter(|mutant| !LONG.contains(mutant) && !noticed(mutant)).collect();
    assert!(surviving.is_empty(), "not noticed by any layer: {surviving:?}");
}

#[test]
fn every_mutant_has_a_name_of_its_own_and_says_what_it_breaks() {
    assert!(Mutant::ALL.len() >= 70);
    for mutant in Mutant::ALL {
        assert_eq!(Mutant::named(mutant.name()), Some(*mutant));
        assert!(mutant.breaks().ends_with('.') && !mutant.origin().is_empty());
    }
    assert!(NOT_IN_THE_CORE.iter().all(|absent| !absent.why.is_empty()));
}
