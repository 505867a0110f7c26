//! `bowline sim explore` and `speed`: run simulated clusters, seed after seed.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bowline_sim::cluster::{Plan, Reduction, Rule, Shrinking, Summary, Violation, run, shrink_while};
use bowline_sim::mutation::Mutant;
use clap::Args;
use serde_json::json;

use super::explore_report::{Failure, Totals, replay_command};
use super::mutants::{carry, mutant_named};
use super::replay::write_page;
use super::seed_thread::on_its_own;
use crate::exit::Exit;
use crate::live::Live;
use crate::out::{self, tell};

/// One in this many seeds is run twice.
const TWICE_EVERY: u64 = 20;
/// Time limit for making one failing cluster smaller.
const SHRINK_AT_MOST: Duration = Duration::from_secs(60);
/// Maximum number of failures that are made smaller.
const SHRUNK: usize = 3;

#[derive(Args)]
#[command(after_help = "Examples:
  bowline sim explore --seeds 2000
  bowline sim explore --minutes 30 --from 1000000
  bowline sim explore --html failure.html  draw a failure as a web page

Exit codes: 0 no violation; 1 a violation, or a rare path that was never taken in 2,000 seeds or \
more; 2 bad input.")]
pub(crate) struct ExploreCommand {
    /// Number of seeds.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    seeds: u64,
    /// Run for this many minutes instead.
    #[arg(long, conflicts_with = "seeds", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: Option<u64>,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Number of clusters to run at once [default: one per processor]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    /// Maximum number of runs to make a failing cluster smaller.
    #[arg(long, value_name = "RUNS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    shrink: u64,
    /// Also write a web page of a failing seed, made as small as possible.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Run all replicas with this mutant; see `bowline sim mutants`.
    #[arg(long, value_name = "NAME", value_parser = mutant_named)]
    mutant: Option<&'static Mutant>,
    /// End the search after this many failures.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    failures: u64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct SpeedCommand {
    /// How long to measure, in seconds of real time.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Number of clusters to run at once [default: one per processor]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    /// Don't check the steps against the reference model, to measure what that costs.
    #[arg(long)]
    unwatched: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

fn job_count(jobs: Option<u64>) -> u64 {
    jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |count| count.get() as u64))
}

/// Silences the messages of panics: a violated assertion is reported with its seed.
pub(crate) fn silence_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

impl ExploreCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        carry(self.mutant)?;
        silence_panics();
        let live = Live::new(if self.minutes.is_some() { 1000 } else { self.seeds }, self.json);
        live.title("clusters");
        let search = Search {
            from: self.from,
            seeds: if self.minutes.is_some() { u64::MAX } else { self.seeds },
            until: self.minutes.map(|minutes| Duration::from_secs(minutes * 60)),
            shrink: self.shrink as usize,
            most_failures: self.failures as usize,
            live,
            started: Instant::now(),
            next: AtomicU64::new(0),
            full: AtomicBool::new(false),
            totals: Mutex::new(Totals::default()),
        };
        std::thread::scope(|scope| {
            for _ in 0..job_count(self.jobs) {
                scope.spawn(|| search.work());
            }
        });
        search.live.end();
        let took = search.started.elapsed();
        let mut totals = search.totals.into_inner().expect("no thread panicked");
        totals.failures.sort_by_key(|failure| failure.seed);
        // Prefer a cluster that was made smaller: it is easier to read.
        let smaller = totals.failures.iter().find(|failure| !failure.reduction.is_empty());
        if let (Some(file), Some(failure)) = (&self.html, smaller.or(totals.failures.first())) {
            let mut plan = Plan::drawn(failure.seed);
            failure.reduction.apply(&mut plan);
            write_page(&plan, &replay_command(failure.seed, &failure.reduction), file)?;
            search.live.say(&format!("wrote {}", file.display()));
        }
        if self.json {
            tell!("{}", totals.json(took))?;
        } else {
            out::print(totals.text(took))?;
        }
        Ok(Exit::of(totals.passed()))
    }
}

/// A running search.
struct Search {
    from: u64,
    seeds: u64,
    until: Option<Duration>,
    /// Runs to make a failing cluster smaller.
    shrink: usize,
    most_failures: usize,
    live: Live,
    started: Instant,
    next: AtomicU64,
    /// Whether enough failures were found.
    full: AtomicBool,
    totals: Mutex<Totals>,
}

