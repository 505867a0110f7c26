//! Plain HTTP on the client port. The lines of the JSON gateway are in `gateway.rs`.

use bowline_api::{etcdserverpb as pb, healthpb};
use healthpb::health_check_response::ServingStatus;
use healthpb::health_client::HealthClient;
use pb::alarm_request::AlarmAction;
use pb::compare::TargetUnion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::line::{Line, line};
use crate::requests::*;
use crate::site::{Site, bytes, refused, revision};

pub(crate) fn lines() -> Vec<Line> {
    let mut lines = vec![
        line!(Shared, g01_grpc_and_http_share_the_port),
        line!(Shared, g02_health_is_told),
        line!(Shared, g02_health_over_grpc_is_told),
        line!(Members, g02_a_member_without_a_leader_is_not_healthy),
        line!(Fresh, g02_with_an_alarm_a_member_is_not_healthy),
        line!(Shared, g03_each_check_can_be_asked_for).not_on_3_4("came with 3.5"),
        line!(Members, g03_a_member_without_a_leader_is_alive_but_not_ready),
        line!(Fresh, g03_a_corrupt_member_is_alive_but_not_ready).not_on_3_4("came with 3.5"),
        line!(Shared, g04_the_version_is_told),
        line!(Shared, g04_variables_are_told),
        line!(Shared, g04_there_is_no_profiler),
        line!(Shared, g11_metrics_have_the_names_that_dashboards_know),
        line!(Fresh, g11_metrics_move_when_they_should),
        line!(Fresh, g11_metrics_count_the_operations_that_were_applied),
    ];
    lines.extend(crate::gateway::lines());
    lines
}

