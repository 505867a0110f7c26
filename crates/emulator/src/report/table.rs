//! A table of several runs, with one line for each.

use serde::Serialize;
use serde_json::Value;

use super::text::{Paint, measured};
use super::{Report, grouped};
use crate::judge::{Benchmark, Status};
use crate::scenario::Tier;

/// One run in a table of several.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// The scenario's name.
    pub scenario: String,
    /// Whether the run passed.
    pub passed: bool,
    /// The seed of everything random.
    pub seed: u64,
    /// Requests that were answered with `ok`.
    pub answered: u64,
    /// Requests that were created.
    pub created: u64,
    /// The four benchmarks, in the order of [`Benchmark::ALL`].
    pub benchmarks: Vec<Cell>,
    /// The median latency as a multiple of the floor, if the floor was measured.
    pub times_floor: Option<f64>,
    /// Why the run failed, if it did: the first failed check.
    pub reason: Option<String>,
}

/// One benchmark of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// The benchmark.
    pub benchmark: Benchmark,
    /// The measured value, latencies in seconds; `None` for the latency if nothing was answered.
    pub value: Option<f64>,
    /// The tier, if the scenario has thresholds.
    pub tier: Option<Tier>,
}

impl Line {
    /// The line for a run.
    pub fn of(report: &Report) -> Line {
        let statistics = &report.statistics;
        let cell = |benchmark| Cell {
            benchmark,
            value: match benchmark {
                Benchmark::TotalMsgs => Some(statistics.messages as f64),
                Benchmark::Failures => Some(statistics.failures as f64),
                Benchmark::Duplicates => Some(statistics.duplicates as f64),
                Benchmark::MedianLatency => statistics.latency.map(|l| l.median.as_secs_f64()),
            },
            tier: report.judgement.benchmark(benchmark).map(|m| m.tier),
        };
        let against = report.judgement.verdicts.iter();
        let against = against.filter(|verdict| verdict.status == Status::Failed);
        let reasons: Vec<String> =
            against.map(|verdict| format!("{}: {}", verdict.check.title(), verdict.reason)).collect();
        Line {
            scenario: report.record.scenario.name.clone(),
            passed: report.judgement.passed,
            seed: report.record.seed,
            answered: statistics.answered,
            created: statistics.created,
            benchmarks: Benchmark::ALL.map(cell).into(),
            times_floor: statistics
                .latency
                .zip(report.floor)
                .map(|(latency, floor)| latency.median.div_duration_f64(floor.median)),
            reason: reasons.into_iter().next(),
        }
    }
}

/// The table as JSON: the number of runs, how many passed, and every line.
pub fn table_json(lines: &[Line]) -> Value {
    serde_json::json!({
        "runs": lines.len(),
        "passed": lines.iter().filter(|line| line.passed).count(),
        "lines": lines,
    })
}

/// The table as text, with a heading and a sum; `colour` adds ANSI escapes.
pub fn table_text(lines: &[Line], colour: bool) -> String {
    let paint = Paint { colour };
    let widest = lines.iter().map(|line| line.scenario.len()).max();
    let width = widest.unwrap_or(0).max("scenario".len());
    let head = format!(
        "{:<width$} {:<6}  {:>11}  {:>8} {:<7}  {:>8} {:<7}  {:>10} {:<7}  {:>14} {:<7}  {:>7}",
        "scenario",
        "result",
        "answered",
        "messages",
        "tier",
        "failures",
        "tier",
        "duplicates",
        "tier",
        "median latency",
        "tier",
        "× floor"
    );
    let mut text = paint.bold(head.trim_end());
    text.push('\n');
    for line in lines {
        let answered = format!("{}/{}", grouped(line.answered), grouped(line.created));
        let mut row = format!("{:<width$} {}  {answered:>11}", line.scenario, paint.passed(line.passed));
        for cell in &line.benchmarks {
            let value = measured(cell.benchmark, cell.value);
            let tier = match cell.tier {
                Some(tier) => paint.tier(tier, &format!("{:<7}", tier.name())),
                None => format!("{:<7}", "-"),
            };
            let width = cell.benchmark.title().len();
            row += &format!("  {value:>width$} {tier}");
        }
        if let Some(times) = line.times_floor {
            row += &format!("  {times:>7.2}");
        }
        text += row.trim_end();
        text.push('\n');
        if let Some(reason) = &line.reason {
            text += &format!("{:width$} {}\n", "", paint.status(Status::Failed, reason));
        }
    }
    let passed = lines.iter().filter(|line| line.passed).count();
    text + &format!("{passed} of {} passed\n", lines.len())
}
