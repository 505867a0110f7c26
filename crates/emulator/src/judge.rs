//! Decides whether a run passed, and rates its benchmarks.
//!
//! A run passes if every get is right, the history is linearizable, no replica died by itself, at
//! least half of the gets and half of the puts were answered, replicas exchanged as many messages as
//! agreement needs, few `MID`s were answered twice, and neither a message storm nor a flood ended the
//! run. The tiers of the benchmarks say how good the run was; they do not decide whether it passed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::emulation::{AnswerKind, Bad, End, Operation, Record, Request};
use crate::report::grouped;
use crate::scenario::{Benchmarks, Thresholds, Tier};
use crate::statistics::{Share, Statistics};

/// What the judge found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    /// Whether no verdict is [`Status::Failed`].
    pub passed: bool,
    /// One verdict for each [`Check`], in the order of [`Check::ALL`].
    pub verdicts: Vec<CheckResult>,
    /// The results of the benchmarks that the scenario has thresholds for.
    pub benchmarks: Vec<Measured>,
    /// The full result of the linearizability checker.
    pub linearizability: Linearizability,
    /// Every wrong get, ordered by time.
    pub wrong_gets: Vec<WrongGet>,
}

impl Judgement {
    /// The operations that prove that the history is not linearizable, one per line; otherwise empty.
    pub fn proof(&self) -> impl Iterator<Item = &str> {
        let explanation = match &self.linearizability {
            Linearizability::Violated { explanation } => explanation.as_str(),
            Linearizability::Linearizable | Linearizability::Undecided { .. } => "",
        };
        explanation.lines().skip(1)
    }

    /// The verdict on one check.
    pub fn verdict(&self, check: Check) -> &CheckResult {
        self.verdicts.iter().find(|verdict| verdict.check == check).expect("every check has a verdict")
    }

    /// The result of one benchmark.
    pub fn benchmark(&self, benchmark: Benchmark) -> Option<&Measured> {
        self.benchmarks.iter().find(|m| m.benchmark == benchmark)
    }
}

/// A condition that the judge checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Every get returned the value of the last put that its client saw acknowledged. A deviation is
    /// only noted if the history is linearizable.
    RightGets,
    /// The history of all clients is linearizable.
    Linearizable,
    /// No replica died by itself.
    ReplicasLived,
    /// At least half of the gets were answered.
    GetsAnswered,
    /// At least half of the puts were answered.
    PutsAnswered,
    /// Replicas exchanged as many messages as agreement needs.
    EnoughMessages,
    /// Replicas exchanged no more messages than the scenario allows.
    NoMessageStorm,
    /// Replicas did not send masses of useless messages.
    NoFlood,
    /// No `MID` was answered twice. A few duplicates are only noted.
    NoDuplicates,
    /// Replicas broke no other rule of the protocol. Violations are only noted.
    GoodManners,
}

impl Check {
    /// All checks, the most important first.
    pub const ALL: [Check; 10] = [
        Check::RightGets,
        Check::Linearizable,
        Check::ReplicasLived,
        Check::GetsAnswered,
        Check::PutsAnswered,
        Check::EnoughMessages,
        Check::NoMessageStorm,
        Check::NoFlood,
        Check::NoDuplicates,
        Check::GoodManners,
    ];

    /// The check's name in reports.
    pub fn title(self) -> &'static str {
        match self {
            Check::RightGets => "right gets",
            Check::Linearizable => "linearizable",
            Check::ReplicasLived => "replicas lived",
            Check::GetsAnswered => "gets answered",
            Check::PutsAnswered => "puts answered",
            Check::EnoughMessages => "enough messages",
            Check::NoMessageStorm => "no message storm",
            Check::NoFlood => "no flood",
            Check::NoDuplicates => "no duplicates",
            Check::GoodManners => "good manners",
        }
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// The check.
    pub check: Check,
    /// Its result.
    pub status: Status,
    /// The reason, in one line.
    pub reason: String,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The condition holds.
    Passed,
    /// The condition does not hold, but that does not fail the run.
    Noted,
    /// The condition does not hold, or could not be verified: the run fails.
    Failed,
}

