//! Plain HTTP on the client port: health, version, metrics.

mod checks;
mod metrics;
mod process;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::handler::Handler;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use prometheus_client::registry::Registry;

use crate::files;
use crate::grpc::{API_VERSION, Context};
use crate::peer::{Directory, Outbox};

const PLAIN: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];
/// Keeps browsers from taking text for HTML.
const NO_SNIFF: [(header::HeaderName, &str); 1] = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")];

/// The sources of the pages.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    context: Context,
    directory: Directory,
    outbox: Arc<Outbox>,
    tallies: Arc<checks::Tallies>,
    registry: Arc<Registry>,
}

/// The routes. As in etcd, only GET is allowed, except that any method gets the metrics.
pub(crate) fn router(context: Context, directory: Directory, outbox: Arc<Outbox>) -> Router {
    let mut registry = Registry::default();
    context.replica.metrics().register(&mut registry);
    context.counts.register(&mut registry);
    let tallies = Arc::new(checks::Tallies::new(&mut registry));
    let registry = Arc::new(registry);
    Router::new()
        .route("/health", only_get(checks::health))
        .route("/livez", only_get(async |state, query| checks::page("livez", state, query).await))
        .route("/livez/{check}", only_get(async |state, check, query| checks::one("livez", state, check, query).await))
        .route("/readyz", only_get(async |state, query| checks::page("readyz", state, query).await))
        .route(
            "/readyz/{check}",
            only_get(async |state, check, query| checks::one("readyz", state, check, query).await),
        )
        .route("/version", only_get(async || (JSON, version())))
        .route("/debug/vars", only_get(variables))
        .route("/metrics", any(metrics::page))
        .with_state(Pages { context, directory, outbox, tallies, registry })
}

/// A page that also refuses HEAD, which [`get`] alone would answer.
fn only_get<H: Handler<T, Pages>, T: 'static>(page: H) -> MethodRouter<Pages> {
    get(page).head(not_allowed).fallback(not_allowed)
}

async fn not_allowed() -> Response {
    let allowed = [(header::ALLOW, "GET")];
    (allowed, refusal(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")).into_response()
}

pub(crate) fn not_found() -> Response {
    refusal(StatusCode::NOT_FOUND, "404 page not found")
}

/// An error page with a line of text.
pub(crate) fn refusal(status: StatusCode, text: &str) -> Response {
    (status, PLAIN, NO_SNIFF, format!("{text}\n")).into_response()
}

fn version() -> String {
    format!(r#"{{"etcdserver":"{API_VERSION}","etcdcluster":"{API_VERSION}","storage":"{API_VERSION}"}}"#)
}

/// The variables that tools for etcd read, as JSON in the form of Go's package `expvar`. As in etcd, ids are hexadecimal.
async fn variables(State(pages): State<Pages>) -> Response {
    let replica = &pages.context.replica;
    let status = replica.status();
    let state = match (status.is_leader, status.leader) {
        (true, _) => "StateLeader",
        (false, Some(_)) => "StateFollower",
        (false, None) => "StateCandidate",
    };
    let limits = files::text("/proc/self/limits").unwrap_or_default();
    let files = process::limit(&limits, "Max open files").unwrap_or(0.0);
    let words: Vec<String> = std::env::args_os().map(|word| json_text(&word.to_string_lossy())).collect();
    let body = format!(
        concat!(
            "{{\n\"cmdline\": [{words}],\n\"file_descriptor_limit\": {files},\n\"raft.status\": ",
            r#"{{"id":"{id:x}","term":{term},"commit":{commit},"lead":"{lead:x}","raftState":"{state}","#,
            "\"applied\":{applied}}}\n}}\n"
        ),
        words = words.join(","),
        files = files,
        id = replica.id().0,
        term = status.term,
        commit = status.commit_index,
        lead = status.leader.map_or(0, |leader| leader.0),
        state = state,
        applied = status.applied_index,
    );
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], body).into_response()
}

/// A text as JSON.
fn json_text(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_in_json() {
        assert_eq!(json_text("a\"b\\\n\u{e9}"), "\"a\\\"b\\\\\\u000a\u{e9}\"");
    }
}
