//! The statistics of a run: requests, answers, messages and latencies.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::emulation::{AnswerKind, Bad, Note, Operation, Record, Request, Volume};

/// The statistics of a run, see [`Statistics::of`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statistics {
    /// All requests of the scenario.
    pub requests: u64,
    /// Requests that were created; fewer only if the run ended early.
    pub created: u64,
    /// The gets among them.
    pub gets: Share,
    /// The puts among them.
    pub puts: Share,
    /// Requests that were answered with `ok`.
    pub answered: u64,
    /// Messages from clients to replicas: one for each request and for each bounce.
    pub attempts: u64,
    /// `redirect` answers.
    pub redirects: u64,
    /// `fail` answers.
    pub fails: u64,
    /// Requests that never got an `ok`.
    pub unanswered: u64,
    /// Unanswered requests that were last sent to a replica that was killed or died, before or after.
    pub unanswered_at_lost_replicas: u64,
    /// The other unanswered requests.
    pub unanswered_elsewhere: u64,
    /// `fails` and `unanswered` together.
    pub failures: u64,
    /// Further answers to a `MID` that was already answered.
    pub duplicates: u64,
    /// The highest number of bounces of one request.
    pub most_bounces: u32,
    /// Messages between replicas.
    pub messages: u64,
    /// The bytes of these messages.
    pub bytes: u64,
    /// These messages by their `type`.
    pub by_kind: BTreeMap<String, Volume>,
    /// Messages that were lost by chance.
    pub lost: u64,
    /// Messages that a cut stopped.
    pub cut: u64,
    /// Messages to a dead replica.
    pub to_the_dead: u64,
    /// How often another leader took over.
    pub leader_changes: u64,
    /// Replicas that the emulation killed.
    pub killed: u64,
    /// Replicas that died by themselves.
    pub died: u64,
    /// From the creation of a request to each of its answers, redirects included; `None` without answers.
    pub latency: Option<Latency>,
    /// From the creation of a request to its `ok`.
    pub completion: Option<Latency>,
    /// `completion` for gets only.
    pub get_completion: Option<Latency>,
    /// `completion` for puts only.
    pub put_completion: Option<Latency>,
}

/// Requests of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Share {
    /// How many were created.
    pub created: u64,
    /// How many of them were answered with `ok`.
    pub answered: u64,
}

impl Share {
    /// Whether at least half were answered; true if there were none.
    pub fn at_least_half(self) -> bool {
        self.answered * 2 >= self.created
    }
}

/// The distribution of latencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// The number of samples.
    pub samples: usize,
    /// The smallest.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub min: Duration,
    /// The middle sample, or the mean of the two in the middle.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub median: Duration,
    /// The arithmetic mean.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub mean: Duration,
    /// The smallest that at least 90% do not exceed.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub p90: Duration,
    /// The smallest that at least 99% do not exceed.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub p99: Duration,
    /// The largest.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub max: Duration,
}

impl Latency {
    /// The distribution of `samples`; `None` if there are none.
    pub fn of(mut samples: Vec<Duration>) -> Option<Latency> {
        samples.sort_unstable();
        let (first, last) = (*samples.first()?, *samples.last()?);
        let count = samples.len();
        // The nearest-rank method: the smallest sample with at least this share at or below it.
        let rank = |percent: usize| samples[(count * percent).div_ceil(100) - 1];
        let sum: u128 = samples.iter().map(Duration::as_nanos).sum();
        Some(Latency {
            samples: count,
            min: first,
            median: (samples[(count - 1) / 2] + samples[count / 2]) / 2,
            // The mean fits, because it is at most the largest sample, and a run lasts at most two days.
            mean: Duration::from_nanos((sum / count as u128) as u64),
            p90: rank(90),
            p99: rank(99),
            max: last,
        })
    }
}

