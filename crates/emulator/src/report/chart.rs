//! The timeline of a run as one SVG drawing: which leader each replica followed, how long each
//! request took and how many messages were sent, over a common time axis, with cuts shaded and
//! deaths marked.

use std::time::Duration;

use bowline_lan::LanId;
use maud::{Markup, display, html};

use super::{Report, grouped};
use crate::emulation::{AnswerKind, Attempt, Note, Operation, Record};
use crate::seconds::show;

const WIDTH: f64 = 1100.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const LANE: f64 = 18.0;
const GAP: f64 = 34.0;
const STRIP: f64 = 22.0;
const LATENCY: f64 = 250.0;
const RATE: f64 = 90.0;

/// About how many points are drawn at most, so that a browser can draw them quickly.
const MAX_POINTS: usize = 15_000;

/// A coordinate or a length.
fn px(value: f64) -> String {
    format!("{value:.1}")
}

/// The positions of the parts of the drawing.
struct Layout {
    seconds: f64,
    replicas: usize,
}

impl Layout {
    fn x(&self, at: Duration) -> f64 {
        let share = (at.as_secs_f64() / self.seconds).clamp(0.0, 1.0);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn lane(&self, replica: usize) -> f64 {
        TOP + replica as f64 * LANE
    }

    fn lanes_end(&self) -> f64 {
        self.lane(self.replicas)
    }

    /// The top of the strip of requests that were never answered.
    fn strip(&self) -> f64 {
        self.lanes_end() + GAP
    }

    fn latency(&self) -> f64 {
        self.strip() + STRIP
    }

    fn rate(&self) -> f64 {
        self.latency() + LATENCY + GAP
    }

    fn end(&self) -> f64 {
        self.rate() + RATE
    }
}

/// The whole drawing.
pub(super) fn timeline(report: &Report) -> Markup {
    let record = &report.record;
    let layout = Layout { seconds: record.ended_at.as_secs_f64().max(0.001), replicas: record.replica_ids.len() };
    let size = format!("0 0 {WIDTH} {:.0}", layout.end() + 34.0);
    html! {
        svg viewBox=(size) role="img" aria-label="Timeline of the run" {
            (shade_cuts(record, &layout))
            (time_axis(&layout))
            (lanes(record, &layout))
            (latencies(report, &layout))
            (rates(record, &layout))
            (deaths(record, &layout))
        }
    }
}

/// The colour that stands for a replica.
fn colour(replica: usize, replicas: usize) -> String {
    // Hues are evenly spread. A step that is coprime to the number of replicas gives neighbours
    // distant hues and uses each hue once.
    let step = (1..=replicas)
        .rev()
        .filter(|step| step * 5 <= replicas * 2)
        .find(|&step| greatest_common_divisor(step, replicas) == 1)
        .unwrap_or(1);
    let hue = 210.0 + 360.0 * ((replica * step) % replicas) as f64 / replicas as f64;
    format!("hsl({:.0} 62% 52%)", hue % 360.0)
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// A period in which the network was cut.
struct Cut<'a> {
    from: Duration,
    until: Duration,
    label: &'a str,
    title: String,
    /// The replicas on the side of the minority, if an event cut the network in two.
    rest: &'a [LanId],
}

fn cuts(record: &Record) -> Vec<Cut<'_>> {
    let mut cuts: Vec<Cut<'_>> = Vec::new();
    // The index in `cuts` of each open cut: that of an event, and those of extra faults.
    let mut split: Option<usize> = None;
    let mut links: Vec<(usize, usize)> = Vec::new();
    for moment in &record.timeline {
        let mut open = |label, rest| {
            cuts.push(Cut { from: moment.at, until: record.ended_at, label, title: moment.note.to_string(), rest });
            cuts.len() - 1
        };
        let closed = match &moment.note {
            Note::Cut { event, rest, .. } => split.replace(open(event.name(), rest)),
            Note::Healed => split.take(),
            Note::LinksCut { index, .. } => {
                links.push((*index, open("links cut", &[])));
                None
            }
            Note::LinksHealed { index } => {
                let place = links.iter().position(|(open, _)| open == index);
                place.map(|place| links.swap_remove(place).1)
            }
            _ => None,
        };
        if let Some(closed) = closed {
            cuts[closed].until = moment.at;
        }
    }
    cuts
}

