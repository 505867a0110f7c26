//! What a replica counts: plain numbers, read by whoever wants to show them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bowline_kv::store::Operations;

/// Upper bounds of the buckets of a histogram of times, in microseconds: from 100 us, each twice the last.
pub const BUCKETS: [u64; 14] =
    [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 204_800, 409_600, 819_200];

/// A histogram of times.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How many were at most the bucket's bound; the last are longer than all bounds.
    counts: [AtomicU64; BUCKETS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    /// Adds a time.
    pub fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.partition_point(|bound| *bound < micros);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The counts up to each bound, then of all; each includes those before.
    pub fn cumulative(&self) -> Vec<u64> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        counts
            .scan(0, |sum, count| {
                *sum += count;
                Some(*sum)
            })
            .collect()
    }

    /// The sum of all times.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros.load(Ordering::Relaxed))
    }
}

/// The counters of a replica and its server.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Times that the log's sync took.
    pub fsync: Histogram,
    /// How often a leader was seen to take the place of another, or of none.
    pub leader_changes: AtomicU64,
    /// Times that the peers remembered more of this member than its disk.
    pub told_losses: AtomicU64,
    /// Writes that were answered with success.
    pub proposals_committed: AtomicU64,
    /// Writes that failed.
    pub proposals_failed: AtomicU64,
    /// Puts that this member's state was told to do, alone or in a transaction.
    pub puts: AtomicU64,
    /// Deletions, likewise.
    pub deletes: AtomicU64,
    /// Reads of this member's state, likewise and for its clients.
    pub ranges: AtomicU64,
    /// Transactions of more than one of these.
    pub txns: AtomicU64,
    /// The leases that there are.
    pub leases: AtomicU64,
    /// Leases that this member's state was told to hold.
    pub leases_granted: AtomicU64,
    /// Leases that ended in this member's state, revoked or expired.
    pub leases_revoked: AtomicU64,
    /// Renewals that this member has confirmed as leader.
    pub leases_renewed: AtomicU64,
}

impl Metrics {
    pub(crate) fn synced(&self, time: Duration) {
        self.fsync.add(time);
    }

    /// The state has done something.
    pub(crate) fn did(&self, operations: &Operations) {
        let Operations { ranges, puts, deletes, txns } = *operations;
        for (counter, count) in
            [(&self.ranges, ranges), (&self.puts, puts), (&self.deletes, deletes), (&self.txns, txns)]
        {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_its_bucket_and_all_above() {
        let histogram = Histogram::default();
        histogram.add(Duration::from_micros(100));
        histogram.add(Duration::from_micros(101));
        histogram.add(Duration::from_secs(10));
        let counts = histogram.cumulative();
        assert_eq!((counts[0], counts[1], counts[13], counts[14]), (1, 2, 2, 3));
        assert_eq!(histogram.sum(), Duration::from_micros(10_000_201));
    }
}
