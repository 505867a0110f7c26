//! The layers of tests that look for mutants.
//!
//! This crate's tests run them without mutants; a copy with mutants has them built in.

// The hosts, oracles, scripts and schedules of the core's own tests.
#[path = "../../../raft/tests/support/mod.rs"]
mod support;

use std::ops::Range;

use crate::cluster::{Plan, Rule, run};
use crate::exhaust::{STARTS, explore};
use crate::mutation::{Budget, Check, Kill, LAYERS, Layer, Look, Mutant, chosen};
use crate::panics::{Panic, caught};
use support::schedule::{Flavour, Schedule};
use support::script::Script;

/// All layers, in the order of [`LAYERS`]. `scripts` are the golden scripts, each with its name.
#[must_use]
#[allow(unreachable_pub, reason = "a program with mutants has it in its interface")]
pub fn layers(scripts: Vec<(String, String)>, budget: &Budget) -> Vec<Box<dyn Layer>> {
    let Budget { seeds, from, states } = *budget;
    let all: [Box<dyn Layer>; LAYERS.len()] = [
        Box::new(Scripts::of(scripts)),
        Box::new(Seeds { name: "schedules", seeds: 0..seeds, run: schedule }),
        Box::new(Search { states }),
        Box::new(Seeds { name: "clusters", seeds: from..from + seeds, run: cluster }),
    ];
    all.into()
}

/// The golden scripts of the core.
struct Scripts {
    scripts: Vec<(String, String)>,
}

impl Scripts {
    /// Makes the layer of these scripts, each with its name and text.
    fn of(mut scripts: Vec<(String, String)>) -> Scripts {
        scripts.sort();
        Scripts { scripts }
    }

    /// How a script's output differs from what is written, if it does.
    fn deviation(text: &str) -> Option<(Check, String)> {
        match caught(|| goldenscript::generate(&mut Script::default(), text)) {
            Err(panic) => Some((whose(&panic), panic.said)),
            Ok(Err(error)) => Some((Check::Script, error.to_string())),
            Ok(Ok(told)) => {
                let differs = told.lines().zip(text.lines()).find(|(told, written)| told != written);
                let longer = (told != text).then_some((Check::Script, "the output has another length".to_owned()));
                differs.map(|(told, written)| (Check::Script, format!("“{told}” instead of “{written}”"))).or(longer)
            }
        }
    }
}

impl Layer for Scripts {
    fn name(&self) -> &'static str {
        "scripts"
    }

    fn unit(&self) -> &'static str {
        "scripts"
    }

    fn pieces(&self, _: u64) -> u64 {
        1
    }

    /// Runs all scripts. The cost is the number of scripts that notice; the place is the mutant's own script, or the
    /// first that notices.
    fn look_at(&self, _: u64, _: u64) -> Look {
        let deviating = self.scripts.iter().filter_map(|(name, text)| Some((name, Self::deviation(text)?)));
        let deviating: Vec<_> = deviating.collect();
        // The script of this bug comes before others that happen to notice it.
        let own = deviating.iter().find(|(name, _)| chosen().is_some_and(|mutant| is_script_of(name, mutant)));
        let kill = own.or(deviating.first()).map(|(name, (by, said))| Kill {
            by: *by,
            said: said.clone(),
            cost: deviating.len() as u64,
            at: (*name).clone(),
        });
        Look { kill, spent: self.scripts.len() as u64 }
    }
}

/// Whether a script's S-number is one of the mutant's.
fn is_script_of(script: &str, mutant: &Mutant) -> bool {
    let number = |text: &str| text.split(['_', ',']).next().and_then(|word| word.trim()[1..].parse::<u32>().ok());
    let numbers = mutant.origin.split(", ").filter(|word| word.starts_with('S')).filter_map(number);
    script.starts_with('s') && numbers.into_iter().any(|wanted| number(script) == Some(wanted))
}

/// Runs that a seed decides.
struct Seeds {
    name: &'static str,
    /// The seeds of the usual budget; a larger budget continues after its end.
    seeds: Range<u64>,
    /// Runs one seed. Returns how the mutant was noticed, if it was.
    run: fn(u64) -> Option<(Check, String)>,
}

impl Layer for Seeds {
    fn name(&self) -> &'static str {
        self.name
    }

    fn unit(&self) -> &'static str {
        "seeds"
    }

    fn pieces(&self, times: u64) -> u64 {
        (self.seeds.end - self.seeds.start) * times
    }

    fn look_at(&self, piece: u64, _: u64) -> Look {
        let seed = self.seeds.start + piece;
        let kill = (self.run)(seed).map(|(by, said)| Kill { by, said, cost: 1, at: format!("seed {seed}") });
        Look { kill, spent: 1 }
    }
}

