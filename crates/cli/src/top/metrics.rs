//! The part of a member's page `/metrics` that `top` needs.

use std::collections::BTreeMap;

/// What is read of the page. A number that the page lacks is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Metrics {
    /// Calls of the service KV that ended, since the member's start.
    pub(super) calls: Option<f64>,
    /// How long they took.
    pub(super) call_times: Histogram,
    /// How long syncs of the log took.
    pub(super) syncs: Histogram,
    pub(super) watchers: Option<f64>,
    /// Watchers that are behind.
    pub(super) slow_watchers: Option<f64>,
    pub(super) leases: Option<f64>,
    /// Connections of clients.
    pub(super) connections: Option<f64>,
    /// The quota, in bytes; negative: there is none. `Status` tells it only from etcd 3.6 on.
    pub(super) quota: Option<f64>,
}

const KV: &str = "grpc_service=\"etcdserverpb.KV\"";

impl Metrics {
    /// Reads a page in Prometheus's text format.
    pub(super) fn parse(page: &str) -> Metrics {
        let mut metrics = Metrics::default();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((sample, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            let sum = |total: &mut Option<f64>| *total = Some(total.unwrap_or(0.0) + value);
            match name {
                "grpc_server_handled_total" if labels.contains(KV) => sum(&mut metrics.calls),
                "grpc_server_handling_seconds_bucket" if labels.contains(KV) => metrics.call_times.add(labels, value),
                "etcd_disk_wal_fsync_duration_seconds_bucket" => metrics.syncs.add(labels, value),
                "etcd_debugging_mvcc_watcher_total" => sum(&mut metrics.watchers),
                "etcd_debugging_mvcc_slow_watcher_total" => sum(&mut metrics.slow_watchers),
                "bowline_leases" => sum(&mut metrics.leases),
                "bowline_client_connections" => sum(&mut metrics.connections),
                "etcd_server_quota_backend_bytes" => sum(&mut metrics.quota),
                _ => {}
            }
        }
        metrics
    }
}

/// A histogram: how many values are at most as large as each bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram {
    /// By the bits of the bound, which sort like positive numbers.
    buckets: BTreeMap<u64, f64>,
}

impl Histogram {
    /// Adds the count of a bucket. Buckets of several label sets with the same bound are added up.
    fn add(&mut self, labels: &str, count: f64) {
        let bound = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
        let bound = bound.and_then(|bound| if bound == "+Inf" { Some(f64::INFINITY) } else { bound.parse().ok() });
        if let Some(bound) = bound.filter(|bound| *bound >= 0.0) {
            *self.buckets.entry(bound.to_bits()).or_default() += count;
        }
    }

    /// What was added since `before`. A histogram that has shrunk belongs to a member that has started again.
    pub(super) fn since(&self, before: &Histogram) -> Histogram {
        if self.total() < before.total() {
            return self.clone();
        }
        let earlier = |bound: &u64| before.buckets.get(bound).copied().unwrap_or(0.0);
        let buckets = self.buckets.iter().map(|(bound, count)| (*bound, (count - earlier(bound)).max(0.0)));
        Histogram { buckets: buckets.collect() }
    }

    /// The values of both.
    pub(super) fn merge(&mut self, other: &Histogram) {
        for (bound, count) in &other.buckets {
            *self.buckets.entry(*bound).or_default() += count;
        }
    }

    /// The value below which this part of all values is, from 0 to 1, as Prometheus computes it: interpolated within
    /// its bucket, and at most the highest finite bound. `None` if there are no values.
    pub(super) fn quantile(&self, part: f64) -> Option<f64> {
        let rank = part * self.total();
        if rank <= 0.0 {
            return None;
        }
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            let bound = f64::from_bits(*bound);
            if *count >= rank {
                let finite = bound.is_finite();
                return Some(if finite { lower + (bound - lower) * (rank - below) / (count - below) } else { lower });
            }
            if bound.is_finite() {
                (lower, below) = (bound, *count);
            }
        }
        Some(lower)
    }

    fn total(&self) -> f64 {
        self.buckets.last_key_value().map_or(0.0, |(_, count)| *count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE grpc_server_handled_total counter
grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 7
grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 3
grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Status\",grpc_service=\"etcdserverpb.Maintenance\"} 99
grpc_server_handling_seconds_bucket{le=\"0.001\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\"} 4
grpc_server_handling_seconds_bucket{le=\"1\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\"} 7
grpc_server_handling_seconds_bucket{grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",le=\"0.001\"} 2
grpc_server_handling_seconds_bucket{grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",le=\"1.0\"} 3
etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 1
etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 2
etcd_debugging_mvcc_watcher_total 5
etcd_debugging_mvcc_slow_watcher_total 1
bowline_leases 2
bowline_client_connections 4
etcd_server_quota_backend_bytes 2.147483648e+09
nonsense
etcd_debugging_mvcc_watcher_total many
";

    fn histogram(buckets: &[(&str, f64)]) -> Histogram {
        let mut histogram = Histogram::default();
        buckets.iter().for_each(|(bound, count)| histogram.add(&format!("a=\"b\",le=\"{bound}\"}}"), *count));
        histogram
    }

    #[test]
    fn a_page_is_read_and_what_it_lacks_is_unknown() {
        let metrics = Metrics::parse(PAGE);
        assert_eq!(metrics.calls, Some(10.0), "only calls of KV");
        assert_eq!(metrics.call_times, histogram(&[("0.001", 6.0), ("1", 10.0)]));
        assert_eq!(metrics.syncs, histogram(&[("0.001", 1.0), ("+Inf", 2.0)]));
        assert_eq!((metrics.watchers, metrics.slow_watchers), (Some(5.0), Some(1.0)));
        assert_eq!((metrics.leases, metrics.connections), (Some(2.0), Some(4.0)));
        assert_eq!(metrics.quota, Some(2_147_483_648.0));
        assert_eq!(Metrics::parse(""), Metrics::default());
        assert_eq!(Metrics::default().calls, None);
    }

    #[test]
    fn a_quantile_is_interpolated_in_its_bucket() {
        let times = histogram(&[("0.1", 50.0), ("0.2", 90.0), ("1", 100.0), ("+Inf", 100.0)]);
        let near = |part: f64, expected: f64| {
            let found = times.quantile(part).expect("there are values");
            assert!((found - expected).abs() < 1e-9, "{part}: {found}");
        };
        near(0.25, 0.05);
        near(0.5, 0.1);
        near(0.7, 0.15);
        near(0.99, 0.92);
        near(1.0, 1.0);
        assert_eq!(histogram(&[("0.1", 1.0), ("+Inf", 9.0)]).quantile(0.9), Some(0.1), "no more is known");
        assert_eq!(histogram(&[("+Inf", 2.0)]).quantile(0.5), Some(0.0));
        assert_eq!([Histogram::default().quantile(0.5), histogram(&[("1", 0.0)]).quantile(0.5)], [None, None]);
    }

    #[test]
    fn only_what_came_since_the_last_page_counts() {
        let (before, after) = (histogram(&[("1", 5.0), ("+Inf", 6.0)]), histogram(&[("1", 8.0), ("+Inf", 9.0)]));
        assert_eq!(after.since(&before), histogram(&[("1", 3.0), ("+Inf", 3.0)]));
        assert_eq!(before.since(&after), before, "the member has started again");
        assert_eq!(after.since(&Histogram::default()), after);
        let mut both = before.clone();
        both.merge(&after);
        assert_eq!(both, histogram(&[("1", 13.0), ("+Inf", 15.0)]));
    }
}
