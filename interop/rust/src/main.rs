//! Uses a cluster through the crate `etcd-client`: keys, transactions, watches, leases, locks, elections, a compaction, and
//! the loss of the leader.

use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};

use etcd_client::{
    Client, Compare, CompareOp, EventType, GetOptions, LockOptions, PutOptions, Txn, TxnOp, WatchOptions,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tokio::time::timeout(Duration::from_secs(120), run()).await?
}

async fn run() -> Result<(), Box<dyn Error>> {
    let endpoints = std::env::var("ENDPOINTS")?;
    let endpoints: Vec<&str> = endpoints.split(',').collect();
    let mut client = Client::connect(&endpoints, None).await?;
    let first = client.put("rs/a", "1", None).await?.header().ok_or("no header")?.revision();
    client.put("rs/b", "2", None).await?;
    let all = client.get("rs/", Some(GetOptions::new().with_prefix())).await?;
    assert_eq!((all.count(), all.kvs()[1].value_str()?), (2, "2"));

    for (version, succeeds) in [(1, true), (7, false)] {
        let txn = Txn::new()
            .when([Compare::version("rs/b", CompareOp::Equal, version)])
            .and_then([TxnOp::get("rs/a", None)])
            .or_else([TxnOp::get("rs/b", None)]);
        assert_eq!(client.txn(txn).await?.succeeded(), succeeds);
    }

    let options = WatchOptions::new().with_prefix().with_start_revision(first);
    let mut watch = client.watch("rs/", Some(options)).await?;
    client.delete("rs/a", None).await?;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let response = watch.message().await?.ok_or("the watch has ended")?;
        seen.extend(response.events().iter().map(|event| event.event_type()));
    }
    assert_eq!(seen, [EventType::Put, EventType::Put, EventType::Delete]);

    let lease = client.lease_grant(60, None).await?.id();
    client.put("leased", "v", Some(PutOptions::new().with_lease(lease))).await?;
    let (mut keeper, mut kept) = client.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    assert_eq!(kept.message().await?.ok_or("no answer")?.ttl(), 60);
    client.lease_revoke(lease).await?;
    assert_eq!(client.get("leased", None).await?.count(), 0);

    let last = client.put("compacted", "v", None).await?.header().ok_or("no header")?.revision();
    client.compact(last, None).await?;
    let old = client.get("rs/b", Some(GetOptions::new().with_revision(first))).await;
    assert!(old.is_err_and(|error| error.to_string().contains("compacted")));

    // These are services of the server.
    let lease = client.lease_grant(60, None).await?.id();
    match client.lock("lock", Some(LockOptions::new().with_lease(lease))).await {
        Ok(locked) => {
            let leader = client.campaign("election", "me", lease).await?;
            assert!(leader.leader().is_some());
            drop(client.unlock(locked.key()).await?);
        }
        Err(etcd_client::Error::GRpcStatus(status)) if status.code() as i32 == 12 => {
            println!("the server has no Lock service");
        }
        Err(error) => return Err(error.into()),
    }

    assert!(Command::new(std::env::var("FAILOVER")?).status()?.success());
    let until = Instant::now() + Duration::from_secs(60);
    while let Err(error) = client.put("rs/after", "3", None).await {
        assert!(Instant::now() < until, "nobody takes writes: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(client.get("rs/after", None).await?.count(), 1);
    Ok(())
}
