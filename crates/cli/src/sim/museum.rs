//! `bowline sim museum`: which layer of tests notices which historic bug.

use clap::Args;

#[cfg(not(feature = "museum"))]
use crate::exit::Verdict;

#[derive(Args)]
#[command(after_help = "Examples (of a build with `--features museum`):
  bowline sim museum                      every mutant, then a control run of ten times the budget
  bowline sim museum --mutant CommitOldTermByCounting --seeds 2000
  bowline sim museum --absent             the bugs of the catalogue that are no mutants, and why")]
pub(crate) struct MuseumCommand {
    /// Only this mutant.
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// How many random schedules to try for each mutant.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    seeds: u64,
    /// How many states to search from each start for each mutant.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    states: u64,
    /// How many mutants at once; as many as there are processors if not given.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    /// Leave out the control run, of the core as it is.
    #[arg(long)]
    no_control: bool,
    /// Print the bugs of the catalogue that are no mutants, and why.
    #[arg(long)]
    absent: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[cfg(not(feature = "museum"))]
impl MuseumCommand {
    pub(crate) fn run(self) -> anyhow::Result<Verdict> {
        anyhow::bail!("this build has no museum, as no production build may have; build it with `--features museum`");
    }
}

#[cfg(feature = "museum")]
pub(crate) use visit::mutant_named;

#[cfg(feature = "museum")]
mod visit {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use anyhow::{Context, bail};
    use bowline_sim::museum::{Exhibit, Layer, Mutant, NOT_IN_THE_CORE, Schedules, Search, Stories, Timed, exhibit};
    use serde_json::{Value, json};

    use super::MuseumCommand;
    use crate::exit::Verdict;
    use crate::live::Live;

    /// How much more than the usual budget the control run gets.
    const CONTROL_TIMES: u64 = 10;

    pub(crate) fn mutant_named(name: &str) -> anyhow::Result<Mutant> {
        match Mutant::named(name) {
            Some(mutant) => Ok(mutant),
            None => {
                let names: Vec<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
                bail!("--mutant {name}: no such mutant; allowed: {}", names.join(", "))
            }
        }
    }

    impl MuseumCommand {
        pub(crate) fn run(self) -> anyhow::Result<Verdict> {
            if self.absent {
                for absent in NOT_IN_THE_CORE {
                    anstream::println!("{:>3}  {:<44} {}", absent.number, absent.name, absent.why);
                }
                return Ok(Verdict::Passed);
            }
            let stories = Stories::of_the_core().context("the stories of the core can't be read")?;
            let schedules = Schedules { seeds: 0..self.seeds };
            let search = Search { states: self.states };
            let layers: [&(dyn Layer + Sync); 3] = [&stories, &schedules, &search];
            let mut visitors: Vec<Option<Mutant>> = match &self.mutant {
                Some(name) => vec![Some(mutant_named(name)?)],
                None => Mutant::ALL.iter().copied().map(Some).collect(),
            };
            if !self.no_control {
                visitors.push(None);
            }
            let began = Instant::now();
            let exhibits = self.look(&visitors, &layers);
            let (control, mutants): (Vec<_>, Vec<_>) =
                exhibits.into_iter().partition(|exhibit| exhibit.mutant.is_none());
            let killed = mutants.iter().filter(|exhibit| exhibit.killed()).count();
            let quiet = control.iter().all(|exhibit| !exhibit.killed());
            if self.json {
                anstream::println!("{}", as_json(&mutants, &control, began.elapsed()));
            } else {
                print(&mutants, &control);
                let took = began.elapsed().as_secs_f64();
                anstream::println!("{killed} of {} mutants killed in {took:.0} s", mutants.len());
            }
            Ok(Verdict::of(killed == mutants.len() && quiet))
        }

