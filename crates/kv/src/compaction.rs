//! Automatic compaction: the leader gives up old revisions at intervals, with the rules of etcd.

use std::collections::VecDeque;
use std::time::Duration;

use bowline_node::raft::Time;

/// Longest time between two compactions by time.
const HOUR: Duration = Duration::from_secs(3_600);

/// Number of rounds in the time between two compactions by time.
const ROUNDS: u32 = 10;

/// Interval of the rounds that keep a number of revisions, as in etcd.
pub const REVISIONS_PAUSE: Duration = Duration::from_secs(300);

/// How much history automatic compaction keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// The history of this time (`periodic`).
    Time(Duration),
    /// This number of revisions (`revision`).
    Revisions(i64),
}

/// Decides what a leader compacts, and when. It has no clock: it is told the time. Each new leader begins anew.
#[derive(Debug)]
pub struct Schedule {
    retention: Retention,
    revisions_pause: Duration,
    /// The revisions of the latest rounds, oldest first.
    seen: VecDeque<i64>,
    /// The last revision that was compacted.
    compacted: i64,
    /// Nothing is compacted before this time.
    not_before: Time,
}

impl Schedule {
    /// Begins the first interval at this time and revision. `revisions_pause`: the interval of the rounds that keep a
    /// number of revisions ([`REVISIONS_PAUSE`]).
    #[must_use]
    pub fn new(retention: Retention, revisions_pause: Duration, now: Time, revision: i64) -> Schedule {
        let not_before = match retention {
            Retention::Time(time) => now.after(time),
            Retention::Revisions(_) => now,
        };
        Schedule { retention, revisions_pause, seen: VecDeque::from([revision]), compacted: 0, not_before }
    }

    /// Time between two rounds.
    #[must_use]
    pub fn interval(&self) -> Duration {
        match self.retention {
            Retention::Time(time) => time.min(HOUR) / ROUNDS,
            Retention::Revisions(_) => self.revisions_pause,
        }
    }

    /// Takes the latest revision at the end of an interval. Returns the revision to compact, if one is due.
    pub fn round(&mut self, now: Time, revision: i64) -> Option<i64> {
        let due = match self.retention {
            Retention::Revisions(kept) => revision.saturating_sub(kept),
            Retention::Time(time) => {
                let oldest = self.seen.front().copied().unwrap_or(0);
                self.seen.push_back(revision);
                let rounds = time.as_nanos() / self.interval().as_nanos().max(1);
                if self.seen.len() as u128 > rounds + 1 {
                    self.seen.pop_front();
                }
                oldest
            }
        };
        (now >= self.not_before && due > self.compacted.max(0)).then_some(due)
    }

    /// Notes that a revision was compacted.
    pub fn done(&mut self, now: Time, revision: i64) {
        self.compacted = revision;
        if let Retention::Time(time) = self.retention {
            self.not_before = now.after(time.min(HOUR));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;

    /// The compactions of so many rounds, each with its round and revision. One revision is written every second.
    /// Compactions in the rounds `failing` fail.
    fn run(retention: Retention, rounds: u32, failing: std::ops::Range<u32>) -> Vec<(u32, i64)> {
        let mut schedule = Schedule::new(retention, REVISIONS_PAUSE, Time::ZERO, 1);
        let mut compacted = Vec::new();
        for round in 1..=rounds {
            let passed = schedule.interval() * round;
            let now = Time::ZERO.after(passed);
            if let Some(revision) = schedule.round(now, passed.as_secs() as i64 + 1)
                && !failing.contains(&round)
            {
                schedule.done(now, revision);
                compacted.push((round, revision));
            }
        }
        compacted
    }

    #[test]
    fn the_history_of_a_short_time_is_kept() {
        let retention = Retention::Time(Duration::from_secs(10 * MINUTE));
        assert_eq!(run(retention, 30, 0..0), [(10, 1), (20, 541), (30, 1_141)]);
    }

    #[test]
    fn the_history_of_a_long_time_is_given_up_every_hour() {
        let retention = Retention::Time(Duration::from_secs(24 * 60 * MINUTE));
        assert_eq!(run(retention, 260, 0..0), [(240, 1), (250, 3_241), (260, 6_841)]);
    }

    #[test]
    fn a_number_of_revisions_is_kept() {
        assert_eq!(run(Retention::Revisions(1_000), 5, 0..0), [(4, 201), (5, 501)]);
    }

    #[test]
    fn a_failed_compaction_is_tried_again_in_the_next_round() {
        let retention = Retention::Time(Duration::from_secs(10 * MINUTE));
        assert_eq!(run(retention, 32, 20..22), [(10, 1), (22, 661), (32, 1_261)]);
        assert_eq!(run(Retention::Revisions(1_000), 5, 4..5), [(5, 501)]);
    }

    #[test]
    fn what_is_compacted_is_not_compacted_again() {
        for retention in [Retention::Time(Duration::from_secs(10)), Retention::Revisions(3)] {
            let mut schedule = Schedule::new(retention, REVISIONS_PAUSE, Time::ZERO, 7);
            let later = Time::ZERO.after(HOUR);
            let due = schedule.round(later, 7).expect("it is due");
            schedule.done(later, due);
            assert_eq!(schedule.round(later.after(HOUR), 7), None, "{retention:?}");
        }
    }
}
