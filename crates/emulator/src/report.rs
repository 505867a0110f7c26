//! Reports of runs: text for a terminal, JSON for programs, a page for a browser, and a table with
//! one line for each of several runs.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::emulation::Record;
use crate::judge::{Judgement, Linearizability, judge};
use crate::statistics::Statistics;

mod chart;
mod html;
mod table;
mod text;

pub use table::{Line, table_json, table_text};

/// Everything that is reported about a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What happened.
    pub record: Record,
    /// The statistics of the run.
    pub statistics: Statistics,
    /// The judgement.
    pub judgement: Judgement,
    /// The program that was run, as the user named it; set by the driver.
    pub program: Option<String>,
    /// The form of socket; set by the driver.
    pub socket: Option<String>,
    /// The least latency that this machine allows; set by the driver.
    pub floor: Option<Floor>,
}

/// How long a put takes if the replicas only exchange the messages that agreement needs: the cost
/// of the machine, the sockets and the network alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Floor {
    /// The median latency of such a put.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub median: Duration,
    /// How many puts were measured.
    pub samples: usize,
}

impl Report {
    /// Counts and judges a run, given the result of the linearizability checker.
    pub fn new(record: Record, linearizability: &Linearizability) -> Report {
        let statistics = Statistics::of(&record);
        let judgement = judge(&record, &statistics, linearizability);
        Report { record, statistics, judgement, program: None, socket: None, floor: None }
    }

    /// Counts, checks and judges a run.
    pub fn judged(record: Record) -> Report {
        let word = crate::history::check(&record);
        Report::new(record, &word)
    }

    /// The report as text for a terminal; `colour` adds ANSI escapes.
    pub fn text(&self, colour: bool) -> String {
        text::report(self, colour)
    }

    /// The report as JSON, with times in seconds and without the individual requests.
    pub fn json(&self) -> Value {
        let record = &self.record;
        json!({
            "scenario": record.scenario,
            "passed": self.judgement.passed,
            "seed": record.seed,
            "program": self.program,
            "socket": self.socket,
            "floor": self.floor,
            "end": record.end,
            "ended_at": record.ended_at.as_secs_f64(),
            "verdicts": self.judgement.verdicts,
            "benchmarks": self.judgement.benchmarks,
            "linearizability": self.judgement.linearizability,
            "statistics": self.statistics,
            "wrong_gets": self.judgement.wrong_gets,
            "misbehaviour": record.misbehaviour,
            "replicas": record.replica_ids,
            "losses": record.losses,
            "timeline": record.timeline,
            "messages_per_second": record.traffic.per_second,
        })
    }

    /// The report as a self-contained HTML page.
    pub fn html(&self) -> String {
        html::page(self)
    }
}

/// A number with a comma between groups of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests;
