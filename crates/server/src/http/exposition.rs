//! The text format 0.0.4 of Prometheus.

use std::fmt::{Display, Write as _};

use crate::replica::metrics::Histogram;

/// A text under way.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

impl Exposition {
    /// One number.
    pub(super) fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.each(name, kind, help, [(String::new(), value)]);
    }

    /// One number for each set of labels, `a="b",c="d"`. Nothing is said where there is none.
    pub(super) fn each<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (String, V)>,
    ) {
        for (number, (labels, value)) in values.into_iter().enumerate() {
            if number == 0 {
                self.head(name, kind, help);
            }
            let _ = match labels.as_str() {
                "" => writeln!(self.0, "{name} {value}"),
                labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
            };
        }
    }

    /// Histograms, each with its labels. `scale` of their units make one of the unit that the name says.
    pub(super) fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        scale: f64,
        histograms: impl IntoIterator<Item = (String, &'a Histogram)>,
    ) {
        for (number, (labels, histogram)) in histograms.into_iter().enumerate() {
            if number == 0 {
                self.head(name, "histogram", help);
            }
            let (comma, braced) = match labels.as_str() {
                "" => ("", String::new()),
                labels => (",", format!("{{{labels}}}")),
            };
            let counts = histogram.cumulative();
            for (bound, count) in histogram.bounds().iter().zip(&counts) {
                let bound = *bound as f64 / scale;
                let _ = writeln!(self.0, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
            }
            let (all, sum) = (counts.last().copied().unwrap_or(0), histogram.sum() as f64 / scale);
            let _ = writeln!(self.0, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {all}");
            let _ = writeln!(self.0, "{name}_sum{braced} {sum}\n{name}_count{braced} {all}");
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_histograms_are_written_as_prometheus_reads_them() {
        let mut out = Exposition::default();
        out.one("a", "gauge", "What it is.", -1);
        out.each::<u64>("b", "counter", "None.", []);
        out.each("c", "counter", "Two.", [("x=\"1\"".to_owned(), 3), ("x=\"2\"".to_owned(), 4)]);
        let text = out.into_text();
        let numbers =
            "# HELP a What it is.\n# TYPE a gauge\na -1\n# HELP c Two.\n# TYPE c counter\nc{x=\"1\"} 3\nc{x=\"2\"} 4\n";
        assert_eq!(text, numbers);
        let (mut out, histogram) = (Exposition::default(), Histogram::default());
        histogram.observe(150);
        histogram.observe(10_000_000);
        let labels = [(String::new(), &histogram), ("k=\"v\"".to_owned(), &histogram)];
        out.histograms("t_seconds", "Times.", 1e6, labels);
        let text = out.into_text();
        for line in [
            "# TYPE t_seconds histogram",
            "t_seconds_bucket{le=\"0.0001\"} 0",
            "t_seconds_bucket{le=\"0.0002\"} 1",
            "t_seconds_bucket{le=\"+Inf\"} 2",
            "t_seconds_sum 10.00015",
            "t_seconds_count 2",
            "t_seconds_bucket{k=\"v\",le=\"0.0002\"} 1",
            "t_seconds_count{k=\"v\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }
}
