//! The page of metrics: the registered instruments, and what is read elsewhere when somebody asks.
//!
//! `tests/metrics.txt` lists all names of etcd, with those that are not here; DIFFERENCES.md says why.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bowline_api::etcdserverpb as pb;
use bowline_kv::store::Alarm;
use bowline_node::raft::NodeId;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{Pages, process};
use crate::grpc::API_VERSION;
use crate::instruments::family_name;
use crate::peer::Traffic;
use crate::replica::Status;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics, in OpenMetrics for whoever asks for that by name, and in the older format for all others.
pub(super) async fn page(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let mut now = Registry::default();
    // A member that has stopped knows none any more.
    let alarms = pages.context.alarms().await.unwrap_or_default();
    let status = pages.context.replica.status();
    now.register_collector(Box::new(Snapshot { status, alarms, pages: pages.clone() }));
    let mut text = String::new();
    let written = encode_registry(&mut text, &pages.registry).and_then(|()| encode(&mut text, &now));
    written.expect("writing to a string does not fail");
    let (kind, text) = if takes_openmetrics(&headers) { (OPENMETRICS, text) } else { (PROMETHEUS, older(&text)) };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

fn takes_openmetrics(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let range = range.to_ascii_lowercase();
        let mut parts = range.split(';').map(str::trim);
        parts.next() == Some("application/openmetrics-text")
            && parts.all(|parameter| match parameter.split_once('=') {
                Some(("version", version)) => version == "1.0.0",
                Some(("q", weight)) => weight.parse::<f32>().is_ok_and(|weight| weight > 0.0),
                _ => true,
            })
    })
}

/// OpenMetrics in the format 0.0.4 of Prometheus. There a family has the name of its samples, a counter's suffix is no
/// rule, and a bound that is an integer has no fraction.
fn older(text: &str) -> String {
    let (mut older, mut help, mut kind) = (String::with_capacity(text.len() + text.len() / 8), "", "");
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(found) = line.strip_prefix("# HELP ") {
            help = found.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, found)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            let suffix = if found == "counter" { "_total" } else { "" };
            // Of an unknown type are counters without the suffix.
            kind = if found == "unknown" { "counter" } else { found };
            older.push_str(&format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"));
        } else {
            older.push_str(&if kind == "histogram" { line.replacen(".0\"", "\"", 1) } else { line.to_owned() });
            older.push('\n');
        }
    }
    older
}

/// What is not counted, but read when somebody asks.
#[derive(Debug)]
struct Snapshot {
    pages: Pages,
    status: Status,
    alarms: Vec<Alarm>,
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        self.member(&mut out)?;
        self.identity(&mut out)?;
        self.peers(&mut out)?;
        self.watches(&mut out)?;
        let help = "Whether the last answer to a probe was good; before the first one, whether it would be.";
        let probes = self.pages.tallies.good(&self.pages.context, &self.status);
        out.each("etcd_server_healthcheck", help, probes.map(|(labels, good)| (labels, flag(good))))?;
        for (name, help, value) in process::figures() {
            match value {
                Some(value) if name.ends_with("_total") => out.one(name, help, ConstCounter::new(value))?,
                Some(value) => out.one(name, help, ConstGauge::new(value))?,
                None => {}
            }
        }
        Ok(())
    }
}

impl Snapshot {
    fn member(&self, out: &mut Families<'_>) -> fmt::Result {
        let Snapshot { status, .. } = self;
        let facts = &status.facts;
        let positive = |revision: i64| u64::try_from(revision).unwrap_or(0);
        let mut gauge = |name: &str, help: &str, value: u64| out.one(name, help, ConstGauge::new(value));
        gauge("etcd_server_has_leader", "Whether a leader is known.", status.leader.is_some().into())?;
        gauge("etcd_server_is_leader", "Whether this member leads.", status.is_leader.into())?;
        gauge("etcd_server_proposals_committed_total", "Index of the last committed entry.", status.commit_index)?;
        gauge("etcd_server_proposals_applied_total", "Index of the last applied entry.", status.applied_index)?;
        gauge("etcd_server_proposals_pending", "Requests that wait.", status.waiting as u64)?;
        gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes of the state.", facts.db_size)?;
        gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of it in use.", facts.db_size_in_use)?;
        gauge("etcd_debugging_mvcc_keys_total", "Keys.", facts.keys)?;
        gauge("etcd_debugging_mvcc_current_revision", "The latest revision.", positive(facts.revision))?;
        let compacted = positive(facts.compact_revision);
        gauge("etcd_debugging_mvcc_compact_revision", "The oldest readable revision.", compacted)?;
        gauge("bowline_raft_term", "The term.", status.term)?;
        let help = "Index of the latest comparison of the members' states.";
        gauge("bowline_state_compared_index", help, facts.comparison.marked_index)?;
        let help = "Index of the latest comparison in which all members had the same state.";
        gauge("bowline_state_agreed_index", help, facts.comparison.agreed_index)?;
        let help = "The version of the peer protocol that all members speak.";
        gauge("bowline_cluster_protocol_version", help, facts.cluster_version.into())
    }