impl Search {
    fn work(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let late = self.until.is_some_and(|until| self.started.elapsed() >= until);
            if number >= self.seeds || late || self.full.load(Ordering::Relaxed) {
                return;
            }
            let seed = self.from.wrapping_add(number);
            let plan = Plan::drawn(seed);
            let mut outcome = on_its_own(seed, "", || run(&plan, None));
            let twice = number.is_multiple_of(TWICE_EVERY);
            if twice && outcome.violation.is_none() {
                outcome.violation = differs(&outcome, &on_its_own(seed, ", for the second time", || run(&plan, None)));
            }
            self.note(seed, &plan, &outcome, twice);
        }
    }

    fn note(&self, seed: u64, plan: &Plan, outcome: &Summary, twice: bool) {
        if let Some(violation) = &outcome.violation {
            self.failed(seed, plan, violation);
        }
        let mut totals = self.totals.lock().expect("no thread panics while it holds this");
        totals.add(outcome, twice);
        let elapsed = self.started.elapsed();
        let done = match self.until {
            Some(until) => (elapsed.as_secs_f64() / until.as_secs_f64() * 1000.0) as u64,
            None => totals.seeds,
        };
        self.live.step(done, totals.line(elapsed));
    }

    fn failed(&self, seed: u64, plan: &Plan, violation: &Violation) {
        let known = self.totals.lock().expect("no thread panics while it holds this").failures.len();
        let (reduction, found) = match known < SHRUNK && violation.rule != Rule::Deterministic && self.shrink > 0 {
            true => self.smaller(seed, plan, violation),
            false => (Reduction::default(), violation.clone()),
        };
        let command = replay_command(seed, &reduction);
        self.live.say(&format!("seed {seed} FAILED: {found}\n  {command}"));
        let mut totals = self.totals.lock().expect("no thread panics while it holds this");
        totals.failures.push(Failure { seed, violation: found, reduction });
        if totals.failures.len() >= self.most_failures {
            self.full.store(true, Ordering::Relaxed);
        }
    }

    fn smaller(&self, seed: u64, plan: &Plan, violation: &Violation) -> (Reduction, Violation) {
        let began = Instant::now();
        let mut go_on = |Shrinking { runs, budget, leaving_out, left }: Shrinking| {
            let (strikes, operations) = left;
            self.live.message(format!(
                "seed {seed} failed; leaving out {leaving_out}: {strikes} strikes and {operations} operations left, \
                 run {runs} of at most {budget}"
            ));
            began.elapsed() < SHRINK_AT_MOST
        };
        on_its_own(seed, ", made smaller", || {
            shrink_while(plan, &Reduction::default(), violation, self.shrink, &mut go_on)
        })
    }
}

/// A violation if two runs of a seed differ in anything.
fn differs(first: &Summary, second: &Summary) -> Option<Violation> {
    (first != second).then(|| Violation {
        rule: Rule::Deterministic,
        what: format!("trace hashes {:016x} and {:016x}", first.trace_hash, second.trace_hash),
        at: first.simulated,
    })
}

impl SpeedCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        silence_panics();
        let (next, totals) = (AtomicU64::new(1), Mutex::new((0_u64, 0_u64, 0_u64, None)));
        let started = Instant::now();
        let until = Duration::from_secs(self.seconds);
        std::thread::scope(|scope| {
            for _ in 0..job_count(self.jobs) {
                scope.spawn(|| {
                    while started.elapsed() < until {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        let outcome = on_its_own(seed, " of the standard cluster", || {
                            let mut plan = Plan::standard(seed, Duration::from_mins(10));
                            plan.watched = !self.unwatched;
                            run(&plan, None)
                        });
                        let mut totals = totals.lock().expect("no thread panics while it holds this");
                        totals.0 += outcome.simulated;
                        totals.1 += outcome.events;
                        totals.2 += outcome.operations.1;
                        totals.3 = totals.3.take().or(outcome.violation);
                    }
                });
            }
        });
        let took = started.elapsed().as_secs_f64();
        let (simulated, events, done, violation) = totals.into_inner().expect("no thread panicked");
        let hours = simulated as f64 / 3.6e12;
        let (per_minute, rate) = (hours / took * 60.0, done as f64 / (simulated as f64 / 1e9));
        if self.json {
            let value = json!({ "hours_per_minute": per_minute, "hours": hours, "seconds": took, "events": events,
                "operations_per_second": rate, "violation": violation.as_ref().map(ToString::to_string) });
            tell!("{value}")?;
        } else {
            tell!(
                "five members, {rate:.0} client operations a second, every check on:\n\
                 {per_minute:.1} simulated hours per minute ({hours:.1} hours in {took:.1} s, {:.2} million events per second)",
                events as f64 / took / 1e6,
            )?;
            if let Some(violation) = &violation {
                tell!("VIOLATED: {violation}")?;
            }
        }
        Ok(Exit::of(violation.is_none()))
    }
}
