//! The results: as text, as one JSON document, and as a page.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::compare::{Metric, compare};
use crate::measure::{Course, Errors, Gathered, Point, Times, add, quantile, times};
use crate::phase::Pace;
use crate::plan::{Kind, Plan};
use crate::{page, text};

/// Everything that was measured, and how.
#[derive(Debug)]
pub struct Report {
    /// The options.
    pub plan: Plan,
    /// The program that measured, with its version.
    pub program: String,
    /// When the measurement began.
    pub date: SystemTime,
    /// The server, or two that are compared.
    pub sides: Vec<Side>,
}

/// A server that was measured.
#[derive(Debug)]
pub struct Side {
    /// The URLs that were asked.
    pub endpoints: Vec<String>,
    /// The version of the API that the server told; `None` for an [`echo`](crate::echo).
    pub version: Option<String>,
    /// The measurements, the first one first.
    pub runs: Vec<Run>,
}

/// One measurement.
#[derive(Debug)]
pub struct Run {
    pub(crate) measures: Vec<Measure>,
    pub(crate) errors: Errors,
    /// The time that the rates are of.
    pub(crate) elapsed: Duration,
    /// The longest time in which nothing succeeded.
    pub(crate) gap: Duration,
    pub(crate) pace: Option<Pace>,
    pub(crate) interrupted: bool,
}

/// The latencies of one kind of request, or of events.
#[derive(Debug)]
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) times: Times,
    /// In a second.
    pub(crate) rate: f64,
    pub(crate) points: Vec<Point>,
}

/// The percentiles that are reported: name, and part of all.
pub(crate) const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

impl Measure {
    fn new(name: &'static str, course: Course, elapsed: Duration) -> Measure {
        let rate = course.in_time as f64 / elapsed.as_secs_f64().max(1e-9);
        Measure { name, times: course.times, rate, points: course.points }
    }

    /// The rate in requests or events a second, then the percentiles in seconds; `None` if there are none.
    pub(crate) fn figures(&self) -> [(&'static str, Option<f64>); 6] {
        let mut figures = [("per_second", Some(self.rate)); 6];
        for (figure, (name, part)) in figures[1..].iter_mut().zip(PERCENTILES) {
            *figure = (name, quantile(&self.times, part).map(|time| time.as_secs_f64()));
        }
        figures
    }

    fn json(&self) -> Value {
        let mut value = json!({ "name": self.name, "count": self.times.len() });
        for (name, figure) in self.figures() {
            let key = if name == "per_second" { name.to_owned() } else { format!("{name}_seconds") };
            value[key] = json!(figure);
        }
        let point = |point: &Point| {
            json!({
                "from_seconds": point.from.as_secs_f64(), "until_seconds": point.until.as_secs_f64(),
                "count": point.times.len(), "p50_seconds": quantile(&point.times, 0.5).map(|time| time.as_secs_f64()),
                "p99_seconds": quantile(&point.times, 0.99).map(|time| time.as_secs_f64()),
            })
        };
        value["course"] = self.points.iter().map(point).collect();
        value
    }
}

impl Run {
    /// A closed loop of the time `elapsed`, in which something succeeded at any time.
    pub(crate) fn new(kinds: &[Kind], gathered: Gathered, elapsed: Duration) -> Run {
        let (mut all, mut requests) = (all_of(kinds, &gathered.courses), 0);
        let mut measures = Vec::new();
        for (kind, course) in kinds.iter().zip(gathered.courses) {
            requests += u32::from(kind.is_request);
            measures.push(Measure::new(kind.name, course, elapsed));
        }
        if requests > 1
            && let Some(all) = all.take()
        {
            measures.push(Measure::new("all", all, elapsed));
        }
        let (gap, pace, interrupted) = (Duration::ZERO, None, false);
        Run { measures, errors: gathered.errors, elapsed, gap, pace, interrupted }
    }

    /// Whether something was asked, and nothing succeeded.
    #[must_use]
    pub fn all_failed(&self) -> bool {
        self.errors.total() > 0 && self.measures.iter().all(|measure| measure.times.is_empty())
    }

    /// Whether it ended early, because somebody wanted that.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.interrupted
    }

