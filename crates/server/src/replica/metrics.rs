//! What a replica counts: plain numbers, read by whoever wants to show them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bowline_node::raft::NodeId;

use bowline_kv::store::Operations;

/// Upper bounds of the buckets of a histogram of times, in microseconds: from 100 us, each twice the last.
pub const BUCKETS: [u64; 17] = [
    100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 204_800, 409_600, 819_200, 1_638_400,
    3_276_800, 6_553_600,
];

/// The same for times to live, in seconds: as etcd's.
pub const TTL_BUCKETS: [u64; 24] = doubled();

const fn doubled() -> [u64; 24] {
    let (mut bounds, mut place) = ([1; 24], 1);
    while place < bounds.len() {
        bounds[place] = bounds[place - 1] * 2;
        place += 1;
    }
    bounds
}

/// A histogram, of times mostly.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// How many were at most the bucket's bound; the last are longer than all bounds.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Default for Histogram {
    /// One of times.
    fn default() -> Histogram {
        Histogram::with(&BUCKETS)
    }
}

impl Histogram {
    fn with(bounds: &'static [u64]) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, sum: AtomicU64::new(0) }
    }

    /// Adds a time to one of times.
    pub fn add(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds a value, in the unit of the bounds.
    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// The upper bound of each bucket but the last.
    pub fn bounds(&self) -> &'static [u64] {
        self.bounds
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

    /// The sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

/// Histograms of the same thing, for those that were well and those that failed.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Those that were well.
    pub good: Histogram,
    /// Those that failed.
    pub bad: Histogram,
}

impl Outcomes {
    /// Adds a time.
    pub fn add(&self, good: bool, time: Duration) {
        if good { &self.good } else { &self.bad }.add(time);
    }
}

/// What commands do, in the order of their kinds: etcd's names.
pub const OPERATIONS: [&str; 9] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseExpire",
    "ClusterVersionSet",
    "unknown",
];

/// What takes longer than this to apply is slow: as etcd.
pub const SLOW_APPLY: Duration = Duration::from_millis(100);

/// The counters of a replica and its server.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Times that the log's sync took.
    pub fsync: Histogram,
    /// How often a leader was seen to take the place of another, or of none.
    pub leader_changes: AtomicU64,
    /// Times that the peers remembered more of this member than its disk.
    pub told_losses: AtomicU64,
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
    /// Leases that this member has ended as leader, as their time was over.
    pub leases_expired: AtomicU64,
    /// The times to live of leases that were granted, in seconds.
    pub lease_ttls: LeaseTtls,
    /// Times that this member, as leader, was late with what was due by more than a heartbeat.
    pub late_heartbeats: AtomicU64,
    /// Reads of the latest state that nobody confirmed in time.
    pub slow_reads: AtomicU64,
    /// Reads of the latest state that failed for another reason.
    pub failed_reads: AtomicU64,
    /// Bytes written to the log, with all overhead.
    pub log_bytes: AtomicU64,
    /// How long commands took to apply, by [`OPERATIONS`].
    pub applies: [Outcomes; OPERATIONS.len()],
    /// Commands that took longer than [`SLOW_APPLY`].
    pub slow_applies: AtomicU64,
    /// How long reads of ranges took, once it was known how recent they must be.
    pub range_times: Outcomes,
    /// How long commits of the state's file took, with the commands during which they were made.
    pub commits: Histogram,
    /// How long rewrites of the state's file took that came to an end.
    pub rewrites: Histogram,
    /// Whether one is under way.
    pub rewriting: AtomicU64,
    /// How long it took to write snapshots to files.
    pub dumps: Histogram,
    /// How long checksums of the history took.
    pub hashes: Histogram,
    /// Whether a leader's snapshot is being made a state.
    pub restoring: AtomicU64,
    /// Snapshots that leaders sent, by leader: those that were whole, and those that were of no use.
    pub received: Mutex<BTreeMap<NodeId, [u64; 2]>>,
    /// What is known of compactions.
    pub compactions: Compactions,
}

/// What is known of compactions: the state's file is tidied up after them in steps.
#[derive(Debug, Default)]
pub struct Compactions {
    /// How long the steps took.
    pub steps: Histogram,
    /// How long it took from the first step to the last.
    pub totals: Histogram,
    /// When the last one ended, in seconds since 1970; 0 if none has since the start.
    pub last: AtomicU64,
    /// Records that were removed.
    pub removed: AtomicU64,
}

impl Compactions {
    /// All that was given up is removed.
    pub(crate) fn ended(&self, took: Duration) {
        self.totals.add(took);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last.store(now.as_secs(), Ordering::Relaxed);
    }
}

/// A histogram of times to live.
#[derive(Debug)]
pub struct LeaseTtls(pub Histogram);

impl Default for LeaseTtls {
    fn default() -> LeaseTtls {
        LeaseTtls(Histogram::with(&TTL_BUCKETS))
    }
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
    /// A command was applied. Its kind is as [`Command::kind_of`](bowline_kv::store::Command::kind_of) tells it.
    pub(crate) fn applied(&self, kind: u8, good: bool, time: Duration) {
        let place = usize::from(kind.wrapping_sub(1)).min(OPERATIONS.len() - 1);
        self.applies[place].add(good, time);
        if time > SLOW_APPLY {
            self.slow_applies.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A snapshot has come from a leader.
    pub(crate) fn received(&self, from: NodeId, whole: bool) {
        let mut all = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(from).or_default()[usize::from(!whole)] += 1;
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
        assert_eq!((counts[0], counts[1], counts[16], counts[17]), (1, 2, 2, 3));
        assert_eq!(histogram.sum(), 10_000_201);
    }

    #[test]
    fn a_time_to_live_of_years_has_its_bucket() {
        let LeaseTtls(ttls) = LeaseTtls::default();
        assert_eq!((ttls.bounds()[0], ttls.bounds()[23]), (1, 1 << 23));
        ttls.observe(1);
        ttls.observe(60);
        ttls.observe(9_000_000_000);
        let counts = ttls.cumulative();
        assert_eq!((counts[0], counts[5], counts[6], counts[23], counts[24]), (1, 1, 2, 2, 3));
    }

    #[test]
    fn a_slow_command_is_counted_with_its_kind() {
        let metrics = Metrics::default();
        metrics.applied(1, true, SLOW_APPLY);
        metrics.applied(1, false, SLOW_APPLY + Duration::from_micros(1));
        metrics.applied(99, false, Duration::ZERO);
        metrics.applied(0, true, Duration::ZERO);
        assert_eq!(metrics.slow_applies.load(Ordering::Relaxed), 1);
        let all = |times: &Histogram| *times.cumulative().last().expect("there is one");
        assert_eq!((all(&metrics.applies[0].good), all(&metrics.applies[0].bad)), (1, 1));
        let unknown = &metrics.applies[OPERATIONS.len() - 1];
        assert_eq!((all(&unknown.good), all(&unknown.bad)), (1, 1));
    }
}
