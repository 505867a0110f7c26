//! The report of a run as text for a terminal.

use std::fmt::Write;
use std::time::Duration;

use super::{Report, grouped};
use crate::judge::{Benchmark, Check, Measured, Status};
use crate::scenario::Tier;
use crate::seconds::show;
use crate::statistics::{Latency, Statistics};

/// How many wrong gets and how many moments of the timeline are shown.
const LISTED: usize = 20;

/// Adds ANSI escapes if `colour` is set.
#[derive(Clone, Copy)]
pub(super) struct Paint {
    pub(super) colour: bool,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(super) fn status(self, status: Status, text: &str) -> String {
        match status {
            Status::Passed => self.with("32", text),
            Status::Noted => self.with("33", text),
            Status::Failed => self.with("1;31", text),
        }
    }

    pub(super) fn tier(self, tier: Tier, text: &str) -> String {
        match tier {
            Tier::Top => self.with("1;32", text),
            Tier::Full => self.with("32", text),
            Tier::Partial => self.with("33", text),
            Tier::None => self.with("31", text),
        }
    }

    pub(super) fn passed(self, passed: bool) -> String {
        match passed {
            true => self.with("1;32", "PASSED"),
            false => self.with("1;31", "FAILED"),
        }
    }
}

pub(super) fn report(report: &Report, colour: bool) -> String {
    let paint = Paint { colour };
    let mut text = String::new();
    head(report, paint, &mut text);
    verdicts(report, paint, &mut text);
    benchmarks(report, paint, &mut text);
    numbers(report, &mut text);
    timeline(report, paint, &mut text);
    wrong_gets(report, paint, &mut text);
    text
}

/// Appends one line. Writing into a `String` cannot fail.
macro_rules! line {
    ($text:expr, $($what:tt)*) => {
        let _ = writeln!($text, $($what)*);
    };
}

fn head(report: &Report, paint: Paint, text: &mut String) {
    let scenario = &report.record.scenario;
    line!(text, "{}  {}", paint.bold(&scenario.name), paint.passed(report.judgement.passed));
    let mut about = format!(
        "{} replicas, {} requests in {} s, {:.0}% gets, {:.0}% drops, seed {}",
        scenario.replicas,
        grouped(scenario.requests),
        scenario.lifetime.as_secs_f64(),
        scenario.mix * 100.0,
        scenario.drops * 100.0,
        report.record.seed
    );
    for (what, value) in [("program", &report.program), ("socket", &report.socket)] {
        if let Some(value) = value {
            let _ = write!(about, ", {what} {value}");
        }
    }
    line!(text, "  {}", paint.faint(&about));
}

fn verdicts(report: &Report, paint: Paint, text: &mut String) {
    for verdict in &report.judgement.verdicts {
        let mark = match verdict.status {
            Status::Passed => "ok  ",
            Status::Noted => "note",
            Status::Failed => "FAIL",
        };
        line!(text, "  {} {:<17} {}", paint.status(verdict.status, mark), verdict.check.title(), verdict.reason);
        if verdict.check == Check::Linearizable {
            for operation in report.judgement.proof() {
                line!(text, "       {:<17} {}", "", operation.trim_end());
            }
        }
    }
}

pub(super) fn measured(benchmark: Benchmark, value: Option<f64>) -> String {
    match (benchmark, value) {
        (_, None) => "-".to_owned(),
        (Benchmark::MedianLatency, Some(value)) => show(Duration::from_secs_f64(value.max(0.0))),
        (_, Some(value)) => grouped(value as u64),
    }
}

/// `top < 2,200, full < 4,000, partial < 5,000`, in the benchmark's unit.
pub(super) fn bounds(measured_value: &Measured) -> String {
    let bound = |value: f64| match measured_value.benchmark {
        Benchmark::MedianLatency => format!("{} ms", value * 1e3),
        _ => value.to_string(),
    };
    let thresholds = &measured_value.thresholds;
    format!(
        "top < {}, full < {}, partial < {}",
        bound(thresholds.top),
        bound(thresholds.full),
        bound(thresholds.partial)
    )
}

fn benchmarks(report: &Report, paint: Paint, text: &mut String) {
    for result in &report.judgement.benchmarks {
        let tier = format!("{:<7}", result.tier.name());
        line!(
            text,
            "  {:<16} {:>10}  {} {}",
            result.benchmark.title(),
            measured(result.benchmark, result.value),
            paint.tier(result.tier, &tier),
            paint.faint(&bounds(result))
        );
    }
}

