//! A short visit to the museum: every mutant of the core is noticed by some layer, and the core itself by
//! none. The long one is `bowline sim museum`.
#![cfg(feature = "museum")]

use std::fs;
use std::path::Path;

use bowline_sim::museum::{Layer, Mutant, NOT_IN_THE_CORE, Schedules, Search, Stories, Worlds, is_core, look_for};

/// These take longer than a short visit: with more seeds the schedules find them.
const LONG: [Mutant; 2] = [Mutant::UpToDateByLength, Mutant::CountStaleVotes];

fn stories() -> Stories {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../raft/tests/scripts");
    let entries = fs::read_dir(folder).expect("the core's scripts are there").map(|entry| entry.expect("readable"));
    let read = |path: &Path| fs::read_to_string(path).expect("a readable script");
    Stories::of(entries.map(|it| (it.file_name().to_string_lossy().into_owned(), read(&it.path()))).collect())
}

#[test]
fn every_mutant_is_noticed_and_the_core_itself_is_not() {
    let stories = stories();
    let (schedules, search, worlds) = (Schedules { seeds: 0..100 }, Search { states: 10_000 }, Worlds { seeds: 1..64 });
    let layers: [&dyn Layer; 4] = [&stories, &schedules, &search, &worlds];
    for layer in layers {
        let control = look_for(layer, None, 2);
        assert_eq!(control.kill, None, "the core itself raises an alarm in {}", layer.name());
    }
    // The layers in turn, until one notices.
    let noticed = |mutant: &Mutant| layers.iter().any(|layer| look_for(*layer, Some(*mutant), 1).kill.is_some());
    let surviving: Vec<_> = Mutant::ALL.iter().filter(|mutant| !LONG.contains(mutant) && !noticed(mutant)).collect();
    assert!(surviving.is_empty(), "not noticed by any layer: {surviving:?}");
}

#[test]
fn every_mutant_has_a_name_of_its_own_and_says_what_it_breaks() {
    assert!(Mutant::ALL.len() >= 70);
    assert!(Mutant::ALL.iter().filter(|mutant| is_core(**mutant)).count() >= 30);
    for mutant in Mutant::ALL {
        assert_eq!(Mutant::named(mutant.name()), Some(*mutant));
        assert!(mutant.breaks().ends_with('.') && !mutant.origin().is_empty());
    }
    assert!(NOT_IN_THE_CORE.iter().all(|absent| !absent.why.is_empty()));
}
