//! How probes see a member: over gRPC and over HTTP, with a quorum and without.

use bowline_api::healthpb;
use healthpb::health_check_response::ServingStatus;
use healthpb::health_client::HealthClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::harness::{Cluster, PATIENCE};
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