/// One of the four quantities that a run is rated by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Benchmark {
    /// Messages between replicas.
    TotalMsgs,
    /// `fail` answers and unanswered requests.
    Failures,
    /// Further answers to a `MID` that was already answered.
    Duplicates,
    /// The median latency, in seconds.
    MedianLatency,
}

impl Benchmark {
    /// All four, in the order of the protocol page.
    pub const ALL: [Benchmark; 4] =
        [Benchmark::TotalMsgs, Benchmark::Failures, Benchmark::Duplicates, Benchmark::MedianLatency];

    /// The benchmark's name in reports.
    pub fn title(self) -> &'static str {
        match self {
            Benchmark::TotalMsgs => "messages",
            Benchmark::Failures => "failures",
            Benchmark::Duplicates => "duplicates",
            Benchmark::MedianLatency => "median latency",
        }
    }

    fn thresholds(self, benchmarks: &Benchmarks) -> Option<Thresholds> {
        match self {
            Benchmark::TotalMsgs => benchmarks.total_msgs,
            Benchmark::Failures => benchmarks.failures,
            Benchmark::Duplicates => benchmarks.duplicates,
            Benchmark::MedianLatency => benchmarks.median_latency,
        }
    }
}

/// The result of one benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    /// The benchmark.
    pub benchmark: Benchmark,
    /// The measured value, latencies in seconds; `None` for the latency if nothing was answered.
    pub value: Option<f64>,
    /// The thresholds of the scenario.
    pub thresholds: Thresholds,
    /// The tier that the value reached.
    pub tier: Tier,
}

/// A get that did not return the value of the last put that the same client saw acknowledged.
///
/// Other harnesses judge gets by this rule. It is stricter than linearizability: a put may take
/// effect before its answer arrives, or without any answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrongGet {
    /// When the get was answered.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub at: Duration,
    /// The `MID`.
    pub mid: String,
    /// The client.
    pub client: usize,
    /// The replica that answered.
    pub replica: usize,
    /// The key.
    pub key: String,
    /// The value of the last put that the client saw acknowledged.
    pub expected: String,
    /// The returned value; `None` if the answer has none.
    pub got: Option<String>,
    /// Whether a put by this client to this key overlapped the get. If so, the answer may be
    /// linearizable.
    pub put_under_way: bool,
}

/// How many duplicates a run may have if the scenario has no threshold for them.
const DUPLICATES_ALLOWED: f64 = 10.0;

/// The result of the linearizability checker for a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Linearizability {
    /// One order of the operations explains every answer.
    Linearizable,
    /// No order of the operations explains every answer.
    Violated {
        /// The first line says what is wrong; the other lines list the operations.
        explanation: String,
    },
    /// The checker gave up. This fails the run, too.
    Undecided {
        /// The reason.
        reason: String,
    },
}

/// Judges a run, given the result of the linearizability checker.
pub fn judge(record: &Record, statistics: &Statistics, linearizability: &Linearizability) -> Judgement {
    let wrong_gets = wrong_gets(record);
    let verdicts: Vec<CheckResult> = Check::ALL
        .into_iter()
        .map(|check| {
            let (status, reason) = match check {
                Check::RightGets => right_gets(&wrong_gets, statistics, linearizability),
                Check::Linearizable => linearizable(linearizability),
                Check::ReplicasLived => replicas_lived(record),
                Check::GetsAnswered => half_answered(statistics.gets, "gets"),
                Check::PutsAnswered => half_answered(statistics.puts, "puts"),
                Check::EnoughMessages => enough_messages(record, statistics),
                Check::NoMessageStorm => no_message_storm(record, statistics),
                Check::NoFlood => no_flood(record),
                Check::NoDuplicates => no_duplicates(record, statistics),
                Check::GoodManners => good_manners(record),
            };
            CheckResult { check, status, reason }
        })
        .collect();
    Judgement {
        passed: verdicts.iter().all(|v| v.status != Status::Failed),
        verdicts,
        benchmarks: measure(record, statistics),
        linearizability: linearizability.clone(),
        wrong_gets,
    }
}