        /// Hands each to every layer, several at once; the results are in the order of the catalogue.
        fn look(&self, visitors: &[Option<Mutant>], layers: &[&(dyn Layer + Sync)]) -> Vec<Exhibit> {
            let available = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
            let jobs = self.jobs.unwrap_or(available).min(visitors.len() as u64);
            let live = Live::new(visitors.len() as u64, self.json);
            live.title("mutants");
            let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let exhibits = Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                for _ in 0..jobs {
                    scope.spawn(|| {
                        let layers: Vec<&dyn Layer> = layers.iter().map(|layer| *layer as &dyn Layer).collect();
                        // The last, which takes longest, first: it is the control run.
                        let order = |number: usize| visitors.len().checked_sub(number + 1);
                        while let Some(at) = order(next.fetch_add(1, Ordering::Relaxed)) {
                            let times = if visitors[at].is_none() { CONTROL_TIMES } else { 1 };
                            let exhibit = exhibit(visitors[at], &layers, times);
                            let finished = done.fetch_add(1, Ordering::Relaxed) + 1;
                            live.step(finished as u64, format!("{finished}/{}", visitors.len()));
                            exhibits.lock().expect("no thread panics while it holds this").push((at, exhibit));
                        }
                    });
                }
            });
            live.end();
            let mut exhibits = exhibits.into_inner().expect("no thread panicked");
            exhibits.sort_by_key(|(at, _)| *at);
            exhibits.into_iter().map(|(_, exhibit)| exhibit).collect()
        }
    }

    fn cost(timed: &Timed) -> String {
        match &timed.finding.kill {
            Some(kill) => format!("{} ({})", kill.cost, kill.by),
            None => "-".to_owned(),
        }
    }

    fn print(mutants: &[Exhibit], control: &[Exhibit]) {
        anstream::println!("{:<27} {:<8} {:<17} {:<17} {:<19} time", "mutant", "number", "stories", "seeds", "states");
        for exhibit in mutants {
            let Some(mutant) = exhibit.mutant else { continue };
            let costs: Vec<String> = exhibit.findings.iter().map(cost).collect();
            let took: Duration = exhibit.findings.iter().map(|timed| timed.took).sum();
            let [stories, seeds, states] = [0, 1, 2].map(|at| costs.get(at).map_or("", String::as_str));
            let verdict = if exhibit.killed() { "" } else { "  SURVIVES" };
            anstream::println!(
                "{:<27} {:<8} {stories:<17} {seeds:<17} {states:<19} {:.1} s{verdict}",
                mutant.name(),
                mutant.origin(),
                took.as_secs_f64(),
            );
        }
        if let [exhibit] = mutants {
            for timed in &exhibit.findings {
                if let Some(kill) = &timed.finding.kill {
                    anstream::println!("{}, {}: {}", timed.layer, kill.at, kill.said);
                }
            }
        }
        for exhibit in control {
            for timed in &exhibit.findings {
                let said = match &timed.finding.kill {
                    Some(kill) => format!("ALARM at {}: {}", kill.at, kill.said),
                    None => "nothing".to_owned(),
                };
                let (spent, unit) = (timed.finding.spent, timed.unit);
                anstream::println!("control, {spent} {unit} in {:.0} s: {said}", timed.took.as_secs_f64());
            }
        }
    }

    fn findings(exhibit: &Exhibit) -> Vec<Value> {
        let finding = |timed: &Timed| {
            let kill = timed.finding.kill.as_ref();
            let kill = kill
                .map(|kill| json!({ "by": kill.by.to_string(), "said": kill.said, "cost": kill.cost, "at": kill.at }));
            json!({
                "layer": timed.layer, "unit": timed.unit, "spent": timed.finding.spent,
                "took": timed.took.as_secs_f64(), "kill": kill,
            })
        };
        exhibit.findings.iter().map(finding).collect()
    }

    fn as_json(mutants: &[Exhibit], control: &[Exhibit], took: Duration) -> Value {
        let list = mutants.iter().filter_map(|exhibit| {
            let mutant = exhibit.mutant?;
            Some(json!({
                "mutant": mutant.name(), "number": mutant.origin(), "breaks": mutant.breaks(),
                "killed": exhibit.killed(), "findings": findings(exhibit),
            }))
        });
        let list: Vec<Value> = list.collect();
        let control: Vec<Value> = control.iter().flat_map(findings).collect();
        json!({ "mutants": list, "control": control, "took": took.as_secs_f64() })
    }
}
