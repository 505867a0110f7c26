//! Requests whose deadline passes: a client knows only DEADLINE_EXCEEDED as its own timeout.

use std::net::SocketAddr;
use std::time::Duration;

use bowline_api::{Message, etcdserverpb as pb, healthpb};
use bytes::Bytes;
use healthpb::health_client::HealthClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use crate::harness::{Cluster, PATIENCE, get, http, put};
use crate::raw::{Answer, ask, begin, end, http2, message};

const EXCEEDED: (&str, &str) = ("4", "context deadline exceeded");

#[track_caller]
fn assert_exceeded(what: &str, answer: &Answer) {
    assert_eq!((answer.code.as_str(), answer.text.as_str()), EXCEEDED, "{what}");
}

/// What can't be done without a quorum: methods, and their requests.
fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let op = |request| pb::RequestOp { request: Some(request) };
    let (write, read) =
        (pb::request_op::Request::RequestPut(put("k", "v")), pb::request_op::Request::RequestRange(get("k")));
    let txn = |success| pb::TxnRequest { success, ..pb::TxnRequest::default() };
    vec![
        ("etcdserverpb.KV/Put", put("k", "v").encode_to_vec()),
        ("etcdserverpb.KV/Range", get("k").encode_to_vec()),
        ("etcdserverpb.KV/RangeStream", get("k").encode_to_vec()),
        (
            "etcdserverpb.KV/DeleteRange",
            pb::DeleteRangeRequest { key: "k".into(), ..Default::default() }.encode_to_vec(),
        ),
        ("etcdserverpb.KV/Txn", txn(vec![op(write)]).encode_to_vec()),
        ("etcdserverpb.KV/Txn", txn(vec![op(read)]).encode_to_vec()),
        ("etcdserverpb.KV/Compact", pb::CompactionRequest { revision: 1, physical: true }.encode_to_vec()),
        ("etcdserverpb.Lease/LeaseGrant", pb::LeaseGrantRequest { ttl: 60, id: 0 }.encode_to_vec()),
        ("etcdserverpb.Lease/LeaseRevoke", pb::LeaseRevokeRequest { id: 7 }.encode_to_vec()),
        ("etcdserverpb.Lease/LeaseTimeToLive", pb::LeaseTimeToLiveRequest { id: 7, keys: true }.encode_to_vec()),
        ("etcdserverpb.Lease/LeaseKeepAlive", pb::LeaseKeepAliveRequest { id: 7 }.encode_to_vec()),
        ("etcdserverpb.Cluster/MemberList", pb::MemberListRequest { linearizable: true }.encode_to_vec()),
        ("etcdserverpb.Maintenance/Alarm", pb::AlarmRequest::default().encode_to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_every_request_ends_with_deadline_exceeded() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader().await;
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.kill(id);
    }
    let client = http2(&cluster, leader).await;
    // Many at once, and at different times: an answer of the wrong kind would be a matter of luck.
    let mut asked = Vec::new();
    for round in 0..24 {
        for (method, request) in requests() {
            let client = client.clone();
            asked.push(tokio::spawn(async move {
                let timeout = format!("{}m", 40 + 7 * round);
                (method, ask(&client, method, &[("grpc-timeout", &timeout)], &message(&request), true).await)
            }));
        }
    }
    for asked in asked {
        let (method, answer) = asked.await.expect("it does not panic");
        assert_exceeded(method, &answer);
    }
    let metrics = http(cluster.server(leader).client_address(), "GET /metrics").await;
    let counted = r#"grpc_server_handled_total{grpc_code="DeadlineExceeded",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 24"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_request_that_never_becomes_whole_ends_at_its_deadline() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let client = http2(&cluster, leader).await;
    let whole = message(&put("k", "v").encode_to_vec());
    for length in [0, 3, 5, whole.len() - 1] {
        let answer = ask(&client, "etcdserverpb.KV/Put", &[("grpc-timeout", "100m")], &whole[..length], false).await;
        assert_exceeded(&format!("{length} bytes"), &answer);
    }
    // The connection is as good as before, and nothing was done.
    let request = message(&get("k").encode_to_vec());
    let answer = ask(&client, "etcdserverpb.KV/Range", &[("grpc-timeout", "10S")], &request, true).await;
    assert_eq!((answer.code.as_str(), answer.text.as_str()), ("0", ""));
    let found = pb::RangeResponse::decode(&answer.body[5..]).expect("it is one");
    assert_eq!(found.count, 0);
}

