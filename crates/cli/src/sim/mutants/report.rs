//! Reports what the layers found: a table for people, JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use bowline_sim::mutation::{Finding, Layer, Mutant};
use serde_json::{Value, json};

/// A layer's finding, and how long it took.
#[derive(Clone, Debug)]
pub(super) struct Timed {
    pub(super) layer: &'static str,
    pub(super) unit: &'static str,
    pub(super) finding: Finding,
    pub(super) took: Duration,
}

/// What the layers found with a mutant, or without one in the control run.
#[derive(Clone, Debug)]
pub(super) struct Searched {
    pub(super) mutant: Option<&'static Mutant>,
    pub(super) findings: Vec<Timed>,
}

impl Searched {
    fn killed(&self) -> bool {
        self.findings.iter().any(|timed| timed.finding.kill.is_some())
    }

    fn cost(&self, layer: &str) -> Option<u64> {
        let timed = self.findings.iter().find(|timed| timed.layer == layer)?;
        timed.finding.kill.as_ref().map(|kill| kill.cost)
    }
}

/// The results of all mutants and of the control run.
#[derive(Clone, Debug)]
pub(super) struct Results {
    pub(super) searched: Vec<Searched>,
    pub(super) control: Option<Searched>,
    pub(super) took: Duration,
}

/// How a layer did with a group of mutants.
struct Score {
    killed: usize,
    of: usize,
    /// The median cost over all mutants of the group; `None` if fewer than half were killed.
    median: Option<u64>,
}

impl Results {
    pub(super) fn killed(&self) -> usize {
        self.searched.iter().filter(|searched| searched.killed()).count()
    }

    /// Whether the control run raised no alarm.
    pub(super) fn quiet(&self) -> bool {
        self.control.as_ref().is_none_or(|control| !control.killed())
    }

    /// The fraction of the core mutants that a layer killed.
    pub(super) fn share_of_core(&self, layer: &str) -> f64 {
        let score = self.score(layer, true);
        if score.of == 0 { 1.0 } else { score.killed as f64 / score.of as f64 }
    }

    fn score(&self, layer: &str, core_only: bool) -> Score {
        let counts = |searched: &&Searched| !core_only || searched.mutant.is_some_and(Mutant::is_core);
        let mut costs: Vec<u64> =
            self.searched.iter().filter(counts).map(|searched| searched.cost(layer).unwrap_or(u64::MAX)).collect();
        costs.sort_unstable();
        let median = costs.get(costs.len().saturating_sub(1) / 2).copied().filter(|cost| *cost < u64::MAX);
        Score { killed: costs.iter().filter(|cost| **cost < u64::MAX).count(), of: costs.len(), median }
    }

    fn layers(&self) -> Vec<(&'static str, &'static str)> {
        let first = self.searched.first().or(self.control.as_ref());
        first.map_or(Vec::new(), |searched| searched.findings.iter().map(|timed| (timed.layer, timed.unit)).collect())
    }

    /// The text after the table.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let layers = self.layers();
        if let [searched] = &self.searched[..] {
            for timed in &searched.findings {
                if let Some(kill) = &timed.finding.kill {
                    let _ = writeln!(out, "{}, {}: {}", timed.layer, kill.at, kill.said);
                }
            }
        }
        for (layer, unit) in &layers {
            for (core_only, what) in [(true, "core mutants"), (false, "mutants")] {
                let Score { killed, of, median } = self.score(layer, core_only);
                let median = median.map_or("-".to_owned(), |median| median.to_string());
                let _ = writeln!(out, "{layer}: {killed} of {of} {what} killed, median {median} {unit}");
            }
        }
        for timed in self.control.iter().flat_map(|control| &control.findings) {
            let said = match &timed.finding.kill {
                Some(kill) => format!("ALARM at {}: {}", kill.at, kill.said),
                None => "nothing".to_owned(),
            };
            let (spent, unit, took) = (timed.finding.spent, timed.unit, timed.took.as_secs_f64());
            let _ = writeln!(out, "control, {}, {spent} {unit} in {took:.0} s: {said}", timed.layer);
        }
        let took = self.took.as_secs_f64();
        let _ = writeln!(out, "{} of {} mutants killed in {took:.0} s", self.killed(), self.searched.len());
        out
    }

    pub(super) fn json(&self) -> Value {
        let mutants: Vec<Value> = self
            .searched
            .iter()
            .filter_map(|searched| {
                let mutant = searched.mutant?;
                Some(json!({
                    "mutant": mutant.name, "number": mutant.origin, "breaks": mutant.breaks,
                    "core": mutant.is_core(), "killed": searched.killed(), "findings": findings(searched),
                }))
            })
            .collect();
        let layers: Vec<Value> = self
            .layers()
            .iter()
            .map(|(layer, unit)| {
                let (core, all) = (self.score(layer, true), self.score(layer, false));
                json!({
                    "layer": layer, "unit": unit, "killed": all.killed, "of": all.of, "median": all.median,
                    "core_killed": core.killed, "core_of": core.of, "core_median": core.median,
                })
            })
            .collect();
        let control = self.control.as_ref().map(findings);
        json!({ "mutants": mutants, "layers": layers, "control": control, "took": self.took.as_secs_f64() })
    }
}

/// The head of the table.
pub(super) fn header(layers: &[Box<dyn Layer>]) -> String {
    let mut out = format!("{:<27} {:<9}", "mutant (* core)", "number");
    for layer in layers {
        let (layer, unit) = (layer.name(), layer.unit());
        let title = if layer == unit { layer.to_owned() } else { format!("{layer}, {unit}") };
        let _ = write!(out, " {title:<18}");
    }
    out + "    time"
}

/// A mutant's row of the table.
pub(super) fn row(mutant: &Mutant, searched: &Searched, layers: &[Box<dyn Layer>]) -> String {
    let name = format!("{}{}", mutant.name, if mutant.is_core() { " *" } else { "" });
    let mut out = format!("{name:<27} {:<9}", mutant.origin);
    for layer in layers {
        let timed = searched.findings.iter().find(|timed| timed.layer == layer.name());
        let cost = match timed.map(|timed| &timed.finding.kill) {
            Some(Some(kill)) => format!("{} ({})", kill.cost, kill.by),
            Some(None) => "-".to_owned(),
            None => String::new(),
        };
        let _ = write!(out, " {cost:<18}");
    }
    let took: Duration = searched.findings.iter().map(|timed| timed.took).sum();
    let verdict = if searched.killed() { "" } else { "  SURVIVES" };
    let _ = write!(out, " {:>5.1} s{verdict}", took.as_secs_f64());
    out
}

fn findings(searched: &Searched) -> Vec<Value> {
    let finding = |timed: &Timed| {
        let kill = timed.finding.kill.as_ref();
        let kill =
            kill.map(|kill| json!({ "by": kill.by.to_string(), "said": kill.said, "cost": kill.cost, "at": kill.at }));
        json!({
            "layer": timed.layer, "unit": timed.unit, "spent": timed.finding.spent,
            "took": timed.took.as_secs_f64(), "kill": kill,
        })
    };
    searched.findings.iter().map(finding).collect()
}
