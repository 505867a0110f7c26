//! Latencies, errors, and their course over time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tonic::Status;

use crate::plan::Kind;

/// Largest number of different errors that are counted apart.
const MAX_ERRORS: usize = 20;

/// Longest text of an error, in characters.
const MAX_ERROR: usize = 160;

/// Largest number of points of a course. Then each two become one.
const MAX_POINTS: usize = 240;

/// Samples that the current figures are made from.
const CURRENT: usize = 4;

/// A sample of less time than this, at the end, becomes no point of its own: its rate would say little.
const SHORT: Duration = Duration::from_millis(100);

/// A latency of more counts as this.
const LONGEST: Duration = Duration::from_secs(3600);

/// A histogram of times in nanoseconds.
pub(crate) type Times = Histogram<u64>;

/// An empty histogram that keeps so many significant digits, and grows as it needs.
pub(crate) fn times(digits: u8) -> Times {
    Histogram::new(digits).expect("one to five digits are allowed")
}

/// Adds to a histogram that grows as it needs.
pub(crate) fn add(sum: &mut Times, times: &Times) {
    sum.add(times).expect("the sum grows as it needs");
}

/// The time that this part of all times did not exceed; `None` if there are none.
pub(crate) fn quantile(times: &Times, part: f64) -> Option<Duration> {
    (!times.is_empty()).then(|| Duration::from_nanos(times.value_at_quantile(part)))
}

/// Counts of errors by their text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Errors(BTreeMap<String, u64>);

impl Errors {
    fn note(&mut self, what: &str, count: u64) {
        // It comes from outside, and goes to a terminal.
        let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        let what: String = what.chars().take(MAX_ERROR).map(plain).collect();
        let full = self.0.len() >= MAX_ERRORS && !self.0.contains_key(&what);
        *self.0.entry(if full { "others".to_owned() } else { what }).or_default() += count;
    }

    fn absorb(&mut self, other: Errors) {
        other.0.iter().for_each(|(what, count)| self.note(what, *count));
    }

    /// How often anything failed.
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Each error and how often it came, the most frequent first.
    pub(crate) fn sorted(&self) -> Vec<(&str, u64)> {
        let mut all: Vec<_> = self.0.iter().map(|(what, count)| (what.as_str(), *count)).collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        all
    }
}

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Failed {
    Refused(Status),
    /// There was no answer in time.
    Late,
    /// The answer was wrong.
    Wrong(&'static str),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Failed {
        Failed::Refused(status)
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failed::Refused(status) => write!(f, "{:?}: {}", status.code(), bowline_client::reason(status)),
            Failed::Late => f.write_str("no answer in time"),
            Failed::Wrong(what) => f.write_str(what),
        }
    }
}

/// What some of the clients have measured since somebody looked.
#[derive(Debug)]
struct Tally {
    times: Vec<Times>,
    /// Of each kind, how many came before the end.
    in_time: Vec<u64>,
    errors: Errors,
}

/// Where clients note what they measure. Clients of different shards don't wait for each other.
#[derive(Debug)]
pub(crate) struct Recorder {
    shards: Vec<Mutex<Tally>>,
    start: Instant,
    /// The end of the measurement, if it has a time.
    until: Option<Instant>,
    /// When something last succeeded, and the longest time in which nothing did; in nanoseconds, the first one from the
    /// start.
    last: AtomicU64,
    gap: AtomicU64,
}

impl Recorder {
    pub(crate) fn new(kinds: usize, shards: usize, start: Instant, until: Option<Instant>) -> Recorder {
        let tally = || Tally {
            times: (0..kinds).map(|_| times(3)).collect(),
            in_time: vec![0; kinds],
            errors: Errors::default(),
        };
        let shards = (0..shards.max(1)).map(|_| Mutex::new(tally())).collect();
        Recorder { shards, start, until, last: AtomicU64::new(0), gap: AtomicU64::new(0) }
    }

