//! Drawings of lines, as SVG.

use maud::{Markup, html};

use crate::text;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 68.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;

/// What an axis shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    /// A rate, from 0.
    Rate,
    /// Seconds of a measurement, from 0.
    Course,
    /// Seconds of latency, by their logarithm.
    Latency,
    /// A part of all requests: each nine has the same width.
    Quantile,
}

/// A line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The class, which sets its colour.
    pub(crate) class: &'static str,
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Values with their texts, and the values at both ends.
struct Scale {
    axis: Axis,
    ends: (f64, f64),
    ticks: Vec<(f64, String)>,
}

impl Scale {
    /// A scale for values of at least and at most these.
    fn new(axis: Axis, least: f64, most: f64) -> Scale {
        let ticks: Vec<f64> = match axis {
            Axis::Rate | Axis::Course => {
                let step = step(most / 5.0);
                (0..=(most / step).ceil() as u64).map(|tick| tick as f64 * step).collect()
            }
            Axis::Latency => decades(least, most),
            Axis::Quantile => vec![0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999],
        };
        let ends = match axis {
            Axis::Course => (0.0, most),
            Axis::Quantile => (0.0, most),
            Axis::Rate | Axis::Latency => (ticks.first().copied().unwrap_or(0.0), ticks.last().copied().unwrap_or(1.0)),
        };
        let shown = ticks.into_iter().filter(|tick| *tick <= ends.1 + 1e-12);
        let text = |value: f64| match axis {
            Axis::Rate if value < 10.0 => format!("{value}"),
            Axis::Rate => text::count(value as u64),
            Axis::Course => format!("{} s", (value * 1e3).round() / 1e3),
            Axis::Latency if value >= 1.0 => format!("{value:.0} s"),
            Axis::Latency if value >= 0.001 => format!("{:.0} ms", value * 1e3),
            Axis::Latency => format!("{} µs", (value * 1e6).round()),
            Axis::Quantile => format!("{}%", (value * 1e7).round() / 1e5),
        };
        Scale { axis, ends, ticks: shown.map(|tick| (tick, text(tick))).collect() }
    }

    /// The place of a value, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let straight = |value: f64| match self.axis {
            Axis::Rate | Axis::Course => value,
            Axis::Latency => value.max(1e-9).log10(),
            Axis::Quantile => -(1.0 - value).max(1e-9).log10(),
        };
        let (from, to) = (straight(self.ends.0), straight(self.ends.1));
        ((straight(value) - from) / (to - from).max(1e-9)).clamp(0.0, 1.0)
    }
}

/// The least of 1, 2 and 5 times a power of ten that is not below `least`.
fn step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-6).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| *step >= least * 0.999).unwrap_or(power)
}

/// Values of 1, 2 and 5 times powers of ten around the bounds; only the powers if there are many.
fn decades(least: f64, most: f64) -> Vec<f64> {
    let (first, last) = (least.max(1e-7).log10().floor() as i32, most.max(1e-7).log10().ceil() as i32);
    let factors: &[f64] = if last - first > 3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all = (first..=last).flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)));
    let all: Vec<f64> = all.collect();
    // The nearest ones outside the bounds are the ends.
    let from = all.iter().rposition(|value| *value <= least * 1.000_1).unwrap_or(0);
    let to = all.iter().position(|value| *value >= most * 0.999_9).unwrap_or(all.len() - 1);
    all[from..=to.max(from)].to_vec()
}

/// Draws lines over two axes.
pub(crate) fn draw(title: &str, (x, y): (Axis, Axis), lines: &[Line]) -> Markup {
    let all = || lines.iter().flat_map(|line| &line.points);
    let bounds = |value: fn(&(f64, f64)) -> f64| {
        let least = all().map(value).min_by(f64::total_cmp).unwrap_or(0.0);
        (least, all().map(value).max_by(f64::total_cmp).unwrap_or(1.0).max(1e-6))
    };
    let ((x_least, x_most), (y_least, y_most)) = (bounds(|point| point.0), bounds(|point| point.1));
    let (across, up) = (Scale::new(x, x_least, x_most), Scale::new(y, y_least, y_most));
    let px = |value: f64| format!("{value:.1}");
    let left = |value: f64| LEFT + across.place(value) * (WIDTH - LEFT - RIGHT);
    let top = |value: f64| HEIGHT - BOTTOM - up.place(value) * (HEIGHT - TOP - BOTTOM);
    let path = |line: &Line| {
        let points = line.points.iter().map(|(x, y)| format!("{} {}", px(left(*x)), px(top(*y))));
        format!("M{}", points.collect::<Vec<_>>().join("L"))
    };
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(title) {
            @for (value, text) in &up.ticks {
                @let at = px(top(*value));
                line class="grid" x1=(px(LEFT)) x2=(px(WIDTH - RIGHT)) y1=(at) y2=(at) {}
                text x=(px(LEFT - 8.0)) y=(px(top(*value) + 4.0)) text-anchor="end" { (text) }
            }
            @for (value, text) in &across.ticks {
                @let at = px(left(*value));
                line class="grid" x1=(at) x2=(at) y1=(px(TOP)) y2=(px(HEIGHT - BOTTOM)) {}
                text x=(at) y=(px(HEIGHT - BOTTOM + 18.0)) text-anchor="middle" { (text) }
            }
            @for line in lines {
                @match line.points.as_slice() {
                    [] => {},
                    [(x, y)] => circle class={ "dot " (line.class) } cx=(px(left(*x))) cy=(px(top(*y))) r="3" { title { (line.name) } },
                    _ => path class={ "line " (line.class) } d=(path(line)) { title { (line.name) } },
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(axis: Axis, least: f64, most: f64) -> Vec<String> {
        Scale::new(axis, least, most).ticks.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn scales_have_round_numbers() {
        assert_eq!(ticks(Axis::Rate, 0.0, 8_900.0), ["0", "2,000", "4,000", "6,000", "8,000", "10,000"]);
        assert_eq!(ticks(Axis::Course, 0.0, 10.0), ["0 s", "2 s", "4 s", "6 s", "8 s", "10 s"]);
        assert_eq!(ticks(Axis::Course, 0.0, 0.9), ["0 s", "0.2 s", "0.4 s", "0.6 s", "0.8 s"]);
        assert_eq!(ticks(Axis::Latency, 0.000_15, 0.004), ["100 µs", "200 µs", "500 µs", "1 ms", "2 ms", "5 ms"]);
        assert_eq!(ticks(Axis::Latency, 0.000_15, 4.0), ["100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]);
        assert_eq!(ticks(Axis::Quantile, 0.0, 0.999), ["0%", "50%", "90%", "99%", "99.9%"]);
    }

    #[test]
    fn every_value_is_within_the_drawing() {
        let line = |points: &[(f64, f64)]| Line { class: "a", name: "a".to_owned(), points: points.to_vec() };
        let lines = [line(&[(0.0, 0.001), (0.5, 0.002), (0.999, 3.0)]), line(&[(0.3, 0.0)]), line(&[])];
        let drawn = draw("t", (Axis::Quantile, Axis::Latency), &lines).into_string();
        assert_eq!((drawn.matches("<path").count(), drawn.matches("<circle").count()), (1, 1));
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        let nothing = draw("t", (Axis::Course, Axis::Rate), &[]).into_string();
        assert!(!nothing.contains("NaN"), "{nothing}");
    }
}