    /// Who it is, and what it speaks.
    fn identity(&self, out: &mut Families<'_>) -> fmt::Result {
        let own = self.pages.context.replica.id();
        let cluster = API_VERSION.rsplit_once('.').map_or(API_VERSION, |(cluster, _)| cluster);
        let mut name = |name: &str, help: &str, key: &'static str, value: &str| {
            out.each(name, help, [([(key, value)], flag(true))])
        };
        let help = "The version of etcd's API that is spoken.";
        name("etcd_server_version", help, "server_version", API_VERSION)?;
        name("etcd_cluster_version", "The version that all members speak.", "cluster_version", cluster)?;
        name("etcd_server_id", "This member's id.", "server_id", &format!("{:x}", own.0))?;
        let learner = !self.status.membership.is_voter(own);
        out.one("etcd_server_is_learner", "Whether this member has no vote.", flag(learner))?;
        let alarm = |alarm: &Alarm| {
            let kind = pb::AlarmType::try_from(alarm.kind).map_or("UNKNOWN", |kind| kind.as_str_name());
            ([("server_id", format!("{:x}", alarm.member)), ("alarm_type", kind.to_owned())], flag(true))
        };
        out.each("etcd_debugging_server_alarms", "The active alarms of members.", self.alarms.iter().map(alarm))?;
        let help = "The state's quota, in bytes; negative: there is none.";
        out.one("etcd_server_quota_backend_bytes", help, ConstGauge::new(self.pages.context.quota.0))
    }

    fn watches(&self, out: &mut Families<'_>) -> fmt::Result {
        let counts = self.pages.context.replica.watches().with(|hub| hub.counts());
        let gauges = [
            ("etcd_debugging_mvcc_watch_stream_total", "Open streams of watches.", counts.streams),
            ("etcd_debugging_mvcc_watcher_total", "Watchers.", counts.watchers),
            ("etcd_debugging_mvcc_slow_watcher_total", "Watchers that read history.", counts.lagging),
            ("etcd_debugging_mvcc_pending_events_total", "Events that wait for streams.", counts.waiting),
        ];
        for (name, help, value) in gauges {
            out.one(name, help, ConstGauge::new(value as u64))?;
        }
        out.one(
            "etcd_debugging_mvcc_events_total",
            "Events that were sent to watchers.",
            ConstCounter::new(counts.sent),
        )
    }

    /// Ids are hexadecimal, as on etcd.
    fn peers(&self, out: &mut Families<'_>) -> fmt::Result {
        let Pages { context, directory, outbox, .. } = &self.pages;
        let own = context.replica.id();
        let members = directory.peers().into_iter().filter(|id| self.status.membership.contains(*id));
        let peers: Vec<_> = members.map(|id| (id, directory.traffic(id))).collect();
        let pair = |to: NodeId| [("Local", format!("{:x}", own.0)), ("Remote", format!("{:x}", to.0))];
        let known = peers.iter().map(|(id, _)| (pair(*id), flag(true)));
        out.each("etcd_network_known_peers", "The other members.", known)?;
        let active = peers.iter().map(|(id, _)| (pair(*id), flag(outbox.reaches(*id))));
        out.each("etcd_network_active_peers", "Whether there is a connection to a member.", active)?;
        let lost = peers.iter().map(|(id, traffic)| (pair(*id), counter(&traffic.disconnections)));
        let help = "How often the connection to a member was lost.";
        out.each("etcd_network_disconnected_peers_total", help, lost)?;
        let mut of = |name: &str, label: &'static str, help: &str, number: fn(&Traffic) -> &AtomicU64| {
            let peers = peers.iter();
            out.each(name, help, peers.map(|(id, traffic)| (with(label, *id), counter(number(traffic)))))
        };
        of("etcd_network_peer_sent_bytes_total", "To", "Bytes to a member.", |traffic| &traffic.sent_bytes)?;
        of("etcd_network_peer_received_bytes_total", "From", "Bytes from one.", |traffic| &traffic.received_bytes)?;
        let help = "Frames from a member that could not be read.";
        of("etcd_network_peer_received_failures_total", "From", help, |traffic| &traffic.received_failures)?;
        let unsent = peers.iter().map(|(id, _)| (with("To", *id), ConstCounter::new(outbox.lost_to(*id))));
        let help = "Messages to a member that were lost for want of a connection or of room.";
        out.each("etcd_network_peer_sent_failures_total", help, unsent)
    }
}

