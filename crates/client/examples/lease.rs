//! A worker registers itself with a lease, and an observer sees it come and go.
//!
//! `cargo run -p bowline-client --example lease -- ENDPOINTS`

use std::error::Error;
use std::time::Duration;

use bowline_client::{Client, EventKind, Op, WatchItem, WatchRequest};

/// Runs the example at these endpoints.
pub(crate) async fn run(endpoints: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut client = Client::new(endpoints, Duration::from_secs(10))?;
    let mut observer = client.watch(WatchRequest::prefix("example/workers/")).await?;

    // The handle renews the lease until it is revoked or dropped, or the program dies.
    let lease = client.lease(Duration::from_secs(10)).await?;
    client.put_request(Op::put("example/workers/7", "10.0.0.7:80").lease(lease.id())).await?;
    let lost = lease.lost();
    tokio::spawn(async move { println!("the worker stops: {}", lost.await) });
    let status = lease.time_to_live().await?.ok_or("the lease is gone")?;
    println!("the lease has {:?} left, and the keys {:?}", status.remaining, status.keys);
    lease.revoke().await?;

    let mut seen = Vec::new();
    while seen.len() < 2 {
        if let Some(WatchItem::Events { events, .. }) = observer.next().await.transpose()? {
            seen.extend(events.iter().map(|event| event.kind));
        }
    }
    assert_eq!(seen, [EventKind::Put, EventKind::Delete]);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoints = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    run(&endpoints.split(',').collect::<Vec<_>>()).await
}