    fn json(&self) -> Value {
        let pace = |pace: &Pace| {
            json!({
                "rate": pace.rate, "due": pace.due, "sent": pace.sent, "kept": pace.is_kept(),
                "last_delay_seconds": pace.last_delay.as_secs_f64(),
                "longest_delay_seconds": pace.longest_delay.as_secs_f64(),
            })
        };
        let error = |(text, count): (&str, u64)| json!({ "error": text, "count": count });
        json!({
            "seconds": self.elapsed.as_secs_f64(), "measures": self.measures.iter().map(Measure::json).collect::<Value>(),
            "errors": self.errors.total(), "errors_by_kind": self.errors.sorted().into_iter().map(error).collect::<Value>(),
            "longest_gap_seconds": self.gap.as_secs_f64(), "pace": self.pace.as_ref().map(pace), "interrupted": self.interrupted,
        })
    }
}

/// All requests together.
fn all_of(kinds: &[Kind], courses: &[Course]) -> Option<Course> {
    let mut requests = kinds.iter().zip(courses).filter(|(kind, _)| kind.is_request).map(|(_, course)| course.clone());
    let first = requests.next()?;
    Some(requests.fold(first, |mut all, course| {
        add(&mut all.times, &course.times);
        all.in_time += course.in_time;
        for (point, other) in all.points.iter_mut().zip(&course.points) {
            let mut sum = times(2);
            add(&mut sum, &point.times);
            add(&mut sum, &other.times);
            point.times = sum;
        }
        all
    }))
}

impl Side {
    fn json(&self) -> Value {
        let runs: Value = self.runs.iter().map(Run::json).collect();
        json!({ "endpoints": self.endpoints, "version": self.version, "runs": runs })
    }
}