fn flag(on: bool) -> ConstGauge<u64> {
    ConstGauge::new(on.into())
}

fn counter(count: &AtomicU64) -> ConstCounter<u64> {
    ConstCounter::new(count.load(Relaxed))
}

fn with(label: &'static str, id: NodeId) -> [(&'static str, String); 1] {
    [(label, format!("{:x}", id.0))]
}

/// Writes families by the names of their samples.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn one(&mut self, name: &str, help: &str, metric: impl EncodeMetric) -> fmt::Result {
        let kind = metric.metric_type();
        metric.encode(self.0.encode_descriptor(family_name(name, kind), help, None, kind)?)
    }

    /// One metric for each set of labels. Nothing is written where there is none.
    fn each<L: EncodeLabelSet, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        metrics: impl IntoIterator<Item = (L, M)>,
    ) -> fmt::Result {
        let mut metrics = metrics.into_iter().peekable();
        let Some((_, first)) = metrics.peek() else { return Ok(()) };
        let kind = first.metric_type();
        let mut encoder = self.0.encode_descriptor(family_name(name, kind), help, None, kind)?;
        metrics.try_for_each(|(labels, metric)| metric.encode(encoder.encode_family(&labels)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruments::{Unsuffixed, register};
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::histogram::Histogram;

    #[test]
    fn openmetrics_is_for_those_who_name_it_in_a_version_that_is_spoken() {
        let takes = |accept: &str| {
            let accept = accept.parse().expect("a header");
            takes_openmetrics(&HeaderMap::from_iter([(header::ACCEPT, accept)]))
        };
        for accept in [
            "application/openmetrics-text",
            "text/plain;q=0.5, Application/OpenMetrics-Text; Version=1.0.0; q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2",
        ] {
            assert!(takes(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain;version=0.0.4",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
        ] {
            assert!(!takes(accept), "{accept}");
        }
        assert!(!takes_openmetrics(&HeaderMap::new()));
    }

    #[test]
    fn the_older_format_names_families_like_their_samples() {
        let mut registry = Registry::default();
        let (counter, unsuffixed, histogram) =
            (Counter::<u64>::default(), Unsuffixed::default(), Histogram::new([0.5, 2.0]));
        counter.inc();
        histogram.observe(1.5);
        register(&mut registry, "a_total", " One.", &counter);
        register(&mut registry, "b", " Two.", &unsuffixed);
        register(&mut registry, "c_total", " Three.", &histogram);
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a string does not fail");
        let histogram = "c_total_sum 1.5\nc_total_count 1\nc_total_bucket{le=\"0.5\"} 0\nc_total_bucket{le=\"2.0\"} 1\n\
                         c_total_bucket{le=\"+Inf\"} 1\n";
        let head = "# HELP c_total Three.\n# TYPE c_total histogram\n";
        assert_eq!(
            text,
            format!(
                "# HELP a One.\n# TYPE a counter\na_total 1\n# HELP b Two.\n# TYPE b unknown\nb 0\n\
                 {head}{histogram}# EOF\n"
            )
        );
        let histogram = histogram.replace("2.0", "2");
        assert_eq!(
            older(&text),
            format!(
                "# HELP a_total One.\n# TYPE a_total counter\na_total 1\n# HELP b Two.\n# TYPE b counter\nb 0\n\
                 {head}{histogram}"
            )
        );
    }
}
