//! What the client port answers to plain HTTP: health, version, metrics.

mod checks;
mod metrics;
mod process;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::grpc::Context;

/// Version of etcd's API, as [`crate::grpc`] tells it.
pub(crate) const VERSION: &str = r#"{"etcdserver":"3.6.0","etcdcluster":"3.6.0","storage":"3.6.0"}"#;

const PLAIN: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];
const PROMETHEUS: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];

/// The pages.
pub(crate) fn router(context: Context) -> Router {
    Router::new()
        .route("/health", get(checks::health))
        .route("/livez", get(checks::live))
        .route("/livez/{check}", get(checks::live_one))
        .route("/readyz", get(checks::ready))
        .route("/readyz/{check}", get(checks::ready_one))
        .route("/version", get(async || (JSON, VERSION)))
        .route("/metrics", get(async |State(context): State<Context>| (PROMETHEUS, metrics::exposition(&context))))
        .route("/debug/vars", get(variables))
        .with_state(context)
}

/// The variables that tools for etcd look at, as JSON. Ids are hexadecimal, as there.
async fn variables(State(context): State<Context>) -> Response {
    let status = context.replica.status();
    let state = match (status.is_leader, status.leader) {
        (true, _) => "StateLeader",
        (false, Some(_)) => "StateFollower",
        (false, None) => "StateCandidate",
    };
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = process::max_files(&limits).unwrap_or(0.0);
    let body = format!(
        concat!(
            r#"{{"file_descriptor_limit":{files},"raft.status":{{"id":"{id:x}","term":{term},"commit":{commit},"#,
            r#""lead":"{lead:x}","raftState":"{state}","applied":{applied}}}}}"#
        ),
        files = files,
        id = context.replica.id().0,
        term = status.term,
        commit = status.commit_index,
        lead = status.leader.map_or(0, |leader| leader.0),
        state = state,
        applied = status.applied_index,
    );
    (JSON, body).into_response()
}