fn measure(record: &Record, statistics: &Statistics) -> Vec<Measured> {
    let measured = Benchmark::ALL.into_iter().filter_map(|benchmark| {
        let thresholds = benchmark.thresholds(&record.scenario.benchmarks)?;
        let value = match benchmark {
            Benchmark::TotalMsgs => Some(statistics.messages as f64),
            Benchmark::Failures => Some(statistics.failures as f64),
            Benchmark::Duplicates => Some(statistics.duplicates as f64),
            Benchmark::MedianLatency => statistics.latency.map(|l| l.median.as_secs_f64()),
        };
        Some(Measured { benchmark, value, thresholds, tier: value.map_or(Tier::None, |value| thresholds.tier(value)) })
    });
    measured.collect()
}

/// Every get that breaks the rule of [`WrongGet`].
pub fn wrong_gets(record: &Record) -> Vec<WrongGet> {
    let puts = puts_by_key(record);
    let mut wrong: Vec<WrongGet> = record
        .attempts
        .iter()
        .filter_map(|attempt| {
            let request = &record.requests[attempt.request];
            let answer = attempt.answer.as_ref()?;
            let AnswerKind::Ok { value: got } = &answer.outcome else {
                return None;
            };
            let expected = request.expected.as_ref()?;
            (got.as_ref() != Some(expected)).then(|| WrongGet {
                at: answer.at,
                mid: attempt.mid.clone(),
                client: request.client,
                replica: answer.by,
                key: request.key.clone(),
                expected: expected.clone(),
                got: got.clone(),
                put_under_way: puts[&(request.client, request.key.as_str())]
                    .iter()
                    .any(|put| overlaps(put, request, answer.at)),
            })
        })
        .collect();
    wrong.sort_by_key(|get| get.at);
    wrong
}

/// All puts, by client and key. There is an entry for every get that expects a value.
fn puts_by_key(record: &Record) -> BTreeMap<(usize, &str), Vec<&Request>> {
    let mut puts: BTreeMap<(usize, &str), Vec<&Request>> = BTreeMap::new();
    for request in &record.requests {
        if request.operation == Operation::Put {
            let key = (request.client, request.key.as_str());
            puts.entry(key).or_default().push(request);
        }
    }
    puts
}

/// Whether a put and a get overlap in time.
fn overlaps(put: &Request, get: &Request, get_done: Duration) -> bool {
    put.created <= get_done && put.done.is_none_or(|done| done >= get.created)
}

/// Applies the rule of [`WrongGet`]. A get that breaks it is still linearizable if a put took effect
/// long before its answer arrived, or was never answered. The run then passes with a note that other
/// harnesses would have failed it.
fn right_gets(wrong: &[WrongGet], statistics: &Statistics, word: &Linearizability) -> (Status, String) {
    let answered = statistics.gets.answered;
    let Some(first) = wrong.first() else {
        let reason = format!("all {answered} gets returned what was last acknowledged");
        return (Status::Passed, reason);
    };
    let got = match &first.got {
        Some(got) => format!("{:?}", bowline_lan::message::shorten(got)),
        None => "no value".to_owned(),
    };
    let reason = format!(
        "{} of {answered} gets are wrong; the first, at {:.3} s: key {}, expected {:?}, got {got}",
        wrong.len(),
        first.at.as_secs_f64(),
        first.key,
        first.expected,
    );
    // The history omits a get that was answered without a value, so linearizability doesn't excuse it.
    if *word == Linearizability::Linearizable && wrong.iter().all(|get| get.got.is_some()) {
        return (
            Status::Noted,
            format!("by the rule of other harnesses, {reason}; but one order explains every answer"),
        );
    }
    (Status::Failed, reason)
}

