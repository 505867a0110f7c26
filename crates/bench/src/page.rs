//! The report as a page: one file, without network access, in light or dark colours.

use bowline_page::document;
use maud::{Markup, html};

use crate::chart::{Axis, Line, draw};
use crate::compare::median;
use crate::measure::{Times, quantile};
use crate::report::{Measure, Report, Run, Side};
use crate::text::{self, count, rate, time};

const STYLE: &str = include_str!("page.css");

/// Parts of all requests at which the line of the latencies has points.
const PARTS: [f64; 22] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998,
    0.9999, 0.99995, 0.99999,
];

/// The names and the colours of two sides.
const SIDES: [&str; 2] = ["A", "B"];
const CLASSES: [&str; 2] = ["a", "b"];

pub(crate) fn page(report: &Report) -> String {
    let title = format!("bowline bench {}", report.plan.settings().work.name());
    let content = html! {
        header { h1 { (title) } }
        p class="caption" { (report.date()) " · " (report.program) }
        (configuration(report))
        @if report.sides.len() > 1 { (comparison(report)) } @else { (figures(report)) }
        @let measures = report.sides.first().and_then(|side| side.runs.first()).map_or(0, |run| run.measures.len());
        @for place in 0..measures { (drawings(report, place)) }
    };
    document(&title, STYLE, &content, &Markup::default())
}

fn configuration(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Configuration" }
            table class="facts" {
                tbody {
                    @for (name, value) in text::facts(&report.plan) { tr { th { (name) } td { (value) } } }
                    @for (place, side) in report.sides.iter().enumerate() {
                        tr { th { (name_of(report, place)) } td { (text::place(side)) } }
                    }
                }
            }
        }
    }
}

/// The name of a server.
fn name_of(report: &Report, place: usize) -> &'static str {
    if report.sides.len() > 1 { SIDES[place] } else { "server" }
}

fn columns(names: &[&str]) -> Markup {
    html! { thead { tr { @for name in names { th { (name) } } } } }
}

fn figures(report: &Report) -> Markup {
    let runs = report.sides.iter().flat_map(|side| &side.runs);
    html! {
        section {
            h2 { "Figures" }
            @for run in runs {
                table class="figures" {
                    (columns(&["", "count", "per second", "p50", "p90", "p99", "p99.9", "max"]))
                    tbody {
                        @for measure in &run.measures {
                            tr {
                                th { (measure.name) }
                                td { (count(measure.times.len())) }
                                td { (rate(measure.rate)) }
                                @for (_, figure) in &measure.figures()[1..] {
                                    td { (figure.map_or("-".to_owned(), time)) }
                                }
                            }
                        }
                    }
                }
                p class="caption after" {
                    "Longest time without a success: " (time(run.gap.as_secs_f64())) ". "
                    @if run.errors.total() == 0 { "No errors." }
                }
                (remarks("", run))
            }
        }
    }
}

/// Errors, and a rate that was not kept.
fn remarks(who: &str, run: &Run) -> Markup {
    html! {
        @for (what, times) in run.errors.sorted() { p class="remark" { (who) (count(times)) " × " (what) } }
        @if let Some(pace) = run.pace.filter(|pace| !pace.is_kept()) {
            p class="remark" {
                (who) "The rate was not kept: " (count(pace.sent)) " of " (count(pace.due)) " requests were sent, the \
                last one " (time(pace.last_delay.as_secs_f64())) " after it was due."
            }
        }
        @if run.interrupted { p class="remark" { (who) "Interrupted after " (time(run.elapsed.as_secs_f64())) "." } }
    }
}

fn comparison(report: &Report) -> Markup {
    html! {
        section {
            h2 { "A and B" }
            p class="caption" {
                "A and B are medians of the rounds. A/B is the ratio in a round; its median, the smallest and the largest \
                 one are shown. Above 1, A is faster in requests per second, and slower in times."
            }
            table class="figures" {
                (columns(&["", "A", "B", "A/B", "least", "most"]))
                tbody {
                    @for metric in report.comparison() {
                        @let ratio = |of: Option<f64>| of.map_or("-".to_owned(), text::ratio);
                        @let show = |of| text::value(&metric, of);
                        tr {
                            th { (metric.measure) " " (metric.name.replace('_', " ")) }
                            @for values in &metric.values { td { (median(values).map_or("-".to_owned(), show)) } }
                            td { (ratio(median(&metric.ratios()))) }
                            td { (ratio(metric.spread().map(|spread| spread.0))) }
                            td { (ratio(metric.spread().map(|spread| spread.1))) }
                        }
                    }
                }
            }
            @for (side, name) in report.sides.iter().zip(SIDES) {
                @for run in &side.runs { (remarks(&format!("{name}: "), run)) }
            }
        }
    }
}

/// The drawings of what has this place among the measures.
fn drawings(report: &Report, place: usize) -> Markup {
    let lines = |points: &dyn Fn(&Measure) -> Vec<(f64, f64)>| {
        let mut lines = Vec::new();
        for (number, side) in report.sides.iter().enumerate() {
            for (round, run) in side.runs.iter().enumerate() {
                let name = format!("{}, round {}", name_of(report, number), round + 1);
                let points = run.measures.get(place).map(points).unwrap_or_default();
                lines.push(Line { class: CLASSES[number], name, points });
            }
        }
        lines
    };
    let name = name_of_measure(report.sides.first(), place);
    let (over_time, by_part) = (lines(&course), lines(&|measure| latencies(&measure.times)));
    html! {
        section {
            h2 { (name) ": per second, over time" }
            div class="drawing" { (draw(&format!("{name} per second, over time"), (Axis::Course, Axis::Rate), &over_time)) }
            (legend(report))
        }
        section {
            h2 { (name) ": latency, by the part of all that did not exceed it" }
            div class="drawing" { (draw(&format!("percentiles of {name}"), (Axis::Quantile, Axis::Latency), &by_part)) }
            (legend(report))
        }
    }
}

fn name_of_measure(side: Option<&Side>, place: usize) -> &'static str {
    side.and_then(|side| side.runs.first()).and_then(|run| run.measures.get(place)).map_or("", |measure| measure.name)
}

fn legend(report: &Report) -> Markup {
    html! {
        @if report.sides.len() > 1 {
            p class="legend" {
                @for (name, class) in SIDES.iter().zip(CLASSES) {
                    span { i class={ "key " (class) } {} (name) ", a line for each round" }
                }
            }
        }
    }
}

/// The rate over time.
fn course(measure: &Measure) -> Vec<(f64, f64)> {
    measure.points.iter().map(|point| ((point.from + point.until).as_secs_f64() / 2.0, point.rate())).collect()
}

/// The latency of each part, as far as there are enough requests to tell it.
fn latencies(times: &Times) -> Vec<(f64, f64)> {
    let told = PARTS.iter().filter(|part| (1.0 - **part) * times.len() as f64 >= 1.0);
    told.filter_map(|part| Some((*part, quantile(times, *part)?.as_secs_f64()))).collect()
}
