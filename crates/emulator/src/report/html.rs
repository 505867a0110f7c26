//! The report of a run as an HTML page: one file, without network access, in light or dark colours.

use bowline_page::{badge, document, lines};
use maud::{Markup, display, html};

use super::{Report, chart, grouped, text};
use crate::judge::Status;
use crate::seconds::show;

/// How many lines of the timeline and how many wrong gets are listed.
const LISTED: usize = 500;

const STYLE: &str = include_str!("page.css");

pub(super) fn page(report: &Report) -> String {
    let name = &report.record.scenario.name;
    let result = if report.judgement.passed { "passed" } else { "failed" };
    let content = html! {
        (head(report, name, result))
        (verdicts(report))
        (benchmarks(report))
        (drawing(report))
        div class="columns" { (numbers(report)) (kinds(report)) }
        (wrong_gets(report))
        (misbehaviour(report))
        (moments(report))
    };
    document(&format!("{name}: {result}"), STYLE, &content, &Markup::default())
}

fn head(report: &Report, name: &str, result: &str) -> Markup {
    let scenario = &report.record.scenario;
    html! {
        header { h1 { (name) } (badge(result, result)) }
        p class="about" {
            (scenario.replicas) " replicas · " (grouped(scenario.requests)) " requests in "
            (scenario.lifetime.as_secs_f64()) " s · " (format_args!("{:.0}", scenario.mix * 100.0)) "% gets · "
            (format_args!("{:.0}", scenario.drops * 100.0)) "% drops · seed " code { (report.record.seed) }
            @for (what, value) in [("program", &report.program), ("socket", &report.socket)] {
                @if let Some(value) = value { " · " (what) " " code { (value) } }
            }
        }
    }
}

fn verdicts(report: &Report) -> Markup {
    let mut proof = report.judgement.proof().map(str::trim_start).peekable();
    html! {
        section {
            h2 { "Verdicts" }
            table class="verdicts" {
                @for verdict in &report.judgement.verdicts {
                    @let (class, mark) = match verdict.status {
                        Status::Passed => ("passed", "✓"),
                        Status::Noted => ("noted", "!"),
                        Status::Failed => ("failed", "✗"),
                    };
                    tr class=(class) {
                        td class="mark" { (mark) }
                        th { (verdict.check.title()) }
                        td { (verdict.reason) }
                    }
                }
            }
            @if proof.peek().is_some() {
                p class="caption" { "No order of these operations explains their results:" }
                pre { (lines(proof)) }
            }
        }
    }
}

fn benchmarks(report: &Report) -> Markup {
    let results = &report.judgement.benchmarks;
    html! {
        @if !results.is_empty() {
            section {
                h2 { "Benchmarks" }
                div class="cards" {
                    @for result in results {
                        div class="card" {
                            div class="name" { (result.benchmark.title()) }
                            div class="value" { (text::measured(result.benchmark, result.value)) }
                            div { (badge(result.tier.name(), result.tier.name())) }
                            div class="bounds" { (text::bounds(result)) }
                        }
                    }
                }
            }
        }
    }
}

fn drawing(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Timeline" }
            p class="caption" {
                "Each lane is a replica, in the colour of the leader that its messages name. A thick bar means that it \
                 leads, a thin bar that it follows, a hairline that it knows no leader. The network is cut in shaded \
                 times; darker lanes are on the side of the minority. Hover for details."
            }
            p class="legend" {
                @for (class, name) in
                    [("get", "get done"), ("put", "put done"), ("redirect", "redirect"), ("fail", "fail")]
                {
                    span { svg viewBox="0 0 10 10" { circle class=(class) cx="5" cy="5" r="4" {} } (name) }
                }
                span { svg viewBox="0 0 10 10" { path class="never" d="M2 2l6 6m0 -6l-6 6" {} } "never answered" }
                @for (class, name) in [("killed", "killed"), ("died", "died by itself")] {
                    span {
                        svg viewBox="0 0 10 10" {
                            g class=(class) { circle cx="5" cy="5" r="4.5" {} path d="M3 3l4 4m0 -4l-4 4" {} }
                        }
                        (name)
                    }
                }
            }
            div class="drawing" { (chart::timeline(report)) }
        }
    }
}

/// The header row of a table.
fn columns(names: &[&str]) -> Markup {
    html! { thead { tr { @for name in names { th { (name) } } } } }
}

