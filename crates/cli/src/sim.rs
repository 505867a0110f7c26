//! `bowline sim`: runs in virtual time.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bowline_emulator::mixture::{Mixture, failure_of, mixture};
use bowline_emulator::report::Report;
use bowline_emulator::virtual_run::{VirtualOptions, VirtualOutcome, run};
use bowline_lan::profile::Profile;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::exit::Exit;
use crate::lan::{parse_profile, write_history_file};
use crate::live::{Live, at};
use crate::out::{self, remark, tell};
use crate::scenarios;

mod exhaust;
mod explore;
mod explore_report;
mod mutants;
mod replay;
mod seed_thread;

#[derive(Subcommand)]
pub(crate) enum SimCommand {
    /// Runs one LAN scenario in virtual time.
    Run(RunCommand),
    /// Runs random mixtures of LAN faults in virtual time.
    Lan(MixturesCommand),
    /// Runs simulated clusters, each drawn from a seed, and looks for violations.
    Explore(explore::ExploreCommand),
    /// Runs one simulated cluster again and prints what happens.
    Replay(replay::ReplayCommand),
    /// Measures how fast simulated time passes.
    Speed(explore::SpeedCommand),
    /// Searches every order of events of a few replicas, within bounds.
    Exhaust(exhaust::ExhaustCommand),
    /// Runs mutation tests: shows which layer of tests notices which known bug.
    Mutants(mutants::MutantsCommand),
}

#[derive(Args)]
#[command(after_help = "Examples:
  bowline sim run                   the main job
  bowline sim run crash-4 --seed 7
  bowline sim run mine.json --seed 7 --html run.html")]
pub(crate) struct RunCommand {
    /// A scenario file, or the name of a built-in scenario.
    #[arg(default_value = scenarios::MAIN_JOB)]
    scenario: String,
    /// Seed of everything random [default: the scenario's, or else 1]
    #[arg(long)]
    seed: Option<u64>,
    /// Tuning of the replicas: frugal or paper.
    #[arg(long, default_value = "frugal", value_parser = parse_profile)]
    profile: Profile,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Also write the report as a web page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Also write the history of all operations, for `bowline check`.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Print events as they happen, with their virtual time.
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Args)]
#[command(after_help = "Examples:
  bowline sim lan --seeds 1000
  bowline sim lan --seed 17 --verbose   one mixture again, line by line")]
pub(crate) struct MixturesCommand {
    /// Number of mixtures.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run only the mixture of this seed.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Number of mixtures to run at once [default: one per processor]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// With --seed: also write the report as a web page.
    #[arg(long, value_name = "FILE", requires = "seed")]
    html: Option<PathBuf>,
    /// With --seed: print events as they happen, with their virtual time.
    #[arg(long, short, requires = "seed")]
    verbose: bool,
}

impl SimCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            SimCommand::Run(command) => command.run(),
            SimCommand::Lan(command) => match command.seed {
                Some(seed) => command.run_one(seed),
                None => command.run_all(),
            },
            SimCommand::Explore(command) => command.run(),
            SimCommand::Replay(command) => command.run(),
            SimCommand::Speed(command) => command.run(),
            SimCommand::Exhaust(command) => command.run(),
            SimCommand::Mutants(command) => command.run(),
        }
    }
}

impl RunCommand {
    fn run(self) -> anyhow::Result<Exit> {
        let scenario = scenarios::find(&self.scenario)?;
        let seed = self.seed.or(scenario.seed).unwrap_or(1);
        let options = VirtualOptions { seed, profile: self.profile, ..VirtualOptions::default() };
        let started = Instant::now();
        let outcome = run(scenario, options, &mut |time, note| {
            if self.verbose {
                remark!("{}  {note}", at(time));
            }
        })?;
        let took = started.elapsed();
        if let Some(file) = &self.history {
            write_history_file(file, &outcome.record)?;
        }
        let passed = tell(outcome, took, self.json, self.html.as_ref())?;
        Ok(Exit::of(passed))
    }
}

