//! The JSON gateway under clients that are slow, silent or hostile, and when the server stops.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Cluster, PATIENCE, get, put, values};
use crate::web::{Socket, Stream, good, post, value};

/// Watches the key `k`.
const WATCH: &str = r#"{"create_request":{"key":"aw=="}}"#;

fn url(cluster: &Cluster, id: u64) -> String {
    format!("http://{}", cluster.server(id).client_address())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn streams_and_web_sockets_end_when_the_server_stops() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.leader_of_all().await;
    let id = cluster.follower().await;
    let url = url(&cluster, id);
    let mut open = Stream::open(&url, "POST", "/v3/watch", &[], None).await;
    open.send(WATCH).await;
    open.read_head().await;
    let mut whole = Stream::open(&url, "POST", "/v3/watch", &[], Some(WATCH)).await;
    for stream in [&mut open, &mut whole] {
        assert_eq!(value(&stream.line().await.expect("a line"), "created"), "true");
    }
    let mut socket = Socket::open(&url, "/v3/watch", &[]).await.expect("upgraded");
    socket.send(WATCH).await;
    assert_eq!(value(&socket.text().await.expect("a message"), "created"), "true");
    let mut silent = Socket::open(&url, "/v3/lease/keepalive", &[]).await.expect("upgraded");
    cluster.stop(id);
    let stopped = r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: server stopped""#;
    for stream in [&mut open, &mut whole] {
        let line = stream.line().await.expect("a line");
        assert!(line.starts_with(stopped), "{line}");
        assert_eq!(stream.line().await, None);
    }
    for socket in [&mut socket, &mut silent] {
        let text = socket.text().await.expect("a message");
        assert!(text.starts_with(stopped), "{text}");
        assert_eq!(socket.text().await, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_that_neither_send_nor_read_hold_up_nobody_else() {
    let cluster = Cluster::start(1, &[]);
    cluster.leader().await;
    let (address, url) = (cluster.server(1).client_address(), url(&cluster, 1));
    let mut kept = Vec::new();
    for number in 0..20 {
        // Some never end their request, some never begin it, and some do not read what they have asked for.
        let request = match number % 4 {
            0 => "POST /v3/kv/put HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n{\"key\":\"".to_owned(),
            1 => "POST /v3/watch HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            2 => format!("POST /v3/watch HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{WATCH}", WATCH.len()),
            _ => "GET /v3/watch HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                .to_owned(),
        };
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("sent");
        kept.push(stream);
    }
    let mut client = cluster.client(1).await;
    let large = "v".repeat(1 << 20);
    // More than the buffers of a connection, for those who do not read.
    for _ in 0..30 {
        let written = tokio::time::timeout(PATIENCE, client.put(put("k", &large))).await.expect("in time");
        written.expect("written");
    }
    good(&url, "/v3/kv/put", r#"{"key":"aw==","value":"dg=="}"#).await;
    let read = client.range(get("k")).await.expect("read").into_inner();
    assert_eq!(values(&read), ["v"]);
    // Who reads late gets all of it.
    let mut late = kept.swap_remove(2);
    let (mut received, mut buffer) = (0, vec![0; 1 << 16]);
    while received < 30 * (large.len() / 3 * 4) {
        let read = tokio::time::timeout(PATIENCE, late.read(&mut buffer)).await.expect("in time").expect("more");
        assert!(read > 0, "it ends after {received} bytes");
        received += read;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_larger_than_a_request_is_refused_before_it_is_read() {
    let cluster = Cluster::start(1, &[("max_request_bytes", "64KiB")]);
    cluster.leader().await;
    let url = url(&cluster, 1);
    // It would never end.
    let mut stream = Stream::open(&url, "POST", "/v3/kv/put", &[], None).await;
    stream.send(r#"{"key":"aw==","value":""#).await;
    let piece = "A".repeat(64 << 10);
    for _ in 0..20 {
        stream.send(&piece).await;
    }
    stream.read_head().await;
    assert_eq!(stream.status(), 429);
    // What fits in the body, but not in a request.
    let body = format!(r#"{{"key":"aw==","value":"{}"}}"#, "A".repeat(100 << 10));
    let reply = post(&url, "/v3/kv/put", &body).await;
    assert!(reply.status == 400 && reply.body.contains("etcdserver: request is too large"), "{reply:?}");
    let mut socket = Socket::open(&url, "/v3/watch", &[]).await.expect("upgraded");
    socket.raw(&[0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0]).await;
    assert_eq!(socket.text().await, None, "it ends before anything of the frame was sent");
    good(&url, "/v3/kv/put", r#"{"key":"aw==","value":"dg=="}"#).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_over_json_is_counted_and_has_a_deadline() {
    let cluster = Cluster::start(1, &[]);
    cluster.leader().await;
    let url = url(&cluster, 1);
    good(&url, "/v3/kv/put", r#"{"key":"aw==","value":"dg=="}"#).await;
    let page = crate::harness::http(cluster.server(1).client_address(), "GET /metrics").await;
    let labels = r#"grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary""#;
    assert!(page.contains(&format!("grpc_server_handled_total{{{labels}}} 1\n")), "{page}");
    let mut held = Stream::open(&url, "POST", "/v3/lock/lock", &[], Some(r#"{"name":"bA=="}"#)).await;
    assert_eq!(held.status(), 200);
    assert!(held.line().await.is_none());
    let headers = [("Grpc-Timeout", "200m")];
    let reply = crate::web::ask(&url, "POST", "/v3/lock/lock", &headers, r#"{"name":"bA=="}"#).await;
    assert!(reply.status == 504 && reply.body.contains("context deadline exceeded"), "{reply:?}");
    // The place of the one that gave up is free again.
    let queue = crate::harness::prefix("l/");
    let mut client = cluster.client(1).await;
    let until = tokio::time::Instant::now() + PATIENCE;
    while client.range(queue.clone()).await.expect("read").into_inner().count != 1 {
        assert!(tokio::time::Instant::now() < until, "its key is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_the_gateway_there_are_no_paths() {
    let cluster = Cluster::start(1, &[("enable_grpc_gateway", "false")]);
    cluster.leader().await;
    assert_eq!(post(&url(&cluster, 1), "/v3/kv/range", "{}").await.status, 404);
}