/// What a request is answered, head and body.
pub(crate) async fn ask(url: &str, request: &str) -> String {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    // 1.0: so that the body comes as a whole.
    let request = format!("{request} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("answered");
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
fn assert_status(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.0 {status} ")), "{answer}");
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

async fn g01_grpc_and_http_share_the_port(site: Site) {
    // gRPC is HTTP/2 without asking first.
    site.put("k", "v").await;
    assert_status(&ask(site.url(), "GET /version").await, 200);
    site.put("k", "w").await;
}

async fn g02_health_is_told(site: Site) {
    for path in ["/health", "/health?exclude=NOSPACE", "/health?serializable=true"] {
        let answer = ask(site.url(), &format!("GET {path}")).await;
        assert_status(&answer, 200);
        // The reason came within the line of 3.4.
        let whole = body(&answer) == r#"{"health":"true","reason":""}"#;
        assert!(whole || (site.is_3_4() && body(&answer) == r#"{"health":"true"}"#), "{answer}");
    }
    for method in ["POST", "HEAD"] {
        let answer = ask(site.url(), &format!("{method} /health")).await;
        assert_status(&answer, 405);
        assert!(answer.to_ascii_lowercase().contains("\r\nallow: get\r\n"), "{answer}");
    }
}

async fn g02_health_over_grpc_is_told(site: Site) {
    let mut health = HealthClient::new(site.channel());
    let of = |service: &str| healthpb::HealthCheckRequest { service: service.to_owned() };
    let found = health.check(of("")).await.expect("answered").into_inner();
    assert_eq!(found.status(), ServingStatus::Serving);
    refused(health.check(of("no.such.Service")).await, Code::NotFound, "unknown service");
    for (name, expected) in [("", ServingStatus::Serving), ("no.such.Service", ServingStatus::ServiceUnknown)] {
        let mut changes = health.watch(of(name)).await.expect("a stream").into_inner();
        let first = changes.message().await.expect("no error").expect("a state");
        assert_eq!(first.status(), expected, "{name}");
    }
}

async fn g02_a_member_without_a_leader_is_not_healthy(mut site: Site) {
    without_leader(&mut site).await;
    let answer = ask(site.url(), "GET /health").await;
    assert_status(&answer, 503);
    assert_eq!(body(&answer), "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n");
    let answer = ask(site.url(), "GET /health?serializable=true").await;
    assert_status(&answer, 200);
}

async fn g02_with_an_alarm_a_member_is_not_healthy(site: Site) {
    for (kind, name) in [(pb::AlarmType::Nospace, "NOSPACE"), (pb::AlarmType::Corrupt, "CORRUPT")] {
        site.alarm(AlarmAction::Activate, 7, kind).await;
        let answer = ask(site.url(), "GET /health").await;
        assert_status(&answer, 503);
        if !site.is_3_4() {
            // The reason came within the line of 3.4.
            assert_eq!(body(&answer), format!("{{\"health\":\"false\",\"reason\":\"ALARM {name}\"}}\n"));
        }
        assert_status(&ask(site.url(), "GET /health?exclude=OTHER").await, 503);
        assert_status(&ask(site.url(), &format!("GET /health?exclude=OTHER&exclude={name}")).await, 200);
        let alarm = format!("etcd_debugging_server_alarms{{server_id=\"7\",alarm_type=\"{name}\"}} 1\n");
        assert!(site.is_etcd() || ask(site.url(), "GET /metrics").await.contains(&alarm));
        site.alarm(AlarmAction::Deactivate, 7, kind).await;
        assert_status(&ask(site.url(), "GET /health").await, 200);
    }
}

async fn g03_a_corrupt_member_is_alive_but_not_ready(site: Site) {
    site.alarm(AlarmAction::Activate, 7, pb::AlarmType::Nospace).await;
    assert_status(&ask(site.url(), "GET /readyz").await, 200);
    site.alarm(AlarmAction::Activate, 7, pb::AlarmType::Corrupt).await;
    assert_status(&ask(site.url(), "GET /livez").await, 200);
    for path in ["/readyz", "/readyz/data_corruption"] {
        let answer = ask(site.url(), &format!("GET {path}")).await;
        assert_status(&answer, 503);
        assert!(body(&answer).contains("[-]data_corruption failed: alarm activated: CORRUPT\n"), "{answer}");
    }
    assert_status(&ask(site.url(), "GET /readyz?exclude=data_corruption").await, 200);
}

async fn without_leader(site: &mut Site) {
    for id in [2, 3] {
        site.members().kill(id);
    }
    for _ in 0..250 {
        if site.status().await.leader == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it still believes in a leader");
}

async fn g03_each_check_can_be_asked_for(site: Site) {
    let ready = ["data_corruption", "serializable_read", "linearizable_read", "non_learner"];
    for (path, checks) in [("/livez", &["serializable_read"][..]), ("/readyz", &ready[..])] {
        let answer = ask(site.url(), &format!("GET {path}")).await;
        assert_status(&answer, 200);
        assert_eq!(body(&answer), "ok\n");
        let verbose = ask(site.url(), &format!("GET {path}?verbose=0")).await;
        assert_status(&verbose, 200);
        for check in checks {
            assert!(verbose.contains(&format!("[+]{check} ok\n")), "{verbose}");
            let alone = ask(site.url(), &format!("GET {path}/{check}")).await;
            assert_status(&alone, 200);
            assert_eq!(body(&alone), "ok\n");
            assert_status(&ask(site.url(), &format!("GET {path}?exclude={check}")).await, 200);
        }
        assert_status(&ask(site.url(), &format!("GET {path}/no_such_check")).await, 404);
    }
}

async fn g03_a_member_without_a_leader_is_alive_but_not_ready(mut site: Site) {
    without_leader(&mut site).await;
    assert_status(&ask(site.url(), "GET /livez").await, 200);
    for path in ["/readyz", "/readyz/linearizable_read"] {
        let answer = ask(site.url(), &format!("GET {path}")).await;
        assert_status(&answer, 503);
        assert!(body(&answer).contains("[-]linearizable_read failed: "), "{answer}");
    }
    assert_status(&ask(site.url(), "GET /readyz/serializable_read").await, 200);
    assert_status(&ask(site.url(), "GET /readyz?exclude=linearizable_read").await, 200);
}

async fn g04_the_version_is_told(site: Site) {
    let answer = ask(site.url(), "GET /version").await;
    assert_status(&answer, 200);
    let version = site.status().await.version;
    assert!(body(&answer).starts_with(&format!(r#"{{"etcdserver":"{version}","etcdcluster":"3."#)), "{answer}");
    assert_eq!(site.is_etcd(), !body(&answer).contains(r#","storage":"3."#), "{answer}");
}

async fn g04_variables_are_told(site: Site) {
    let answer = ask(site.url(), "GET /debug/vars").await;
    assert_status(&answer, 200);
    assert!(answer.to_ascii_lowercase().contains("content-type: application/json; charset=utf-8\r\n"), "{answer}");
    // The layout of Go's package expvar.
    let text = body(&answer);
    assert!(text.starts_with("{\n\"cmdline\": [\"") && text.ends_with("}\n}\n"), "{text}");
    assert!(text.contains("\n\"file_descriptor_limit\": "), "{text}");
    let status = text.split_once("\n\"raft.status\": {").expect("the status of Raft").1;
    for name in ["id", "term", "commit", "lead", "raftState", "applied"] {
        assert!(status.contains(&format!("\"{name}\":")), "{name} is not in {status}");
    }
}

async fn g04_there_is_no_profiler(site: Site) {
    for path in ["/debug/pprof/", "/debug/pprof/heap"] {
        assert_status(&ask(site.url(), &format!("GET {path}")).await, 404);
    }
}

/// The names that dashboards and alerts use, with their types.
const METRICS: [(&str, &str); 47] = [
    ("etcd_server_has_leader", "gauge"),
    ("etcd_server_is_leader", "gauge"),
    ("etcd_server_leader_changes_seen_total", "counter"),
    ("etcd_server_proposals_committed_total", "gauge"),
    ("etcd_server_proposals_applied_total", "gauge"),
    ("etcd_server_proposals_pending", "gauge"),
    ("etcd_server_proposals_failed_total", "counter"),
    ("etcd_server_quota_backend_bytes", "gauge"),
    ("etcd_server_slow_apply_total", "counter"),
    ("etcd_server_slow_read_indexes_total", "counter"),
    ("etcd_server_health_success", "counter"),
    ("etcd_server_health_failures", "counter"),
    ("etcd_server_heartbeat_send_failures_total", "counter"),
    ("etcd_server_version", "gauge"),
    ("etcd_server_id", "gauge"),
    ("etcd_server_is_learner", "gauge"),
    ("etcd_cluster_version", "gauge"),
    ("etcd_disk_wal_fsync_duration_seconds", "histogram"),
    ("etcd_disk_backend_commit_duration_seconds", "histogram"),
    ("etcd_mvcc_db_total_size_in_bytes", "gauge"),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge"),
    ("etcd_mvcc_put_total", "counter"),
    ("etcd_mvcc_delete_total", "counter"),
    ("etcd_mvcc_range_total", "counter"),
    ("etcd_mvcc_txn_total", "counter"),
    ("etcd_debugging_mvcc_keys_total", "gauge"),
    ("etcd_debugging_mvcc_watcher_total", "gauge"),
    ("etcd_debugging_mvcc_slow_watcher_total", "gauge"),
    ("etcd_debugging_mvcc_watch_stream_total", "gauge"),
    ("etcd_debugging_mvcc_events_total", "counter"),
    ("etcd_debugging_mvcc_pending_events_total", "gauge"),
    ("etcd_debugging_mvcc_current_revision", "gauge"),
    ("etcd_debugging_mvcc_compact_revision", "gauge"),
    ("etcd_network_client_grpc_sent_bytes_total", "counter"),
    ("etcd_network_client_grpc_received_bytes_total", "counter"),
    ("grpc_server_started_total", "counter"),
    ("grpc_server_handled_total", "counter"),
    ("grpc_server_msg_received_total", "counter"),
    ("grpc_server_msg_sent_total", "counter"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_open_fds", "gauge"),
    ("process_max_fds", "gauge"),
    ("process_start_time_seconds", "gauge"),
    // A member of a cluster of one has nobody to make a round trip to; etcd has this one with `--metrics extensive` only.
    // tests/cluster/metrics.rs asserts that both move.
    ("etcd_network_peer_round_trip_time_seconds", "histogram"),
    ("grpc_server_handling_seconds", "histogram"),
];

/// How many of them every server has, of any size and with any flags.
const ALWAYS: usize = METRICS.len() - 2;

async fn g11_metrics_have_the_names_that_dashboards_know(site: Site) {
    site.put("k", "v").await;
    assert_status(&ask(site.url(), "GET /health").await, 200);
    let answer = ask(site.url(), "GET /metrics").await;
    assert_status(&answer, 200);
    assert!(answer.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"), "{answer}");
    let types: Vec<(&str, &str)> =
        body(&answer).lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let missing: Vec<_> = METRICS[..ALWAYS].iter().filter(|metric| !types.contains(metric)).collect();
    assert!(missing.is_empty(), "{missing:?} are missing in {types:?}");
    let wrong: Vec<_> =
        types.iter().filter(|(name, kind)| METRICS.iter().any(|known| known.0 == *name && known.1 != *kind)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The sum of all samples of this name.
async fn sample(site: &Site, name: &str) -> f64 {
    let answer = ask(site.url(), "GET /metrics").await;
    let values = body(&answer).lines().filter_map(|line| {
        let (sample, value) = line.rsplit_once(' ')?;
        let found = sample.split('{').next()? == name;
        if found { value.parse::<f64>().ok() } else { None }
    });
    values.sum()
}

async fn g11_metrics_move_when_they_should(site: Site) {
    site.put("k", "v").await;
    let moved = [
        "etcd_server_proposals_committed_total",
        "etcd_server_proposals_applied_total",
        "etcd_server_health_success",
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_debugging_mvcc_keys_total",
        "etcd_debugging_mvcc_watcher_total",
        "etcd_debugging_mvcc_watch_stream_total",
        "etcd_debugging_mvcc_events_total",
        "etcd_debugging_mvcc_current_revision",
        "etcd_debugging_mvcc_compact_revision",
        "etcd_network_client_grpc_sent_bytes_total",
        "etcd_network_client_grpc_received_bytes_total",
        "grpc_server_started_total",
        "grpc_server_handled_total",
        "grpc_server_msg_received_total",
        "grpc_server_msg_sent_total",
    ];
    let mut before = Vec::new();
    for name in moved {
        before.push(sample(&site, name).await);
    }
    let mut client = pb::watch_client::WatchClient::new(site.channel());
    let create = pb::WatchCreateRequest { key: bytes(&site.key("watched")), ..pb::WatchCreateRequest::default() };
    let create = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    // The stream of requests must stay open.
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter([create]), tokio_stream::pending());
    let mut events = client.watch(requests).await.expect("a stream").into_inner();
    assert!(events.message().await.expect("no error").expect("a message").created);
    let written = site.put("watched", "v").await;
    assert_eq!(events.message().await.expect("no error").expect("a message").events.len(), 1);
    site.compact(revision(&written.header)).await;
    assert_status(&ask(site.url(), "GET /health").await, 200);
    for (name, before) in moved.into_iter().zip(before) {
        // What is counted behind the answer may come later.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(15);
        while sample(&site, name).await <= before {
            assert!(std::time::Instant::now() < until, "{name} stays at {before}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// Puts, deletions, reads and transactions, as a member counts them.
async fn operations(site: &Site) -> [u64; 4] {
    let answer = ask(site.url(), "GET /metrics").await;
    ["put", "delete", "range", "txn"].map(|what| {
        let name = format!("etcd_mvcc_{what}_total ");
        let count = body(&answer).lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
        count.unwrap_or_else(|| panic!("no {name} in {answer}"))
    })
}

async fn g11_metrics_count_the_operations_that_were_applied(site: Site) {
    let mut before = operations(&site).await;
    // What is done, and by how much it raises the numbers of a real etcd.
    let key = |name: &str| site.key(name);
    let exists = |name: &str| compare(&key(name), GREATER, TargetUnion::Version(0));
    let txn = |compare, success| branches(compare, success, Vec::new());
    let txns = [
        (txn(vec![], vec![op_put(&key("a"), "1"), op_put(&key("b"), "2")]), [2, 0, 0, 1]),
        (txn(vec![exists("a")], vec![op_put(&key("a"), "3")]), [1, 0, 1, 0]),
        (txn(vec![exists("a"), exists("b")], vec![op_put(&key("a"), "4")]), [1, 0, 2, 1]),
        (txn(vec![exists("none"), exists("b")], vec![op_put(&key("a"), "5")]), [0, 0, 1, 0]),
        (txn(vec![], vec![op_txn(all(vec![op_put(&key("c"), "6")])), op_delete(&key("b"), "")]), [1, 1, 0, 1]),
        (txn(vec![], vec![op_get(&key("a"))]), [0, 0, 1, 0]),
        (txn(vec![exists("a")], vec![op_get(&key("a"))]), [0, 0, 2, 1]),
        (txn(vec![], vec![]), [0, 0, 0, 0]),
    ];
    let mut expect = async |what: &str, more: [u64; 4]| {
        let now = operations(&site).await;
        let rise = [0, 1, 2, 3].map(|at| now[at] - before[at]);
        assert_eq!(rise, more, "{what}");
        before = now;
    };
    for (number, (txn, more)) in txns.into_iter().enumerate() {
        site.txn(txn).await;
        expect(&format!("transaction {number}"), more).await;
    }
    site.put("a", "7").await;
    expect("a put", [1, 0, 0, 0]).await;
    site.try_put(pb::PutRequest { prev_kv: true, ..put(&key("a"), "8") }).await.expect("written");
    expect("a put that asks for what it replaces", [1, 0, 1, 1]).await;
    site.delete("none").await;
    expect("a deletion of nothing", [0, 1, 0, 0]).await;
    site.try_delete(delete_range(&key("a"), &key("d"))).await.expect("deleted");
    expect("a deletion of two keys", [0, 1, 0, 0]).await;
    site.get("a").await;
    expect("a read", [0, 0, 1, 0]).await;
    let mut leases = site.member_leases(0).await;
    let grant = pb::LeaseGrantRequest { ttl: 100, ..pb::LeaseGrantRequest::default() };
    let lease = leases.lease_grant(grant).await.expect("granted").into_inner().id;
    for name in ["l", "m"] {
        site.try_put(pb::PutRequest { lease, ..put(&key(name), "v") }).await.expect("written");
    }
    leases.lease_revoke(pb::LeaseRevokeRequest { id: lease }).await.expect("revoked");
    expect("two puts under a lease that ends", [2, 2, 0, 1]).await;
}
