//! Four tasks increment a counter under a lock. Each write is fenced: it fails if the lock is lost.
//!
//! `cargo run -p bowline-client --example lock -- ENDPOINTS`

use std::error::Error;
use std::time::Duration;

use bowline_client::{Client, Lock, Op};
use tokio::task::JoinSet;

const COUNTER: &str = "example/counter";

async fn increment(mut client: Client) -> Result<(), Box<dyn Error + Send + Sync>> {
    let lease = client.lease(Duration::from_secs(30)).await?;
    let guard = Lock::new(&client, "example/lock").acquire(&lease).await?;
    println!("{:x} holds the lock, with the fencing token {}", lease.id(), guard.fencing_token());
    let count: u64 = match client.get(COUNTER).await? {
        Some(kv) => std::str::from_utf8(&kv.value)?.parse()?,
        None => 0,
    };
    let put = Op::put(COUNTER, (count + 1).to_string());
    let written = client.txn().when(guard.compare()).then(put).commit().await?;
    guard.release().await?;
    lease.revoke().await?;
    if written.succeeded { Ok(()) } else { Err("the lock was lost before the write".into()) }
}

/// Runs the example at these endpoints.
pub(crate) async fn run(endpoints: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut client = Client::new(endpoints, Duration::from_secs(10))?;
    client.delete(COUNTER, "").await?;
    let mut tasks: JoinSet<_> = (0..4).map(|_| increment(client.clone())).collect();
    while let Some(done) = tasks.join_next().await {
        done?.map_err(|error| error.to_string())?;
    }
    let count = client.get(COUNTER).await?.ok_or("nobody has counted")?;
    assert_eq!(count.value, "4");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoints = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    run(&endpoints.split(',').collect::<Vec<_>>()).await
}