    fn shard(&self, number: usize) -> std::sync::MutexGuard<'_, Tally> {
        self.shards[number % self.shards.len()].lock().expect("nobody panics while holding it")
    }

    /// The longest time in which nothing succeeded, if nothing has since it last did until `now`.
    pub(crate) fn gap(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.start).saturating_sub(nanos(&self.last));
        nanos(&self.gap).max(since)
    }

    fn succeeded(&self, now: Instant) {
        let now = u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        let before = self.last.fetch_max(now, Ordering::Relaxed);
        self.gap.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
    }

    /// Notes that something took the time from `from` to `now`.
    pub(crate) fn note(&self, shard: usize, kind: usize, from: Instant, now: Instant) {
        self.succeeded(now);
        let took = now.saturating_duration_since(from).min(LONGEST).as_nanos() as u64;
        let mut tally = self.shard(shard);
        tally.times[kind].record(took).expect("the histogram grows as it needs");
        tally.in_time[kind] += u64::from(self.until.is_none_or(|until| now <= until));
    }

    /// Notes that something failed, so many times.
    pub(crate) fn fail(&self, shard: usize, what: &str, count: u64) {
        self.shard(shard).errors.note(what, count);
    }
}

fn nanos(count: &AtomicU64) -> Duration {
    Duration::from_nanos(count.load(Ordering::Relaxed))
}

/// A piece of the course.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    /// With two digits, because there may be many points.
    pub(crate) times: Times,
}

impl Point {
    /// How often it was done in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.times.len() as f64 / (self.until - self.from).as_secs_f64().max(1e-9)
    }
}

/// All latencies of a kind, and their course.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    pub(crate) times: Times,
    /// How many came before the end.
    pub(crate) in_time: u64,
    pub(crate) points: Vec<Point>,
}

impl Course {
    /// Adds a sample: as a new point, or to the last one.
    fn push(&mut self, sample: Point, joins: bool) {
        match self.points.last_mut().filter(|_| joins) {
            Some(last) => {
                last.until = sample.until;
                add(&mut last.times, &sample.times);
            }
            None => self.points.push(sample),
        }
    }

    /// Makes one point of each two.
    fn halve(&mut self) {
        for (place, point) in std::mem::take(&mut self.points).into_iter().enumerate() {
            self.push(point, place % 2 == 1);
        }
    }
}

/// What was measured so far.
#[derive(Debug)]
pub(crate) struct Gathered {
    kinds: &'static [Kind],
    pub(crate) courses: Vec<Course>,
    pub(crate) errors: Errors,
    /// Until when it was gathered.
    last: Duration,
    /// Samples in each point, and in the last one.
    per_point: u32,
    in_last: u32,
    /// The last samples of all requests.
    current: VecDeque<Point>,
}

impl Gathered {
    pub(crate) fn new(kinds: &'static [Kind]) -> Gathered {
        let course = Course { times: times(3), in_time: 0, points: Vec::new() };
        Gathered {
            kinds,
            courses: vec![course; kinds.len()],
            errors: Errors::default(),
            last: Duration::ZERO,
            per_point: 1,
            in_last: 0,
            current: VecDeque::new(),
        }
    }

    /// Takes what was measured until `now`, a time since the beginning.
    pub(crate) fn take(&mut self, recorder: &Recorder, now: Duration) {
        let mut fresh = vec![times(3); self.courses.len()];
        for shard in 0..recorder.shards.len() {
            let mut tally = recorder.shard(shard);
            let Tally { times, in_time, errors } = &mut *tally;
            for (kind, times) in times.iter_mut().enumerate() {
                add(&mut fresh[kind], times);
                times.reset();
                self.courses[kind].in_time += std::mem::take(&mut in_time[kind]);
            }
            self.errors.absorb(std::mem::take(errors));
        }
        let now = now.max(self.last);
        let (from, mut requests) = (std::mem::replace(&mut self.last, now), times(3));
        for ((course, fresh), kind) in self.courses.iter_mut().zip(&fresh).zip(self.kinds) {
            add(&mut course.times, fresh);
            if kind.is_request {
                add(&mut requests, fresh);
            }
            let mut coarse = times(2);
            add(&mut coarse, fresh);
            course.push(Point { from, until: now, times: coarse }, self.in_last > 0 || now - from < SHORT);
        }
        self.in_last = if now - from < SHORT { self.in_last } else { (self.in_last + 1) % self.per_point };
        if self.in_last == 0 && self.courses.iter().any(|course| course.points.len() >= MAX_POINTS) {
            self.courses.iter_mut().for_each(Course::halve);
            self.per_point *= 2;
        }
        self.current.push_back(Point { from, until: now, times: requests });
        if self.current.len() > CURRENT {
            self.current.pop_front();
        }
    }

    /// The requests of the last samples.
    pub(crate) fn current(&self) -> Option<Point> {
        let mut points = self.current.iter().cloned();
        points.next().map(|first| {
            points.fold(first, |mut sum, point| {
                sum.until = point.until;
                add(&mut sum.times, &point.times);
                sum
            })
        })
    }