fn shade_cuts(record: &Record, layout: &Layout) -> Markup {
    html! {
        @for cut in cuts(record) {
            @let (from, until) = (layout.x(cut.from), layout.x(cut.until));
            @let width = px((until - from).max(1.0));
            @let title =
                format!("{}, {:.3} s to {:.3} s", cut.title, cut.from.as_secs_f64(), cut.until.as_secs_f64());
            rect class="cut" x=(px(from)) y=(px(TOP - 6.0)) width=(width) height=(px(layout.end() - TOP + 6.0)) {
                title { (title) }
            }
            text class="cutname" x=(px(from + 3.0)) y=(px(TOP - 11.0)) { (cut.label) }
            @for (replica, id) in record.replica_ids.iter().enumerate().filter(|(_, id)| cut.rest.contains(id)) {
                rect class="minority" x=(px(from)) y=(px(layout.lane(replica))) width=(width) height=(LANE) {
                    title { (display(id)) " is on the side of the minority; " (title) }
                }
            }
        }
    }
}

fn time_axis(layout: &Layout) -> Markup {
    let step = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0]
        .into_iter()
        .find(|step| layout.seconds / step <= 14.0)
        .unwrap_or(layout.seconds / 10.0);
    let times = std::iter::successors(Some(0.0), |at| Some(at + step)).take_while(|at| *at <= layout.seconds);
    html! {
        @for at in times {
            @let x = px(layout.x(Duration::from_secs_f64(at)));
            line class="grid" x1=(x) x2=(x) y1=(TOP) y2=(px(layout.end())) {}
            text class="tick" x=(x) y=(px(layout.end() + 16.0)) text-anchor="middle" { (at) " s" }
        }
    }
}

fn title(y: f64, text: &str) -> Markup {
    html! { text class="panel" x=(LEFT) y=(px(y)) { (text) } }
}

/// A label that ends at `x`.
fn name(class: &str, x: f64, y: f64, name: &str) -> Markup {
    html! { text class=(class) x=(px(x)) y=(px(y)) text-anchor="end" { (name) } }
}

/// A line across the whole time axis.
fn across(class: &str, y: f64) -> Markup {
    html! { line class=(class) x1=(LEFT) x2=(WIDTH - RIGHT) y1=(px(y)) y2=(px(y)) {} }
}

fn lanes(record: &Record, layout: &Layout) -> Markup {
    html! {
        @for (replica, id) in record.replica_ids.iter().enumerate() {
            @let middle = layout.lane(replica) + LANE / 2.0;
            (name("label", LEFT - 18.0, middle + 4.0, &id.to_string()))
            circle cx=(px(LEFT - 9.0)) cy=(px(middle)) r="4" fill=(colour(replica, layout.replicas)) {}
            (lane(record, replica, middle, layout))
        }
    }
}

fn lane(record: &Record, replica: usize, middle: f64, layout: &Layout) -> Markup {
    let id = record.replica_ids[replica];
    let end = record.lost_at(replica).unwrap_or(record.ended_at);
    let beliefs: Vec<_> = (record.beliefs.iter()).filter(|belief| belief.replica == replica).collect();
    html! {
        @for (index, belief) in beliefs.iter().enumerate() {
            @let (from, until) = (belief.at, beliefs.get(index + 1).map_or(end, |next| next.at));
            @let (class, thickness, says) = match belief.leader {
                Some(leader) if leader == replica => ("leads", 13.0, format!("{id} says that it leads")),
                Some(leader) => ("follows", 6.0, format!("{id} follows {}", record.replica_ids[leader])),
                None => ("lost", 1.0, format!("{id} knows no leader")),
            };
            @let fill = belief.leader.map_or("currentColor".to_owned(), |leader| colour(leader, layout.replicas));
            @let width = format!("{:.2}", (layout.x(until) - layout.x(from)).max(0.6));
            rect class=(class) fill=(fill) x=(px(layout.x(from))) y=(px(middle - thickness / 2.0)) width=(width)
                height=(thickness) {
                title { (format_args!("{says}, {:.3} s to {:.3} s", from.as_secs_f64(), until.as_secs_f64())) }
            }
        }
    }
}

