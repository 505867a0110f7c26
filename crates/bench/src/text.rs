//! The report as text.

use std::fmt::Write as _;
use std::time::Duration;

use crate::compare::{Metric, median};
use crate::plan::{Distribution, Length, Plan, Work};
use crate::report::{PERCENTILES, Report, Run, Side};

/// Largest number of rounds whose ratios are listed.
const LISTED: usize = 3;

/// A time with three significant digits, such as `0.123 ms`, `4.56 ms`, `1.20 s`.
pub(crate) fn time(seconds: f64) -> String {
    let milliseconds = seconds * 1e3;
    match milliseconds {
        ms if ms >= 999.5 => format!("{seconds:.2} s"),
        ms if ms >= 99.95 => format!("{ms:.0} ms"),
        ms if ms >= 9.995 => format!("{ms:.1} ms"),
        ms if ms >= 0.9995 => format!("{ms:.2} ms"),
        ms => format!("{ms:.3} ms"),
    }
}

/// A count with a comma between each three digits.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate: below 100, with two decimals.
pub(crate) fn rate(rate: f64) -> String {
    if rate < 100.0 { format!("{rate:.2}") } else { count(rate.round() as u64) }
}

/// So many things.
fn some(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A date and time of so many seconds since 1970, in UTC.
pub(crate) fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let months = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= months[month] {
        day -= months[month];
        month += 1;
    }
    let (hours, minutes) = (second / 3_600, second / 60 % 60);
    format!("{year}-{:02}-{:02}T{hours:02}:{minutes:02}:{:02}Z", month + 1, day + 1, second % 60)
}

/// The options, as names with values.
pub(crate) fn facts(plan: &Plan) -> Vec<(&'static str, String)> {
    let s = plan.settings();
    let read = |serializable| if serializable { "serializable" } else { "linearizable" };
    let work = match s.work {
        Work::Put => "put".to_owned(),
        Work::Get { serializable } => format!("get, {}", read(serializable)),
        Work::Range { limit, serializable } => format!("range of {}, {}", some(limit, "key"), read(serializable)),
        Work::Txn => "txn: a comparison and a put".to_owned(),
        Work::Mixed { reads } => format!("mixed: {reads}% linearizable gets, {}% puts", 100 - reads),
        Work::Watch { watchers, streams } => {
            format!("watch: {} of all keys on {}", some(watchers, "watcher"), some(streams, "stream"))
        }
        Work::Lease => "lease: grant, keep-alive, revoke".to_owned(),
    };
    let pace = match s.rate {
        Some(rate) => format!("open loop, {}/s due", count(rate)),
        None => "closed loop".to_owned(),
    };
    let clients = format!("{} on {}, {pace}", some(s.clients, "client"), some(plan.connections(), "connection"));
    let keys = match s.distribution {
        Distribution::Sequential => "sequential".to_owned(),
        Distribution::Uniform => "uniform".to_owned(),
        Distribution::Zipf { exponent } => format!("zipf {exponent}"),
    };
    let keys = format!("{} of {} bytes, {keys}; values of {} bytes", count(s.keys), s.key_size, count(s.value_size));
    let length = match s.length {
        Length::Time(time) => format!("{time:?}"),
        Length::Requests(requests) => some(requests, "request"),
    };
    let mut facts = vec![("work", work), ("clients", clients)];
    if s.work != Work::Lease {
        facts.push(("keys", keys));
    }
    let warmup =
        if s.warmup.is_zero() { "without a warm-up".to_owned() } else { format!("after {:?} to warm up", s.warmup) };
    facts.push(("length", format!("{length}, {warmup}; seed {}", s.seed)));
    facts
}

/// Text for a terminal: no control characters from outside.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The addresses of a side, and its version.
pub(crate) fn place(side: &Side) -> String {
    let addresses: Vec<&str> = side.endpoints.iter().map(|url| url.strip_prefix("http://").unwrap_or(url)).collect();
    let version = side.version.as_ref().map_or("an echo".to_owned(), |version| format!("version {version}"));
    plain(&format!("{}, {version}", addresses.join(",")))
}