/// A random schedule of a few replicas, with the oracles and drills of the core's own tests.
fn schedule(seed: u64) -> Option<(Check, String)> {
    let flavours = [Flavour::Plain, Flavour::Membership, Flavour::Snapshots, Flavour::Everything];
    let flavour = flavours[(seed % 4) as usize];
    let outcome = caught(|| Schedule::new(seed, flavour).run());
    outcome.err().map(|panic| (whose(&panic), panic.said))
}

/// A simulated cluster: the same seeds that `bowline sim explore` searches.
///
/// A cluster that does not run what the mutant changes can't notice it, so its run is left out.
fn cluster(seed: u64) -> Option<(Check, String)> {
    let plan = Plan::drawn(seed);
    if !plan.has_states_on_disk() && chosen().is_some_and(is_of_whole_members) {
        return None;
    }
    let violation = run(&plan, None).violation?;
    let by = match violation.rule {
        Rule::Assertion | Rule::NoReplicaHalts => Check::Assertion,
        rule if rule.is_of_liveness() => Check::Liveness,
        Rule::Refinement => Check::Model,
        Rule::Linearizable => Check::History,
        _ => Check::Oracle,
    };
    Some((by, violation.to_string()))
}

/// Whether only whole members run what a mutant changes. All hosts with records do the duties.
fn is_of_whole_members(mutant: &Mutant) -> bool {
    let is_of_them = |file: &str| file.starts_with("crates/member/src/") && !file.contains("/duties");
    mutant.edits.iter().all(|edit| is_of_them(edit.file))
}

/// The exhaustive search, from every start in turn.
struct Search {
    /// Number of states from each start.
    states: u64,
}

impl Layer for Search {
    fn name(&self) -> &'static str {
        "search"
    }

    fn unit(&self) -> &'static str {
        "states"
    }

    fn pieces(&self, _: u64) -> u64 {
        STARTS.len() as u64
    }

    fn look_at(&self, piece: u64, times: u64) -> Look {
        // The last starts first: they are just before a known bug can show.
        let start = &STARTS[STARTS.len() - 1 - piece as usize];
        let report = explore(start, self.states * times, &mut |_, _| true);
        let kill = report.violation.map(|violation| {
            let by = match &violation.rule {
                rule if rule.starts_with("assertion") => Check::Assertion,
                // The steps before the start can't be played: nobody is elected.
                rule if rule.contains("can't win") => Check::Liveness,
                _ => Check::Oracle,
            };
            let at = format!("start {}, {} steps", start.name, violation.steps);
            Kill { by, said: violation.rule, cost: report.states, at }
        });
        Look { kill, spent: report.states }
    }
}

/// The kind of check that a panic belongs to.
fn whose(panic: &Panic) -> Check {
    if panic.file.contains("raft/src/") || panic.said.contains(" halts: ") {
        Check::Assertion
    } else if panic.file.ends_with("schedule.rs") || panic.file.ends_with("drills.rs") {
        Check::Liveness
    } else {
        Check::Oracle
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::look_for;

    #[test]
    fn where_there_is_no_mutant_no_layer_raises_an_alarm() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../raft/tests/scripts");
        let entries = std::fs::read_dir(folder).expect("the core's scripts").map(|entry| entry.expect("readable"));
        let read = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path()).expect("a readable script");
        let scripts = entries.map(|it| (it.file_name().to_string_lossy().into_owned(), read(it))).collect();
        let layers = layers(scripts, &Budget { seeds: 60, from: 1, states: 10_000 });
        assert_eq!(layers.iter().map(|layer| layer.name()).collect::<Vec<_>>(), LAYERS);
        for layer in layers {
            assert_eq!(look_for(&*layer, 1).kill, None, "{}", layer.name());
        }
    }

    #[test]
    fn clusters_without_whole_members_are_left_out_only_for_mutants_of_members() {
        let is_of_them = |name| is_of_whole_members(Mutant::named(name).expect("a mutant"));
        for name in ["FirstStateChosen", "StoppedMeansNotDone", "CompactedBeforeStored"] {
            assert!(is_of_them(name), "{name}");
        }
        for name in ["WrittenOnce", "RewrittenWithoutLabel", "VoteNotPersisted"] {
            assert!(!is_of_them(name), "{name}");
        }
    }

    #[test]
    fn a_panic_has_an_owner() {
        let by = |file: &str, said: &str| whose(&Panic { file: file.to_owned(), said: said.to_owned() });
        assert_eq!(by("crates/raft/src/log.rs", ""), Check::Assertion);
        assert_eq!(by("crates/raft/tests/support/drills.rs", ""), Check::Liveness);
        assert_eq!(by("crates/raft/tests/support/cluster.rs", "n1 halts: x"), Check::Assertion);
        assert_eq!(by("crates/raft/tests/support/oracle.rs", "n1 votes twice"), Check::Oracle);
    }
}
