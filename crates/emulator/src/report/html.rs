//! A run as a page: one file that needs no network, readable in the dark and in the light.

use std::fmt::Write;

use super::{Report, chart, grouped, text};
use crate::judge::Status;
use crate::seconds::show;

/// How many lines of the timeline and how many wrong gets are listed.
const LISTED: usize = 500;

const STYLE: &str = include_str!("page.css");

/// Text with the characters escaped that mean something in HTML. Control characters, which no
/// page may hold, become the replacement character.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(' '),
            control if control.is_control() => escaped.push('\u{FFFD}'),
            usual => escaped.push(usual),
        }
    }
    escaped
}

/// A page being written. Writing into a `String` cannot fail.
macro_rules! put {
    ($page:expr, $($what:tt)*) => {
        let _ = write!($page, $($what)*);
    };
}

pub(super) fn page(report: &Report) -> String {
    let name = escape(&report.record.scenario.name);
    let result = match report.judgement.passed {
        true => "passed",
        false => "failed",
    };
    let mut page = String::new();
    put!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{name}: {result}</title><style>{STYLE}</style></head><body><main>\n"
    );
    head(report, &name, result, &mut page);
    verdicts(report, &mut page);
    benchmarks(report, &mut page);
    drawing(report, &mut page);
    page.push_str("<div class=\"columns\">");
    numbers(report, &mut page);
    kinds(report, &mut page);
    page.push_str("</div>\n");
    wrong_gets(report, &mut page);
    misbehaviour(report, &mut page);
    moments(report, &mut page);
    page.push_str("</main></body></html>\n");
    page
}

fn head(report: &Report, name: &str, result: &str, page: &mut String) {
    let scenario = &report.record.scenario;
    put!(
        page,
        "<header><h1>{name}</h1><span class=\"badge {result}\">{result}</span></header>\
         <p class=\"about\">{} replicas · {} requests in {} s · {:.0}% gets · {:.0}% drops · seed <code>{}</code>",
        scenario.replicas,
        grouped(scenario.requests),
        scenario.lifetime.as_secs_f64(),
        scenario.mix * 100.0,
        scenario.drops * 100.0,
        report.record.seed
    );
    for (what, value) in [("program", &report.program), ("socket", &report.socket)] {
        if let Some(value) = value {
            put!(page, " · {what} <code>{}</code>", escape(value));
        }
    }
    page.push_str("</p>\n");
}

fn verdicts(report: &Report, page: &mut String) {
    page.push_str("<section><h2>Verdicts</h2><table class=\"verdicts\">");
    for verdict in &report.judgement.verdicts {
        let (class, mark) = match verdict.status {
            Status::Passed => ("passed", "✓"),
            Status::Noted => ("noted", "!"),
            Status::Failed => ("failed", "✗"),
        };
        put!(
            page,
            "<tr class=\"{class}\"><td class=\"mark\">{mark}</td><th>{}</th><td>{}</td></tr>",
            verdict.check.title(),
            escape(&verdict.reason)
        );
    }
    page.push_str("</table>");
    let mut proof = report.judgement.proof().peekable();
    if proof.peek().is_some() {
        page.push_str("<p class=\"caption\">These operations have no order that explains them:</p><pre>");
        for operation in proof {
            put!(page, "{}\n", escape(operation.trim_start()));
        }
        page.push_str("</pre>");
    }
    page.push_str("</section>\n");
}

fn benchmarks(report: &Report, page: &mut String) {
    if report.judgement.benchmarks.is_empty() {
        return;
    }
    page.push_str("<section><h2>Benchmarks</h2><div class=\"cards\">");
    for result in &report.judgement.benchmarks {
        put!(
            page,
            "<div class=\"card\"><div class=\"name\">{}</div><div class=\"value\">{}</div>\
             <div><span class=\"badge {tier}\">{tier}</span></div><div class=\"bounds\">{}</div></div>",
            result.benchmark.title(),
            text::measured(result.benchmark, result.value),
            escape(&text::bounds(result)),
            tier = result.tier.name(),
        );
    }
    page.push_str("</div></section>\n");
}

fn drawing(report: &Report, page: &mut String) {
    page.push_str(
        "<section><h2>Timeline</h2><p class=\"caption\">Each lane is a replica, coloured by the \
         leader that its messages name: a thick bar says \u{201c}I lead\u{201d}, a thin one \
         \u{201c}I follow\u{201d}, a hair \u{201c}I know no leader\u{201d}. Shaded: the network is \
         cut, darker lanes are with the minority. Hover for details.</p><p class=\"legend\">",
    );
    let legend = [("get", "get done"), ("put", "put done"), ("redirect", "redirect"), ("fail", "fail")];
    for (class, name) in legend {
        put!(
            page,
            "<span><svg viewBox=\"0 0 10 10\"><circle class=\"{class}\" cx=\"5\" cy=\"5\" r=\"4\"/></svg>{name}</span>"
        );
    }
    page.push_str(
        "<span><svg viewBox=\"0 0 10 10\"><path class=\"never\" d=\"M2 2l6 6m0 -6l-6 6\"/></svg>\
         never answered</span><span><svg viewBox=\"0 0 10 10\"><g class=\"killed\">\
         <circle cx=\"5\" cy=\"5\" r=\"4.5\"/><path d=\"M3 3l4 4m0 -4l-4 4\"/></g></svg>killed</span>\
         <span><svg viewBox=\"0 0 10 10\"><g class=\"died\"><circle cx=\"5\" cy=\"5\" r=\"4.5\"/>\
         <path d=\"M3 3l4 4m0 -4l-4 4\"/></g></svg>died by itself</span></p><div class=\"drawing\">",
    );
    page.push_str(&chart::timeline(report));
    page.push_str("</div></section>\n");
}