pub(crate) fn report(report: &Report) -> String {
    let mut out = String::new();
    for (name, value) in facts(&report.plan) {
        line(&mut out, &format!("{name:<9}{value}"));
    }
    let names: &[&str] = if report.sides.len() > 1 { &["A", "B"] } else { &["server"] };
    for (name, side) in names.iter().zip(&report.sides) {
        line(&mut out, &format!("{name:<9}{}", place(side)));
    }
    match report.sides.as_slice() {
        [side] => side.runs.iter().for_each(|run| measured(&mut out, run)),
        sides => {
            compared(&mut out, &report.comparison());
            for (name, side) in names.iter().zip(sides) {
                side.runs.iter().for_each(|run| remarks(&mut out, &format!("{name}: "), run));
            }
        }
    }
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

/// The figures of a run.
fn measured(out: &mut String, run: &Run) {
    let mut head = format!("\n{:<11}{:>11}{:>9}", "", "count", "/s");
    for (name, _) in PERCENTILES {
        let _ = write!(head, "{name:>9}");
    }
    line(out, &head);
    for measure in &run.measures {
        let mut row = format!("{:<11}{:>11}{:>9}", measure.name, count(measure.times.len()), rate(measure.rate));
        for (_, figure) in &measure.figures()[1..] {
            let _ = write!(row, "{:>9}", figure.map_or("-".to_owned(), time));
        }
        line(out, &row);
    }
    line(out, &format!("\nlongest time without a success: {}", time(run.gap.as_secs_f64())));
    if run.errors.total() == 0 {
        line(out, "errors   none");
    }
    remarks(out, "", run);
}

/// What is to be said of a run besides its figures. Each line begins with `who`.
fn remarks(out: &mut String, who: &str, run: &Run) {
    let total = run.errors.total();
    if total > 0 {
        let done: u64 = run.measures.iter().filter(|measure| measure.name != "all").map(|m| m.times.len()).sum();
        let share = total as f64 * 100.0 / (total + done) as f64;
        line(out, &format!("{who}errors   {} ({share:.2}%)", count(total)));
        for (what, times) in run.errors.sorted() {
            line(out, &format!("{who}  {:>7}  {what}", count(times)));
        }
    }
    if let Some(pace) = &run.pace {
        let delay = |delay: Duration| time(delay.as_secs_f64());
        if pace.is_kept() {
            let longest = delay(pace.longest_delay);
            line(out, &format!("{who}rate     kept: requests were sent at most {longest} after they were due"));
        } else {
            let (sent, due, last) = (count(pace.sent), count(pace.due), delay(pace.last_delay));
            line(
                out,
                &format!("{who}rate     NOT KEPT: {sent} of {due} requests were sent, the last one {last} late,"),
            );
            line(out, &format!("{who}         because all clients waited: use more --clients or a lower --rate"));
        }
    }
    if run.interrupted {
        line(out, &format!("{who}interrupted after {:.1} s", run.elapsed.as_secs_f64()));
    }
}

/// A ratio in at most five characters.
pub(crate) fn ratio(ratio: f64) -> String {
    match ratio {
        large if large >= 99.95 => format!("{large:.0}"),
        medium if medium >= 9.995 => format!("{medium:.1}"),
        small => format!("{small:.3}"),
    }
}

/// A value of a metric with this name.
pub(crate) fn value(metric: &Metric, value: f64) -> String {
    match metric.name {
        "per_second" => rate(value),
        "errors" => count(value as u64),
        _ => time(value),
    }
}

/// The comparison of two servers.
fn compared(out: &mut String, metrics: &[Metric]) {
    let rounds = metrics.iter().map(|metric| metric.ratios().len()).max().unwrap_or(0);
    let listed = if rounds <= LISTED { rounds } else { 0 };
    let pairs = if listed > 0 { format!("{:>1$}", "A/B", listed * 6) } else { String::new() };
    line(out, &format!("\n{:<17}{:>9}{:>9}{pairs}{:>8}  {}", "", "A", "B", "median", "spread"));
    for metric in metrics {
        let name = if metric.name == "per_second" { "/s" } else { metric.name };
        let middle = |values: &Vec<f64>| median(values).map_or("-".to_owned(), |middle| value(metric, middle));
        let [a, b] = metric.values.each_ref().map(middle);
        let mut row = format!("{:<17}{a:>9}{b:>9}", format!("{} {name}", metric.measure));
        let ratios = metric.ratios();
        for round in 0..listed {
            let _ = write!(row, "{:>6}", ratios.get(round).map_or(String::new(), |of| ratio(*of)));
        }
        if let (Some(median), Some((least, most))) = (median(&ratios), metric.spread()) {
            let _ = write!(row, "{:>8}  {} to {}", ratio(median), ratio(least), ratio(most));
        }
        line(out, &row);
    }
    line(out, "\nA and B: medians of the rounds. A/B: in each round, its median, and its spread;");
    line(out, "above 1, A is faster in /s, and slower in times.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_legible() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, 12.345, 99.994, 1_234.5].map(rate), ["0.00", "12.35", "99.99", "1,235"]);
        let times = [0.0, 0.000_123_4, 0.001_234, 0.012_34, 0.123_4, 1.234].map(time);
        assert_eq!(times, ["0.000 ms", "0.123 ms", "1.23 ms", "12.3 ms", "123 ms", "1.23 s"]);
        assert_eq!([0.999_4, 1.0, 9.996, 12.34, 123.4].map(ratio), ["0.999", "1.000", "10.0", "12.3", "123"]);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(date(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(date(1_796_040_305), "2026-11-30T12:05:05Z");
        assert_eq!(date(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(date(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
