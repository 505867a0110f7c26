//! Scenario files: the replicas, the requests, the faults of the network, and the expected results.
//!
//! The format is exactly that of the LAN protocol page, so that other harnesses can read Bowline's
//! files and Bowline can read theirs. Times in the file, including median latencies, are in seconds.

use std::time::Duration;

use bowline_lan::message::shorten;
use serde::Serialize;

mod builtin;
mod read;

/// The largest scenario file that is read, in bytes.
pub const MAX_SCENARIO_BYTES: usize = 1 << 20;

/// The allowed numbers of replicas.
pub const REPLICAS: std::ops::RangeInclusive<u64> = 3..=21;

/// The most requests in one run: each of them is kept for the report.
pub const MAX_REQUESTS: u64 = 1_000_000;

/// The most events in one run.
pub const MAX_EVENTS: usize = 1_000;

/// The default for [`Scenario::max_packets`].
pub const DEFAULT_MAX_PACKETS: u64 = 20_000;

/// The description of one emulated run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scenario {
    /// The name, such as `crash-3`. It is not in the file.
    pub name: String,
    /// For how long requests are sent.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub lifetime: Duration,
    /// How many replicas there are, 3 to 21.
    pub replicas: usize,
    /// How many requests are sent, spread evenly over the lifetime.
    pub requests: u64,
    /// The share of gets among the requests, 0 to 1.
    pub mix: f64,
    /// The quiet time before the first request.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub start_wait: Duration,
    /// The quiet time after the lifetime.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub end_wait: Duration,
    /// The probability that a message between two replicas is lost, 0 to 1.
    pub drops: f64,
    /// The seed of everything random. If it is `None`, the driver chooses a seed and reports it.
    pub seed: Option<u64>,
    /// With more messages between replicas than this, the run ends as a message storm.
    pub max_packets: u64,
    /// The faults, ordered by time.
    pub events: Vec<Event>,
    /// The thresholds of the benchmarks.
    pub benchmarks: Benchmarks,
}

/// Something that happens to the network during a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Event {
    /// What happens.
    pub kind: EventKind,
    /// When, counted from the start of the lifetime.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub time: Duration,
}

/// The kinds of [`Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The leader is killed.
    KillLeader,
    /// A random replica other than the leader is killed.
    KillNonLeader,
    /// A random majority that contains the leader is cut from the rest.
    PartEasy,
    /// Any random majority is cut from the rest.
    PartHard,
    /// The network is whole again.
    PartEnd,
}

impl EventKind {
    /// Every kind, in the order of the protocol page.
    pub const ALL: [EventKind; 5] =
        [EventKind::KillLeader, EventKind::KillNonLeader, EventKind::PartEasy, EventKind::PartHard, EventKind::PartEnd];

    /// The `type` in a scenario file.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::KillLeader => "kill_leader",
            EventKind::KillNonLeader => "kill_non_leader",
            EventKind::PartEasy => "part_easy",
            EventKind::PartHard => "part_hard",
            EventKind::PartEnd => "part_end",
        }
    }
}

/// The thresholds of the four benchmarks. A benchmark that is `None` is not rated.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Benchmarks {
    /// Messages between replicas.
    pub total_msgs: Option<Thresholds>,
    /// `fail` answers and unanswered requests.
    pub failures: Option<Thresholds>,
    /// Further answers to a `MID` that was already answered.
    pub duplicates: Option<Thresholds>,
    /// The median latency, in seconds.
    pub median_latency: Option<Thresholds>,
}

/// Three rising bounds of the tiers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(into = "[f64; 3]")]
pub struct Thresholds {
    /// Below this: [`Tier::Top`].
    pub top: f64,
    /// Below this: [`Tier::Full`].
    pub full: f64,
    /// Below this: [`Tier::Partial`]; from here on [`Tier::None`].
    pub partial: f64,
}