impl Statistics {
    /// Computes the statistics of a run.
    pub fn of(record: &Record) -> Statistics {
        let outcomes = || record.attempts.iter().filter_map(|a| a.answer.as_ref());
        let redirects = outcomes().filter(|a| a.outcome == AnswerKind::Redirect);
        let fails = outcomes().filter(|a| matches!(a.outcome, AnswerKind::Fail { .. }));
        let fails = fails.count() as u64;
        let gets = share(record, Operation::Get);
        let puts = share(record, Operation::Put);
        let created = record.requests.len() as u64;
        let answered = gets.answered + puts.answered;
        let at_lost = unanswered_at_lost_replicas(record);
        let died = record.losses.iter().filter(|l| l.died_by_itself.is_some());
        let died = died.count() as u64;
        let traffic = &record.traffic;
        Statistics {
            requests: record.scenario.requests,
            created,
            gets,
            puts,
            answered,
            attempts: record.attempts.len() as u64,
            redirects: redirects.count() as u64,
            fails,
            unanswered: created - answered,
            unanswered_at_lost_replicas: at_lost,
            unanswered_elsewhere: created - answered - at_lost,
            failures: fails + created - answered,
            duplicates: record.misbehaviour.count(Bad::Duplicate),
            most_bounces: record.requests.iter().map(|r| r.bounces).max().unwrap_or(0),
            messages: traffic.sent.messages,
            bytes: traffic.sent.bytes,
            by_kind: traffic.by_kind.clone(),
            lost: traffic.lost,
            cut: traffic.cut,
            to_the_dead: traffic.to_the_dead,
            leader_changes: leader_changes(record),
            killed: record.losses.len() as u64 - died,
            died,
            latency: Latency::of(answer_latencies(record)),
            completion: completion(record, |_| true),
            get_completion: completion(record, |r| r.operation == Operation::Get),
            put_completion: completion(record, |r| r.operation == Operation::Put),
        }
    }
}

fn share(record: &Record, operation: Operation) -> Share {
    let requests = || record.requests.iter().filter(|r| r.operation == operation);
    Share { created: requests().count() as u64, answered: requests().filter(|r| r.done.is_some()).count() as u64 }
}

fn unanswered_at_lost_replicas(record: &Record) -> u64 {
    // An unanswered request waits for the answer to its last attempt.
    let mut last = vec![None; record.requests.len()];
    for attempt in &record.attempts {
        last[attempt.request] = attempt.to;
    }
    let waiting = record.requests.iter().zip(last);
    waiting
        .filter(|(request, _)| request.done.is_none())
        .filter(|(_, to)| to.is_some_and(|to| record.lost_at(to).is_some()))
        .count() as u64
}

fn leader_changes(record: &Record) -> u64 {
    let changes = record.timeline.iter();
    changes.filter(|moment| matches!(moment.note, Note::LeaderChanged { .. })).count() as u64
}

fn answer_latencies(record: &Record) -> Vec<Duration> {
    let answered = record.attempts.iter();
    answered
        .filter_map(|attempt| {
            let answer = attempt.answer.as_ref()?;
            Some(answer.at.saturating_sub(record.requests[attempt.request].created))
        })
        .collect()
}

fn completion(record: &Record, wanted: impl Fn(&Request) -> bool) -> Option<Latency> {
    let requests = record.requests.iter().filter(|request| wanted(request));
    Latency::of(requests.filter_map(|request| Some(request.done?.saturating_sub(request.created))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(milliseconds: impl IntoIterator<Item = u64>) -> Option<Latency> {
        Latency::of(milliseconds.into_iter().map(Duration::from_millis).collect())
    }

    #[test]
    fn no_samples_no_latency() {
        assert_eq!(of([]), None);
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        let latency = of([40, 10, 30, 20]).unwrap();
        assert_eq!(latency.median, Duration::from_millis(25));
        assert_eq!(latency.mean, Duration::from_millis(25));
        assert_eq!(latency.p90, Duration::from_millis(40));
        assert_eq!(of([3, 1, 2]).unwrap().median, Duration::from_millis(2));
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let latency = of(1..=100).unwrap();
        assert_eq!(latency.samples, 100);
        assert_eq!(latency.min, Duration::from_millis(1));
        assert_eq!(latency.p90, Duration::from_millis(90));
        assert_eq!(latency.p99, Duration::from_millis(99));
        assert_eq!(latency.max, Duration::from_millis(100));
        let one = of([7]).unwrap();
        assert_eq!([one.min, one.median, one.p99, one.max], [Duration::from_millis(7); 4]);
    }
}