fn linearizable(linearizability: &Linearizability) -> (Status, String) {
    match linearizability {
        Linearizability::Linearizable => {
            let reason = "one order explains every answer".to_owned();
            (Status::Passed, reason)
        }
        Linearizability::Violated { explanation } => {
            let summary = explanation.lines().next().unwrap_or_default();
            (Status::Failed, summary.to_owned())
        }
        // An unverified history must not pass.
        Linearizability::Undecided { reason } => (Status::Failed, reason.clone()),
    }
}

fn replicas_lived(record: &Record) -> (Status, String) {
    let mut deaths = record.losses.iter().filter_map(|loss| {
        let why = loss.died_by_itself.as_ref()?;
        let id = record.replica_ids[loss.replica];
        Some(format!("{id} at {:.3} s: {why}", loss.at.as_secs_f64()))
    });
    match deaths.next() {
        None => (Status::Passed, "no replica died by itself".to_owned()),
        Some(first) => {
            let more = match deaths.count() {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            (Status::Failed, format!("died by itself: {first}{more}"))
        }
    }
}

fn half_answered(share: Share, what: &str) -> (Status, String) {
    let status = match share.at_least_half() {
        true => Status::Passed,
        false => Status::Failed,
    };
    let reason = format!("{} of {} {what} answered; at least half is needed", share.answered, share.created);
    (status, reason)
}

fn enough_messages(record: &Record, statistics: &Statistics) -> (Status, String) {
    let minimum = record.scenario.minimum_messages();
    let status = match statistics.messages >= minimum {
        true => Status::Passed,
        false => Status::Failed,
    };
    let reason = format!(
        "{} messages between replicas; agreement needs at least {}",
        grouped(statistics.messages),
        grouped(minimum)
    );
    (status, reason)
}

fn no_message_storm(record: &Record, statistics: &Statistics) -> (Status, String) {
    let most = record.scenario.max_packets;
    if record.end == Some(End::MessageStorm) {
        let at = record.ended_at.as_secs_f64();
        let reason = format!("more than {} messages between replicas within {at:.3} s", grouped(most));
        (Status::Failed, reason)
    } else {
        let reason = format!("{} messages; at most {} are allowed", grouped(statistics.messages), grouped(most));
        (Status::Passed, reason)
    }
}

fn no_flood(record: &Record) -> (Status, String) {
    let useless = record.misbehaviour.useless();
    let most = record.scenario.max_packets;
    if record.end == Some(End::Flood) {
        let at = record.ended_at.as_secs_f64();
        let reason = format!("more than {} useless messages within {at:.3} s", grouped(most));
        (Status::Failed, reason)
    } else {
        (Status::Passed, format!("{} useless messages", grouped(useless)))
    }
}

/// A few duplicates only cost a tier. A program that sends more than the last threshold is unreliable.
fn no_duplicates(record: &Record, statistics: &Statistics) -> (Status, String) {
    let most = record.scenario.benchmarks.duplicates.map_or(DUPLICATES_ALLOWED, |thresholds| thresholds.partial);
    let answers = match statistics.duplicates {
        0 => return (Status::Passed, "no MID was answered twice".to_owned()),
        1 => "1 duplicate answer".to_owned(),
        n => format!("{n} duplicate answers"),
    };
    if (statistics.duplicates as f64) <= most {
        (Status::Noted, answers)
    } else {
        (Status::Failed, format!("{answers}; allowed: {most}"))
    }
}

fn good_manners(record: &Record) -> (Status, String) {
    let seen: Vec<String> = record
        .misbehaviour
        .counts
        .iter()
        .filter(|(bad, _)| **bad != Bad::Duplicate)
        .map(|(bad, count)| format!("{count} {}", bad.describe()))
        .collect();
    if seen.is_empty() {
        (Status::Passed, "every message followed the protocol".to_owned())
    } else {
        (Status::Noted, seen.join(", "))
    }
}

#[cfg(test)]
mod tests;
