//! Watches a prefix. If a member fails, the watch resumes at another one, and no event is lost or repeated.
//!
//! `cargo run -p bowline-client --example watch -- ENDPOINTS`

use std::error::Error;
use std::time::Duration;

use bowline_client::{Client, WatchItem, WatchRequest};

/// Runs the example at these endpoints.
pub(crate) async fn run(endpoints: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut client = Client::new(endpoints, Duration::from_secs(10))?;
    let first = client.put("example/jobs/1", "new").await?;
    client.put("example/jobs/2", "new").await?;
    client.delete("example/jobs/1", "").await?;

    // It begins in the past.
    let mut watcher = client.watch(WatchRequest::prefix("example/jobs/").start_revision(first).prev_kv()).await?;
    let mut seen = 0;
    while seen < 3 {
        let Some(item) = watcher.next().await else { break };
        match item? {
            WatchItem::Events { revision, events } => {
                for event in events {
                    println!("{revision}: {:?} {:?} (before: {:?})", event.kind, event.kv.key, event.prev_kv);
                    seen += 1;
                }
            }
            other => println!("{other:?}"),
        }
    }
    assert_eq!(seen, 3);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoints = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    run(&endpoints.split(',').collect::<Vec<_>>()).await
}