fn numbers(report: &Report) -> Markup {
    let s = &report.statistics;
    let latencies = [
        ("any answer", s.latency),
        ("until done", s.completion),
        ("gets until done", s.get_completion),
        ("puts until done", s.put_completion),
    ];
    // Latencies have their own table.
    let facts = text::facts(report);
    let facts = facts.iter().filter(|(name, _)| !matches!(*name, "latency" | "until done" | "gets" | "puts"));
    html! {
        section {
            h2 { "Statistics" }
            table { tbody { @for (name, value) in facts { tr { th { (name) } td { (value) } } } } }
            table class="figures" {
                (columns(&["latency", "samples", "min", "median", "mean", "p90", "p99", "max"]))
                tbody {
                    @for (name, latency) in latencies {
                        @if let Some(l) = latency {
                            tr {
                                th { (name) }
                                td { (grouped(l.samples as u64)) }
                                @for time in [l.min, l.median, l.mean, l.p90, l.p99, l.max] { td { (show(time)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn kinds(report: &Report) -> Markup {
    let record = &report.record;
    let mut kinds: Vec<_> = report.statistics.by_kind.iter().collect();
    kinds.sort_by_key(|(_, volume)| std::cmp::Reverse(volume.messages));
    html! {
        section {
            h2 { "Messages between replicas" }
            table class="figures" {
                (columns(&["type", "messages", "bytes", "mean size"]))
                tbody {
                    @for (kind, volume) in kinds {
                        tr {
                            th { (kind) }
                            td { (grouped(volume.messages)) }
                            td { (grouped(volume.bytes)) }
                            td { (grouped(volume.bytes / volume.messages.max(1))) }
                        }
                    }
                }
            }
            table class="figures" {
                (columns(&["sender", "messages"]))
                tbody {
                    @for (id, messages) in record.replica_ids.iter().zip(&record.traffic.by_sender) {
                        tr { th { (display(id)) } td { (grouped(*messages)) } }
                    }
                }
            }
        }
    }
}

fn wrong_gets(report: &Report) -> Markup {
    let (record, wrong) = (&report.record, &report.judgement.wrong_gets);
    html! {
        @if !wrong.is_empty() {
            section {
                h2 { "Wrong gets" }
                p class="caption" {
                    "These gets did not return the value of the last put that the same client saw acknowledged. If a \
                     put was under way, the value may still be right: see the verdict on linearizability."
                }
                table {
                    (columns(&["time", "client", "replica", "key", "expected", "got", "put under way"]))
                    tbody {
                        @for get in wrong.iter().take(LISTED) {
                            tr {
                                td { (format_args!("{:.3} s", get.at.as_secs_f64())) }
                                td { (display(&record.client_ids[get.client])) }
                                td { (display(&record.replica_ids[get.replica])) }
                                td { code { (get.key) } }
                                td { code { (get.expected) } }
                                td {
                                    code {
                                        @match &get.got {
                                            Some(got) => (format_args!("{:?}", bowline_lan::message::shorten(got))),
                                            None => "no value",
                                        }
                                    }
                                }
                                td { (if get.put_under_way { "yes" } else { "no" }) }
                            }
                        }
                    }
                }
                (more(wrong.len()))
            }
        }
    }
}

fn misbehaviour(report: &Report) -> Markup {
    let record = &report.record;
    html! {
        @if !record.misbehaviour.counts.is_empty() {
            section {
                h2 { "Misbehaviour" }
                table {
                    (columns(&["what", "times", "for example"]))
                    tbody {
                        @for (bad, count) in &record.misbehaviour.counts {
                            @let examples = record.misbehaviour.examples.iter().filter(|example| example.bad == *bad);
                            tr {
                                th { (bad.describe()) }
                                td { (grouped(*count)) }
                                td {
                                    @for (number, example) in examples.enumerate() {
                                        @if number > 0 { br; }
                                        (display(&record.replica_ids[example.replica]))
                                        (format_args!(" at {:.3} s: {}", example.at.as_secs_f64(), example.detail))
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn moments(report: &Report) -> Markup {
    let moments = &report.record.timeline;
    html! {
        section {
            h2 { "What happened" }
            table {
                tbody {
                    @for moment in moments.iter().take(LISTED) {
                        tr {
                            td class="time" { (format_args!("{:.3} s", moment.at.as_secs_f64())) }
                            td { (display(&moment.note)) }
                        }
                    }
                }
            }
            (more(moments.len()))
        }
    }
}

fn more(count: usize) -> Markup {
    html! { @if count > LISTED { p class="caption" { "and " (count - LISTED) " more" } } }
}
