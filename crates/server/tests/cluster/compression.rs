//! Messages that are compressed: requests, answers for those who ask, and what is meant to break something.

use std::io::Write;

use bowline_api::{Message, etcdserverpb as pb};
use flate2::Compression;
use flate2::write::GzEncoder;
use pb::kv_client::KvClient;
use tonic::Code;
use tonic::codec::CompressionEncoding::Gzip;

use crate::harness::{Cluster, get, prefix, put, values};
use crate::malformed::{LITTLE, lives, memory};
use crate::raw::{ask, compressed, http2, message};

const GZIP: (&str, &str) = ("grpc-encoding", "gzip");
const ASKS: (&str, &str) = ("grpc-accept-encoding", "identity,gzip");

/// Repeats a piece, and compresses that.
fn gzip(piece: &[u8], times: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for _ in 0..times {
        encoder.write_all(piece).expect("memory takes it");
    }
    encoder.finish().expect("memory takes it")
}

#[tokio::test]
async fn compressed_requests_are_served_like_others() {
    let cluster = Cluster::start(3, &[]);
    cluster.leader().await;
    for id in 1..=3 {
        let mut client = KvClient::new(cluster.channel(id).await).send_compressed(Gzip).accept_compressed(Gzip);
        let value = format!("{id}").repeat(100_000);
        client.put(put("k", &value)).await.expect("written");
        assert_eq!(values(client.range(get("k")).await.expect("read").get_ref())[0], value);
        // Who does not ask gets plain answers.
        assert_eq!(values(cluster.client(id).await.range(get("k")).await.expect("read").get_ref())[0], value);
    }
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_ask_where_it_pays() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let mut kv = cluster.client(leader).await;
    for number in 0..3 {
        kv.put(put(&format!("large/{number}"), &"v".repeat(300_000))).await.expect("written");
    }
    kv.put(put("small", "v")).await.expect("written");
    let client = http2(&cluster, leader).await;
    let range = |request: pb::RangeRequest| message(&request.encode_to_vec());
    let (large, small) = (range(prefix("large/")), range(get("small")));
    let answer = ask(&client, "etcdserverpb.KV/Range", &[ASKS], &large, true).await;
    assert_eq!((answer.code.as_str(), answer.headers["grpc-encoding"].as_bytes()), ("0", &b"gzip"[..]));
    assert!(answer.body[0] == 1 && answer.body.len() < 50_000, "{} bytes", answer.body.len());
    let answer = ask(&client, "etcdserverpb.KV/Range", &[], &large, true).await;
    assert!(!answer.headers.contains_key("grpc-encoding"));
    assert!(answer.body[0] == 0 && answer.body.len() > 900_000, "{} bytes", answer.body.len());
    // It would only grow.
    let answer = ask(&client, "etcdserverpb.KV/Range", &[ASKS], &small, true).await;
    assert_eq!((answer.code.as_str(), answer.body[0]), ("0", 0));
    // Pieces of a stream are, too; keep-alives are not.
    let answer = ask(&client, "etcdserverpb.KV/RangeStream", &[ASKS], &large, true).await;
    assert!(answer.body[0] == 1 && answer.body.len() < 50_000, "{} bytes", answer.body.len());
    let alive = message(&pb::LeaseKeepAliveRequest { id: 7 }.encode_to_vec());
    let answer = ask(&client, "etcdserverpb.Lease/LeaseKeepAlive", &[ASKS], &alive, true).await;
    assert_eq!((answer.code.as_str(), answer.body[0]), ("0", 0));
    let mut asks = KvClient::new(cluster.channel(leader).await).accept_compressed(Gzip);
    assert_eq!(asks.range(prefix("large/")).await.expect("read").into_inner().kvs.len(), 3);
    let mut pieces = asks.range_stream(prefix("large/")).await.expect("a stream").into_inner();
    let mut found = 0;
    while let Some(piece) = pieces.message().await.expect("a piece") {
        found += piece.range_response.expect("it is one").kvs.len();
    }
    assert_eq!(found, 3);
}

