//! What a run is told as: text for a terminal, JSON for programs, a page for a browser, and one
//! line of a table for each of several runs.

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

/// Everything there is to tell about a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What happened.
    pub record: Record,
    /// Its numbers.
    pub statistics: Statistics,
    /// How it was judged.
    pub judgement: Judgement,
    /// The program that was run, as the user named it; filled in by the driver.
    pub program: Option<String>,
    /// Which kind of socket it was run on; filled in by the driver.
    pub socket: Option<String>,
    /// How fast this machine can be at all; filled in by the driver.
    pub floor: Option<Floor>,
}

/// How long a put takes with replicas that exchange the messages of an agreement and do nothing
/// else: what the machine, the sockets and the network cost by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Floor {
    /// The median latency of such a put.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub median: Duration,
    /// How many were measured.
    pub samples: usize,
}

impl Report {
    /// Counts and judges a run, given what the checker of linearizability says about it.
    pub fn new(record: Record, linearizability: &Linearizability) -> Report {
        let statistics = Statistics::of(&record);
        let judgement = judge(&record, &statistics, linearizability);
        Report { record, statistics, judgement, program: None, socket: None, floor: None }
    }

    /// Counts, checks for linearizability and judges a run.
    pub fn judged(record: Record) -> Report {
        let word = crate::history::check(&record);
        Report::new(record, &word)
    }

    /// For a terminal, several lines; `colour` adds ANSI escapes.
    pub fn text(&self, colour: bool) -> String {
        text::report(self, colour)
    }

    /// For programs. Times are in seconds. The single requests are not in it.
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

    /// A page that needs nothing but a browser.
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
