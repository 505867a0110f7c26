//! The comparison of two servers that were measured in turn.

use serde_json::{Value, json};

use crate::report::Run;

/// A number that is compared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metric {
    /// What was measured, such as `put`.
    pub(crate) measure: &'static str,
    /// The number, such as `p99`.
    pub(crate) name: &'static str,
    /// Of A and of B, in the order of the rounds.
    pub(crate) values: [Vec<f64>; 2],
}

/// The middle one of `values`, or the mean of the two in the middle; `None` if there are none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted.get(middle).copied()
    } else {
        Some((sorted.get(middle.checked_sub(1)?)? + sorted[middle]) / 2.0)
    }
}

impl Metric {
    /// A by B in each round in which both were measured, and B was not 0.
    pub(crate) fn ratios(&self) -> Vec<f64> {
        let [a, b] = &self.values;
        a.iter().zip(b).filter(|(_, b)| **b > 0.0).map(|(a, b)| a / b).collect()
    }

    /// The smallest and the largest ratio.
    pub(crate) fn spread(&self) -> Option<(f64, f64)> {
        let ratios = self.ratios();
        let least = ratios.iter().copied().min_by(f64::total_cmp)?;
        Some((least, ratios.iter().copied().max_by(f64::total_cmp)?))
    }

    pub(crate) fn json(&self) -> Value {
        let [a, b] = &self.values;
        let ratios = self.ratios();
        json!({
            "measure": self.measure, "metric": self.name, "a_median": median(a), "b_median": median(b),
            "ratios": ratios, "ratio_median": median(&ratios), "ratio_least": self.spread().map(|spread| spread.0),
            "ratio_most": self.spread().map(|spread| spread.1),
        })
    }
}

/// All numbers of the runs of A and of B, which have done the same.
pub(crate) fn compare(a: &[Run], b: &[Run]) -> Vec<Metric> {
    let metric = |measure, name, value: &dyn Fn(&Run) -> Option<f64>| {
        // A round counts only if both are whole and have the number.
        let whole = a.iter().zip(b).filter(|(a, b)| !a.interrupted() && !b.interrupted());
        let pairs: Vec<(f64, f64)> = whole.filter_map(|(a, b)| Some((value(a)?, value(b)?))).collect();
        let values = [pairs.iter().map(|pair| pair.0).collect(), pairs.iter().map(|pair| pair.1).collect()];
        Metric { measure, name, values }
    };
    let mut metrics = Vec::new();
    for (place, measure) in a.first().into_iter().flat_map(|run| run.measures.iter().enumerate()) {
        for (column, (name, _)) in measure.figures().iter().enumerate() {
            let value = |run: &Run| run.measures.get(place)?.figures()[column].1;
            metrics.push(metric(measure.name, *name, &value));
        }
    }
    metrics.push(metric("all", "longest gap", &|run| Some(run.gap.as_secs_f64())));
    metrics.push(metric("all", "errors", &|run| Some(run.errors.total() as f64)));
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
    }

    #[test]
    fn each_pair_has_a_ratio_and_all_have_a_spread() {
        let metric = |a: &[f64], b: &[f64]| Metric { measure: "put", name: "p50", values: [a.to_vec(), b.to_vec()] };
        let metric_of_three = metric(&[2.0, 9.0, 4.0], &[1.0, 3.0, 8.0]);
        assert_eq!(metric_of_three.ratios(), [2.0, 3.0, 0.5]);
        assert_eq!(metric_of_three.spread(), Some((0.5, 3.0)));
        let json = metric_of_three.json();
        let numbers =
            ["a_median", "b_median", "ratio_median", "ratio_least", "ratio_most"].map(|name| json[name].as_f64());
        assert_eq!(numbers, [Some(4.0), Some(3.0), Some(2.0), Some(0.5), Some(3.0)]);
        // No ratio to nothing.
        assert_eq!(metric(&[0.0, 2.0], &[0.0, 1.0]).ratios(), [2.0]);
        assert_eq!(metric(&[1.0], &[0.0]).spread(), None);
    }
}
