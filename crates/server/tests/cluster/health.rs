//! How probes see a member: over gRPC and over HTTP, with a quorum and without.

use std::net::SocketAddr;

use bowline_api::{Message, etcdserverpb as pb, healthpb};
use healthpb::health_check_response::ServingStatus;
use healthpb::health_client::HealthClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::harness::{Cluster, PATIENCE, http};
use crate::raw::{ask, http2, message};

async fn health(cluster: &Cluster, id: u64) -> HealthClient<Channel> {
    HealthClient::new(cluster.channel(id).await)
}

fn of(service: &str) -> healthpb::HealthCheckRequest {
    healthpb::HealthCheckRequest { service: service.to_owned() }
}

/// The next state that a stream tells.
async fn next(changes: &mut tonic::Streaming<healthpb::HealthCheckResponse>) -> ServingStatus {
    let next = tokio::time::timeout(PATIENCE, changes.message()).await.expect("in time");
    next.expect("no error").expect("a state").status()
}

async fn ended(changes: &mut tonic::Streaming<healthpb::HealthCheckResponse>) -> (Code, String) {
    let end = tokio::time::timeout(PATIENCE, changes.message()).await.expect("in time");
    let error = end.expect_err("it ends");
    (error.code(), error.message().to_owned())
}

fn others(cluster: &Cluster, id: u64) -> Vec<u64> {
    cluster.configs.keys().copied().filter(|other| *other != id).collect()
}

#[tokio::test]
async fn a_grpc_probe_is_answered_for_the_server_and_for_no_other_name() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let mut health = health(&cluster, leader).await;
    let serving = health.check(of("")).await.expect("answered").into_inner();
    assert_eq!(serving.status(), ServingStatus::Serving);
    for name in ["etcdserverpb.KV", "grpc.health.v1.Health", " ", "no.such.Service"] {
        let error = health.check(of(name)).await.expect_err("unknown");
        assert_eq!((error.code(), error.message()), (Code::NotFound, "unknown service"), "{name}");
        let mut changes = health.watch(of(name)).await.expect("a stream").into_inner();
        assert_eq!(next(&mut changes).await, ServingStatus::ServiceUnknown, "{name}");
    }
    let all = health.list(healthpb::HealthListRequest {}).await.expect("answered").into_inner().statuses;
    assert_eq!(
        all.into_iter().map(|(name, found)| (name, found.status())).collect::<Vec<_>>(),
        [(String::new(), ServingStatus::Serving)]
    );
}

#[tokio::test]
async fn a_grpc_probe_sees_a_lost_leader_and_a_new_one_and_the_end() {
    let mut cluster = Cluster::start(3, &[]);
    let member = cluster.leader().await;
    let mut health = health(&cluster, member).await;
    let mut changes = health.watch(of("")).await.expect("a stream").into_inner();
    let mut unknown = health.watch(of("no.such.Service")).await.expect("a stream").into_inner();
    assert_eq!(next(&mut changes).await, ServingStatus::Serving);
    assert_eq!(next(&mut unknown).await, ServingStatus::ServiceUnknown);
    for id in others(&cluster, member) {
        cluster.kill(id);
    }
    assert_eq!(next(&mut changes).await, ServingStatus::NotServing);
    // Over plain gRPC, as a probe of Kubernetes does.
    let client = http2(&cluster, member).await;
    let answer = ask(&client, "grpc.health.v1.Health/Check", &[], &message(&[]), true).await;
    assert_eq!((answer.code.as_str(), &answer.body[5..]), ("0", &[8, 2][..]));
    for id in 1..=3 {
        if id != member {
            cluster.restart(id);
        }
    }
    assert_eq!(next(&mut changes).await, ServingStatus::Serving);
    assert_eq!(health.check(of("")).await.expect("answered").into_inner().status(), ServingStatus::Serving);
    let _ = cluster.stop(member);
    // It may have handed the leadership over before, and not have heard of the next leader yet.
    let mut end = tokio::time::timeout(PATIENCE, changes.message()).await.expect("in time");
    while matches!(end, Ok(Some(_))) {
        end = tokio::time::timeout(PATIENCE, changes.message()).await.expect("in time");
    }
    let error = end.expect_err("it ends");
    let stopped = (Code::Unavailable, "etcdserver: server stopped");
    assert_eq!((error.code(), error.message()), stopped);
    assert_eq!(ended(&mut unknown).await, (stopped.0, stopped.1.to_owned()));
}

