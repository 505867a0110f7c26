//! How often which method was called, how it ended, and what went to and fro.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::instruments::{Fixed, Gauge, Labels, Unsuffixed, instruments};
use crate::limits::{LimitCounts, limit_counts};

/// A method that is served, as labels. What is counted is bounded by this list, not by what clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Method {
    grpc_method: &'static str,
    grpc_service: &'static str,
    /// Who sends how many messages.
    grpc_type: &'static str,
}

/// Each side sends one message.
const UNARY: &str = "unary";

/// The client sends one, and the server many.
const SERVER_STREAM: &str = "server_stream";

/// Both send many.
const BIDI_STREAM: &str = "bidi_stream";

const fn method(service: &'static str, name: &'static str) -> Method {
    stream(service, name, UNARY)
}

const fn stream(service: &'static str, name: &'static str, kind: &'static str) -> Method {
    Method { grpc_method: name, grpc_service: service, grpc_type: kind }
}

const KV: &str = "etcdserverpb.KV";
const LEASE: &str = "etcdserverpb.Lease";
const CLUSTER: &str = "etcdserverpb.Cluster";
const MAINTENANCE: &str = "etcdserverpb.Maintenance";
const WATCH: &str = "etcdserverpb.Watch";
const AUTH: &str = "etcdserverpb.Auth";
const LOCK: &str = "v3lockpb.Lock";
const ELECTION: &str = "v3electionpb.Election";
const HEALTH: &str = "grpc.health.v1.Health";

const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const OLD_REFLECTION: &str = "grpc.reflection.v1alpha.ServerReflection";

const METHODS: [Method; 54] = [
    method(KV, "Range"),
    stream(KV, "RangeStream", SERVER_STREAM),
    method(KV, "Put"),
    method(KV, "DeleteRange"),
    method(KV, "Txn"),
    method(KV, "Compact"),
    method(AUTH, "AuthEnable"),
    method(AUTH, "AuthDisable"),
    method(AUTH, "AuthStatus"),
    method(AUTH, "Authenticate"),
    method(AUTH, "UserAdd"),
    method(AUTH, "UserGet"),
    method(AUTH, "UserList"),
    method(AUTH, "UserDelete"),
    method(AUTH, "UserChangePassword"),
    method(AUTH, "UserGrantRole"),
    method(AUTH, "UserRevokeRole"),
    method(AUTH, "RoleAdd"),
    method(AUTH, "RoleGet"),
    method(AUTH, "RoleList"),
    method(AUTH, "RoleDelete"),
    method(AUTH, "RoleGrantPermission"),
    method(AUTH, "RoleRevokePermission"),
    stream(WATCH, "Watch", BIDI_STREAM),
    method(LEASE, "LeaseGrant"),
    method(LEASE, "LeaseRevoke"),
    stream(LEASE, "LeaseKeepAlive", BIDI_STREAM),
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
    stream(MAINTENANCE, "Snapshot", SERVER_STREAM),
    method(MAINTENANCE, "MoveLeader"),
    method(MAINTENANCE, "Downgrade"),
    method(LOCK, "Lock"),
    method(LOCK, "Unlock"),
    method(ELECTION, "Campaign"),
    method(ELECTION, "Proclaim"),
    method(ELECTION, "Leader"),
    stream(ELECTION, "Observe", SERVER_STREAM),
    method(ELECTION, "Resign"),
    method(HEALTH, "Check"),
    method(HEALTH, "List"),
    stream(HEALTH, "Watch", SERVER_STREAM),
    stream(REFLECTION, "ServerReflectionInfo", BIDI_STREAM),
    stream(OLD_REFLECTION, "ServerReflectionInfo", BIDI_STREAM),
];