fn deaths(record: &Record, layout: &Layout) -> Markup {
    html! {
        @for loss in &record.losses {
            @let (x, y) = (layout.x(loss.at), layout.lane(loss.replica) + LANE / 2.0);
            @let id = record.replica_ids[loss.replica];
            @let (class, what) = match &loss.died_by_itself {
                None => ("killed", format!("{id} was killed")),
                Some(why) => ("died", format!("{id} died by itself: {why}")),
            };
            g class=(class) {
                title { (format_args!("{what}, at {:.3} s", loss.at.as_secs_f64())) }
                line class="deathline" x1=(px(x)) x2=(px(x)) y1=(px(y)) y2=(px(layout.end())) {}
                circle cx=(px(x)) cy=(px(y)) r="8" {}
                path d=(format_args!("M{:.1} {:.1}l8 8m0 -8l-8 8", x - 4.0, y - 4.0)) {}
            }
        }
    }
}

/// The logarithmic axis of latencies, in powers of ten of a second.
struct Decades {
    low: i32,
    high: i32,
    top: f64,
}

impl Decades {
    fn y(&self, latency: Duration) -> f64 {
        let power = latency.as_secs_f64().max(1e-9).log10();
        let share = (power - f64::from(self.low)) / f64::from(self.high - self.low);
        self.top + LATENCY * (1.0 - share.clamp(0.0, 1.0))
    }

    fn name(power: i32) -> String {
        match power {
            ..-6 => format!("{} ns", 10f64.powi(power + 9)),
            -6..-3 => format!("{} µs", 10f64.powi(power + 6)),
            -3..0 => format!("{} ms", 10f64.powi(power + 3)),
            _ => format!("{} s", 10f64.powi(power)),
        }
    }
}

fn decades(report: &Report, top: f64) -> Decades {
    let latency = report.statistics.latency;
    let power = |time: Option<Duration>| time.map(|t| t.as_secs_f64().max(1e-7).log10());
    let floor = report.floor.map(|floor| floor.median);
    let lowest = [latency.map(|l| l.min), floor].into_iter().flatten().min();
    let low = power(lowest).map_or(-4, |p| p.floor() as i32);
    let high = power(latency.map(|l| l.max)).map_or(0, |p| p.ceil() as i32);
    Decades { low, high: high.max(low + 2), top }
}

fn latencies(report: &Report, layout: &Layout) -> Markup {
    let decades = decades(report, layout.latency());
    let above = "Time from creating a request to each answer (logarithmic), by the time of creation";
    html! {
        (title(layout.strip() - 8.0, above))
        @for power in decades.low..=decades.high {
            @let y = decades.y(Duration::from_secs_f64(10f64.powi(power)));
            (across("grid", y))
            (name("tick", LEFT - 6.0, y + 4.0, &Decades::name(power)))
        }
        (points(&report.record, layout, &decades))
        (marks(report, &decades))
    }
}

