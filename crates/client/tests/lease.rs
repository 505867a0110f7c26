//! Leases that the client keeps alive at real members, which are killed meanwhile.

mod support;

use std::time::{Duration, Instant};

use bowline_client::{Client, Lease, LeaseEnd, Op};
use support::{Cluster, PATIENCE, eventually};

/// Waits until it was renewed once more.
async fn is_renewed(lease: &Lease) {
    let before = lease.alive_until();
    eventually("it is renewed", async || {
        assert_eq!(lease.end(), None);
        (lease.alive_until() > before).then_some(())
    })
    .await;
}

async fn attach(client: &mut Client, key: &'static str, lease: &Lease) {
    client.put_request(Op::put(key, "v").lease(lease.id())).await.expect("attached");
}

async fn is_deleted(client: &mut Client, key: &'static str) {
    eventually("the key is deleted", async || client.get(key).await.expect("read").is_none().then_some(())).await;
}

async fn ended(lease: &Lease) -> LeaseEnd {
    tokio::time::timeout(PATIENCE, lease.lost()).await.expect("it is lost in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_renewed_at_any_member() {
    let mut cluster = Cluster::start(3);
    let mut client = cluster.client(&[1, 2, 3]);
    let lease = client.lease(Duration::from_millis(5_500)).await.expect("granted");
    assert_eq!(lease.ttl(), Duration::from_secs(6), "rounded up");
    attach(&mut client, "k", &lease).await;
    is_renewed(&lease).await;
    for id in 1..=3 {
        cluster.kill(id);
        is_renewed(&lease).await;
        cluster.restart(id);
    }
    let told = lease.time_to_live().await.expect("told").expect("it is there");
    assert_eq!((told.granted, &told.keys[..]), (lease.ttl(), &["k".into()][..]));
    assert!(told.remaining <= told.granted);
    lease.revoke().await.expect("revoked");
    assert_eq!((client.get("k").await.expect("read"), lease.time_to_live().await.expect("told")), (None, None));
    assert_eq!((ended(&lease).await, lease.is_alive()), (LeaseEnd::Released, false));
    lease.revoke().await.expect("harmless to do twice");
    assert!(client.lease_list().await.expect("listed").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_others_revoke_is_lost() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client(&[1]);
    let lease = client.lease(Duration::from_secs(3)).await.expect("granted");
    let (clone, lost) = (lease.clone(), lease.lost());
    client.lease_revoke(lease.id()).await.expect("revoked");
    assert_eq!((ended(&lease).await, lost.await, clone.end()), (LeaseEnd::Gone, LeaseEnd::Gone, Some(LeaseEnd::Gone)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_nobody_renews_is_lost_before_the_cluster_ends_it() {
    let mut cluster = Cluster::start(1);
    let mut client = cluster.client(&[1]);
    let lease = client.lease(Duration::from_secs(2)).await.expect("granted");
    attach(&mut client, "k", &lease).await;
    cluster.kill(1);
    let until = lease.alive_until();
    assert_eq!(ended(&lease).await, LeaseEnd::Unanswered);
    assert!(Instant::now() >= until && lease.alive_until() == until);
    // The cluster may still have it, but the holder was told otherwise.
    cluster.restart(1);
    eventually("it serves again", async || client.get("k").await.ok()).await;
    assert_eq!(lease.end(), Some(LeaseEnd::Unanswered));
    is_deleted(&mut client, "k").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_handle_it_expires() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client(&[1]);
    let lease = client.lease(Duration::ZERO).await.expect("granted");
    assert!(lease.ttl() >= Duration::from_secs(1), "the server grants more");
    attach(&mut client, "k", &lease).await;
    let (clone, lost) = (lease.clone(), lease.lost());
    drop(lease);
    is_renewed(&clone).await;
    drop(clone);
    assert_eq!(lost.await, LeaseEnd::Released);
    is_deleted(&mut client, "k").await;
}
