//! The timeline of a run as one SVG drawing: who followed whom, how long each request took, how
//! many messages were sent, all over the same axis of time, with cuts shaded and deaths marked.

use std::fmt::Write;
use std::time::Duration;

use bowline_lan::LanId;

use super::html::escape;
use super::{Report, grouped};
use crate::emulation::{Attempt, Note, Operation, Outcome, Record};
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

/// More points than this are thinned out: a browser has to draw them.
const MAX_POINTS: usize = 15_000;

/// An SVG being written. Writing into a `String` cannot fail.
macro_rules! draw {
    ($svg:expr, $($what:tt)*) => {
        let _ = write!($svg, $($what)*);
    };
}

/// Where things are.
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

    /// The strip of requests that were never answered.
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
pub(super) fn timeline(report: &Report) -> String {
    let record = &report.record;
    let layout = Layout { seconds: record.ended_at.as_secs_f64().max(0.001), replicas: record.replica_ids.len() };
    let mut svg = String::new();
    let height = layout.end() + 34.0;
    draw!(svg, "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"Timeline of the run\">");
    shade_cuts(record, &layout, &mut svg);
    time_axis(&layout, &mut svg);
    lanes(record, &layout, &mut svg);
    latencies(report, &layout, &mut svg);
    rates(record, &layout, &mut svg);
    deaths(record, &layout, &mut svg);
    svg.push_str("</svg>");
    svg
}

/// The colour that stands for a replica.
pub(super) fn colour(replica: usize, replicas: usize) -> String {
    // Evenly spread hues, neighbours far apart: a step that has no common divisor with the number.
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

/// A time in which the network was cut.
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
    // The index in `cuts` of what is still open: the split, and each fault's.
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

fn shade_cuts(record: &Record, layout: &Layout, svg: &mut String) {
    for cut in cuts(record) {
        let (from, until) = (layout.x(cut.from), layout.x(cut.until));
        let title =
            format!("{}, {:.3} s to {:.3} s", escape(&cut.title), cut.from.as_secs_f64(), cut.until.as_secs_f64());
        draw!(
            svg,
            "<rect class=\"cut\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\">\
             <title>{title}</title></rect>\
             <text class=\"cutname\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            TOP - 6.0,
            (until - from).max(1.0),
            layout.end() - TOP + 6.0,
            from + 3.0,
            TOP - 11.0,
            cut.label
        );
        for (replica, _) in (record.replica_ids.iter().enumerate()).filter(|(_, id)| cut.rest.contains(id)) {
            draw!(
                svg,
                "<rect class=\"minority\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{LANE}\">\
                 <title>{} is with the minority; {title}</title></rect>",
                layout.lane(replica),
                (until - from).max(1.0),
                record.replica_ids[replica]
            );
        }
    }
}

fn time_axis(layout: &Layout, svg: &mut String) {
    let step = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0]
        .into_iter()
        .find(|step| layout.seconds / step <= 14.0)
        .unwrap_or(layout.seconds / 10.0);
    let mut at = 0.0;
    while at <= layout.seconds {
        let x = layout.x(Duration::from_secs_f64(at));
        draw!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at} s</text>",
            layout.end(),
            layout.end() + 16.0
        );
        at += step;
    }
}

fn title(svg: &mut String, y: f64, text: &str) {
    draw!(svg, "<text class=\"panel\" x=\"{LEFT}\" y=\"{y:.1}\">{text}</text>");
}

fn lanes(record: &Record, layout: &Layout, svg: &mut String) {
    for (replica, id) in record.replica_ids.iter().enumerate() {
        let y = layout.lane(replica);
        draw!(
            svg,
            "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{id}</text>\
             <circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{}\"/>",
            LEFT - 18.0,
            y + LANE / 2.0 + 4.0,
            LEFT - 9.0,
            y + LANE / 2.0,
            colour(replica, layout.replicas)
        );
        let end = record.lost_at(replica).unwrap_or(record.ended_at);
        let beliefs: Vec<_> = (record.beliefs.iter()).filter(|belief| belief.replica == replica).collect();
        for (index, belief) in beliefs.iter().enumerate() {
            let until = beliefs.get(index + 1).map_or(end, |next| next.at);
            let says = match belief.leader {
                Some(leader) if leader == replica => format!("{id} says that it leads"),
                Some(leader) => format!("{id} follows {}", record.replica_ids[leader]),
                None => format!("{id} knows no leader"),
            };
            let (class, fill) = match belief.leader {
                Some(leader) if leader == replica => ("leads", colour(leader, layout.replicas)),
                Some(leader) => ("follows", colour(leader, layout.replicas)),
                None => ("lost", "currentColor".to_owned()),
            };
            let thickness = match class {
                "leads" => 13.0,
                "follows" => 6.0,
                _ => 1.0,
            };
            draw!(
                svg,
                "<rect class=\"{class}\" fill=\"{fill}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.2}\" height=\"{thickness}\">\
                 <title>{says}, {:.3} s to {:.3} s</title></rect>",
                layout.x(belief.at),
                y + (LANE - thickness) / 2.0,
                (layout.x(until) - layout.x(belief.at)).max(0.6),
                belief.at.as_secs_f64(),
                until.as_secs_f64()
            );
        }
    }
}