/// The median and the floor, drawn above the points. They lie close together in a good run, so the label of the
/// lower one is below its line.
fn marks(report: &Report, decades: &Decades) -> Markup {
    let median = report.statistics.latency.map(|latency| latency.median);
    let floor = report.floor.map(|floor| floor.median);
    html! {
        @for (what, time, other) in [("median", median, floor), ("floor", floor, median)] {
            @if let Some(time) = time {
                @let y = decades.y(time);
                @let below = other.is_some_and(|other| time < other || time == other && what == "floor");
                @let words = format!("{what} {}", show(time));
                (across("mark", y))
                (name("markname", WIDTH - RIGHT - 3.0, if below { y + 12.0 } else { y - 4.0 }, &words))
            }
        }
    }
}

fn points(record: &Record, layout: &Layout, decades: &Decades) -> Markup {
    let step = record.attempts.len().div_ceil(MAX_POINTS).max(1);
    // Attempts without an answer are rare: all of them are drawn, last, above the others.
    let (rare, usual): (Vec<&Attempt>, Vec<&Attempt>) =
        (record.attempts.iter()).partition(|attempt| attempt.answer.is_none());
    html! {
        (name("tick", LEFT - 6.0, layout.strip() + 12.0, "never"))
        @for attempt in usual.into_iter().step_by(step).chain(rare) { (point(record, attempt, layout, decades)) }
        @if step > 1 {
            (title(layout.latency() + LATENCY + 12.0, &format!("one in {step} answers is shown")))
        }
    }
}

fn point(record: &Record, attempt: &Attempt, layout: &Layout, decades: &Decades) -> Markup {
    let request = &record.requests[attempt.request];
    let x = layout.x(request.created);
    let about = format!(
        "{} {} by client {} at {:.3} s",
        request.operation.name(),
        request.key,
        record.client_ids[request.client],
        request.created.as_secs_f64()
    );
    let Some(answer) = &attempt.answer else {
        let to = match attempt.to {
            Some(to) => format!("{} never answered", record.replica_ids[to]),
            None => "no replica was alive".to_owned(),
        };
        let cross = format!("M{:.1} {:.1}l6 6m0 -6l-6 6", x - 3.0, layout.strip() + 5.0);
        return html! { path class="never" d=(cross) { title { (about) ": " (to) } } };
    };
    let (class, said) = match (&answer.outcome, request.operation) {
        (AnswerKind::Ok { .. }, Operation::Get) => ("get", "ok".to_owned()),
        (AnswerKind::Ok { .. }, Operation::Put) => ("put", "ok".to_owned()),
        (AnswerKind::Redirect, _) => ("redirect", "redirect".to_owned()),
        (AnswerKind::Fail { error: None }, _) => ("fail", "fail".to_owned()),
        (AnswerKind::Fail { error: Some(why) }, _) => ("fail", format!("fail, {why}")),
    };
    let latency = answer.at.saturating_sub(request.created);
    let (by, after) = (record.replica_ids[answer.by], show(latency));
    html! {
        circle class=(class) cx=(px(x)) cy=(px(decades.y(latency))) r="2.6" {
            title { (format_args!("{about}: {said} from {by} after {after}")) }
        }
    }
}

fn rates(record: &Record, layout: &Layout) -> Markup {
    let rates = &record.traffic.per_second;
    let most = rates.iter().copied().max().unwrap_or(0).max(1);
    html! {
        (title(layout.rate() - 8.0, "Messages between replicas in each second"))
        @for (value, y) in [(most, layout.rate()), (0, layout.end())] {
            (name("tick", LEFT - 6.0, y + 4.0, &grouped(value)))
            (across("grid", y))
        }
        @for (second, &rate) in rates.iter().enumerate().filter(|(_, rate)| **rate > 0) {
            @let from = layout.x(Duration::from_secs(second as u64));
            @let width = layout.x(Duration::from_secs(second as u64 + 1)) - from;
            @let height = RATE * rate as f64 / most as f64;
            rect class="rate" x=(px(from + 0.5)) y=(px(layout.end() - height)) width=(px((width - 1.0).max(0.5)))
                height=(px(height)) {
                title { (grouped(rate)) " messages in second " (second) }
            }
        }
    }
}