pub(super) fn distribution(latency: Option<Latency>) -> String {
    match latency {
        None => "none".to_owned(),
        Some(latency) => format!(
            "median {}, mean {}, p90 {}, p99 {}, max {}",
            show(latency.median),
            show(latency.mean),
            show(latency.p90),
            show(latency.p99),
            show(latency.max)
        ),
    }
}

/// The statistics of the report, each with its name.
pub(super) fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let s = &report.statistics;
    let mut facts = client_facts(s);
    facts.extend([
        ("latency", distribution(s.latency)),
        ("until done", distribution(s.completion)),
        ("gets", distribution(s.get_completion)),
        ("puts", distribution(s.put_completion)),
    ]);
    if let Some(floor) = report.floor {
        let times = s.latency.map(|latency| latency.median.div_duration_f64(floor.median));
        let times = times.map(|times| format!(", the median above is {times:.2} times that")).unwrap_or_default();
        let value = format!(
            "a put without any work takes {} on this machine ({} samples){times}",
            show(floor.median),
            grouped(floor.samples as u64)
        );
        facts.push(("floor", value));
    }
    facts.extend(replica_facts(s));
    facts
}

fn client_facts(s: &Statistics) -> Vec<(&'static str, String)> {
    let n = grouped;
    let requests = format!(
        "{} of {} created; {} of {} gets and {} of {} puts answered",
        n(s.created),
        n(s.requests),
        n(s.gets.answered),
        n(s.gets.created),
        n(s.puts.answered),
        n(s.puts.created)
    );
    let bounces = format!(
        "{} redirects and {} fails in {} attempts; at most {} for one request",
        n(s.redirects),
        n(s.fails),
        n(s.attempts),
        n(u64::from(s.most_bounces))
    );
    let unanswered = format!(
        "{}: {} sent to replicas that were killed or died, {} others",
        n(s.unanswered),
        n(s.unanswered_at_lost_replicas),
        n(s.unanswered_elsewhere)
    );
    vec![("requests", requests), ("bounces", bounces), ("unanswered", unanswered)]
}

fn replica_facts(s: &Statistics) -> Vec<(&'static str, String)> {
    let n = grouped;
    let messages = format!(
        "{} ({} bytes): {} lost, {} cut off, {} to dead replicas",
        n(s.messages),
        n(s.bytes),
        n(s.lost),
        n(s.cut),
        n(s.to_the_dead)
    );
    let replicas =
        format!("{} changes of leader, {} killed, {} died by themselves", n(s.leader_changes), n(s.killed), n(s.died));
    vec![("messages", messages), ("replicas", replicas)]
}

fn numbers(report: &Report, text: &mut String) {
    for (name, value) in facts(report) {
        line!(text, "  {name:<11} {value}");
    }
    let kinds: Vec<String> = report
        .statistics
        .by_kind
        .iter()
        .map(|(kind, volume)| format!("{} {kind:?}", grouped(volume.messages)))
        .collect();
    if !kinds.is_empty() {
        line!(text, "  {:<11} {}", "by type", kinds.join(", "));
    }
}

fn timeline(report: &Report, paint: Paint, text: &mut String) {
    let moments = &report.record.timeline;
    for moment in moments.iter().take(LISTED) {
        let at = format!("{:>9.3} s", moment.at.as_secs_f64());
        line!(text, "  {} {}", paint.faint(&at), moment.note);
    }
    more(moments.len(), "moments", text);
}

fn wrong_gets(report: &Report, paint: Paint, text: &mut String) {
    let wrong = &report.judgement.wrong_gets;
    for get in wrong.iter().take(LISTED) {
        let at = format!("{:>9.3} s", get.at.as_secs_f64());
        let got = match &get.got {
            Some(got) => format!("{:?}", bowline_lan::message::shorten(got)),
            None => "no value".to_owned(),
        };
        let excuse = match get.put_under_way {
            true => " (a put to this key was under way)",
            false => "",
        };
        line!(
            text,
            "  {} wrong get: client {} asked {} for key {}, expected {:?}, got {got}{excuse}",
            paint.faint(&at),
            report.record.client_ids[get.client],
            report.record.replica_ids[get.replica],
            get.key,
            get.expected
        );
    }
    more(wrong.len(), "wrong gets", text);
}

fn more(count: usize, what: &str, text: &mut String) {
    if count > LISTED {
        line!(text, "  ... and {} more {what}", count - LISTED);
    }
}