impl Report {
    /// Whether all requests of a run failed, or it was ended early.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.sides.iter().flat_map(|side| &side.runs).any(|run| run.all_failed() || run.interrupted)
    }

    /// What is compared, if there are two servers.
    pub(crate) fn comparison(&self) -> Vec<Metric> {
        match self.sides.as_slice() {
            [a, b] => compare(&a.runs, &b.runs),
            _ => Vec::new(),
        }
    }

    /// The date and time at which the measurement began, such as `2026-11-30T12:00:00Z`.
    pub(crate) fn date(&self) -> String {
        let seconds = self.date.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        text::date(seconds)
    }

    /// For people, in lines of at most 80 columns.
    #[must_use]
    pub fn text(&self) -> String {
        text::report(self)
    }

    /// One page, which needs no other file.
    #[must_use]
    pub fn html(&self) -> String {
        page::page(self)
    }

    /// One document. `docs/bench.md` describes its fields.
    #[must_use]
    pub fn json(&self) -> Value {
        let side = |place: usize| self.sides.get(place).map(Side::json);
        let comparison: Value = self.comparison().iter().map(Metric::json).collect();
        json!({
            "program": self.program, "date": self.date(), "configuration": self.plan.json(), "a": side(0), "b": side(1),
            "comparison": comparison,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::measure::Recorder;
    use crate::phase::Pace;
    use crate::plan::tests::settings;
    use crate::plan::{Settings, Work};

    const HOSTILE: &str = "</td><script>alert(1)</script>\u{1b}[31m";

    /// A report of so many servers, in which every text from outside is hostile.
    fn report(work: Work, sides: usize, rate: Option<u64>) -> Report {
        let plan = Plan::new(Settings { rate, ..settings(work) }, 1).expect("it is allowed");
        let run = |milliseconds: u64| {
            let (start, kinds) = (Instant::now(), work.kinds());
            let (recorder, mut gathered) = (Recorder::new(kinds.len(), 1, start, None), Gathered::new(kinds));
            for kind in 0..kinds.len() {
                recorder.note(0, kind, start, start + Duration::from_millis(milliseconds));
            }
            recorder.fail(0, HOSTILE, 1);
            gathered.take(&recorder, Duration::from_secs(2));
            let delay = Duration::from_millis(300);
            let pace = |rate| Pace { rate, due: 9, sent: 4, last_delay: delay, longest_delay: delay };
            let gap = Duration::from_millis(milliseconds);
            Run { gap, pace: rate.map(pace), ..Run::new(kinds, gathered, Duration::from_secs(2)) }
        };
        let side = |number: usize| Side {
            endpoints: vec![format!("http://127.0.0.1:{number}")],
            version: Some(HOSTILE.to_owned()),
            runs: vec![run(10 * (number as u64 + 1)), run(20)],
        };
        let (program, date) = ("bowline 1.2.3".to_owned(), SystemTime::UNIX_EPOCH);
        Report { plan, program, date, sides: (0..sides).map(side).collect() }
    }

    #[test]
    fn nothing_from_outside_reaches_the_page_or_the_terminal_as_it_is() {
        for sides in [1, 2] {
            let report = report(Work::Put, sides, Some(10));
            let page = report.html();
            assert!(!page.contains("<script") && !page.contains('\u{1b}'), "{page}");
            assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
            for told in
                ["1970-01-01T00:00:00Z", "bowline 1.2.3", "64 clients", "The rate was not kept: 4 of 9 requests"]
            {
                assert!(page.contains(told), "{told}: {page}");
            }
            assert!(!report.text().contains('\u{1b}'));
        }
    }

    #[test]
    fn requests_are_summed_and_events_are_not() {
        let names = |work| -> Vec<&str> {
            let report = report(work, 1, None);
            report.sides[0].runs[0].measures.iter().map(|measure| measure.name).collect()
        };
        assert_eq!(names(Work::Put), ["put"]);
        assert_eq!(names(Work::Mixed { reads: 50 }), ["get", "put", "all"]);
        assert_eq!(names(Work::Watch { watchers: 1, streams: 1 }), ["put", "event"]);
        assert_eq!(names(Work::Lease), ["grant", "keep-alive", "revoke", "all"]);
        let report = report(Work::Lease, 1, None);
        let all = &report.sides[0].runs[0].measures[3];
        assert_eq!((all.times.len(), all.rate, all.points[0].times.len()), (3, 1.5, 3));
    }

    #[test]
    fn the_document_has_what_was_measured_and_compared() {
        let document = report(Work::Put, 2, Some(10)).json();
        let run = &document["a"]["runs"][0];
        assert_eq!((&run["measures"][0]["count"], &run["measures"][0]["per_second"]), (&json!(1), &json!(0.5)));
        let p50 = run["measures"][0]["p50_seconds"].as_f64().expect("a number");
        assert!((p50 - 0.01).abs() < 1e-5, "{p50}");
        assert_eq!((&run["errors"], &run["pace"]["kept"], &run["pace"]["due"]), (&json!(1), &json!(false), &json!(9)));
        let compared = document["comparison"].as_array().expect("two servers");
        let names: Vec<&str> = compared.iter().filter_map(|metric| metric["metric"].as_str()).collect();
        assert_eq!(names, ["per_second", "p50", "p90", "p99", "p99.9", "max", "longest gap", "errors"]);
        let ratios = compared[1]["ratios"].as_array().expect("a ratio for each round");
        assert!((ratios[0].as_f64().expect("a number") - 0.5).abs() < 0.01, "{ratios:?}");
        assert_eq!(ratios.len(), 2);
        let mut ended = report(Work::Put, 2, None);
        ended.sides[1].runs[1].interrupted = true;
        assert!(ended.failed() && ended.comparison().iter().all(|metric| metric.values[0].len() == 1), "{ended:?}");
        assert_eq!(report(Work::Put, 1, None).json()["b"], Value::Null);
    }

    #[test]
    fn text_fits_a_terminal() {
        for (work, sides) in [(Work::Lease, 1), (Work::Lease, 2), (Work::Put, 2)] {
            let text = report(work, sides, Some(1_000_000)).text();
            let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
            assert!(long.is_empty(), "{long:#?}");
            assert!(text.contains("NOT KEPT: 4 of 9 requests were sent, the last one 300 ms late"), "{text}");
        }
        let text = report(Work::Put, 1, None).text();
        assert!(
            text.contains("\nput                  1     0.50  10.0 ms  10.0 ms  10.0 ms  10.0 ms  10.0 ms\n"),
            "{text}"
        );
        assert!(
            text.contains("errors   1 (50.00%)\n        1  </td><script>alert(1)</script>\u{fffd}[31m\n"),
            "{text}"
        );
    }

    #[test]
    fn a_run_in_which_nothing_succeeds_has_failed() {
        let mut report = report(Work::Put, 1, None);
        assert!(!report.failed());
        report.sides[0].runs[0].measures[0].times.reset();
        assert!(report.failed());
    }
}