fn numbers(report: &Report, page: &mut String) {
    let s = &report.statistics;
    page.push_str("<section><h2>Statistics</h2><table><tbody>");
    for (name, value) in text::facts(report) {
        // Latencies have a table of their own.
        if matches!(name, "latency" | "until done" | "gets" | "puts") {
            continue;
        }
        put!(page, "<tr><th>{name}</th><td>{}</td></tr>", escape(&value));
    }
    page.push_str(
        "</tbody></table><table class=\"figures\"><thead><tr><th>latency</th><th>samples</th>\
         <th>min</th><th>median</th><th>mean</th><th>p90</th><th>p99</th><th>max</th></tr></thead><tbody>",
    );
    let rows = [
        ("any answer", s.latency),
        ("until done", s.completion),
        ("gets until done", s.get_completion),
        ("puts until done", s.put_completion),
    ];
    for (name, latency) in rows {
        let Some(latency) = latency else { continue };
        put!(page, "<tr><th>{name}</th><td>{}</td>", grouped(latency.samples as u64));
        let times = [latency.min, latency.median, latency.mean, latency.p90, latency.p99, latency.max];
        for time in times {
            put!(page, "<td>{}</td>", show(time));
        }
        page.push_str("</tr>");
    }
    page.push_str("</tbody></table></section>");
}

fn kinds(report: &Report, page: &mut String) {
    page.push_str(
        "<section><h2>Messages between replicas</h2><table class=\"figures\"><thead><tr>\
         <th>type</th><th>messages</th><th>bytes</th><th>mean size</th></tr></thead><tbody>",
    );
    let mut kinds: Vec<_> = report.statistics.by_kind.iter().collect();
    kinds.sort_by_key(|(_, volume)| std::cmp::Reverse(volume.messages));
    for (kind, volume) in kinds {
        put!(
            page,
            "<tr><th>{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(kind),
            grouped(volume.messages),
            grouped(volume.bytes),
            grouped(volume.bytes / volume.messages.max(1))
        );
    }
    page.push_str(
        "</tbody></table><table class=\"figures\"><thead><tr><th>sender</th><th>messages</th></tr></thead><tbody>",
    );
    let record = &report.record;
    for (id, messages) in record.replica_ids.iter().zip(&record.traffic.by_sender) {
        put!(page, "<tr><th>{id}</th><td>{}</td></tr>", grouped(*messages));
    }
    page.push_str("</tbody></table></section>");
}

fn wrong_gets(report: &Report, page: &mut String) {
    let wrong = &report.judgement.wrong_gets;
    if wrong.is_empty() {
        return;
    }
    page.push_str(
        "<section><h2>Wrong gets</h2><p class=\"caption\">They differ from what the same client \
         last had acknowledged. While a put is under way, that may be right all the same: see the \
         verdict on linearizability.</p><table><thead><tr><th>time</th><th>client</th><th>replica</th>\
         <th>key</th><th>expected</th><th>got</th><th>put under way</th></tr></thead><tbody>",
    );
    for get in wrong.iter().take(LISTED) {
        put!(
            page,
            "<tr><td>{:.3} s</td><td>{}</td><td>{}</td><td><code>{}</code></td><td><code>{}</code></td>\
             <td><code>{}</code></td><td>{}</td></tr>",
            get.at.as_secs_f64(),
            report.record.client_ids[get.client],
            report.record.replica_ids[get.replica],
            escape(&get.key),
            escape(&get.expected),
            match &get.got {
                Some(got) => escape(&format!("{:?}", bowline_lan::message::shorten(got))),
                None => "no value".to_owned(),
            },
            if get.put_under_way { "yes" } else { "no" }
        );
    }
    page.push_str("</tbody></table>");
    more(wrong.len(), page);
    page.push_str("</section>\n");
}

fn misbehaviour(report: &Report, page: &mut String) {
    let record = &report.record;
    if record.misbehaviour.counts.is_empty() {
        return;
    }
    page.push_str(
        "<section><h2>Misbehaviour</h2><table><thead><tr><th>what</th><th>times</th><th>for example</th>\
         </tr></thead><tbody>",
    );
    for (bad, count) in &record.misbehaviour.counts {
        let examples = record.misbehaviour.examples.iter();
        let examples: Vec<String> = examples
            .filter(|example| example.bad == *bad)
            .map(|example| {
                format!(
                    "{} at {:.3} s: {}",
                    record.replica_ids[example.replica],
                    example.at.as_secs_f64(),
                    escape(&example.detail)
                )
            })
            .collect();
        put!(
            page,
            "<tr><th>{}</th><td>{}</td><td>{}</td></tr>",
            bad.describe(),
            grouped(*count),
            examples.join("<br>")
        );
    }
    page.push_str("</tbody></table></section>\n");
}

fn moments(report: &Report, page: &mut String) {
    page.push_str("<section><h2>What happened</h2><table><tbody>");
    let moments = &report.record.timeline;
    for moment in moments.iter().take(LISTED) {
        put!(
            page,
            "<tr><td class=\"time\">{:.3} s</td><td>{}</td></tr>",
            moment.at.as_secs_f64(),
            escape(&moment.note.to_string())
        );
    }
    page.push_str("</tbody></table>");
    more(moments.len(), page);
    page.push_str("</section>\n");
}

fn more(count: usize, page: &mut String) {
    if count > LISTED {
        put!(page, "<p class=\"caption\">and {} more</p>", count - LISTED);
    }
}
