//! What a replica counts, under the names that dashboards for etcd know.

use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bowline_kv::store::{LeaseChange, Operations};
use bowline_member::Instruments;
use bowline_node::raft::NodeId;
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::clock::stopwatch;
use crate::instruments::{Fixed, Gauge, Labels, Unsuffixed, instruments, milliseconds, seconds};

/// What commands do, in the order of their kinds: etcd's names.
const OPERATIONS: [&str; 10] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseExpire",
    "ClusterVersionSet",
    "Alarm",
    "unknown",
];

/// Whether something succeeded, as a label. The first place is that of success.
const SUCCESS: [(&str, &str); 2] = [("success", "true"), ("success", "false")];

/// Another member, as a label.
type Peer = [(&'static str, Hex); 1];

/// A member's id, in hexadecimal as in etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hex(u64);

impl EncodeLabelValue for Hex {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        write!(encoder, "{:x}", self.0)
    }
}

/// What takes longer than this to apply is slow: as etcd.
const SLOW_APPLY: Duration = Duration::from_millis(100);

instruments! {
    /// The instruments of a replica.
    pub struct Metrics {
        /// How long syncs of the log took.
        fsync: Histogram = seconds(), "etcd_disk_wal_fsync_duration_seconds";
        /// Bytes written to the log, with all overhead.
        log_bytes: Gauge, "etcd_disk_wal_write_bytes_total";
        /// Leaders seen.
        leader_changes: Counter, "etcd_server_leader_changes_seen_total";
        /// Times that the peers remembered more of this member than its disk.
        told_losses: Counter, "bowline_disk_older_than_promised_total";
        /// Writes that failed.
        proposals_failed: Counter, "etcd_server_proposals_failed_total";
        /// Times that this leader was late with what was due by more than a heartbeat.
        late_heartbeats: Counter, "etcd_server_heartbeat_send_failures_total";
        /// Reads of the latest state that nobody confirmed in time.
        slow_reads: Counter, "etcd_server_slow_read_indexes_total";
        /// Reads of the latest state that failed for another reason.
        failed_reads: Counter, "etcd_server_read_indexes_failed_total";
        /// Puts that this member applied, alone or in a transaction.
        puts: Counter, "etcd_mvcc_put_total";
        /// Deletions that this member applied, alone or in a transaction.
        deletes: Counter, "etcd_mvcc_delete_total";
        /// Reads of this member's state, by its clients or in a transaction.
        ranges: Counter, "etcd_mvcc_range_total";
        /// Transactions of more than one operation that this member applied.
        txns: Counter, "etcd_mvcc_txn_total";
        /// How long commands took to apply.
        applies: Fixed<Labels<3>, Histogram> = by_operation(), "etcd_server_apply_duration_seconds";
        /// Commands that took more than 100 ms to apply.
        slow_applies: Counter, "etcd_server_slow_apply_total";
        /// How long reads of ranges took, once it was known how recent they must be.
        range_times: Fixed<Labels<1>, Histogram> = Fixed::new(SUCCESS.map(|label| [label]), seconds),
            "etcd_server_range_duration_seconds";
        /// Leases.
        leases: Gauge, "bowline_leases";
        /// Leases that were granted.
        leases_granted: Counter, "etcd_debugging_lease_granted_total";
        /// Leases that ended, revoked or expired.
        leases_revoked: Counter, "etcd_debugging_lease_revoked_total";
        /// Renewals that this member has confirmed as leader.
        leases_renewed: Counter, "etcd_debugging_lease_renewed_total";
        /// Leases that this leader has ended, as their time was over.
        leases_expired: Counter, "etcd_debugging_server_lease_expired_total";
        /// Times to live of leases that were granted, in seconds.
        lease_ttls: Histogram = Histogram::new(exponential_buckets(1.0, 2.0, 24)), "etcd_debugging_lease_ttl_total";
        /// How long commits of the state's file took, with the commands during which they were made.
        commits: Histogram = seconds(), "etcd_disk_backend_commit_duration_seconds";
        /// How long rewrites of the state's file took that came to an end.
        rewrites: Histogram = seconds(), "etcd_disk_backend_defrag_duration_seconds";
        /// Whether the state's file is being written anew.
        rewriting: Gauge, "etcd_disk_defrag_inflight";
        /// How long it took to write a snapshot for a follower to a file.
        dumps: Histogram = seconds(), "etcd_disk_backend_snapshot_duration_seconds";
        /// How long checksums of the history took.
        hashes: Histogram = seconds(), "etcd_mvcc_hash_rev_duration_seconds";
        /// How long steps of removing old revisions took.
        compaction_steps: Histogram = milliseconds(), "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds";
        /// How long it took to remove all that a compaction gave up, from the first step to the last.
        compactions: Histogram = milliseconds(), "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds";
        /// When that last ended, in seconds since 1970; 0 if it has not since the start.
        last_compaction: Gauge, "etcd_debugging_mvcc_db_compaction_last";
        /// Records that compactions removed.
        compacted_keys: Counter, "etcd_debugging_mvcc_db_compaction_keys_total";
        /// Whether a leader's snapshot is being made a state.
        restoring: Gauge, "etcd_server_snapshot_apply_in_progress_total";
        /// Snapshots from a member.
        snapshots_received: Family<Peer, Unsuffixed>, "etcd_network_snapshot_receive_success";
        /// Snapshots from a member that were of no use.
        snapshots_refused: Family<Peer, Unsuffixed>, "etcd_network_snapshot_receive_failures";
        /// How long a follower's answers took from the leader's message on, with the follower's sync.
        round_trips: Family<Peer, Histogram> = Family::new_with_constructor(seconds),
            "etcd_network_peer_round_trip_time_seconds";
    }
}

fn by_operation() -> Fixed<Labels<3>, Histogram> {
    let labels = OPERATIONS.iter().flat_map(|op| SUCCESS.map(|success| [("version", "v3"), ("op", *op), success]));
    Fixed::new(labels, seconds)
}

impl Metrics {
    /// A range was read.
    pub(crate) fn ranged(&self, good: bool, time: Duration) {
        self.range_times[usize::from(!good)].observe(time.as_secs_f64());
    }
}

impl Instruments for Metrics {
    fn stopwatch(&self) -> Duration {
        stopwatch()
    }

    fn synced(&self, took: Duration, bytes: u64) {
        self.fsync.observe(took.as_secs_f64());
        self.log_bytes.set(bytes);
    }

    fn told_of_loss(&self) {
        self.told_losses.inc();
    }

    fn late_heartbeat(&self) {
        self.late_heartbeats.inc();
    }

    fn leader_changed(&self) {
        self.leader_changes.inc();
    }

    fn answered(&self, by: NodeId, time: Duration) {
        self.round_trips.get_or_create(&[("To", Hex(by.0))]).observe(time.as_secs_f64());
    }

    fn applied(&self, kind: u8, good: bool, took: Duration) {
        let operation = usize::from(kind.wrapping_sub(1)).min(OPERATIONS.len() - 1);
        self.applies[operation * SUCCESS.len() + usize::from(!good)].observe(took.as_secs_f64());
        if took > SLOW_APPLY {
            self.slow_applies.inc();
        }
    }

    fn committed(&self, took: Duration) {
        self.commits.observe(took.as_secs_f64());
    }

    fn tidied(&self, removed: u64, took: Duration) {
        self.compaction_steps.observe(took.as_secs_f64() * 1e3);
        self.compacted_keys.inc_by(removed);
    }

    fn did(&self, operations: &Operations) {
        let Operations { ranges, puts, deletes, txns } = *operations;
        for (counter, count) in
            [(&self.ranges, ranges), (&self.puts, puts), (&self.deletes, deletes), (&self.txns, txns)]
        {
            counter.inc_by(count);
        }
    }

    fn compacted(&self, took: Duration) {
        self.compactions.observe(took.as_secs_f64() * 1e3);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_compaction.set(now.as_secs());
    }

    fn rewriting(&self, now: bool) {
        self.rewriting.set(now.into());
    }

    fn rewritten(&self, took: Duration) {
        self.rewrites.observe(took.as_secs_f64());
    }

    fn dumped(&self, took: Duration) {
        self.dumps.observe(took.as_secs_f64());
    }

    fn restoring(&self, now: bool) {
        self.restoring.set(now.into());
    }

    fn received(&self, from: NodeId, whole: bool) {
        let from = [("From", Hex(from.0))];
        self.snapshots_received.get_or_create(&from).inc_by(whole.into());
        self.snapshots_refused.get_or_create(&from).inc_by((!whole).into());
    }

    fn leases(&self, count: u64) {
        self.leases.set(count);
    }

    fn lease_changed(&self, change: &LeaseChange) {
        match change {
            LeaseChange::Granted(lease) => {
                self.lease_ttls.observe(lease.ttl as f64);
                self.leases_granted.inc();
            }
            LeaseChange::Gone(_) => _ = self.leases_revoked.inc(),
        }
    }

    fn lease_renewed(&self) {
        self.leases_renewed.inc();
    }

    fn leases_ended(&self, count: u64) {
        self.leases_expired.inc_by(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    #[test]
    fn a_slow_command_is_counted_with_its_kind() {
        let metrics = Metrics::default();
        metrics.applied(1, true, SLOW_APPLY);
        metrics.applied(1, false, SLOW_APPLY + Duration::from_micros(1));
        metrics.applied(99, false, Duration::ZERO);
        metrics.applied(0, true, Duration::ZERO);
        assert_eq!(metrics.slow_applies.get(), 1);
        let unknown = 2 * (OPERATIONS.len() - 1);
        for place in [0, 1, unknown, unknown + 1] {
            assert_eq!(metrics.applies[place].count(), 1, "place {place}");
        }
    }

    #[test]
    fn snapshots_are_counted_by_the_member_that_sent_them() {
        let (metrics, mut registry, mut text) = (Metrics::default(), Registry::default(), String::new());
        metrics.received(NodeId(10), true);
        metrics.register(&mut registry);
        encode(&mut text, &registry).expect("writing to a string does not fail");
        for line in ["receive_success{From=\"a\"} 1", "receive_failures{From=\"a\"} 0"] {
            assert!(text.contains(&format!("\netcd_network_snapshot_{line}\n")), "{line} is not in {text}");
        }
    }
}
