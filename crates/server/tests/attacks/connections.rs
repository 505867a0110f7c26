//! Connections without end.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::beside::{ATTACK, Attacked};
use crate::harness::PATIENCE;

/// Most connections that the attack opens.
const MANY: usize = 10_000;

/// Connections that it opens from one address before it takes the next one.
const EACH: usize = 2_500;

/// Connections that it opens at least, however long that takes: some of them are over the limit.
const FEW: usize = 700;

/// Descriptors that the members and the honest client need.
const OTHERS: usize = 1_000;

async fn connect(from: [u8; 4], to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.bind(SocketAddr::from((from, 0))).ok()?;
    tokio::time::timeout(ATTACK, socket.connect(to)).await.ok()?.ok()
}

/// Whether the member closes a connection.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 8])).await;
    // What was sent decides whether it is the end or a reset.
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_ten_thousand_idle_connections_keeps_nobody_out() {
    // Each connection takes two descriptors: both its ends are in this process.
    let open_files = usize::try_from(bowline_server::raise_limit()).unwrap_or(usize::MAX);
    let wanted = (open_files.saturating_sub(OTHERS) / 2).min(MANY);
    let mut attacked = Attacked::start(&[("max_connections_per_address", "500")]).await;
    let to = attacked.cluster.server(attacked.leader).client_address();
    let (began, mut idle) = (Instant::now(), Vec::with_capacity(wanted));
    let mut last = 2;
    while idle.len() < wanted && (idle.len() < FEW || began.elapsed() < ATTACK) {
        last = 2 + u8::try_from(idle.len() / EACH).expect("they are a few");
        match connect([127, 0, 0, last], to).await {
            Some(stream) => idle.push(stream),
            None => break,
        }
    }
    println!("{} connections of {wanted} from {} addresses in {:?}", idle.len(), last - 1, began.elapsed());
    assert!(idle.len() >= FEW, "there are too few descriptors ({open_files}) to reach the limit");
    attacked.stands().await;
    assert!(is_closed(&mut idle[600]).await, "its address has 500 connections already");
    // A client at another address is served, also if it comes only now.
    attacked.cluster.client(attacked.leader).await.range(crate::harness::get("honest")).await.expect("read");
    assert!(attacked.reached("connections_per_address").await > 0);
    attacked.stands().await;
}
