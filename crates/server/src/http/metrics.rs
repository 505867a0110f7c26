//! Numbers, under the names that dashboards for etcd know.
//!
//! `tests/metrics.txt` lists all names of etcd, with those that are not here; DIFFERENCES.md says why.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::exposition::Exposition;
use super::{Pages, process};
use crate::grpc::{API_VERSION, Counts};
use crate::peer::Traffic;
use crate::replica::metrics::{Metrics, OPERATIONS, Outcomes};
use crate::replica::{Replica, Status};

/// Of microseconds, in a second.
const SECONDS: f64 = 1e6;

/// Of microseconds, in a millisecond.
const MILLISECONDS: f64 = 1e3;

/// All that is told.
pub(super) fn exposition(pages: &Pages) -> String {
    let mut out = Exposition::default();
    let replica = &pages.context.replica;
    let (status, metrics) = (replica.status(), replica.metrics());
    of_the_member(&mut out, &status, metrics);
    of_its_name(&mut out, replica, &status);
    of_its_health(&mut out, pages);
    of_its_work(&mut out, metrics);
    of_its_disk(&mut out, metrics);
    of_the_peers(&mut out, pages, &status);
    of_the_snapshots(&mut out, metrics);
    of_the_clients(&mut out, &pages.context.counts);
    of_the_process(&mut out);
    out.into_text()
}

