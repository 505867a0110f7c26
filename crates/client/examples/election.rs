//! Two candidates lead one after the other, and an observer sees what they proclaim.
//!
//! `cargo run -p bowline-client --example election -- ENDPOINTS`

use std::error::Error;
use std::time::Duration;

use bowline_client::{Client, Election};

/// Runs the example at these endpoints.
pub(crate) async fn run(endpoints: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut client = Client::new(endpoints, Duration::from_secs(10))?;
    let election = Election::new(&client, "example/election");
    let mut observer = election.observe();

    let lease = client.lease(Duration::from_secs(30)).await?;
    let mut leadership = election.campaign(&lease, "first").await?;
    assert_eq!(observer.next().await?.value, "first");
    leadership.proclaim("still the first").await?;
    assert_eq!(observer.next().await?.value, "still the first");

    let (another, waits) = (client.lease(Duration::from_secs(30)).await?, election.clone());
    let second = tokio::spawn(async move { waits.campaign(&another, "second").await });
    let token = leadership.fencing_token();
    leadership.resign().await?;
    let second = second.await??;
    assert!(second.fencing_token() > token);
    let leader = observer.next().await?;
    println!("{:?} leads now, with the fencing token {}", leader.value, leader.create_revision);
    assert_eq!((&leader.value[..], leader.create_revision), (&b"second"[..], second.fencing_token()));
    second.resign().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoints = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    run(&endpoints.split(',').collect::<Vec<_>>()).await
}
