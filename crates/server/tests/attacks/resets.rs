//! Requests that are reset as soon as they are made (CVE-2023-44487).

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::beside::{ATTACK, Attacked};
use crate::harness::PATIENCE;

/// Pairs of a request and its reset that are sent at once.
const BATCH: u32 = 100;

/// A request of `POST /`, complete but for its body, and its reset.
fn request_and_reset(stream: u32) -> Vec<u8> {
    let stream = stream.to_be_bytes();
    // Of HPACK's static table: `:method: POST`, `:scheme: http`, `:path: /`; and an empty `:authority` (RFC 7541, A).
    let block = [0x83, 0x86, 0x84, 0x01, 0x00];
    let head = [&[0, 0, 5, 1, 4][..], &stream, &block].concat();
    [&head[..], &[0, 0, 4, 3, 0], &stream, &[0, 0, 0, 8]].concat()
}

/// Resets requests on one connection until the member closes it or `until` is over. Returns how many were sent, and
/// whether the member closed it.
async fn reset_many(attacked: &Attacked, until: Instant) -> (u32, bool) {
    let address = attacked.cluster.server(attacked.leader).client_address();
    let (mut answers, mut requests) = TcpStream::connect(address).await.expect("it listens").into_split();
    tokio::spawn(async move { while answers.read(&mut [0; 4_096]).await.is_ok_and(|count| count > 0) {} });
    let begin = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    requests.write_all(&begin).await.expect("sent");
    let mut sent = 0;
    while Instant::now() < until {
        let batch: Vec<u8> = (sent..sent + BATCH).flat_map(|number| request_and_reset(2 * number + 1)).collect();
        match timeout(ATTACK, requests.write_all(&batch)).await {
            Ok(Ok(())) => sent += BATCH,
            Ok(Err(_)) => return (sent, true),
            Err(_) => break,
        }
    }
    (sent, false)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_reset_at_once_end_their_connection_and_harm_nobody() {
    let mut attacked = Attacked::start(&[]).await;
    let (sent, closed) = reset_many(&attacked, Instant::now() + PATIENCE).await;
    assert!(closed, "the member takes {sent} resets on one connection");
    let until = Instant::now() + ATTACK / 2;
    while Instant::now() < until {
        reset_many(&attacked, until).await;
    }
    attacked.stands().await;
}
