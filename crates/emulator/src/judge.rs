//! Whether a run passed, and how good it was.
//!
//! A run passes if no get was wrong as the LAN protocol has it, the history is linearizable, no
//! replica died by itself, at least half of the gets and half of the puts were answered, replicas
//! exchanged as many messages as agreement needs, and neither a message storm nor a flood ended it.
//! The benchmarks' tiers say how good it was; they do not decide whether it passed.

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
    /// How the benchmarks came out; those that the scenario does not have are missing.
    pub benchmarks: Vec<Measured>,
    /// What the checker of linearizability said, in full.
    pub linearizability: Linearizability,
    /// Every wrong get, in order of time.
    pub wrong_gets: Vec<WrongGet>,
}

impl Judgement {
    /// The operations that show that the history is not linearizable, one a line; empty if it is.
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

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// No get differs from what its client last had acknowledged; only noted where linearizability
    /// explains it.
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
    /// Replicas did not send masses of messages that nobody can use.
    NoFlood,
    /// No `MID` was answered twice; a few are only noted.
    NoDuplicates,
    /// Replicas kept to the protocol otherwise. Only noted.
    GoodManners,
}

impl Check {
    /// Every check, the most important first.
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

    /// Its name in reports.
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
    /// What was looked at.
    pub check: Check,
    /// How it came out.
    pub status: Status,
    /// Why, in one line.
    pub reason: String,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Passed,
    /// Not as it should be, or not known, but nothing that fails a run.
    Noted,
    /// The run failed.
    Failed,
}

/// One of the four measures of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Benchmark {
    /// Messages between replicas.
    TotalMsgs,
    /// `fail` answers and unanswered requests.
    Failures,
    /// Second answers to one `MID`.
    Duplicates,
    /// The median latency, in seconds.
    MedianLatency,
}

impl Benchmark {
    /// All four, in the order of the protocol page.
    pub const ALL: [Benchmark; 4] =
        [Benchmark::TotalMsgs, Benchmark::Failures, Benchmark::Duplicates, Benchmark::MedianLatency];

    /// Its name in reports.
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
    /// Which one.
    pub benchmark: Benchmark,
    /// What was measured, latencies in seconds; `None` if there is no latency, as nothing was answered.
    pub value: Option<f64>,
    /// What it was held against.
    pub thresholds: Thresholds,
    /// What it reached.
    pub tier: Tier,
}

/// A get that differs from the value that the same client last had acknowledged.
///
/// Other harnesses judge gets by this rule. It is stricter than linearizability where a put that was
/// not answered before the get took effect all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrongGet {
    /// When it was answered.
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
    /// The value that the client last had acknowledged.
    pub expected: String,
    /// The value that it got; `None` if the answer has none.
    pub got: Option<String>,
    /// Whether a put of this client to this key was under way while the get was: then the answer may
    /// be right by linearizability.
    pub put_under_way: bool,
}

/// How many duplicates a run may have where the scenario has no threshold for them.
const DUPLICATES_ALLOWED: f64 = 10.0;

/// What the checker of linearizability says about a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Linearizability {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none.
    Violated {
        /// In the first line what is wrong, in any further ones the operations.
        explanation: String,
    },
    /// The checker gave up; that fails a run, too.
    Undecided {
        /// Why.
        reason: String,
    },
}

/// Judges a run, given what the checker of linearizability says about it.
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

/// Every get that is wrong by the naive rule, see [`WrongGet`].
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

/// Every put, by its client and key. A get that expects a value has a put before it.
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

/// Whether a put was under way at some time while a get was.
fn overlaps(put: &Request, get: &Request, get_done: Duration) -> bool {
    put.created <= get_done && put.done.is_none_or(|done| done >= get.created)
}

/// The naive rule. A get that it calls wrong may still be right: where a put took effect long before
/// its answer came, or none ever did. Then the run passes, and is told what other harnesses would
/// have said.
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
        "{} of {answered} gets are wrong; the first, at {:.3} s: key {} is {:?}, got {got}",
        wrong.len(),
        first.at.as_secs_f64(),
        first.key,
        first.expected,
    );
    // A get without any value is wrong by every rule.
    if *word == Linearizability::Linearizable && wrong.iter().all(|get| get.got.is_some()) {
        return (Status::Noted, format!("by the naive rule {reason}; yet one order explains them all"));
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
        // What nobody could verify does not pass.
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
        let reason = format!("more than {} messages between replicas after {at:.3} s", grouped(most));
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
        let reason = format!("more than {} messages that nobody can use after {at:.3} s", grouped(most));
        (Status::Failed, reason)
    } else {
        (Status::Passed, format!("{} messages that nobody can use", grouped(useless)))
    }
}

/// A few duplicates cost a tier; more than the last threshold allows make a program that can't be
/// relied on.
fn no_duplicates(record: &Record, statistics: &Statistics) -> (Status, String) {
    let most = record.scenario.benchmarks.duplicates.map_or(DUPLICATES_ALLOWED, |thresholds| thresholds.partial);
    let answers = match statistics.duplicates {
        0 => return (Status::Passed, "no MID was answered twice".to_owned()),
        1 => "1 answer to a MID that had one".to_owned(),
        n => format!("{n} answers to MIDs that had one"),
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
        (Status::Passed, "every message kept to the protocol".to_owned())
    } else {
        (Status::Noted, seen.join(", "))
    }
}

#[cfg(test)]
mod tests;