impl From<Thresholds> for [f64; 3] {
    fn from(thresholds: Thresholds) -> [f64; 3] {
        [thresholds.top, thresholds.full, thresholds.partial]
    }
}

impl Thresholds {
    /// The tier that a measured value reaches.
    pub fn tier(&self, measured: f64) -> Tier {
        if measured < self.top {
            Tier::Top
        } else if measured < self.full {
            Tier::Full
        } else if measured < self.partial {
            Tier::Partial
        } else {
            Tier::None
        }
    }
}

/// The rating of a measured value, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Better than required.
    Top,
    /// As required.
    Full,
    /// Slightly worse than required.
    Partial,
    /// Not good enough for any tier.
    None,
}

impl Tier {
    /// The tier's name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Top => "top",
            Tier::Full => "full",
            Tier::Partial => "partial",
            Tier::None => "none",
        }
    }
}

/// Why a file is not a scenario. Each error is displayed as one line, with the scenario's name first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// The file is too large.
    #[error("scenario {name}: the file has {length} bytes; at most {MAX_SCENARIO_BYTES} are allowed")]
    TooLong {
        /// The scenario.
        name: String,
        /// Its length in bytes.
        length: usize,
    },
    /// It is not exactly one JSON object.
    #[error("scenario {name}: not one JSON object: {reason}")]
    NotAnObject {
        /// The scenario.
        name: String,
        /// What the JSON reader says.
        reason: String,
    },
    /// A field is unknown.
    #[error("scenario {name}: unknown field `{field}`; allowed are {allowed}")]
    UnknownField {
        /// The scenario.
        name: String,
        /// Where it is, such as `tests.benchmarks.speed`.
        field: String,
        /// The fields that are allowed there.
        allowed: String,
    },
    /// A required field is absent.
    #[error("scenario {name}: the field `{field}` is missing; it must be {allowed}")]
    Missing {
        /// The scenario.
        name: String,
        /// The field.
        field: String,
        /// What it must be.
        allowed: String,
    },
    /// A field has a value that is not allowed.
    #[error("scenario {name}: the field `{field}` is {value}; it must be {allowed}")]
    Wrong {
        /// The scenario.
        name: String,
        /// Where it is, such as `events[2].time`.
        field: String,
        /// Its value, shortened.
        value: String,
        /// What it must be.
        allowed: String,
    },
}

impl Scenario {
    /// Reads a scenario file and gives the scenario a name.
    ///
    /// # Errors
    ///
    /// The file breaks a rule of the format, see [`ScenarioError`].
    pub fn from_json(name: &str, bytes: &[u8]) -> Result<Scenario, ScenarioError> {
        read::scenario(&shorten(name), bytes)
    }

    /// The scenarios that come with Bowline: their names and files, easy ones first.
    pub fn builtin() -> &'static [(&'static str, &'static str)] {
        builtin::ALL
    }

    /// The built-in scenario of this name.
    pub fn builtin_named(name: &str) -> Option<Scenario> {
        let (name, json) = builtin::ALL.iter().find(|(known, _)| *known == name)?;
        Some(Scenario::from_json(name, json.as_bytes()).expect("built-in scenarios are tested"))
    }

    /// The time from the start of the run to its planned end.
    pub fn duration(&self) -> Duration {
        self.start_wait + self.lifetime + self.end_wait
    }

    /// When the request with this number, counted from 0, is created.
    pub fn request_time(&self, number: u64) -> Duration {
        let share = number as f64 / self.requests.max(1) as f64;
        self.start_wait + self.lifetime.mul_f64(share)
    }

    /// The fewest messages with which replicas can have agreed on all puts.
    pub fn minimum_messages(&self) -> u64 {
        let puts = self.requests as f64 * (1.0 - self.mix);
        // Rounded up. The subtraction keeps rounding errors from adding a message to a whole number.
        (puts * self.replicas as f64 / 2.0 - 1e-6).ceil() as u64
    }
}

#[cfg(test)]
mod tests;
