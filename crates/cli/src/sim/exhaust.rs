//! `bowline sim exhaust`: searches every order of events, within bounds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use bowline_sim::exhaust::{Report, STARTS, Start, explore};
use bowline_sim::mutation::Mutant;
use clap::Args;
use serde_json::{Value, json};

use super::mutants::{carry, mutant_named};
use crate::exit::Exit;
use crate::live::Live;
use crate::out::{Unprinted, tell};

#[derive(Args)]
#[command(after_help = "Examples:
  bowline sim exhaust                 four million states from each start
  bowline sim exhaust --start figure-8 --states 50000000
  bowline sim exhaust --start figure-8 --mutant CommitOldTermByCounting")]
pub(crate) struct ExhaustCommand {
    /// Stop after this many distinct states from each start.
    #[arg(long, default_value_t = 4_000_000, value_parser = clap::value_parser!(u64).range(1..=4_000_000_000))]
    states: u64,
    /// Stop after this many minutes for each start.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: u64,
    /// Search only from this start; may be given several times [default: all starts]
    #[arg(long, value_name = "NAME")]
    start: Vec<String>,
    /// Run all replicas with this mutant; see `bowline sim mutants`.
    #[arg(long, value_name = "NAME", value_parser = mutant_named)]
    mutant: Option<&'static Mutant>,
    /// Number of starts to search at once [default: one per processor]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

impl ExhaustCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let starts = self.starts()?;
        carry(self.mutant)?;
        let longest = Duration::from_secs(self.minutes * 60);
        let available = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let jobs = self.jobs.unwrap_or(available).min(starts.len() as u64);
        let live = Live::new(self.states.saturating_mul(starts.len() as u64), self.json);
        live.title("states");
        let began = Instant::now();
        let (next, reached) = (AtomicUsize::new(0), starts.iter().map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
        let reports = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while let Some((number, start)) =
                        starts.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let started = Instant::now();
                        let report = explore(start, self.states, &mut |states, depth| {
                            reached[number].store(states, Ordering::Relaxed);
                            let all: u64 = reached.iter().map(|count| count.load(Ordering::Relaxed)).sum();
                            live.step(all, format!("{all} states, {} at depth {depth}", start.name));
                            started.elapsed() < longest
                        });
                        reached[number].store(report.states, Ordering::Relaxed);
                        reports.lock().expect("no thread panics while it holds this").push((
                            number,
                            report,
                            started.elapsed(),
                        ));
                    }
                });
            }
        });
        live.end();
        let mut reports = reports.into_inner().expect("no thread panicked");
        reports.sort_by_key(|(number, ..)| *number);
        let found = reports.iter().any(|(_, report, _)| report.violation.is_some());
        let reports: Vec<Search> =
            reports.into_iter().map(|(number, report, took)| Search { start: starts[number], report, took }).collect();
        match self.json {
            true => tell!("{}", as_json(&reports, began.elapsed()))?,
            false => print(&reports, began.elapsed())?,
        }
        Ok(Exit::of(!found))
    }

    fn starts(&self) -> anyhow::Result<Vec<&'static Start>> {
        let find = |name: &String| match STARTS.iter().find(|start| start.name == name) {
            Some(start) => Ok(start),
            None => {
                let names: Vec<_> = STARTS.iter().map(|start| start.name).collect();
                bail!("--start {name}: no such start; allowed: {}", names.join(", "))
            }
        };
        if self.start.is_empty() { Ok(STARTS.iter().collect()) } else { self.start.iter().map(find).collect() }
    }
}

/// A search, and how long it took.
struct Search {
    start: &'static Start,
    report: Report,
    took: Duration,
}

fn print(reports: &[Search], took: Duration) -> Result<(), Unprinted> {
    let header = ["start", "states", "steps", "depth", "replica states", "tables", "time", ""];
    let [start, states, steps, depth, replicas, tables, time, result] = header;
    tell!("{start:<9} {states:>11} {steps:>12} {depth:>6} {replicas:>15} {tables:>8} {time:>8}  {result}")?;
    for Search { start, report, took } in reports {
        let result = match &report.violation {
            Some(violation) => format!("violation after {} steps", violation.steps),
            None if report.exhausted => "no violation, all states searched".to_owned(),
            None => "no violation".to_owned(),
        };
        tell!(
            "{:<9} {:>11} {:>12} {:>6} {:>15} {:>5} MB {:>6.1} s  {result}",
            start.name,
            report.states,
            report.steps,
            report.depth,
            report.replica_states,
            report.table_bytes / 1_000_000,
            took.as_secs_f64(),
        )?;
    }
    let all: u64 = reports.iter().map(|search| search.report.states).sum();
    let memory = peak_memory().map_or(String::new(), |bytes| format!(", peak memory {} MB", bytes / 1_000_000));
    tell!("{all} states in {:.1} s{memory}", took.as_secs_f64())?;
    for Search { start, report, .. } in reports {
        if let Some(violation) = &report.violation {
            tell!("\n{}: {}\n{}", start.name, violation.rule, start.about)?;
            violation.trace.iter().try_for_each(|line| tell!("{line}"))?;
        }
    }
    Ok(())
}

fn as_json(reports: &[Search], all_took: Duration) -> Value {
    let searches: Vec<Value> = reports
        .iter()
        .map(|Search { start, report, took }| {
            let violation = report
                .violation
                .as_ref()
                .map(|violation| json!({ "rule": violation.rule, "steps": violation.steps, "trace": violation.trace }));
            json!({
                "start": start.name, "states": report.states, "steps": report.steps, "depth": report.depth,
                "beyond_bounds": report.beyond_bounds, "widest": report.widest, "exhausted": report.exhausted,
                "replica_states": report.replica_states, "messages": report.messages,
                "table_bytes": report.table_bytes, "took": took.as_secs_f64(), "violation": violation,
            })
        })
        .collect();
    let states: u64 = reports.iter().map(|search| search.report.states).sum();
    json!({ "states": states, "took": all_took.as_secs_f64(), "peak_memory": peak_memory(), "searches": searches })
}

/// The peak memory of this process in bytes, if the system tells it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