/// Status, headers in small letters, and body.
fn parts(answer: &str) -> (u16, String, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head.to_ascii_lowercase(), body)
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = http(address, &format!("GET {path}")).await;
    let (status, _, body) = parts(&answer);
    (status, body.to_owned())
}

#[tokio::test]
async fn the_key_verbose_decides_whatever_its_value() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let address = cluster.server(leader).client_address();
    let live = "[+]serializable_read ok\nok\n";
    for query in
        ["verbose", "verbose=", "verbose=1", "verbose=true", "verbose=0", "verbose=false", "a=b&verbose&c", "verb%6fse"]
    {
        assert_eq!(get(address, &format!("/livez?{query}")).await, (200, live.to_owned()), "{query}");
        assert_eq!(
            get(address, &format!("/readyz/serializable_read?{query}")).await,
            (200, live.to_owned()),
            "{query}"
        );
    }
    for query in ["", "?", "?Verbose", "?verbos=1", "?x=verbose"] {
        assert_eq!(get(address, &format!("/livez{query}")).await, (200, "ok\n".to_owned()), "{query}");
    }
    let (status, ready) =
        get(address, "/readyz?verbose&exclude=non_learner&exclude=data%5Fcorruption&exclude=none").await;
    assert_eq!((status, ready.as_str()), (200, "[+]serializable_read ok\n[+]linearizable_read ok\nok\n"));
    // Where one check is asked for by name, it is not excluded.
    let one = get(address, "/readyz/non_learner?verbose&exclude=non_learner").await;
    assert_eq!(one, (200, "[+]non_learner ok\nok\n".to_owned()));
    for path in ["/livez/linearizable_read", "/readyz/no_such_check", "/readyz/", "/livez/a/b"] {
        assert_eq!(get(address, path).await, (404, "404 page not found\n".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn nothing_but_get_is_allowed_where_etcd_allows_no_more() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let address = cluster.server(leader).client_address();
    let pages =
        ["/health", "/livez", "/livez/serializable_read", "/readyz", "/readyz/non_learner", "/version", "/debug/vars"];
    for path in pages {
        for method in ["HEAD", "POST", "PUT", "DELETE", "PATCH"] {
            let answer = http(address, &format!("{method} {path}")).await;
            let (status, head, body) = parts(&answer);
            assert_eq!(status, 405, "{method} {path}");
            assert!(head.contains("\r\nallow: get\r\n") || head.ends_with("\r\nallow: get"), "{method} {path}: {head}");
            assert_eq!(body, if method == "HEAD" { "" } else { "Method Not Allowed\n" }, "{method} {path}");
        }
        assert_eq!(get(address, path).await.0, 200, "{path}");
    }
    for method in ["GET", "HEAD", "POST"] {
        let answer = http(address, &format!("{method} /metrics")).await;
        assert_eq!(parts(&answer).0, 200, "{method}");
    }
    let answer = http(address, "GET /livez").await;
    assert!(parts(&answer).1.contains("x-content-type-options: nosniff"), "{answer}");
}

#[tokio::test]
async fn without_a_quorum_readyz_says_so_in_etcds_words() {
    let mut cluster = Cluster::start(3, &[]);
    let member = cluster.leader().await;
    let address = cluster.server(member).client_address();
    let [first, second] = others(&cluster, member)[..] else { panic!("there are two others") };
    cluster.kill(first);
    // Whoever waits while the leader is lost hears of it; whoever asks later, that the time is over.
    let asked = tokio::spawn(async move {
        let mut refusals = Vec::new();
        while refusals.len() < 2 {
            let (status, body) = get(address, "/readyz").await;
            if status == 503 {
                refusals.push(body);
            }
        }
        refusals
    });
    cluster.kill(second);
    let refusals = tokio::time::timeout(PATIENCE, asked).await.expect("in time").expect("it does not panic");
    let texts = |why: &str| {
        format!(
            "[+]data_corruption ok\n[+]serializable_read ok\n[-]linearizable_read failed: etcdserver: {why}\n\
             [+]non_learner ok\n\n"
        )
    };
    assert_eq!(refusals, [texts("leader changed"), texts("request timed out")]);
    assert_eq!(get(address, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(get(address, "/readyz?exclude=linearizable_read").await, (200, "ok\n".to_owned()));
    let no_leader = "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n";
    assert_eq!(get(address, "/health").await, (503, no_leader.to_owned()));
    assert_eq!(get(address, "/health?serializable=true").await.0, 200);
}

#[tokio::test]
async fn without_a_quorum_leases_are_listed_and_alarms_are_waited_for() {
    let mut cluster = Cluster::start(3, &[]);
    let member = cluster.leader().await;
    let mut leases = cluster.leases(member).await;
    let id = leases.lease_grant(pb::LeaseGrantRequest { ttl: 600, id: 0 }).await.expect("granted").into_inner().id;
    for id in others(&cluster, member) {
        cluster.kill(id);
    }
    cluster.without_leader(member).await;
    let listed = leases.lease_leases(pb::LeaseLeasesRequest {}).await.expect("listed").into_inner();
    assert_eq!(listed.leases, [pb::LeaseStatus { id }]);
    let client = http2(&cluster, member).await;
    for action in [pb::alarm_request::AlarmAction::Get, pb::alarm_request::AlarmAction::Deactivate] {
        let request = pb::AlarmRequest { action: action.into(), ..pb::AlarmRequest::default() };
        let headers = [("grpc-timeout", "200m")];
        let request = message(&request.encode_to_vec());
        let answer = ask(&client, "etcdserverpb.Maintenance/Alarm", &headers, &request, true).await;
        assert_eq!(answer.code, "4", "{action:?} was answered: {}", answer.text);
    }
    // One that waits is served when there is a quorum again.
    let mut maintenance = cluster.maintenance(member).await;
    let waits = tokio::spawn(async move { maintenance.alarm(pb::AlarmRequest::default()).await });
    let gone = others(&cluster, member)[0];
    cluster.restart(gone);
    let alarms = tokio::time::timeout(PATIENCE, waits).await.expect("in time").expect("it does not panic");
    assert!(alarms.expect("served").into_inner().alarms.is_empty());
}

#[tokio::test]
async fn probes_are_counted_and_their_metrics_are_there_before_the_first() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let address = cluster.server(leader).client_address();
    let probes = [
        ("livez", "serializable_read"),
        ("readyz", "data_corruption"),
        ("readyz", "serializable_read"),
        ("readyz", "linearizable_read"),
        ("readyz", "non_learner"),
    ];
    let expect = async |count: u64| {
        let metrics = get(address, "/metrics").await.1;
        for (page, name) in probes {
            for line in [
                format!("etcd_server_healthcheck{{name=\"{name}\",type=\"{page}\"}} 1"),
                format!("etcd_server_healthchecks_total{{name=\"{name}\",type=\"{page}\",status=\"success\"}} {count}"),
                format!("etcd_server_healthchecks_total{{name=\"{name}\",type=\"{page}\",status=\"error\"}} 0"),
            ] {
                assert!(metrics.contains(&format!("\n{line}\n")), "{line} is not in {metrics}");
            }
        }
    };
    expect(0).await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(address, path).await.0, 200);
    }
    expect(1).await;
}
