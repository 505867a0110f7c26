//! Whether a member is well: one question (`/health`), or one check each (`/livez`, `/readyz`).

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bowline_kv::store::Query;

use super::PLAIN;
use crate::grpc::Context;
use crate::replica::RequestError;

/// How long a check waits: who asks for health asks again.
const PATIENCE: Duration = Duration::from_secs(2);

/// One thing that can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// Members have noticed that their states differ. There is no such alarm yet, so nobody has.
    DataCorruption,
    /// This member's own state can be read: its threads run.
    SerializableRead,
    /// The latest state can be read: there is a quorum, and this member reaches it.
    LinearizableRead,
    /// It has a vote: learners serve next to nothing.
    NonLearner,
}

/// Whether the process is worth keeping.
const LIVE: [Check; 1] = [Check::SerializableRead];

/// Whether it should get requests.
const READY: [Check; 4] = [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    /// Why it fails, if it does.
    async fn failure(self, context: &Context) -> Option<String> {
        match self {
            Check::DataCorruption => None,
            Check::SerializableRead => read_local(context).await.err().map(|error| error.to_string()),
            Check::LinearizableRead => read_latest(context).await.err().map(|error| error.to_string()),
            Check::NonLearner => {
                let voter = context.replica.status().membership.is_voter(context.replica.id());
                (!voter).then(|| "this member is a learner".to_owned())
            }
        }
    }
}

/// Whether this member can answer a read of the latest state; of its own with `?serializable=true`.
pub(super) async fn health(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    let serializable = has(query.as_deref(), "serializable=true");
    let status = context.replica.status();
    let reason = if status.leader.is_none() && !serializable {
        Some("RAFT NO LEADER".to_owned())
    } else {
        let read = if serializable { read_local(&context).await } else { read_latest(&context).await };
        read.err().map(|error| format!("RANGE ERROR:{error}"))
    };
    let counter = if reason.is_none() { &context.counts.health_success } else { &context.counts.health_failures };
    counter.fetch_add(1, Relaxed);
    match reason {
        None => (PLAIN, r#"{"health":"true","reason":""}"#).into_response(),
        Some(reason) => {
            let reason = reason.replace(['"', '\\'], "'");
            let body = format!(r#"{{"health":"false","reason":"{reason}"}}"#);
            (StatusCode::SERVICE_UNAVAILABLE, PLAIN, body).into_response()
        }
    }
}

pub(super) async fn live(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    run(&context, &LIVE, query.as_deref()).await
}

pub(super) async fn ready(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    run(&context, &READY, query.as_deref()).await
}

pub(super) async fn live_one(context: State<Context>, check: Path<String>, query: RawQuery) -> Response {
    one(&LIVE, context, check, query).await
}

pub(super) async fn ready_one(context: State<Context>, check: Path<String>, query: RawQuery) -> Response {
    one(&READY, context, check, query).await
}

async fn one(
    checks: &[Check],
    State(context): State<Context>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    match checks.iter().find(|check| check.name() == name) {
        Some(check) => run(&context, &[*check], query.as_deref()).await,
        None => {
            let names: Vec<&str> = checks.iter().map(|check| check.name()).collect();
            (StatusCode::NOT_FOUND, PLAIN, format!("no such check; checks: {}\n", names.join(", "))).into_response()
        }
    }
}

/// Runs checks, but for those that are excluded, and tells what came of it: of each one, if asked to be verbose.
async fn run(context: &Context, checks: &[Check], query: Option<&str>) -> Response {
    let verbose = has(query, "verbose") || has(query, "verbose=true");
    let mut text = String::new();
    let mut failed = false;
    for check in checks.iter().filter(|check| !has(query, &format!("exclude={}", check.name()))) {
        match check.failure(context).await {
            None if verbose => text.push_str(&format!("[+]{} ok\n", check.name())),
            None => {}
            Some(why) => {
                failed = true;
                text.push_str(&format!("[-]{} failed: {why}\n", check.name()));
            }
        }
    }
    if failed {
        return (StatusCode::SERVICE_UNAVAILABLE, PLAIN, text).into_response();
    }
    text.push_str("ok\n");
    (PLAIN, text).into_response()
}

fn has(query: Option<&str>, wanted: &str) -> bool {
    query.is_some_and(|query| query.split('&').any(|part| part == wanted))
}

async fn read_local(context: &Context) -> Result<(), RequestError> {
    context.replica.read_local(Query::Status.encode()).await.map(|_| ())
}

async fn read_latest(context: &Context) -> Result<(), RequestError> {
    if context.replica.status().leader.is_none() {
        return Err(RequestError::NoLeader);
    }
    let read = context.replica.read(Query::Status.encode());
    let in_time = tokio::time::timeout(PATIENCE, read).await;
    in_time.unwrap_or(Err(RequestError::TimedOut)).map(|_| ())
}
