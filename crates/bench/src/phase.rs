//! When each request is due, and when the last one was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::plan::Length;

/// Steps in a second. The requests that an open loop has in a step are due together at its end, because waking up for
/// each of many requests would cost the machine more than the requests.
const STEPS: u128 = 5_000;

/// Longest sleep of the thread that releases requests, so that it notices the end.
const LOOK: Duration = Duration::from_millis(50);

/// When the requests of an open loop are due, in times since its beginning.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    /// Requests in each second.
    rate: u64,
}

fn time_of(step: u128) -> Duration {
    Duration::from_nanos(u64::try_from(step * (1_000_000_000 / STEPS)).unwrap_or(u64::MAX))
}

impl Schedule {
    /// When a request is due; the first has the number 0.
    fn due(self, number: u64) -> Duration {
        time_of((u128::from(number) * STEPS).div_ceil(u128::from(self.rate)))
    }

    /// Number of requests that are due at a time or before it.
    fn count(self, at: Duration) -> u64 {
        let step = at.as_nanos() / (1_000_000_000 / STEPS);
        u64::try_from(step * u128::from(self.rate) / STEPS + 1).unwrap_or(u64::MAX)
    }

    /// Number of requests that are due before a time.
    fn count_before(self, time: Duration) -> u64 {
        let last = time.saturating_sub(Duration::from_nanos(1));
        if time.is_zero() { 0 } else { self.count(last) }
    }
}

/// How well an open loop kept its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Requests that were due in each second.
    pub(crate) rate: u64,
    /// Requests that were due until the end.
    pub(crate) due: u64,
    /// Requests that were sent.
    pub(crate) sent: u64,
    /// How long after it was due the last request was sent.
    pub(crate) last_delay: Duration,
    /// The longest such time of all requests.
    pub(crate) longest_delay: Duration,
}

/// A delay at the end from which on the rate was not kept.
const BEHIND: Duration = Duration::from_millis(250);

impl Pace {
    /// Whether the requests were sent about when they were due, at least at the end.
    pub(crate) fn is_kept(&self) -> bool {
        self.last_delay < BEHIND
    }
}

/// A measurement that is under way: it hands out requests to the clients.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) start: Instant,
    /// When it ends, if it has a time.
    pub(crate) until: Option<Instant>,
    requests: u64,
    next: AtomicU64,
    ended: AtomicBool,
    open: Option<Open>,
}

/// What an open loop needs.
#[derive(Debug)]
struct Open {
    schedule: Schedule,
    /// A permit for each request that is due and not sent yet.
    due: Semaphore,
    last_delay: AtomicU64,
    longest_delay: AtomicU64,
}

impl Phase {
    pub(crate) fn new(length: Length, rate: Option<u64>) -> Arc<Phase> {
        let start = Instant::now();
        let (until, requests) = match length {
            Length::Time(time) => (Some(start + time), u64::MAX),
            Length::Requests(requests) => (None, requests),
        };
        let open = rate.map(|rate| Open {
            schedule: Schedule { rate },
            due: Semaphore::new(0),
            last_delay: AtomicU64::new(0),
            longest_delay: AtomicU64::new(0),
        });
        Arc::new(Phase { start, until, requests, next: AtomicU64::new(0), ended: AtomicBool::new(false), open })
    }

    /// The number of the next request, and the moment from which its latency counts. Waits until one is due. `None` at
    /// the end.
    pub(crate) async fn next(&self) -> Option<(u64, Instant)> {
        if let Some(open) = &self.open {
            // It is closed at the end.
            open.due.acquire().await.ok()?.forget();
        }
        let now = Instant::now();
        if self.ended.load(Ordering::Relaxed) || self.until.is_some_and(|until| now >= until) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.requests {
            return None;
        }
        let Some(open) = &self.open else { return Some((number, now)) };
        let due = self.start + open.schedule.due(number);
        let delay = u64::try_from(now.saturating_duration_since(due).as_nanos()).unwrap_or(u64::MAX);
        open.last_delay.store(delay, Ordering::Relaxed);
        open.longest_delay.fetch_max(delay, Ordering::Relaxed);
        Some((number, due))
    }

    /// Whether each client waits for its last answer.
    pub(crate) fn is_open_loop(&self) -> bool {
        self.open.is_some()
    }

    /// Number of requests that were handed out.
    pub(crate) fn sent(&self) -> u64 {
        self.next.load(Ordering::Relaxed).min(self.requests)
    }

