//! Bytes that are no requests, and lengths that nobody means, through real sockets: an error each, and little memory.

use std::time::Duration;

use bowline_server::folder;
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Cluster, PATIENCE, get, put};
use crate::raw::{ask, http2, message};

/// Two gigabytes, as a length.
const HUGE: u32 = 0x7fff_ffff;

/// What may stay in memory of all the hostile input of a test, in bytes.
pub(crate) const LITTLE: u64 = 64 << 20;

/// A body as it is, as a call of a method. Returns code and text.
async fn call(client: &SendRequest<Bytes>, method: &str, body: &[u8], whole: bool) -> (String, String) {
    let answer = ask(client, &format!("etcdserverpb.{method}"), &[], body, whole).await;
    (answer.code, answer.text)
}

/// Bytes of memory that this process uses, where the system tells.
pub(crate) fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

pub(crate) async fn lives(cluster: &Cluster, id: u64) {
    let mut client = cluster.client(id).await;
    client.put(put("k", "v")).await.expect("written");
    assert_eq!(client.range(get("k")).await.expect("read").into_inner().count, 1);
}

#[tokio::test]
async fn bytes_that_are_no_protobuf_are_an_invalid_argument() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let client = http2(&cluster, leader).await;
    let huge_field = [&[0x0a][..], &[0xff, 0xff, 0xff, 0xff, 0x07], b"short"].concat();
    let bodies: [&[u8]; 6] = [
        b"\xff\xff\xff\xff",                                         // No tag.
        &huge_field,                                                 // A key of two gigabytes, it says.
        b"\x0a\x05ab",                                               // A key that is cut off.
        b"\x08\x01",                                                 // A number where the key should be.
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", // A length without an end.
        b"\x0b",                                                     // A group that begins.
    ];
    for method in ["KV/Range", "KV/Put", "KV/DeleteRange", "KV/RangeStream"] {
        for body in bodies {
            let (code, text) = call(&client, method, &message(body), true).await;
            assert_eq!(code, "3", "{method} {body:?}: {text}");
            assert!(text.contains("failed to decode Protobuf message"), "{method} {body:?}: {text}");
        }
    }
    for method in ["KV/Txn", "Cluster/MemberList", "Maintenance/HashKV", "Maintenance/Alarm"] {
        let (code, text) = call(&client, method, &message(b"\xff\xff\xff\xff"), true).await;
        assert_eq!(code, "3", "{method}: {text}");
    }
    lives(&cluster, leader).await;
}

#[tokio::test]
async fn two_gigabytes_that_are_announced_are_refused_before_they_come() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader().await;
    lives(&cluster, leader).await;
    let before = memory();
    let client = http2(&cluster, leader).await;
    for method in ["KV/Range", "KV/Put", "KV/Txn", "Maintenance/Status"] {
        let body = [&[0][..], &HUGE.to_be_bytes(), b"little of it"].concat();
        let (code, text) = call(&client, method, &body, false).await;
        assert_eq!(code, "8", "{method}: {text}");
        assert!(text.starts_with("grpc: received message larger than max (2147483647 vs. "), "{method}: {text}");
    }
    // On the peer port, many at once, none of which says any more.
    let mut silent = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(&cluster.configs[&leader].listen_peer).await.expect("it listens");
        stream.write_all(&[&HUGE.to_le_bytes()[..], &[0; 4], &[1; 64]].concat()).await.expect("sent");
        silent.push(stream);
    }
    for mut stream in silent {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "nobody waits for two gigabytes");
    }
    lives(&cluster, leader).await;
    if let (Some(before), Some(after)) = (before, memory()) {
        assert!(after < before + LITTLE, "{before} bytes were in use, and {after} are");
    }
}

#[tokio::test]
async fn headers_and_messages_without_an_end_are_cut_off() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    lives(&cluster, leader).await;
    let before = memory();
    let address = cluster.server(leader).client_address();
    for start in [&b"GET /"[..], b"GET / HTTP/1.1\r\nX: ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(start).await.expect("sent");
        let flood = async {
            for _ in 0..1_024 {
                if stream.write_all(&[b'x'; 64 << 10]).await.is_err() {
                    return true;
                }
            }
            false
        };
        let cut = tokio::time::timeout(PATIENCE, flood).await;
        assert_eq!(cut, Ok(true), "sixty-four megabytes of a header were taken: {start:?}");
    }
    // One that says nothing at all costs nobody anything.
    let _silent = TcpStream::connect(address).await.expect("it listens");
    tokio::time::sleep(Duration::from_millis(50)).await;
    lives(&cluster, leader).await;
    if let (Some(before), Some(after)) = (before, memory()) {
        assert!(after < before + LITTLE, "{before} bytes were in use, and {after} are");
    }
}

#[tokio::test]
async fn a_folder_of_another_member_is_refused() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.leader().await;
    let (one, other) = (cluster.configs[&1].clone(), cluster.configs[&2].clone());
    cluster.kill(1);
    cluster.kill(2);
    let mut confused = one.clone();
    confused.data_dir = other.data_dir;
    let error = folder::open(&confused).expect_err("it is member 2's").to_string();
    assert!(error.contains("belongs to member 2") && error.contains("member 1"), "{error}");
    // Nothing was done to it.
    cluster.restart(1);
    cluster.restart(2);
    cluster.leader().await;
    lives(&cluster, 2).await;
}
