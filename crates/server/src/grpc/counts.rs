//! How often which method was called, how it ended, and what went to and fro.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// A method that is served. What is counted is bounded by this list, not by what clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    service: &'static str,
    name: &'static str,
    kind: Kind,
}

/// Who sends how many messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One each.
    Unary,
    /// One, and the server many.
    ServerStream,
    /// Both many.
    BidiStream,
}

const fn method(service: &'static str, name: &'static str) -> Method {
    Method { service, name, kind: Kind::Unary }
}

const fn stream(service: &'static str, name: &'static str, kind: Kind) -> Method {
    Method { service, name, kind }
}

const KV: &str = "etcdserverpb.KV";
const LEASE: &str = "etcdserverpb.Lease";
const CLUSTER: &str = "etcdserverpb.Cluster";
const MAINTENANCE: &str = "etcdserverpb.Maintenance";
const HEALTH: &str = "grpc.health.v1.Health";

/// How many there are.
const METHOD_COUNT: usize = 27;

const METHODS: [Method; METHOD_COUNT] = [
    method(KV, "Range"),
    stream(KV, "RangeStream", Kind::ServerStream),
    method(KV, "Put"),
    method(KV, "DeleteRange"),
    method(KV, "Txn"),
    method(KV, "Compact"),
    method(LEASE, "LeaseGrant"),
    method(LEASE, "LeaseRevoke"),
    stream(LEASE, "LeaseKeepAlive", Kind::BidiStream),
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
    stream(MAINTENANCE, "Snapshot", Kind::ServerStream),
    method(MAINTENANCE, "MoveLeader"),
    method(MAINTENANCE, "Downgrade"),
    method(HEALTH, "Check"),
    method(HEALTH, "List"),
    stream(HEALTH, "Watch", Kind::ServerStream),
];

impl Method {
    /// As Prometheus knows it.
    pub(crate) fn labels(self) -> String {
        let Method { service, name, kind } = self;
        let kind = match kind {
            Kind::Unary => "unary",
            Kind::ServerStream => "server_stream",
            Kind::BidiStream => "bidi_stream",
        };
        format!(r#"grpc_method="{name}",grpc_service="{service}",grpc_type="{kind}""#)
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
    pub(super) started: AtomicU64,
    pub(super) handled: [AtomicU64; CODE_COUNT],
    /// Messages that came.
    pub(super) received: AtomicU64,
    /// Messages that went.
    pub(super) sent: AtomicU64,
}

impl Calls {
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Relaxed)
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
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
    /// Which versions of the API they say that they speak.
    pub(crate) versions: Versions,
    /// Bytes of the messages that came, as they came: some are compressed.
    pub(crate) received_bytes: AtomicU64,
    /// Bytes of the messages that went.
    pub(crate) sent_bytes: AtomicU64,
    /// Streams of keep-alives that brought something that can't be read.
    pub(crate) keep_alive_failures: AtomicU64,
    /// How often the health was asked for, and good.
    pub(crate) health_success: AtomicU64,
    /// How often it was not.
    pub(crate) health_failures: AtomicU64,
}

impl Counts {
    pub(crate) fn calls(&self) -> impl Iterator<Item = (Method, &Calls)> {
        METHODS.into_iter().zip(&self.calls)
    }

    /// The place of the method with this path, if there is one.
    pub(super) fn place(path: &str) -> Option<usize> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        METHODS.iter().position(|method| (method.service, method.name) == (service, name))
    }

    pub(super) fn calls_at(&self, place: Option<usize>) -> Option<&Calls> {
        place.and_then(|place| self.calls.get(place))
    }

    pub(super) fn is_stream(place: usize) -> bool {
        METHODS[place].kind != Kind::Unary
    }

    /// Whether it answers with many small messages.
    pub(super) fn is_chatty(place: usize) -> bool {
        METHODS[place].kind == Kind::BidiStream
    }
}

/// Most versions that are told apart.
const MAX_VERSIONS: usize = 32;

/// Longest version that is told, in bytes.
const MAX_VERSION: usize = 32;

/// Which versions of the API clients say that they speak: a few, whatever they say.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    /// Calls, and streams, of each.
    counts: RwLock<BTreeMap<String, [AtomicU64; 2]>>,
}

impl Versions {
    pub(super) fn count(&self, version: &str, stream: bool) {
        let place = usize::from(stream);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
        let known = (1..=MAX_VERSION).contains(&version.len()) && version.bytes().all(plain);
        let version = if known { version } else { "other" };
        if let Some(counts) = self.read().get(version) {
            counts[place].fetch_add(1, Relaxed);
            return;
        }
        let mut all = self.counts.write().unwrap_or_else(PoisonError::into_inner);
        let version = if all.len() < MAX_VERSIONS { version } else { "other" };
        all.entry(version.to_owned()).or_default()[place].fetch_add(1, Relaxed);
    }

    /// Each version, with how many calls there were, and how many streams.
    pub(crate) fn all(&self) -> Vec<(String, [u64; 2])> {
        let counts = |counts: &[AtomicU64; 2]| [counts[0].load(Relaxed), counts[1].load(Relaxed)];
        self.read().iter().map(|(version, found)| (version.clone(), counts(found))).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, [AtomicU64; 2]>> {
        // A change is one insertion: it is there or not, panic or not.
        self.counts.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_cannot_make_counts_without_end() {
        let versions = Versions::default();
        for number in 0..1_000 {
            versions.count(&format!("3.{number}"), number % 2 == 0);
        }
        versions.count("\"}\n", false);
        versions.count(&"3".repeat(100), false);
        let all = versions.all();
        assert!(all.len() <= MAX_VERSIONS + 1, "{all:?}");
        assert_eq!(all.iter().map(|(_, [calls, streams])| calls + streams).sum::<u64>(), 1_002);
        assert!(all.iter().all(|(version, _)| !version.contains('"')), "{all:?}");
    }
}
