//! Sets, reads and deletes keys, and reads an old revision.
//!
//! `cargo run -p bowline-client --example keys -- ENDPOINTS`

use std::error::Error;
use std::time::Duration;

use bowline_client::{Client, Op};

/// Runs the example at these endpoints.
pub(crate) async fn run(endpoints: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut client = Client::new(endpoints, Duration::from_secs(10))?;
    let revision = client.put("example/keys/a", "1").await?;
    let before = client.put_request(Op::put("example/keys/a", "2").prev_kv()).await?.prev_kv;
    println!("before the second put, it was {before:?}");
    client.put("example/keys/b", "3").await?;

    let latest = client.get("example/keys/a").await?.ok_or("the key is missing")?;
    assert_eq!((&latest.value[..], latest.version), (&b"2"[..], 2));
    let old = client.range(Op::get("example/keys/a").revision(revision)).await?;
    assert_eq!(old.kvs[0].value, "1");
    let all = client.range(Op::get("example/keys/").prefix()).await?;
    assert_eq!(all.count, 2);

    let deleted = client.delete_request(Op::delete("example/keys/").prefix()).await?.deleted;
    assert_eq!(deleted, 2);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoints = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    run(&endpoints.split(',').collect::<Vec<_>>()).await
}