/// The names of the codes, by their numbers.
const CODES: [&str; 17] = [
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

instruments! {
    /// What is counted of clients. The instruments of a method are found by [`Counts::place`].
    pub(crate) struct Counts {
        /// Calls that were begun.
        started: Fixed<Method, Counter> = Fixed::new(METHODS, Counter::default), "grpc_server_started_total";
        /// Messages that came.
        received: Fixed<Method, Counter> = Fixed::new(METHODS, Counter::default), "grpc_server_msg_received_total";
        /// Messages that went.
        sent: Fixed<Method, Counter> = Fixed::new(METHODS, Counter::default), "grpc_server_msg_sent_total";
        /// Calls that ended, by their code.
        handled: Handled, "grpc_server_handled_total";
        /// How long calls took, streams too.
        times: Times, "grpc_server_handling_seconds";
        /// Calls, by the version that the client says that it speaks.
        versions: Versions, "etcd_server_client_requests_total";
        /// Bytes of the messages from clients, as they came: some are compressed.
        received_bytes: Counter, "etcd_network_client_grpc_received_bytes_total";
        /// Bytes of the messages to clients.
        sent_bytes: Counter, "etcd_network_client_grpc_sent_bytes_total";
        /// Streams that brought something that could not be read.
        stream_failures: Fixed<Labels<2>, Counter> = Fixed::new([KEEP_ALIVES], Counter::default),
            "etcd_network_server_stream_failures_total";
        /// Open connections of clients.
        connections: Gauge, "bowline_client_connections";
        /// How often clients reached a limit of this member.
        limits: LimitCounts = limit_counts(), "bowline_limit_reached_total";
        /// Questions for the health with a good answer.
        health_success: Unsuffixed, "etcd_server_health_success";
        /// Questions for the health with a bad one.
        health_failures: Unsuffixed, "etcd_server_health_failures";
        /// Learners that a client of this member has promoted.
        promotions: Unsuffixed, "etcd_server_learner_promote_successes";
        /// Promotions that were refused.
        refused_promotions: Family<[(&'static str, String); 1], Unsuffixed>, "etcd_server_learner_promote_failures";
    }
}

/// The only streams of requests that there are.
const KEEP_ALIVES: Labels<2> = [("Type", "receive"), ("API", "lease-keepalive")];

impl Counts {
    /// The place of the method with this path, if there is one.
    pub(super) fn place(path: &str) -> Option<usize> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        METHODS.iter().position(|method| (method.grpc_service, method.grpc_method) == (service, name))
    }

    pub(super) fn is_stream(place: usize) -> bool {
        METHODS[place].grpc_type != UNARY
    }

    /// The services, in the order of the list.
    pub(crate) fn services() -> Vec<&'static str> {
        let mut names: Vec<&str> = METHODS.iter().map(|method| method.grpc_service).collect();
        names.dedup();
        names
    }

    /// Whether it answers with many small messages.
    pub(super) fn is_chatty(place: usize) -> bool {
        METHODS[place].grpc_type == BIDI_STREAM
    }
}

/// How calls ended: for each method and code a counter. Those of codes that there were are written, and those of OK.
#[derive(Clone, Debug)]
pub(crate) struct Handled(Arc<[[Counter; CODES.len()]]>);

impl Default for Handled {
    fn default() -> Handled {
        Handled(METHODS.iter().map(|_| Default::default()).collect())
    }
}

impl Handled {
    pub(super) fn count(&self, place: usize, code: tonic::Code) {
        self.0[place][code as usize].inc();
    }
}

impl EncodeMetric for Handled {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (method, counters) in METHODS.iter().zip(&*self.0) {
            let counters = CODES.iter().zip(counters);
            for (code, counter) in counters.filter(|(code, counter)| **code == "OK" || counter.get() > 0) {
                counter.encode(encoder.encode_family(&([("grpc_code", *code)], *method))?)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// How long calls took: a histogram for each method. Those of methods that were called are written.
#[derive(Clone, Debug)]
pub(crate) struct Times(Arc<[(AtomicBool, Histogram)]>);

/// Bounds in seconds: those of etcd from 5 ms on, and finer ones below.
const TIMES: [f64; 16] =
    [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl Default for Times {
    fn default() -> Times {
        Times(METHODS.iter().map(|_| (AtomicBool::new(false), Histogram::new(TIMES))).collect())
    }
}

impl Times {
    pub(super) fn took(&self, place: usize, time: Duration) {
        let (called, histogram) = &self.0[place];
        histogram.observe(time.as_secs_f64());
        called.store(true, Relaxed);
    }
}

impl EncodeMetric for Times {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (method, (called, histogram)) in METHODS.iter().zip(&*self.0) {
            if called.load(Relaxed) {
                histogram.encode(encoder.encode_family(method)?)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|(called, _)| !called.load(Relaxed))
    }
}

/// Most versions that are told apart.
const MAX_VERSIONS: usize = 32;

/// Longest version that is told, in bytes.
const MAX_VERSION: usize = 32;

/// Which versions of the API clients say that they speak: a few, whatever they say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions(Arc<RwLock<BTreeMap<String, [Counter; 2]>>>);

/// What the two counters of a version count.
const CALLS: [&str; 2] = ["unary", "stream"];

impl Versions {
    pub(super) fn count(&self, version: &str, stream: bool) {
        let place = usize::from(stream);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
        let known = (1..=MAX_VERSION).contains(&version.len()) && version.bytes().all(plain);
        let version = if known { version } else { "other" };
        if let Some(counters) = self.read().get(version) {
            counters[place].inc();
            return;
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let version = if all.len() < MAX_VERSIONS { version } else { "other" };
        all.entry(version.to_owned()).or_default()[place].inc();
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, [Counter; 2]>> {
        // A change is one insertion: it is there or not, panic or not.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EncodeMetric for Versions {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (version, counters) in &*self.read() {
            for (kind, counter) in CALLS.iter().zip(counters) {
                counter.encode(encoder.encode_family(&[("type", *kind), ("client_api_version", version)])?)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }

    fn is_empty(&self) -> bool {
        self.read().is_empty()
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
        let all = versions.read();
        assert!(all.len() <= MAX_VERSIONS + 1, "{all:?}");
        assert_eq!(all.values().flatten().map(Counter::get).sum::<u64>(), 1_002);
        assert!(all.keys().all(|version| !version.contains('"')), "{all:?}");
    }
}