/// Prints a run's report. Returns whether the run passed.
fn tell(outcome: VirtualOutcome, took: Duration, as_json: bool, html: Option<&PathBuf>) -> anyhow::Result<bool> {
    let VirtualOutcome { record, trace_hash, .. } = outcome;
    let virtual_time = record.ended_at;
    let speed = virtual_time.as_secs_f64() / took.as_secs_f64();
    let mut report = Report::judged(record);
    report.program = Some("bowline, in virtual time".to_owned());
    if let Some(file) = html {
        fs::write(file, report.html()).with_context(|| format!("can't write {}", file.display()))?;
    }
    let passed = report.judgement.passed;
    if as_json {
        let mut value = report.json();
        value["trace_hash"] = json!(format!("{trace_hash:016x}"));
        value["took"] = json!(took.as_secs_f64());
        value["times_real_time"] = json!(speed);
        tell!("{value}")?;
    } else {
        out::print(report.text(true))?;
        tell!("trace hash {trace_hash:016x}")?;
        remark!("{virtual_time:.0?} in {took:.1?}: {speed:.0} times real time");
    }
    Ok(passed)
}

/// Why a mixture failed.
#[derive(Debug)]
struct Failure {
    seed: u64,
    why: String,
}

impl MixturesCommand {
    fn run_one(&self, seed: u64) -> anyhow::Result<Exit> {
        let Mixture { scenario, options } = mixture(seed);
        if self.verbose {
            remark!("{scenario:#?}\n{options:#?}");
        }
        let started = Instant::now();
        let outcome = run(scenario, options, &mut |time, note| {
            if self.verbose {
                remark!("{}  {note}", at(time));
            }
        })?;
        let took = started.elapsed();
        let failure = failure_of(&outcome.record);
        tell(outcome, took, self.json, self.html.as_ref())?;
        if let Some(why) = &failure {
            remark!("mixture {seed} failed: {why}");
        }
        Ok(Exit::of(failure.is_none()))
    }

    fn run_all(&self) -> anyhow::Result<Exit> {
        let available = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let jobs = self.jobs.unwrap_or(available).min(self.seeds);
        let live = Live::new(self.seeds, self.json);
        live.title("mixtures");
        let (next, done, virtual_nanos) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let failures = Mutex::new(Vec::new());
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.seeds {
                            return;
                        }
                        let seed = self.from.wrapping_add(number);
                        let Mixture { scenario, options } = mixture(seed);
                        let why = match run(scenario, options, &mut |_, _| {}) {
                            Ok(outcome) => {
                                let nanos = outcome.record.ended_at.as_nanos() as u64;
                                virtual_nanos.fetch_add(nanos, Ordering::Relaxed);
                                failure_of(&outcome.record)
                            }
                            Err(error) => Some(error.to_string()),
                        };
                        if let Some(why) = why {
                            live.say(&format!(
                                "mixture {seed} failed: {why}\n  bowline sim lan --seed {seed} --verbose"
                            ));
                            failures.lock().expect("no thread panics while it holds this").push(Failure { seed, why });
                        }
                        let finished = done.fetch_add(1, Ordering::Relaxed) + 1;
                        let rate = finished as f64 / started.elapsed().as_secs_f64();
                        live.step(finished, format!("{finished}/{} seeds, {rate:.0} a second", self.seeds));
                    }
                });
            }
        });
        live.end();
        let mut failures = failures.into_inner().expect("no thread panicked");
        failures.sort_by_key(|failure| failure.seed);
        let took = started.elapsed();
        let hours = virtual_nanos.into_inner() as f64 / 3.6e12;
        if self.json {
            let list: Vec<_> = failures.iter().map(|f| json!({ "seed": f.seed, "why": f.why })).collect();
            tell!(
                "{}",
                json!({
                    "seeds": self.seeds, "failed": list, "took": took.as_secs_f64(), "virtual_hours": hours,
                })
            )?;
        } else {
            tell!(
                "{} of {} mixtures passed: {hours:.1} virtual hours in {took:.1?}",
                self.seeds - failures.len() as u64,
                self.seeds,
            )?;
            for Failure { seed, why } in failures.iter().take(20) {
                tell!("  seed {seed}: {why}\n    replay: bowline sim lan --seed {seed} --verbose")?;
            }
        }
        Ok(Exit::of(failures.is_empty()))
    }
}
