//! What the client port answers to plain HTTP: health, version, metrics.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bowline_kv::store::Query;

use crate::grpc::Context;
use crate::replica::metrics::{BUCKETS, Metrics};
use crate::replica::{RequestError, Status};

/// Version of etcd's API, as [`crate::grpc`] tells it.
pub(crate) const VERSION: &str = r#"{"etcdserver":"3.6.0","etcdcluster":"3.6.0","storage":"3.6.0"}"#;

const PLAIN: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];
const PROMETHEUS: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];

/// The pages.
pub(crate) fn router(context: Context) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/version", get(async || (JSON, VERSION)))
        .route("/metrics", get(metrics))
        .with_state(context)
}

/// Whether this member can answer a read of the latest state; of its own with `?serializable=true`.
async fn health(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    let serializable = query.is_some_and(|query| query.split('&').any(|part| part == "serializable=true"));
    let status = context.replica.status();
    let reason = if status.leader.is_none() && !serializable {
        Some("RAFT NO LEADER".to_owned())
    } else {
        let read = if serializable { read_local(&context).await } else { read_latest(&context).await };
        read.err().map(|error| format!("RANGE ERROR:{error}"))
    };
    match reason {
        None => (PLAIN, r#"{"health":"true","reason":""}"#).into_response(),
        Some(reason) => {
            let reason = reason.replace(['"', '\\'], "'");
            let body = format!(r#"{{"health":"false","reason":"{reason}"}}"#);
            (StatusCode::SERVICE_UNAVAILABLE, PLAIN, body).into_response()
        }
    }
}

/// Whether the process is worth keeping: its threads run.
async fn livez(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    let checks = vec![("serializable_read", read_local(&context).await)];
    tell(&checks, query.as_deref())
}

/// Whether it should get requests: it can serve the latest state.
async fn readyz(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    let checks =
        vec![("serializable_read", read_local(&context).await), ("linearizable_read", read_latest(&context).await)];
    tell(&checks, query.as_deref())
}

async fn read_local(context: &Context) -> Result<(), RequestError> {
    context.replica.read_local(Query::Status.encode()).await.map(|_| ())
}

/// Gives up sooner than a client's read would: who asks for health asks again.
async fn read_latest(context: &Context) -> Result<(), RequestError> {
    if context.replica.status().leader.is_none() {
        return Err(RequestError::NoLeader);
    }
    let read = context.replica.read(Query::Status.encode());
    let in_time = tokio::time::timeout(std::time::Duration::from_secs(2), read).await;
    in_time.unwrap_or(Err(RequestError::TimedOut)).map(|_| ())
}

fn tell(checks: &[(&str, Result<(), RequestError>)], query: Option<&str>) -> Response {
    let verbose = query.is_some_and(|query| query.split('&').any(|part| part == "verbose" || part == "verbose=true"));
    let mut text = String::new();
    for (name, outcome) in checks {
        match outcome {
            Ok(()) if verbose => text.push_str(&format!("[+]{name} ok\n")),
            Ok(()) => {}
            Err(error) => text.push_str(&format!("[-]{name} failed: {error}\n")),
        }
    }
    if checks.iter().all(|(_, outcome)| outcome.is_ok()) {
        text.push_str("ok\n");
        return (PLAIN, text).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, PLAIN, text).into_response()
}

async fn metrics(State(context): State<Context>) -> Response {
    (PROMETHEUS, exposition(&context.replica.status(), context.replica.metrics())).into_response()
}

/// The text format 0.0.4 of Prometheus, under the names that dashboards for etcd know.
fn exposition(status: &Status, metrics: &Metrics) -> String {
    let mut out = String::new();
    let mut one = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    let positive = |revision: i64| u64::try_from(revision).unwrap_or(0);
    one("etcd_server_has_leader", "gauge", "Whether a leader is known.", u64::from(status.leader.is_some()));
    one("etcd_server_is_leader", "gauge", "Whether this member leads.", u64::from(status.is_leader));
    let changes = metrics.leader_changes.load(Relaxed);
    one("etcd_server_leader_changes_seen_total", "counter", "Leaders seen.", changes);
    one("etcd_server_proposals_committed_total", "gauge", "Index of the last committed entry.", status.commit_index);
    one("etcd_server_proposals_applied_total", "gauge", "Index of the last applied entry.", status.applied_index);
    one("etcd_server_proposals_pending", "gauge", "Requests that wait.", status.waiting as u64);
    let failed = metrics.proposals_failed.load(Relaxed);
    one("etcd_server_proposals_failed_total", "counter", "Writes that failed.", failed);
    one("etcd_mvcc_db_total_size_in_bytes", "gauge", "Bytes of the state.", status.facts.db_size);
    one("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", "Bytes of it in use.", status.facts.db_size);
    one("etcd_debugging_mvcc_keys_total", "gauge", "Keys.", status.facts.keys);
    let revision = positive(status.facts.revision);
    one("etcd_debugging_mvcc_current_revision", "gauge", "The latest revision.", revision);
    let compacted = positive(status.facts.compact_revision);
    one("etcd_debugging_mvcc_compact_revision", "gauge", "The oldest readable revision.", compacted);
    one("etcd_mvcc_put_total", "counter", "Puts.", metrics.puts.load(Relaxed));
    one("etcd_mvcc_delete_total", "counter", "Deletions.", metrics.deletes.load(Relaxed));
    one("etcd_mvcc_range_total", "counter", "Reads.", metrics.ranges.load(Relaxed));
    one("etcd_mvcc_txn_total", "counter", "Transactions.", metrics.txns.load(Relaxed));
    one("bowline_raft_term", "gauge", "The term.", status.term);
    let name = "etcd_disk_wal_fsync_duration_seconds";
    let _ = write!(out, "# HELP {name} How long syncs of the log took.\n# TYPE {name} histogram\n");
    let counts = metrics.fsync.cumulative();
    for (bound, count) in BUCKETS.iter().zip(&counts) {
        let _ = writeln!(out, "{name}_bucket{{le=\"{}\"}} {count}", *bound as f64 / 1e6);
    }
    let all = counts.last().copied().unwrap_or(0);
    let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {all}");
    let _ = writeln!(out, "{name}_sum {}\n{name}_count {all}", metrics.fsync.sum().as_secs_f64());
    out
}
