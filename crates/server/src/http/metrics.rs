//! Numbers, in the text format 0.0.4 of Prometheus, under the names that dashboards for etcd know.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use super::process;
use crate::grpc::{Context, Counts};
use crate::replica::Status;
use crate::replica::metrics::{BUCKETS, Histogram, Metrics};

/// All that is told.
pub(super) fn exposition(context: &Context) -> String {
    let mut out = String::new();
    of_the_member(&mut out, &context.replica.status(), context.replica.metrics());
    of_the_clients(&mut out, &context.counts);
    let name = "etcd_disk_wal_fsync_duration_seconds";
    histogram(&mut out, name, "How long syncs of the log took.", &context.replica.metrics().fsync);
    of_the_process(&mut out);
    out
}

fn one(out: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    head(out, name, kind, help);
    let _ = writeln!(out, "{name} {value}");
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn of_the_member(out: &mut String, status: &Status, metrics: &Metrics) {
    let mut one = |name: &str, kind: &str, help: &str, value: u64| one(out, name, kind, help, value);
    let positive = |revision: i64| u64::try_from(revision).unwrap_or(0);
    one("etcd_server_has_leader", "gauge", "Whether a leader is known.", u64::from(status.leader.is_some()));
    one("etcd_server_is_leader", "gauge", "Whether this member leads.", u64::from(status.is_leader));
    let changes = metrics.leader_changes.load(Relaxed);
    one("etcd_server_leader_changes_seen_total", "counter", "Leaders seen.", changes);
    let told = metrics.told_losses.load(Relaxed);
    let help = "Times that the peers remembered more of this member than its disk.";
    one("bowline_disk_older_than_promised_total", "counter", help, told);
    one("etcd_server_proposals_committed_total", "gauge", "Index of the last committed entry.", status.commit_index);
    one("etcd_server_proposals_applied_total", "gauge", "Index of the last applied entry.", status.applied_index);
    one("etcd_server_proposals_pending", "gauge", "Requests that wait.", status.waiting as u64);
    let failed = metrics.proposals_failed.load(Relaxed);
    one("etcd_server_proposals_failed_total", "counter", "Writes that failed.", failed);
    one("etcd_mvcc_db_total_size_in_bytes", "gauge", "Bytes of the state.", status.facts.db_size);
    one("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", "Bytes of it in use.", status.facts.db_size_in_use);
    one("etcd_debugging_mvcc_keys_total", "gauge", "Keys.", status.facts.keys);
    let revision = positive(status.facts.revision);
    one("etcd_debugging_mvcc_current_revision", "gauge", "The latest revision.", revision);
    let compacted = positive(status.facts.compact_revision);
    one("etcd_debugging_mvcc_compact_revision", "gauge", "The oldest readable revision.", compacted);
    one("etcd_mvcc_put_total", "counter", "Puts that this member applied.", metrics.puts.load(Relaxed));
    one("etcd_mvcc_delete_total", "counter", "Deletions that this member applied.", metrics.deletes.load(Relaxed));
    one("etcd_mvcc_range_total", "counter", "Reads of this member's state.", metrics.ranges.load(Relaxed));
    let help = "Transactions of more than one operation that this member applied.";
    one("etcd_mvcc_txn_total", "counter", help, metrics.txns.load(Relaxed));
    one("bowline_leases", "gauge", "Leases.", metrics.leases.load(Relaxed));
    let granted = metrics.leases_granted.load(Relaxed);
    one("etcd_debugging_lease_granted_total", "counter", "Leases that were granted.", granted);
    let revoked = metrics.leases_revoked.load(Relaxed);
    one("etcd_debugging_lease_revoked_total", "counter", "Leases that ended.", revoked);
    let renewed = metrics.leases_renewed.load(Relaxed);
    one("etcd_debugging_lease_renewed_total", "counter", "Renewals, at the leader.", renewed);
    one("bowline_raft_term", "gauge", "The term.", status.term);
}

fn of_the_clients(out: &mut String, counts: &Counts) {
    let success = counts.health_success.load(Relaxed);
    one(out, "etcd_server_health_success", "counter", "Questions for the health with a good answer.", success);
    let failures = counts.health_failures.load(Relaxed);
    one(out, "etcd_server_health_failures", "counter", "Questions for the health with a bad one.", failures);
    let name = "grpc_server_started_total";
    head(out, name, "counter", "Calls that were begun.");
    for (method, calls) in counts.calls() {
        let _ = writeln!(out, "{name}{{{}}} {}", method.labels(), calls.started());
    }
    let name = "grpc_server_handled_total";
    head(out, name, "counter", "Calls that were answered, by their code. Of streams only those that were refused.");
    for (method, calls) in counts.calls() {
        for (code, count) in calls.handled() {
            let _ = writeln!(out, "{name}{{grpc_code=\"{code}\",{}}} {count}", method.labels());
        }
    }
}

fn histogram(out: &mut String, name: &str, help: &str, histogram: &Histogram) {
    head(out, name, "histogram", help);
    let counts = histogram.cumulative();
    for (bound, count) in BUCKETS.iter().zip(&counts) {
        let _ = writeln!(out, "{name}_bucket{{le=\"{}\"}} {count}", *bound as f64 / 1e6);
    }
    let all = counts.last().copied().unwrap_or(0);
    let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {all}");
    let _ = writeln!(out, "{name}_sum {}\n{name}_count {all}", histogram.sum().as_secs_f64());
}

/// What the system tells; where it doesn't, nothing is said.
fn of_the_process(out: &mut String) {
    let numbers = process::numbers();
    let mut tell = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            one(out, name, kind, help, value);
        }
    };
    tell("process_cpu_seconds_total", "counter", "Time on processors, in seconds.", numbers.cpu_seconds);
    tell("process_resident_memory_bytes", "gauge", "Memory in use, in bytes.", numbers.resident_bytes);
    tell("process_virtual_memory_bytes", "gauge", "Addresses in use, in bytes.", numbers.virtual_bytes);
    tell("process_start_time_seconds", "gauge", "When it started, in seconds since 1970.", numbers.start_seconds);
    tell("process_open_fds", "gauge", "Open files and sockets.", numbers.open_files);
    tell("process_max_fds", "gauge", "How many there may be.", numbers.max_files);
}
