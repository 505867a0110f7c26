//! Strangers, damage, and requests that are meant to break something.

use bowline_api::etcdserverpb as pb;
use bowline_node::raft::NodeId;
use bowline_server::peer::{Channel, HandshakeError, Hello, Identity, Introduction, Protocol, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::harness::{Cluster, get, put, values};

fn hello(cluster: &Cluster, to: u64) -> Hello {
    let identity = Identity { cluster: cluster.configs[&to].cluster_id(), replica: NodeId(to % 3 + 1), incarnation: 0 };
    Hello {
        from: identity,
        to: NodeId(to),
        channel: Channel::Control,
        introduction: Introduction::new("stranger", "", Protocol::CURRENT),
    }
}

async fn peer_port(cluster: &Cluster, id: u64) -> TcpStream {
    TcpStream::connect(&cluster.configs[&id].listen_peer).await.expect("it listens")
}

async fn refusal(cluster: &Cluster, hello: &Hello) -> String {
    let mut stream = peer_port(cluster, 1).await;
    match connect(&mut stream, hello).await {
        Err(HandshakeError::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn strangers_are_refused_and_told_why() {
    let cluster = Cluster::start(3, &[]);
    cluster.leader().await;
    let mut foreign = hello(&cluster, 1);
    foreign.from.cluster += 1;
    assert!(refusal(&cluster, &foreign).await.contains("check --initial-cluster and --cluster-token"));
    let mut astray = hello(&cluster, 1);
    astray.to = NodeId(3);
    assert!(refusal(&cluster, &astray).await.contains("wants member 3, but this is member 1"));
    let mut unknown = hello(&cluster, 1);
    unknown.from.replica = NodeId(9);
    assert!(refusal(&cluster, &unknown).await.contains("member 9 is not another member"));
    // Member 2 was heard by now, and its folder is another.
    let reborn = hello(&cluster, 1);
    assert!(refusal(&cluster, &reborn).await.contains("a different data folder"));
}

#[tokio::test]
async fn garbage_on_the_peer_port_disturbs_nobody() {
    let cluster = Cluster::start(3, &[]);
    let mut client = cluster.client(cluster.leader().await).await;
    let huge = [0xff_u8, 0xff, 0xff, 0xff, 1, 2, 3, 4];
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &huge, &[0xa5; 100_000]] {
        for id in 1..=3 {
            let mut stream = peer_port(&cluster, id).await;
            // It may have hung up before it has all.
            let _ = stream.write_all(garbage).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(answer.len() < 1_024);
        }
    }
    client.put(put("k", "v")).await.expect("written all the same");
}

#[tokio::test]
async fn a_thousand_transactions_in_each_other_are_an_error() {
    let cluster = Cluster::start(1, &[]);
    let mut client = cluster.client(cluster.leader().await).await;
    let nested = |depth: usize| {
        (0..depth).fold(pb::TxnRequest::default(), |inner, _| pb::TxnRequest {
            success: vec![pb::RequestOp { request: Some(pb::request_op::Request::RequestTxn(inner)) }],
            ..pb::TxnRequest::default()
        })
    };
    client.txn(nested(20)).await.expect("twenty are few");
    for depth in [100, 1_000] {
        let error = client.txn(nested(depth)).await.expect_err("too deep");
        assert_eq!(error.code(), Code::InvalidArgument, "{depth}: {error}");
    }
    client.put(put("k", "v")).await.expect("it lives");
}

#[tokio::test]
async fn large_requests_are_refused_in_etcds_words() {
    let cluster = Cluster::start(3, &[]);
    let mut client = cluster.client(cluster.follower().await).await;
    client.put(put("k", &"x".repeat(1_500_000))).await.expect("it fits");
    let error = client.put(put("k", &"x".repeat(1_700_000))).await.expect_err("too large");
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "etcdserver: request is too large"));
    let error = client.put(put("k", &"x".repeat(3_000_000))).await.expect_err("far too large");
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().starts_with("grpc: received message larger than max (30000"), "{error}");
    assert_eq!(values(client.range(get("k")).await.expect("read").get_ref())[0].len(), 1_500_000);
}

#[tokio::test]
async fn a_length_of_four_gibibytes_costs_nothing() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let mut client = cluster.client(leader).await;
    // A request by hand: its key says that it has 4 GiB.
    let mut raw = TcpStream::connect(cluster.server(leader).client_address()).await.expect("it listens");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0xff; 64]);
    raw.write_all(&bytes).await.expect("sent");
    let mut answer = Vec::new();
    let _ = raw.read_to_end(&mut answer).await;
    client.put(put("k", "v")).await.expect("it lives");
}
