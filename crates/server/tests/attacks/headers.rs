//! Headers without end.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::beside::{ATTACK, Attacked};
use crate::harness::{PATIENCE, get, http_with};
use crate::raw::{ask, http2, message};

/// Bytes of headers that the attack tries to send.
const ENDLESS: usize = 64 << 20;

/// Bytes that a member may take before it closes the connection, those in the buffers of the system included.
const TAKEN: usize = 32 << 20;

/// Sends `begin`, and then `piece` again and again. Returns how many bytes of the pieces were taken, until the member
/// closed the connection or the time was over.
async fn flood(attacked: &Attacked, begin: &[u8], piece: &[u8]) -> usize {
    let address = attacked.cluster.server(attacked.leader).client_address();
    let (mut answers, mut requests) = TcpStream::connect(address).await.expect("it listens").into_split();
    // Answers must not fill the buffers.
    tokio::spawn(async move { while answers.read(&mut [0; 4_096]).await.is_ok_and(|count| count > 0) {} });
    requests.write_all(begin).await.expect("sent");
    let (began, mut taken) = (Instant::now(), 0);
    while taken < ENDLESS && began.elapsed() < ATTACK {
        match timeout(ATTACK, requests.write_all(piece)).await {
            Ok(Ok(())) => taken += piece.len(),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_are_not_read_to_their_end() {
    let mut attacked = Attacked::start(&[]).await;
    let line = format!("a: {}\r\n", "x".repeat(16_000));
    let taken = flood(&attacked, b"GET /health HTTP/1.1\r\n", line.as_bytes()).await;
    assert!(taken < TAKEN, "{taken} bytes of HTTP/1");
    // A literal header without indexing, once in HEADERS without END_HEADERS, and then in CONTINUATION (RFC 7541, 6.2.2).
    let field = [&[0, 1, b'a', 0x7f, 0x81, 0x7c][..], &[b'x'; 16_000]].concat();
    let frame = |kind: u8| {
        let length = u32::try_from(field.len()).expect("it is short").to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], &field].concat()
    };
    let begin = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0], &frame(1)].concat();
    let taken = flood(&attacked, &begin, &frame(9)).await;
    assert!(taken < TAKEN, "{taken} bytes of HTTP/2");
    attacked.stands().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_long_headers_is_refused_in_words_and_a_shorter_one_served() {
    let mut attacked = Attacked::start(&[]).await;
    let address = attacked.cluster.server(attacked.leader).client_address();
    let header = |bytes: usize| "x".repeat(bytes);
    let answer = http_with(address, "GET /version", &format!("a: {}\r\n", header(80_000))).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(answer.ends_with("bytes; allowed: 65536, which --max-header-bytes sets\n"), "{answer}");
    let answer = http_with(address, "GET /version", &format!("a: {}\r\n", header(60_000))).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let client = http2(&attacked.cluster, attacked.leader).await;
    let body = message(&bowline_api::Message::encode_to_vec(&get("honest")));
    let call = async |bytes| ask(&client, "etcdserverpb.KV/Range", &[("a", &header(bytes))], &body, true).await;
    let long = timeout(PATIENCE, call(80_000)).await.expect("in time");
    assert_eq!(long.code, "8", "{}", long.text);
    assert!(long.text.ends_with("bytes; allowed: 65536, which --max-header-bytes sets"), "{}", long.text);
    assert_eq!(call(60_000).await.code, "0");
    assert_eq!(attacked.reached("header_bytes").await, 2);
    attacked.stands().await;
}