#[tokio::test]
async fn a_deadline_of_no_time_lets_nothing_begin() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let client = http2(&cluster, leader).await;
    let request = message(&put("k", "v").encode_to_vec());
    for timeout in ["0n", "0u", "0m", "0S", "00000000H"] {
        let answer = ask(&client, "etcdserverpb.KV/Put", &[("grpc-timeout", timeout)], &request, true).await;
        assert_exceeded(timeout, &answer);
    }
    let found = cluster.client(leader).await.range(get("k")).await.expect("read").into_inner();
    assert_eq!(found.count, 0);
}

#[tokio::test]
async fn a_deadline_that_is_none_is_refused_by_name_and_a_far_one_is_kept() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let client = http2(&cluster, leader).await;
    let request = message(&put("k", "v").encode_to_vec());
    for timeout in ["", "5", "5x", "123456789m", "-1S", "1.5S"] {
        let answer = ask(&client, "etcdserverpb.KV/Put", &[("grpc-timeout", timeout)], &request, true).await;
        assert_eq!(answer.code, "3", "{timeout}: {}", answer.text);
        assert!(answer.text.starts_with(&format!("grpc-timeout is {timeout:?}; allowed: ")), "{}", answer.text);
    }
    for timeout in ["99999999H", "30S", "99999999n"] {
        let answer = ask(&client, "etcdserverpb.KV/Put", &[("grpc-timeout", timeout)], &request, true).await;
        assert_eq!(answer.code, "0", "{timeout}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let client = http2(&cluster, leader).await;
    let headers = [("grpc-timeout", "300m"), ("grpc-accept-encoding", "gzip")];
    // One that was answered before, and whose client would go on.
    let (response, mut stream) = begin(&client, "etcdserverpb.Lease/LeaseKeepAlive", &headers).await;
    let request = message(&pb::LeaseKeepAliveRequest { id: 7 }.encode_to_vec());
    stream.send_data(Bytes::from(request), false).expect("sent");
    let answer = end(response).await;
    assert_exceeded("a stream of keep-alives", &answer);
    let first = pb::LeaseKeepAliveResponse::decode(&answer.body[5..]).expect("an answer came before");
    assert_eq!((first.id, first.ttl), (7, 0));
    // One that has nothing to say.
    let answer = ask(&client, "grpc.health.v1.Health/Watch", &headers, &message(&[]), true).await;
    assert_exceeded("a stream of changes", &answer);
    assert!(!answer.body.is_empty(), "the state now is told before");
}

#[tokio::test]
async fn a_grpc_library_sees_a_streams_deadline_as_such() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let (requests, waiting) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(waiting));
    request.set_timeout(Duration::from_millis(400));
    let mut leases = cluster.leases(leader).await;
    let mut answers = leases.lease_keep_alive(request).await.expect("a stream").into_inner();
    requests.send(pb::LeaseKeepAliveRequest { id: 7 }).await.expect("the stream is open");
    assert_eq!(answers.message().await.expect("no error").expect("an answer").ttl, 0);
    // The client's side is still open when the server resets what is left of it.
    let error = tokio::time::timeout(PATIENCE, answers.message()).await.expect("in time").expect_err("it ends");
    assert_eq!((error.code(), error.message()), (Code::DeadlineExceeded, EXCEEDED.1));
    let mut request = Request::new(healthpb::HealthCheckRequest::default());
    request.set_timeout(Duration::from_millis(300));
    let mut health = HealthClient::new(cluster.channel(leader).await);
    let mut changes = health.watch(request).await.expect("a stream").into_inner();
    changes.message().await.expect("no error").expect("the state now");
    let error = tokio::time::timeout(PATIENCE, changes.message()).await.expect("in time").expect_err("it ends");
    assert_eq!((error.code(), error.message()), (Code::DeadlineExceeded, EXCEEDED.1));
}

#[tokio::test]
async fn a_client_that_hangs_up_is_counted_as_such() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let client = http2(&cluster, leader).await;
    let address = cluster.server(leader).client_address();
    let labels = r#"grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary""#;
    let (response, mut stream) = begin(&client, "etcdserverpb.KV/Put", &[]).await;
    eventually(address, &format!("grpc_server_started_total{{{labels}}} 1")).await;
    stream.send_reset(h2::Reason::CANCEL);
    response.await.expect_err("it was reset");
    eventually(address, &format!("grpc_server_handled_total{{grpc_code=\"Canceled\",{labels}}} 1")).await;
}

/// Waits until the metrics have a line.
async fn eventually(address: SocketAddr, line: &str) {
    let seen = async {
        while !http(address, "GET /metrics").await.contains(line) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("it is counted");
}
