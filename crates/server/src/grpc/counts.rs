//! How often which method was called, and how it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

/// A method that is served. What is counted is bounded by this list, not by what clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    service: &'static str,
    name: &'static str,
}

const fn method(service: &'static str, name: &'static str) -> Method {
    Method { service, name }
}

const KV: &str = "etcdserverpb.KV";
const LEASE: &str = "etcdserverpb.Lease";
const CLUSTER: &str = "etcdserverpb.Cluster";
const MAINTENANCE: &str = "etcdserverpb.Maintenance";

/// How many there are.
const METHOD_COUNT: usize = 24;

const METHODS: [Method; METHOD_COUNT] = [
    method(KV, "Range"),
    method(KV, "RangeStream"),
    method(KV, "Put"),
    method(KV, "DeleteRange"),
    method(KV, "Txn"),
    method(KV, "Compact"),
    method(LEASE, "LeaseGrant"),
    method(LEASE, "LeaseRevoke"),
    method(LEASE, "LeaseKeepAlive"),
    method(LEASE, "LeaseTimeToLive"),
    method(LEASE, "LeaseLeases"),
    method(CLUSTER, "MemberAdd"),
    method(CLUSTER, "MemberRemove"),
    method(CLUSTER, "MemberUpdate"),
    method(CLUSTER, "MemberList"),
    method(CLUSTER, "MemberPromote"),
    method(MAINTENANCE, "Alarm"),
    method(MAINTENANCE, "Status"),
    method(MAINTENANCE, "Defragment"),
    method(MAINTENANCE, "Hash"),
    method(MAINTENANCE, "HashKV"),
    method(MAINTENANCE, "Snapshot"),
    method(MAINTENANCE, "MoveLeader"),
    method(MAINTENANCE, "Downgrade"),
];

impl Method {
    fn is_stream(self) -> bool {
        self.kind() != "unary"
    }

    fn kind(self) -> &'static str {
        match self.name {
            "RangeStream" | "Snapshot" => "server_stream",
            "LeaseKeepAlive" => "bidi_stream",
            _ => "unary",
        }
    }

    /// As Prometheus knows it.
    pub(crate) fn labels(self) -> String {
        let Method { service, name } = self;
        format!(r#"grpc_method="{name}",grpc_service="{service}",grpc_type="{}""#, self.kind())
    }
}

/// How many codes there are.
const CODE_COUNT: usize = 17;

/// The names of the codes, by their numbers.
const CODES: [&str; CODE_COUNT] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The calls of one method.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    started: AtomicU64,
    handled: [AtomicU64; CODE_COUNT],
}

impl Calls {
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Relaxed)
    }

    /// The codes that there were, and OK.
    pub(crate) fn handled(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = CODES.iter().zip(&self.handled).map(|(code, count)| (*code, count.load(Relaxed)));
        counts.filter(|(code, count)| *count > 0 || *code == "OK")
    }
}

/// What is counted of clients.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    calls: [Calls; METHOD_COUNT],
    /// How often the health was asked for, and good.
    pub(crate) health_success: AtomicU64,
    /// How often it was not.
    pub(crate) health_failures: AtomicU64,
}

impl Counts {
    pub(crate) fn calls(&self) -> impl Iterator<Item = (Method, &Calls)> {
        METHODS.into_iter().zip(&self.calls)
    }
}

/// Counts a call. The code of a stream that was begun is only known at its end, which nobody sees here.
pub(crate) async fn count(State(counts): State<Arc<Counts>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    let called = path
        .split_once('/')
        .and_then(|(service, name)| METHODS.iter().position(|method| (method.service, method.name) == (service, name)));
    let Some(place) = called else { return next.run(request).await };
    counts.calls[place].started.fetch_add(1, Relaxed);
    let response = next.run(request).await;
    let refused = response.headers().get("grpc-status");
    let code = match refused {
        Some(code) => code.to_str().ok().and_then(|code| code.parse().ok()).filter(|code: &usize| *code < CODES.len()),
        None if METHODS[place].is_stream() => None,
        None => Some(0),
    };
    if let Some(code) = code {
        counts.calls[place].handled[code].fetch_add(1, Relaxed);
    }
    response
}
