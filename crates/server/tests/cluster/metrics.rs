//! What `/metrics` tells: all that etcd's does, or a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bowline_api::etcdserverpb as pb;

use crate::harness::{Cluster, PATIENCE, get, http, http_with, put};

/// Each name of etcd's, and what becomes of it.
const NAMES: &str = include_str!("../metrics.txt");

/// Where users are told why a name is absent.
const DIFFERENCES: &str = include_str!("../../../../DIFFERENCES.md");

async fn metrics(address: SocketAddr) -> String {
    http(address, "GET /metrics").await
}

/// The names in a text of metrics.
fn names(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

/// The number behind a name and its labels.
fn number(text: &str, name: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} is not in {text}"))
}

/// Waits for a number.
async fn eventually(address: SocketAddr, name: &str, right: impl Fn(f64) -> bool) {
    let seen = async {
        while !right(number(&metrics(address).await, name)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, seen).await.is_ok(), "{name}: {}", metrics(address).await);
}

#[tokio::test]
async fn every_metric_of_etcd_is_served_or_its_absence_explained() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader().await;
    let expected: BTreeMap<&str, &str> =
        NAMES.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' ')).collect();
    let with = |status: &str| -> BTreeSet<&str> {
        expected.iter().filter(|(_, found)| found.trim() == status).map(|(name, _)| *name).collect()
    };
    let (served, later, absent) = (with("served"), with("later"), with("absent"));
    assert_eq!(served.len() + later.len() + absent.len(), expected.len(), "each has one of three statuses");
    for id in 1..=3 {
        // One call: a page alone is none.
        cluster.client(id).await.range(get("k")).await.expect("read");
        let text = metrics(cluster.server(id).client_address()).await;
        let found = names(&text);
        let missing: Vec<_> = served.difference(&found).collect();
        assert!(missing.is_empty(), "{missing:?} are missing at member {id}, leader {leader}");
        let known: BTreeSet<&str> = served.union(&later).copied().collect();
        let stray: Vec<_> = found.difference(&known).filter(|name| !name.starts_with("bowline_")).collect();
        assert!(stray.is_empty(), "{stray:?} are not in metrics.txt as served");
    }
    // The first column of the table under "Metrics"; names in it may end in a star.
    let (_, table) = DIFFERENCES.split_once("\n### Metrics\n").expect("the table");
    let columns = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let explained: Vec<&str> = columns.flat_map(|names| names.split('`').skip(1).step_by(2)).collect();
    let explains = |name: &str, text: &&str| match text.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *text,
    };
    for name in absent {
        assert!(explained.iter().any(|text| explains(name, text)), "DIFFERENCES.md does not say why {name} is absent");
    }
    for name in served.union(&later) {
        let wrongly = explained.iter().find(|text| explains(name, text));
        assert_eq!(wrongly, None, "DIFFERENCES.md says that {name} is absent");
    }
}