    /// Number of requests that succeeded.
    pub(crate) fn done(&self) -> u64 {
        self.courses
            .iter()
            .zip(self.kinds)
            .filter(|(_, kind)| kind.is_request)
            .map(|(course, _)| course.times.len())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Work;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn about(time: Option<Duration>, milliseconds: f64) {
        let time = time.expect("there are times").as_secs_f64() * 1e3;
        assert!((time / milliseconds - 1.0).abs() < 0.002, "{time} ms, not {milliseconds} ms");
    }

    #[test]
    fn percentiles_of_shards_are_those_of_all_times_together() {
        let start = Instant::now();
        let recorder = Recorder::new(1, 3, start, None);
        for time in 1..=1_000 {
            recorder.note(time as usize, 0, start, start + ms(time));
        }
        let mut gathered = Gathered::new(Work::Put.kinds());
        gathered.take(&recorder, ms(500));
        for time in 1_001..=2_000 {
            recorder.note(time as usize, 0, start, start + ms(time));
        }
        gathered.take(&recorder, ms(1_000));
        let times = &gathered.courses[0].times;
        assert_eq!(times.len(), 2_000);
        for (part, expected) in [(0.5, 1_000.0), (0.9, 1_800.0), (0.99, 1_980.0), (0.999, 1_998.0), (1.0, 2_000.0)] {
            about(quantile(times, part), expected);
        }
        assert_eq!(quantile(&super::times(3), 0.5), None);
        let rates: Vec<f64> = gathered.courses[0].points.iter().map(Point::rate).collect();
        assert_eq!(rates, [2_000.0, 2_000.0]);
        assert_eq!(gathered.current().expect("two samples").rate(), 2_000.0);
    }

    #[test]
    fn what_comes_after_the_end_counts_for_latencies_only() {
        let start = Instant::now();
        let recorder = Recorder::new(1, 1, start, Some(start + ms(10)));
        recorder.note(0, 0, start, start + ms(10));
        recorder.note(0, 0, start, start + ms(11));
        let mut gathered = Gathered::new(Work::Put.kinds());
        gathered.take(&recorder, ms(11));
        assert_eq!((gathered.courses[0].in_time, gathered.courses[0].times.len(), gathered.done()), (1, 2, 2));
    }

    #[test]
    fn the_longest_time_without_a_success_is_known() {
        let start = Instant::now();
        let recorder = Recorder::new(1, 2, start, None);
        assert_eq!(recorder.gap(start + ms(3)), ms(3), "at the beginning");
        for (shard, time) in [10, 11, 31, 30, 35].into_iter().enumerate() {
            recorder.note(shard, 0, start, start + ms(time));
        }
        assert_eq!(recorder.gap(start + ms(40)), ms(20), "between two");
        assert_eq!(recorder.gap(start + ms(60)), ms(25), "at the end");
    }

    #[test]
    fn a_long_course_keeps_its_sum_in_fewer_points() {
        let start = Instant::now();
        let recorder = Recorder::new(2, 1, start, None);
        let mut gathered = Gathered::new(Work::Watch { watchers: 1, streams: 1 }.kinds());
        for sample in 1..=2_000 {
            recorder.note(0, 0, start, start + ms(1));
            recorder.note(0, 1, start, start + ms(1));
            gathered.take(&recorder, ms(250 * sample));
        }
        assert_eq!(gathered.done(), 2_000, "events are no requests");
        for course in &gathered.courses {
            assert!((MAX_POINTS / 2..MAX_POINTS).contains(&course.points.len()), "{}", course.points.len());
            assert_eq!(course.points.iter().map(|point| point.times.len()).sum::<u64>(), 2_000);
            assert!(course.points.windows(2).all(|two| two[0].until == two[1].from), "no gap");
            assert!(course.points.iter().all(|point| (point.rate() - 4.0).abs() < 1e-9));
        }
    }

    #[test]
    fn errors_are_bounded_and_fit_for_a_terminal() {
        let mut errors = Errors::default();
        errors.note("bad\u{1b}[31m", 2);
        for number in 0..100 {
            errors.note(&format!("{number} {}", "x".repeat(1_000)), 1);
        }
        assert_eq!(errors.total(), 102);
        let sorted = errors.sorted();
        assert_eq!((sorted[0], sorted[1], sorted.len()), (("others", 81), ("bad\u{fffd}[31m", 2), MAX_ERRORS + 1));
        assert!(sorted.iter().all(|(what, _)| what.chars().count() <= MAX_ERROR));
    }
}
