//! Reports what a search found and what it exercised.

use std::fmt::Write as _;
use std::time::Duration;

use bowline_sim::cluster::{Coverage, Probe, Reduction, Summary, Violation};
use bowline_sim::mutation;
use serde_json::{Value, json};

/// From this many seeds on, a rare path that was never taken is a failure.
const ENOUGH_SEEDS: u64 = 2_000;

/// A cluster with a violation.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) violation: Violation,
    pub(crate) reduction: Reduction,
}

/// Sums over all clusters.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) seeds: u64,
    pub(crate) failures: Vec<Failure>,
    twice: u64,
    simulated: u64,
    events: u64,
    begun: u64,
    done: u64,
    committed: u64,
    elections: u64,
    coverage: Coverage,
}

/// The command that runs a cluster again.
pub(crate) fn replay_command(seed: u64, reduction: &Reduction) -> String {
    let mutant = mutation::chosen().map_or(String::new(), |mutant| format!(" --mutant {}", mutant.name));
    format!("bowline sim replay {seed}{reduction}{mutant}")
}

impl Totals {
    pub(crate) fn add(&mut self, outcome: &Summary, twice: bool) {
        self.seeds += 1;
        self.twice += u64::from(twice);
        self.simulated += outcome.simulated;
        self.events += outcome.events;
        self.begun += outcome.operations.0;
        self.done += outcome.operations.1;
        self.committed += outcome.committed;
        self.elections += outcome.elections;
        self.coverage.add(&outcome.coverage);
    }

    fn hours(&self) -> f64 {
        self.simulated as f64 / 3.6e12
    }

    /// The progress, in one line.
    pub(crate) fn line(&self, elapsed: Duration) -> String {
        let rate = self.seeds as f64 / elapsed.as_secs_f64();
        let failed = self.failures.len();
        format!("{} seeds, {rate:.1} a second, {:.1} simulated hours, {failed} failed", self.seeds, self.hours())
    }

    fn missed(&self) -> Vec<Probe> {
        self.coverage.by_probe().filter(|(_, count)| *count == 0).map(|(probe, _)| probe).collect()
    }

    pub(crate) fn passed(&self) -> bool {
        self.failures.is_empty() && (self.seeds < ENOUGH_SEEDS || self.missed().is_empty())
    }

    pub(crate) fn text(&self, took: Duration) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "{:>12}  fault", "times");
        for (fault, count) in self.coverage.by_fault() {
            let _ = writeln!(out, "{count:>12}  {:<6} {}", fault.code(), fault.title());
        }
        let _ = writeln!(out, "\n{:>12}  rare path", "times");
        for (probe, count) in self.coverage.by_probe() {
            let _ = writeln!(out, "{count:>12}  {}", probe.title());
        }
        let _ = writeln!(
            out,
            "\n{} seeds ({} of them twice) in {took:.1?}: {:.1} a second, {:.1} simulated hours, {} events\n\
             {} operations, {} done; {} entries committed, {} elections",
            self.seeds,
            self.twice,
            self.seeds as f64 / took.as_secs_f64(),
            self.hours(),
            self.events,
            self.begun,
            self.done,
            self.committed,
            self.elections,
        );
        let missed = self.missed();
        if !missed.is_empty() {
            let verdict = if self.seeds < ENOUGH_SEEDS { "not yet taken" } else { "NEVER TAKEN" };
            let names: Vec<String> = missed.iter().map(|probe| format!("{probe:?}")).collect();
            let _ = writeln!(out, "rare paths {verdict}: {}", names.join(", "));
        }
        for failure in &self.failures {
            let _ = writeln!(out, "seed {} FAILED: {}", failure.seed, failure.violation);
            let _ = writeln!(out, "  {}", replay_command(failure.seed, &failure.reduction));
        }
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        let _ = writeln!(out, "{verdict}");
        out
    }

    pub(crate) fn json(&self, took: Duration) -> Value {
        let failures: Vec<Value> = self
            .failures
            .iter()
            .map(|failure| {
                json!({ "seed": failure.seed, "rule": failure.violation.rule.title(),
                    "what": failure.violation.what, "at": failure.violation.at as f64 / 1e9,
                    "replay": replay_command(failure.seed, &failure.reduction) })
            })
            .collect();
        let faults: serde_json::Map<String, Value> =
            self.coverage.by_fault().map(|(fault, count)| (format!("{fault:?}"), json!(count))).collect();
        let probes: serde_json::Map<String, Value> =
            self.coverage.by_probe().map(|(probe, count)| (format!("{probe:?}"), json!(count))).collect();
        json!({
            "passed": self.passed(), "seeds": self.seeds, "twice": self.twice, "took": took.as_secs_f64(),
            "simulated_hours": self.hours(), "events": self.events, "operations": self.begun, "done": self.done,
            "committed": self.committed, "elections": self.elections,
            "failures": failures, "faults": faults, "probes": probes,
        })
    }
}