fn deaths(record: &Record, layout: &Layout, svg: &mut String) {
    for loss in &record.losses {
        let (x, y) = (layout.x(loss.at), layout.lane(loss.replica) + LANE / 2.0);
        let id = record.replica_ids[loss.replica];
        let (class, what) = match &loss.died_by_itself {
            None => ("killed", format!("{id} was killed")),
            Some(why) => ("died", format!("{id} died by itself: {}", escape(why))),
        };
        draw!(
            svg,
            "<g class=\"{class}\"><title>{what}, at {:.3} s</title>\
             <line class=\"deathline\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y:.1}\" y2=\"{:.1}\"/>\
             <circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"8\"/>\
             <path d=\"M{:.1} {:.1}l8 8m0 -8l-8 8\"/></g>",
            loss.at.as_secs_f64(),
            layout.end(),
            x - 4.0,
            y - 4.0
        );
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

fn latencies(report: &Report, layout: &Layout, svg: &mut String) {
    let decades = decades(report, layout.latency());
    title(
        svg,
        layout.strip() - 8.0,
        "Time from creating a request to each answer (logarithmic), by the time of creation",
    );
    let right = WIDTH - RIGHT;
    for power in decades.low..=decades.high {
        let y = decades.y(Duration::from_secs_f64(10f64.powi(power)));
        draw!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            Decades::name(power)
        );
    }
    points(&report.record, layout, &decades, svg);
    marks(report, &decades, svg);
}

/// The median and the floor, above the points. They lie close together in a good run: the lower one is named
/// below its line.
fn marks(report: &Report, decades: &Decades, svg: &mut String) {
    let right = WIDTH - RIGHT;
    let median = report.statistics.latency.map(|latency| latency.median);
    let floor = report.floor.map(|floor| floor.median);
    for (name, time, other) in [("median", median, floor), ("floor", floor, median)] {
        let Some(time) = time else { continue };
        let y = decades.y(time);
        let below = other.is_some_and(|other| time < other || time == other && name == "floor");
        draw!(
            svg,
            "<line class=\"mark\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"markname\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name} {}</text>",
            right - 3.0,
            if below { y + 12.0 } else { y - 4.0 },
            show(time)
        );
    }
}

fn points(record: &Record, layout: &Layout, decades: &Decades, svg: &mut String) {
    draw!(
        svg,
        "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">never</text>",
        LEFT - 6.0,
        layout.strip() + 12.0
    );
    let step = record.attempts.len().div_ceil(MAX_POINTS).max(1);
    // What is rare is never thinned out, and is drawn last, above the rest.
    let (rare, usual): (Vec<&Attempt>, Vec<&Attempt>) =
        (record.attempts.iter()).partition(|attempt| attempt.answer.is_none());
    for attempt in usual.into_iter().step_by(step).chain(rare) {
        point(record, attempt, layout, decades, svg);
    }
    if step > 1 {
        let note = format!("one in {step} answers is shown");
        title(svg, layout.latency() + LATENCY + 12.0, &note);
    }
}

fn point(record: &Record, attempt: &Attempt, layout: &Layout, decades: &Decades, svg: &mut String) {
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
        let y = layout.strip() + 8.0;
        draw!(
            svg,
            "<path class=\"never\" d=\"M{:.1} {:.1}l6 6m0 -6l-6 6\"><title>{about}: {to}</title></path>",
            x - 3.0,
            y - 3.0
        );
        return;
    };
    let (class, said) = match (&answer.outcome, request.operation) {
        (Outcome::Ok { .. }, Operation::Get) => ("get", "ok".to_owned()),
        (Outcome::Ok { .. }, Operation::Put) => ("put", "ok".to_owned()),
        (Outcome::Redirect, _) => ("redirect", "redirect".to_owned()),
        (Outcome::Fail { error: None }, _) => ("fail", "fail".to_owned()),
        (Outcome::Fail { error: Some(why) }, _) => ("fail", format!("fail, {}", escape(why))),
    };
    let latency = answer.at.saturating_sub(request.created);
    draw!(
        svg,
        "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"2.6\">\
         <title>{about}: {said} from {} after {}</title></circle>",
        decades.y(latency),
        record.replica_ids[answer.by],
        show(latency)
    );
}

fn rates(record: &Record, layout: &Layout, svg: &mut String) {
    let rates = &record.traffic.per_second;
    let most = rates.iter().copied().max().unwrap_or(0).max(1);
    let top = layout.rate();
    title(svg, top - 8.0, "Messages between replicas in each second");
    for (value, y) in [(most, top), (0, layout.end())] {
        draw!(
            svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            LEFT - 6.0,
            y + 4.0,
            grouped(value),
            WIDTH - RIGHT
        );
    }
    for (second, &rate) in rates.iter().enumerate().filter(|(_, rate)| **rate > 0) {
        let from = layout.x(Duration::from_secs(second as u64));
        let until = layout.x(Duration::from_secs(second as u64 + 1));
        let height = RATE * rate as f64 / most as f64;
        draw!(
            svg,
            "<rect class=\"rate\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\">\
             <title>{} messages in second {second}</title></rect>",
            from + 0.5,
            layout.end() - height,
            (until - from - 1.0).max(0.5),
            grouped(rate)
        );
    }
}