#[tokio::test]
async fn metrics_say_who_a_member_is_and_what_went_through_it() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    let address = cluster.server(leader).client_address();
    let mut client = cluster.client(leader).await;
    // The second fills what waits for the state's file.
    for key in ["a", "b"] {
        client.put(put(key, &"v".repeat(700_000))).await.expect("written");
    }
    client.range(get("a")).await.expect("read");
    let mut leases = cluster.leases(leader).await;
    leases.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await.expect("granted");
    client.compact(pb::CompactionRequest { revision: 3, physical: true }).await.expect("compacted");
    let hash = pb::HashKvRequest { revision: 0 };
    cluster.maintenance(leader).await.hash_kv(hash).await.expect("told");
    let promoted = cluster.members(leader).await.member_promote(pb::MemberPromoteRequest { id: 99 }).await;
    promoted.expect_err("there is no such member");
    let text = metrics(address).await;
    let exactly = [
        ("etcd_server_learner_promote_failures{Reason=\"etcdserver: member not found\"}".to_owned(), 1.0),
        ("etcd_server_learner_promote_successes".to_owned(), 0.0),
        ("etcd_server_version{server_version=\"3.6.0\"}".to_owned(), 1.0),
        ("etcd_cluster_version{cluster_version=\"3.6\"}".to_owned(), 1.0),
        (format!("etcd_server_id{{server_id=\"{leader:x}\"}}"), 1.0),
        ("etcd_server_is_learner".to_owned(), 0.0),
        ("etcd_server_quota_backend_bytes".to_owned(), 2_147_483_648.0),
        (format!("etcd_network_known_peers{{Local=\"{leader:x}\",Remote=\"{follower:x}\"}}"), 1.0),
        (format!("etcd_network_active_peers{{Local=\"{leader:x}\",Remote=\"{follower:x}\"}}"), 1.0),
        ("etcd_server_apply_duration_seconds_count{version=\"v3\",op=\"Put\",success=\"true\"}".to_owned(), 2.0),
        ("etcd_server_apply_duration_seconds_count{version=\"v3\",op=\"Compaction\",success=\"true\"}".to_owned(), 1.0),
        ("etcd_server_range_duration_seconds_count{success=\"true\"}".to_owned(), 1.0),
        ("etcd_debugging_lease_ttl_total_bucket{le=\"32\"}".to_owned(), 0.0),
        ("etcd_debugging_lease_ttl_total_bucket{le=\"64\"}".to_owned(), 1.0),
        ("etcd_mvcc_hash_rev_duration_seconds_count".to_owned(), 1.0),
        (
            "grpc_server_msg_received_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}"
                .to_owned(),
            2.0,
        ),
        (
            "grpc_server_msg_sent_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}"
                .to_owned(),
            2.0,
        ),
        (
            "grpc_server_handling_seconds_count{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}"
                .to_owned(),
            2.0,
        ),
        ("etcd_server_client_requests_total{type=\"unary\",client_api_version=\"unknown\"}".to_owned(), 7.0),
        ("etcd_network_server_stream_failures_total{Type=\"receive\",API=\"lease-keepalive\"}".to_owned(), 0.0),
    ];
    for (name, expected) in exactly {
        assert_eq!(number(&text, &name), expected, "{name}");
    }
    // The followers' part, and what the disk does beside them, may come later.
    let at_least = [
        ("etcd_network_client_grpc_received_bytes_total".to_owned(), 1_400_000.0),
        ("etcd_network_client_grpc_sent_bytes_total".to_owned(), 700_000.0),
        (format!("etcd_network_peer_sent_bytes_total{{To=\"{follower:x}\"}}"), 1_400_000.0),
        (format!("etcd_network_peer_received_bytes_total{{From=\"{follower:x}\"}}"), 100.0),
        ("etcd_disk_wal_write_bytes_total".to_owned(), 1_400_000.0),
        ("etcd_disk_backend_commit_duration_seconds_count".to_owned(), 1.0),
        (format!("etcd_network_peer_round_trip_time_seconds_count{{To=\"{follower:x}\"}}"), 1.0),
        ("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count".to_owned(), 1.0),
        ("etcd_debugging_mvcc_db_compaction_last".to_owned(), 1_700_000_000.0),
    ];
    for (name, least) in at_least {
        eventually(address, &name, |value| value >= least).await;
    }
    // A member that is gone is a peer that is not reached, whatever is sent to it.
    cluster.kill(follower);
    let pair = format!("Local=\"{leader:x}\",Remote=\"{follower:x}\"");
    eventually(address, &format!("etcd_network_active_peers{{{pair}}}"), |value| value == 0.0).await;
    eventually(address, &format!("etcd_network_disconnected_peers_total{{{pair}}}"), |value| value >= 1.0).await;
    eventually(address, &format!("etcd_network_peer_sent_failures_total{{To=\"{follower:x}\"}}"), |value| value >= 1.0)
        .await;
}

/// The same for a reader who asks for OpenMetrics, as Prometheus does: there the suffix `_total` is no part of the name
/// of a counter's family.
#[tokio::test]
async fn whoever_asks_for_openmetrics_gets_the_same_samples_in_it() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let address = cluster.server(leader).client_address();
    cluster.client(leader).await.put(put("k", "v")).await.expect("written");
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5\r\n";
    let (older, open) = (metrics(address).await, http_with(address, "GET /metrics", accept).await);
    assert!(older.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{older}");
    let kind = "\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(open.contains(kind) && open.ends_with("\n# EOF\n"), "{open}");
    let types = |text: &str, name: &str| -> Vec<String> {
        let types = text.lines().filter_map(|line| line.strip_prefix(&format!("# TYPE {name} ")));
        types.map(ToOwned::to_owned).collect()
    };
    for (text, name, kind) in [
        (&older, "etcd_mvcc_put_total", "counter"),
        (&open, "etcd_mvcc_put", "counter"),
        (&older, "etcd_server_health_success", "counter"),
        (&open, "etcd_server_health_success", "unknown"),
        (&older, "etcd_debugging_lease_ttl_total", "histogram"),
        (&open, "etcd_debugging_lease_ttl_total", "histogram"),
        (&open, "etcd_server_proposals_committed_total", "gauge"),
    ] {
        assert_eq!(types(text, name), [kind], "{name} in {text}");
    }
    // But for their values, and how bounds are written.
    let samples = |text: &str| -> BTreeSet<String> {
        let (_, body) = text.split_once("\r\n\r\n").expect("a body");
        let lines = body.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        lines.map(|(sample, _)| sample.replacen(".0\"", "\"", 1)).collect()
    };
    assert_eq!(samples(&older), samples(&open));
    assert!(samples(&open).contains("etcd_mvcc_put_total"));
}