    /// Hands out no more requests.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(open) = &self.open {
            open.due.close();
        }
    }

    /// How well the rate was kept, once the phase is over.
    pub(crate) fn pace(&self) -> Option<Pace> {
        let open = self.open.as_ref()?;
        let elapsed = self.until.map_or(Duration::MAX, |until| until.min(Instant::now()) - self.start);
        let sent = self.sent();
        let delay = |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Ordering::Relaxed));
        Some(Pace {
            rate: open.schedule.rate,
            due: open.schedule.count_before(elapsed).min(self.requests).max(sent),
            sent,
            last_delay: delay(&open.last_delay),
            longest_delay: delay(&open.longest_delay),
        })
    }

    /// Starts the thread that releases the requests of an open loop when they are due. A thread sleeps more exactly than
    /// the runtime's timer, which counts milliseconds.
    pub(crate) fn release(self: &Arc<Phase>, clients: u64) -> Option<JoinHandle<()>> {
        self.open.as_ref()?;
        let phase = Arc::clone(self);
        Some(std::thread::spawn(move || phase.release_all(clients)))
    }

    fn release_all(&self, clients: u64) {
        let Some(open) = &self.open else { return };
        let mut released = 0;
        while !self.ended.load(Ordering::Relaxed) {
            let now = Instant::now();
            if self.until.is_some_and(|until| now >= until) {
                self.end();
                return;
            }
            let due = open.schedule.count(now - self.start).min(self.requests);
            open.due.add_permits((due - released) as usize);
            released = due;
            if released == self.requests {
                // Each client comes once more, and finds that there is no more.
                open.due.add_permits(clients as usize);
                return;
            }
            let next = self.start + open.schedule.due(released);
            let next = self.until.map_or(next, |until| next.min(until));
            std::thread::sleep(next.saturating_duration_since(Instant::now()).min(LOOK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_the_rate_and_never_early() {
        for rate in [1, 3, 999, 5_000, 5_001, 1_000_000] {
            let schedule = Schedule { rate };
            assert_eq!(schedule.due(0), Duration::ZERO);
            for number in (0..20).chain([rate, 10 * rate + 7]) {
                let exact = number as f64 / rate as f64;
                let late = schedule.due(number).as_secs_f64() - exact;
                assert!((-1e-9..0.000_2).contains(&late), "{number} at {rate}/s is {late} s late");
            }
            assert_eq!(schedule.due(rate), Duration::from_secs(1), "{rate}");
        }
    }

    #[test]
    fn a_request_counts_from_the_moment_at_which_it_is_due() {
        for rate in [1, 3, 999, 5_000, 5_001, 1_000_000] {
            let schedule = Schedule { rate };
            for number in [0, 1, 2, 1_000, rate, 7 * rate + 1] {
                let due = schedule.due(number);
                assert!(schedule.count(due) > number, "{number} at {rate}/s");
                assert!(schedule.count_before(due) <= number, "{number} at {rate}/s");
            }
            // Those of the last step may be due at its end.
            let last_step = 2 * rate - schedule.count_before(Duration::from_secs(2));
            assert!(last_step <= rate / 5_000 + 1, "{last_step} of {rate}");
        }
    }

    #[tokio::test]
    async fn an_open_loop_hands_out_all_requests_and_counts_from_when_they_were_due() {
        let phase = Phase::new(Length::Requests(20), Some(1_000));
        let released = phase.release(2).expect("it is an open loop");
        // As if all clients had waited: all requests are late by then, but count from when they were due.
        released.join().expect("it ends");
        let mut numbers = 0;
        while let Some((number, from)) = phase.next().await {
            assert_eq!((number, from), (numbers, phase.start + Duration::from_millis(number)));
            numbers += 1;
        }
        assert_eq!(numbers, 20);
        assert_eq!(phase.next().await, None, "nor for the other client");
        let pace = phase.pace().expect("it is an open loop");
        assert_eq!((pace.rate, pace.due, pace.sent), (1_000, 20, 20));
        assert!(pace.longest_delay >= Duration::from_millis(19), "{pace:?}");
    }

    #[tokio::test]
    async fn what_is_due_at_the_end_and_not_sent_is_told() {
        let phase = Phase::new(Length::Time(Duration::from_millis(300)), Some(100));
        let released = phase.release(1).expect("it is an open loop");
        assert!(phase.next().await.is_some());
        released.join().expect("it ends");
        assert_eq!(phase.next().await, None);
        let pace = phase.pace().expect("it is an open loop");
        assert_eq!((pace.due, pace.sent), (30, 1));
    }

    #[test]
    fn the_rate_is_kept_if_the_last_request_was_sent_in_time() {
        let pace = |last| Pace {
            rate: 10,
            due: 10,
            sent: 10,
            last_delay: Duration::from_millis(last),
            longest_delay: Duration::from_secs(1),
        };
        assert!(pace(249).is_kept() && !pace(250).is_kept());
    }
}
