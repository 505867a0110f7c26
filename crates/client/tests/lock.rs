//! Locks and elections at real members, which are killed meanwhile.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bowline_client::{Client, ClientError, Election, Lease, LeaseEnd, Lock, LockGuard, Observer, Op};
use support::{Cluster, PATIENCE, eventually};
use tokio::sync::mpsc;

/// A time to live that no test outlasts.
const LONG: Duration = Duration::from_secs(600);

async fn lease(client: &Client) -> Lease {
    client.clone().lease(LONG).await.expect("granted")
}

async fn acquire(lock: &Lock, lease: &Lease) -> LockGuard {
    tokio::time::timeout(PATIENCE, lock.acquire(lease)).await.expect("it gets it in time").expect("no error")
}

/// The number of keys in the queue.
async fn queued(client: &Client, name: &str) -> i64 {
    client.clone().range(Op::get(format!("{name}/")).prefix().count_only()).await.expect("read").count
}

async fn has_queued(client: &Client, name: &str, count: i64) {
    eventually("so many are in the queue", async || (queued(client, name).await == count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_one_holds_it_while_members_are_killed() {
    let mut cluster = Cluster::start(3);
    let (inside, (tell, mut told)) = (Arc::new(AtomicBool::new(false)), mpsc::unbounded_channel());
    for number in 0..5 {
        let client = cluster.client(&[1 + number % 3, 1 + (number + 1) % 3, 1 + (number + 2) % 3]);
        let (inside, tell) = (Arc::clone(&inside), tell.clone());
        tokio::spawn(async move {
            let (lease, lock) = (lease(&client).await, Lock::new(&client, "l"));
            loop {
                let guard = lock.acquire(&lease).await.expect("acquired");
                assert!(!inside.swap(true, Ordering::SeqCst), "two hold it");
                assert!(guard.is_held());
                let mut client = client.clone();
                // The write that is fenced takes a while, so that the others could come in.
                let fenced = client.txn().when(guard.compare()).then(Op::put("protected", "v")).repeatable();
                assert!(fenced.commit().await.expect("done").succeeded);
                inside.store(false, Ordering::SeqCst);
                if tell.send(guard.fencing_token()).is_err() {
                    return;
                }
                guard.release().await.expect("released");
            }
        });
    }
    drop(tell);
    let mut last = 0;
    for id in [1, 2, 3, 1] {
        let mut passes = async |count: usize| {
            for _ in 0..count {
                let token = tokio::time::timeout(PATIENCE, told.recv()).await.expect("in time").expect("nobody fails");
                assert!(token > last, "{token} after {last}");
                last = token;
            }
        };
        passes(20).await;
        cluster.kill(id);
        passes(20).await;
        cluster.restart(id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_a_contender_that_is_killed_goes_to_the_next() {
    let cluster = Cluster::start(3);
    let (client, dying) = (cluster.client(&[1, 2, 3]), cluster.client(&[2, 3, 1]));
    let dead = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let guard = runtime.block_on(async {
            let lease = dying.clone().lease(Duration::from_secs(2)).await.expect("granted");
            Lock::new(&dying, "l").acquire(&lease).await.expect("acquired")
        });
        // With the runtime, all its tasks and connections end: nothing is renewed or released.
        drop(runtime);
        guard
    });
    let dead = dead.join().expect("it doesn't panic");
    let (lock, lease) = (Lock::new(&client, "l"), lease(&client).await);
    assert!(lock.try_acquire(&lease).await.expect("no error").is_none(), "its lease lives");
    let guard = acquire(&lock, &lease).await;
    assert!(!dead.is_held(), "it was lost before others could get it");
    assert!(guard.fencing_token() > dead.fencing_token());
    let mut client = client.clone();
    let late = client.txn().when(dead.compare()).then(Op::put("protected", "late")).commit().await.expect("done");
    assert!(!late.succeeded, "it is fenced off");
    let held = client.txn().when(guard.compare()).then(Op::put("protected", "v")).commit().await.expect("done");
    assert!(held.succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn contenders_wait_in_a_queue() {
    let cluster = Cluster::start(1);
    let client = cluster.client(&[1]);
    let (lock, first, second) = (Lock::new(&client, "l"), lease(&client).await, lease(&client).await);
    let guard = lock.try_acquire(&first).await.expect("no error").expect("it is free");
    assert_eq!(guard.key(), &format!("l/{:x}", first.id()));
    let kv = client.clone().get(guard.key().clone()).await.expect("read").expect("it is there");
    assert_eq!((kv.create_revision, kv.lease, &kv.value[..]), (guard.fencing_token(), first.id(), &b""[..]));
    for asked in [lock.acquire(&first).await.map(Some), lock.try_acquire(&first).await] {
        assert!(
            matches!(&asked, Err(ClientError::InUse { key }) if *key == format!("l/{:x}", first.id())),
            "{asked:?}"
        );
    }
    assert!(lock.try_acquire(&second).await.expect("no error").is_none());
    // One that gives up leaves the queue, and so does a guard that is dropped.
    let waiting = tokio::spawn({
        let (lock, second) = (lock.clone(), second.clone());
        async move { lock.acquire(&second).await.map(drop) }
    });
    has_queued(&client, "l", 2).await;
    waiting.abort();
    has_queued(&client, "l", 1).await;
    drop(guard);
    has_queued(&client, "l", 0).await;
    let guard = eventually("the lease can have it again", async || lock.try_acquire(&second).await.ok()).await;
    let guard = guard.expect("it is free");
    // The others get it in order.
    let (tell, mut told) = mpsc::unbounded_channel();
    for number in 0..3 {
        let (lock, client, tell) = (lock.clone(), client.clone(), tell.clone());
        let queued = queued(&client, "l").await;
        let asked = client.clone();
        tokio::spawn(async move {
            let guard = lock.acquire(&lease(&client).await).await.expect("acquired");
            tell.send(number).expect("somebody listens");
            guard.release().await.expect("released");
        });
        has_queued(&asked, "l", queued + 1).await;
    }
    guard.release().await.expect("released");
    for number in 0..3 {
        assert_eq!(tokio::time::timeout(PATIENCE, told.recv()).await.expect("in time"), Some(number));
    }
    let refused = Lock::new(&client, "").acquire(&second).await;
    assert!(matches!(refused, Err(ClientError::NoName)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_the_lease_or_the_key_is_told() {
    let cluster = Cluster::start(1);
    let client = cluster.client(&[1]);
    let lock = Lock::new(&client, "l");
    let short = client.clone().lease(Duration::from_secs(3)).await.expect("granted");
    let guard = acquire(&lock, &short).await;
    let waiting = async |lease: Lease| {
        let lock = lock.clone();
        let key = format!("l/{:x}", lease.id());
        let waiting = tokio::spawn(async move { lock.acquire(&lease).await });
        eventually("it waits", async || client.clone().get(key.clone()).await.expect("read")).await;
        (waiting, key)
    };
    let other = client.clone().lease(Duration::from_secs(3)).await.expect("granted");
    let (without_lease, key) = waiting(other.clone()).await;
    client.clone().lease_revoke(other.id()).await.expect("revoked");
    match without_lease.await.expect("no panic") {
        Err(ClientError::NotHeld { key: lost, why }) => assert!(lost == key && why.contains("revoked"), "{why}"),
        other => panic!("{other:?}"),
    }
    let (without_key, key) = waiting(lease(&client).await).await;
    client.clone().delete(key.clone(), "").await.expect("deleted");
    client.clone().lease_revoke(short.id()).await.expect("revoked");
    assert_eq!(guard.lost().await, LeaseEnd::Gone);
    match without_key.await.expect("no panic") {
        Err(ClientError::NotHeld { key: lost, why }) => assert!(lost == key && why.contains("deleted"), "{why}"),
        other => panic!("{other:?}"),
    }
    let refused = lock.acquire(&short).await.map(drop);
    assert!(matches!(refused, Err(ClientError::InUse { .. } | ClientError::NotHeld { .. })), "{refused:?}");
    guard.release().await.expect("a lock that is lost is no error");
    let refused = lock.acquire(&short).await.map(drop);
    assert!(matches!(refused, Err(ClientError::NotHeld { .. })), "{refused:?}");
}

async fn next(observer: &mut Observer) -> String {
    let next = tokio::time::timeout(PATIENCE, observer.next()).await.expect("in time");
    String::from_utf8_lossy(&next.expect("no error").value).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_are_elected_in_turn_and_everybody_sees_it() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client(&[1, 2, 3]);
    let election = Election::new(&client, "e");
    let mut observer = election.observe();
    assert_eq!(election.leader().await.expect("read"), None);
    let mut first = election.campaign(&lease(&client).await, "one").await.expect("elected");
    assert_eq!(next(&mut observer).await, "one");
    let second = tokio::spawn({
        let (election, client) = (election.clone(), client.clone());
        async move { election.campaign(&lease(&client).await, "two").await }
    });
    has_queued(&client, "e", 2).await;
    first.proclaim("one again").await.expect("proclaimed");
    assert_eq!(next(&mut observer).await, "one again");
    let leader = election.leader().await.expect("read").expect("one leads");
    assert_eq!((&leader.key, leader.create_revision), (first.key(), first.fencing_token()));
    cluster.kill(1);
    let mut observers = [observer, election.observe()];
    assert_eq!(next(&mut observers[1]).await, "one again");
    let token = first.fencing_token();
    assert!(first.is_leader());
    first.resign().await.expect("resigned");
    let mut second = second.await.expect("no panic").expect("elected");
    assert!(second.fencing_token() > token);
    for observer in &mut observers {
        assert_eq!(next(observer).await, "two");
    }
    client.clone().delete(second.key().clone(), "").await.expect("deleted");
    let late = second.proclaim("late").await;
    assert!(matches!(late, Err(ClientError::NotHeld { .. })), "{late:?}");
    assert_eq!(election.leader().await.expect("read"), None);
    assert_eq!(second.lease().end(), None);
    let resigned: Result<(), ClientError> = second.resign().await;
    resigned.expect("a leadership that is lost is no error");
}