fn of_the_member(out: &mut Exposition, status: &Status, metrics: &Metrics) {
    let mut one = |name: &str, kind: &str, help: &str, value: u64| out.one(name, kind, help, value);
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

/// Who it is, and what it speaks.
fn of_its_name(out: &mut Exposition, replica: &Replica, status: &Status) {
    let cluster = API_VERSION.rsplit_once('.').map_or(API_VERSION, |(cluster, _)| cluster);
    let mut name = |name: &str, help: &str, labels: String| out.each(name, "gauge", help, [(labels, 1)]);
    let version = format!("server_version=\"{API_VERSION}\"");
    name("etcd_server_version", "The version of etcd's API that is spoken.", version);
    let cluster = format!("cluster_version=\"{cluster}\"");
    name("etcd_cluster_version", "The version that all members speak.", cluster);
    name("etcd_server_id", "This member's id.", format!("server_id=\"{:x}\"", replica.id().0));
    let help = "The version of the peer protocol that all members speak.";
    out.one("bowline_cluster_protocol_version", "gauge", help, status.facts.cluster_version);
    let learner = !status.membership.is_voter(replica.id());
    out.one("etcd_server_is_learner", "gauge", "Whether this member has no vote.", u64::from(learner));
    // As etcd, where it is told to have none.
    out.one("etcd_server_quota_backend_bytes", "gauge", "The state's quota, in bytes; negative: there is none.", -1);
}

fn of_its_health(out: &mut Exposition, pages: &Pages) {
    let counts = &pages.context.counts;
    let success = counts.health_success.load(Relaxed);
    out.one("etcd_server_health_success", "counter", "Questions for the health with a good answer.", success);
    let failures = counts.health_failures.load(Relaxed);
    out.one("etcd_server_health_failures", "counter", "Questions for the health with a bad one.", failures);
    let tallies = || pages.tallies.each();
    let good = tallies().map(|(probe, tally)| (probe.labels(), u64::from(probe.is_good(tally, &pages.context))));
    let help = "Whether the last answer to a probe was good; before the first one, whether it would be.";
    out.each("etcd_server_healthcheck", "gauge", help, good);
    let all = tallies().flat_map(|(probe, tally)| {
        let outcomes = [("success", &tally.successes), ("error", &tally.errors)];
        outcomes.map(|(status, count)| (format!("{},status=\"{status}\"", probe.labels()), count.load(Relaxed)))
    });
    out.each("etcd_server_healthchecks_total", "counter", "Answers to probes.", all);
}

fn of_its_work(out: &mut Exposition, metrics: &Metrics) {
    let mut one = |name: &str, help: &str, value: &AtomicU64| out.one(name, "counter", help, value.load(Relaxed));
    let help = "Times that this leader was late with what was due by more than a heartbeat.";
    one("etcd_server_heartbeat_send_failures_total", help, &metrics.late_heartbeats);
    one("etcd_server_slow_apply_total", "Commands that took more than 100 ms to apply.", &metrics.slow_applies);
    let help = "Reads of the latest state that nobody confirmed in time.";
    one("etcd_server_slow_read_indexes_total", help, &metrics.slow_reads);
    let help = "Reads of the latest state that failed for another reason.";
    one("etcd_server_read_indexes_failed_total", help, &metrics.failed_reads);
    let help = "Leases that this leader has ended, as their time was over.";
    one("etcd_debugging_server_lease_expired_total", help, &metrics.leases_expired);
    let help = "Times to live of leases that were granted, in seconds.";
    out.histograms("etcd_debugging_lease_ttl_total", help, 1.0, [(String::new(), &metrics.lease_ttls.0)]);
    let applies = OPERATIONS.iter().zip(&metrics.applies).flat_map(|(op, times)| {
        outcomes(times)
            .map(move |(success, times)| (format!("version=\"v3\",op=\"{op}\",success=\"{success}\""), times))
    });
    let help = "How long commands took to apply.";
    out.histograms("etcd_server_apply_duration_seconds", help, SECONDS, applies);
    let ranges = outcomes(&metrics.range_times).map(|(success, times)| (format!("success=\"{success}\""), times));
    out.histograms("etcd_server_range_duration_seconds", "How long reads of ranges took.", SECONDS, ranges);
}

fn outcomes(outcomes: &Outcomes) -> [(bool, &crate::replica::metrics::Histogram); 2] {
    [(true, &outcomes.good), (false, &outcomes.bad)]
}

fn of_its_disk(out: &mut Exposition, metrics: &Metrics) {
    let mut times = |name: &str, help: &str, scale: f64, histogram| {
        out.histograms(name, help, scale, [(String::new(), histogram)]);
    };
    times("etcd_disk_wal_fsync_duration_seconds", "How long syncs of the log took.", SECONDS, &metrics.fsync);
    let help = "How long commits of the state's file took.";
    times("etcd_disk_backend_commit_duration_seconds", help, SECONDS, &metrics.commits);
    let help = "How long rewrites of the state's file took.";
    times("etcd_disk_backend_defrag_duration_seconds", help, SECONDS, &metrics.rewrites);
    let help = "How long it took to write a snapshot for a follower to a file.";
    times("etcd_disk_backend_snapshot_duration_seconds", help, SECONDS, &metrics.dumps);
    times("etcd_mvcc_hash_rev_duration_seconds", "How long checksums took.", SECONDS, &metrics.hashes);
    let compactions = &metrics.compactions;
    let help = "How long steps of removing old revisions took.";
    let name = "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds";
    times(name, help, MILLISECONDS, &compactions.steps);
    let help = "How long it took to remove all that a compaction gave up.";
    let name = "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds";
    times(name, help, MILLISECONDS, &compactions.totals);
    let mut one =
        |name: &str, kind: &str, help: &str, value: &AtomicU64| out.one(name, kind, help, value.load(Relaxed));
    let help = "When that last ended, in seconds since 1970; 0 if it has not since the start.";
    one("etcd_debugging_mvcc_db_compaction_last", "gauge", help, &compactions.last);
    let help = "Records that were removed.";
    one("etcd_debugging_mvcc_db_compaction_keys_total", "counter", help, &compactions.removed);
    let help = "Whether the state's file is being written anew.";
    one("etcd_disk_defrag_inflight", "gauge", help, &metrics.rewriting);
    one("etcd_disk_wal_write_bytes_total", "gauge", "Bytes written to the log.", &metrics.log_bytes);
}

/// Ids are hexadecimal, as on etcd.
fn of_the_peers(out: &mut Exposition, pages: &Pages, status: &Status) {
    let own = pages.context.replica.id();
    let peers: Vec<_> =
        pages.directory.peers().map(|(id, _)| id).filter(|id| status.membership.contains(*id)).collect();
    let pair = |to: bowline_node::raft::NodeId| format!("Local=\"{:x}\",Remote=\"{:x}\"", own.0, to.0);
    let known = peers.iter().map(|id| (pair(*id), 1));
    out.each("etcd_network_known_peers", "gauge", "The other members.", known);
    let active = peers.iter().map(|id| (pair(*id), u64::from(pages.outbox.reaches(*id))));
    out.each("etcd_network_active_peers", "gauge", "Whether there is a connection to a member.", active);
    let traffic: Vec<_> = peers.iter().map(|id| (*id, pages.directory.traffic(*id))).collect();
    let lost = traffic.iter().map(|(id, traffic)| (pair(*id), traffic.disconnections.load(Relaxed)));
    let help = "How often the connection to a member was lost.";
    out.each("etcd_network_disconnected_peers_total", "counter", help, lost);
    let mut of = |name: &str, label: &str, help: &str, number: fn(&Traffic) -> &AtomicU64| {
        let numbers =
            traffic.iter().map(|(id, traffic)| (format!("{label}=\"{:x}\"", id.0), number(traffic).load(Relaxed)));
        out.each(name, "counter", help, numbers);
    };
    of("etcd_network_peer_sent_bytes_total", "To", "Bytes to a member.", |traffic| &traffic.sent_bytes);
    of("etcd_network_peer_received_bytes_total", "From", "Bytes from one.", |traffic| &traffic.received_bytes);
    let help = "Frames from a member that could not be read.";
    of("etcd_network_peer_received_failures_total", "From", help, |traffic| &traffic.received_failures);
    let unsent = peers.iter().map(|id| (format!("To=\"{:x}\"", id.0), pages.outbox.lost_to(*id)));
    let help = "Messages to a member that were lost for want of a connection or of room.";
    out.each("etcd_network_peer_sent_failures_total", "counter", help, unsent);
}

fn of_the_snapshots(out: &mut Exposition, metrics: &Metrics) {
    let help = "Whether a leader's snapshot is being made a state.";
    let restoring = metrics.restoring.load(Relaxed);
    out.one("etcd_server_snapshot_apply_in_progress_total", "gauge", help, restoring);
    let received = metrics.received.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let of = |place: usize| {
        let of_one = move |(from, counts): (&bowline_node::raft::NodeId, &[u64; 2])| {
            (format!("From=\"{:x}\"", from.0), counts[place])
        };
        received.iter().map(of_one).collect::<Vec<_>>()
    };
    out.each("etcd_network_snapshot_receive_success", "counter", "Snapshots from a member.", of(0));
    let help = "Snapshots from a member that were of no use.";
    out.each("etcd_network_snapshot_receive_failures", "counter", help, of(1));
}

fn of_the_clients(out: &mut Exposition, counts: &Counts) {
    let mut one = |name: &str, help: &str, value: &AtomicU64| out.one(name, "counter", help, value.load(Relaxed));
    let help = "Bytes of the messages from clients.";
    one("etcd_network_client_grpc_received_bytes_total", help, &counts.received_bytes);
    one("etcd_network_client_grpc_sent_bytes_total", "Bytes of the messages to clients.", &counts.sent_bytes);
    let failures = counts.keep_alive_failures.load(Relaxed);
    let labels = "Type=\"receive\",API=\"lease-keepalive\"".to_owned();
    let help = "Streams that brought something that could not be read.";
    out.each("etcd_network_server_stream_failures_total", "counter", help, [(labels, failures)]);
    let requests = counts.versions.all().into_iter().flat_map(|(version, [calls, streams])| {
        let label = |kind: &str| format!("type=\"{kind}\",client_api_version=\"{version}\"");
        [(label("unary"), calls), (label("stream"), streams)]
    });
    let help = "Calls, by the version that the client says that it speaks.";
    out.each("etcd_server_client_requests_total", "counter", help, requests);
    let each = |number: fn(&crate::grpc::Calls) -> u64| {
        counts.calls().map(move |(method, calls)| (method.labels(), number(calls)))
    };
    out.each("grpc_server_started_total", "counter", "Calls that were begun.", each(|calls| calls.started()));
    let help = "Messages that came.";
    out.each("grpc_server_msg_received_total", "counter", help, each(|calls| calls.received()));
    out.each("grpc_server_msg_sent_total", "counter", "Messages that went.", each(|calls| calls.sent()));
    let handled = counts.calls().flat_map(|(method, calls)| {
        calls.handled().map(move |(code, count)| (format!("grpc_code=\"{code}\",{}", method.labels()), count))
    });
    out.each("grpc_server_handled_total", "counter", "Calls that ended, by their code.", handled);
}

/// What the system tells; where it doesn't, nothing is said.
fn of_the_process(out: &mut Exposition) {
    let numbers = process::numbers();
    let mut tell = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            out.one(name, kind, help, value);
        }
    };
    tell("process_cpu_seconds_total", "counter", "Time on processors, in seconds.", numbers.cpu_seconds);
    tell("process_resident_memory_bytes", "gauge", "Memory in use, in bytes.", numbers.resident_bytes);
    tell("process_virtual_memory_bytes", "gauge", "Addresses in use, in bytes.", numbers.virtual_bytes);
    let help = "How many there may be; negative: there is no limit.";
    tell("process_virtual_memory_max_bytes", "gauge", help, numbers.max_virtual_bytes);
    tell("process_start_time_seconds", "gauge", "When it started, in seconds since 1970.", numbers.start_seconds);
    tell("process_open_fds", "gauge", "Open files and sockets.", numbers.open_files);
    tell("process_max_fds", "gauge", "How many there may be.", numbers.max_files);
    let help = "Bytes that came to this machine or container.";
    tell("process_network_receive_bytes_total", "counter", help, numbers.network_received_bytes);
    let help = "Bytes that went from it.";
    tell("process_network_transmit_bytes_total", "counter", help, numbers.network_sent_bytes);
    tell("os_fd_used", "gauge", "Open files and sockets.", numbers.open_files);
    tell("os_fd_limit", "gauge", "How many there may be.", numbers.max_files);
}