#[tokio::test]
async fn the_limit_of_a_request_counts_what_it_is_uncompressed() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let mut client = KvClient::new(cluster.channel(leader).await).send_compressed(Gzip);
    client.put(put("k", &"x".repeat(1_500_000))).await.expect("it fits");
    let error = client.put(put("k", &"x".repeat(1_700_000))).await.expect_err("too large");
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "etcdserver: request is too large"));
    let error = client.put(put("k", &"x".repeat(3_000_000))).await.expect_err("far too large");
    let text = "grpc: received message after decompression larger than max 2097152";
    assert_eq!((error.code(), error.message()), (Code::ResourceExhausted, text));
    assert_eq!(values(client.range(get("k")).await.expect("read").get_ref())[0].len(), 1_500_000);
}

#[tokio::test]
async fn a_bomb_is_refused_without_room_for_it() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    lives(&cluster, leader).await;
    // A quarter of a gigabyte of zeros.
    let bomb = compressed(&gzip(&[0; 1 << 20], 256));
    assert!(bomb.len() < 2 << 20, "{} bytes are let in", bomb.len());
    let client = http2(&cluster, leader).await;
    let before = memory();
    for method in ["KV/Put", "KV/Txn", "Lease/LeaseGrant", "Lease/LeaseKeepAlive", "Maintenance/Status"] {
        let answer = ask(&client, &format!("etcdserverpb.{method}"), &[GZIP], &bomb, true).await;
        assert_eq!(answer.code, "8", "{method}: {}", answer.text);
        assert_eq!(answer.text, "grpc: received message after decompression larger than max 2097152", "{method}");
    }
    let answer = ask(&client, "grpc.health.v1.Health/Check", &[GZIP], &bomb, true).await;
    assert_eq!(answer.code, "8", "{}", answer.text);
    if let (Some(before), Some(after)) = (before, memory()) {
        assert!(after < before + LITTLE, "{before} bytes were in use, and {after} are");
    }
    lives(&cluster, leader).await;
}

#[tokio::test]
async fn what_is_no_gzip_is_an_invalid_argument_and_what_is_unknown_says_what_is_known() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let client = http2(&cluster, leader).await;
    let good = gzip(&put("k", "v").encode_to_vec(), 1);
    let mut damaged = good.clone();
    let middle = damaged.len() - 6;
    damaged[middle] ^= 1;
    for (what, body) in
        [("garbage", &b"garbage"[..]), ("nothing", &[]), ("cut", &good[..good.len() - 9]), ("damaged", &damaged)]
    {
        for method in ["KV/Put", "Lease/LeaseKeepAlive"] {
            let answer = ask(&client, &format!("etcdserverpb.{method}"), &[GZIP], &compressed(body), true).await;
            assert_eq!(answer.code, "3", "{what} to {method}: {}", answer.text);
            assert!(answer.text.starts_with("grpc: failed to decompress the received message: "), "{}", answer.text);
        }
    }
    for encoding in ["zstd", "deflate", "snappy"] {
        let answer =
            ask(&client, "etcdserverpb.KV/Put", &[("grpc-encoding", encoding)], &compressed(&good), true).await;
        assert_eq!(answer.code, "12", "{encoding}: {}", answer.text);
        assert_eq!(answer.headers["grpc-accept-encoding"], "gzip,identity", "{encoding}");
    }
    // Uncompressed after all: each message says so by itself.
    let plain = message(&put("k", "plain").encode_to_vec());
    for encoding in ["gzip", "identity"] {
        let answer = ask(&client, "etcdserverpb.KV/Put", &[("grpc-encoding", encoding)], &plain, true).await;
        assert_eq!(answer.code, "0", "{encoding}: {}", answer.text);
    }
    let found = cluster.client(leader).await.range(get("k")).await.expect("read").into_inner();
    assert_eq!((values(&found), found.kvs[0].version), (vec!["plain".to_owned()], 2));
}
