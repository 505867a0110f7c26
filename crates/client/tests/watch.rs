//! Watches of real members, which are killed meanwhile.

mod support;

use std::time::Duration;

use bowline_api::etcdserverpb as pb;
use bowline_client::{Client, ClientError, EventKind, WatchEvent, WatchItem, WatchRequest, Watcher};
use support::{Cluster, PATIENCE};
use tonic::Code;

async fn next(watcher: &mut Watcher) -> Result<WatchItem, ClientError> {
    let next = tokio::time::timeout(PATIENCE, watcher.next()).await;
    next.expect("an item in time").expect("the watch goes on")
}

/// Waits for an item.
async fn until(watcher: &mut Watcher, is_wanted: impl Fn(&WatchItem) -> bool) {
    let comes = async { while !is_wanted(&next(watcher).await.expect("no error")) {} };
    tokio::time::timeout(PATIENCE, comes).await.expect("it comes in time");
}

/// The events of the next revision.
async fn events(watcher: &mut Watcher) -> (i64, Vec<WatchEvent>) {
    match next(watcher).await.expect("no error") {
        WatchItem::Events { revision, events } => (revision, events),
        other => panic!("no events: {other:?}"),
    }
}

/// Why the connection was lost, where the watch resumed in the end, and the first events after that.
async fn after_a_break(watcher: &mut Watcher) -> (String, String, (i64, Vec<WatchEvent>)) {
    let (mut lost, mut resumed) = (None, None);
    loop {
        match next(watcher).await.expect("no error") {
            WatchItem::Events { revision, events } => {
                return (lost.expect("a break"), resumed.expect("an end of it"), (revision, events));
            }
            WatchItem::Lost { why } => lost = lost.or(Some(why)),
            WatchItem::Resumed { endpoint } => resumed = Some(endpoint),
            other => panic!("not asked for: {other:?}"),
        }
    }
}

/// Writes the key `w` again and again; returns when the task that runs it is aborted.
async fn write_for_ever(mut client: Client) {
    for number in 0.. {
        // A write that fails, or whose outcome is unknown, is one that a watch may see or not.
        let _ = client.put("w", number.to_string()).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_repeated_when_members_are_killed() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client(&[1, 2, 3]);
    let first = cluster.client(&[1]).put("w", "first").await.expect("written") + 1;
    let request = WatchRequest::key("w").start_revision(first).report_connection();
    let mut watcher = client.watch(request).await.expect("created");
    let writers = [1, 2].map(|first| tokio::spawn(write_for_ever(cluster.client(&[first, 3 - first, 3]))));
    let (mut serves, mut expected, mut seen) = (1, first, 0);
    let (mut killed, mut kills) = (None, 0);
    while kills < 5 || killed.is_some() || seen < 50 {
        match next(&mut watcher).await.expect("no error") {
            WatchItem::Events { revision, events } => {
                assert_eq!((revision, events.len()), (expected, 1), "each revision once and in order");
                (expected, seen) = (expected + 1, seen + 1);
            }
            // The one that serves may also lose its leader.
            WatchItem::Lost { .. } => {}
            WatchItem::Resumed { endpoint } => {
                (serves, seen) = (cluster.id_of(&endpoint), 0);
                killed.take().into_iter().for_each(|id| cluster.restart(id));
            }
            other => panic!("not asked for: {other:?}"),
        }
        if seen >= 50 && kills < 5 && killed.is_none() {
            cluster.kill(serves);
            (killed, kills, seen) = (Some(serves), kills + 1, 0);
        }
    }
    writers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_break_before_the_first_event_loses_nothing() {
    let mut cluster = Cluster::start(3);
    let written = cluster.client(&[1]).put("k", "before").await.expect("written");
    let client = cluster.client(&[1, 2, 3]);
    // Member 1 has applied its write, so this begins after it.
    let mut watcher = client.watch(WatchRequest::prefix("k").report_connection()).await.expect("created");
    cluster.kill(1);
    let mut others = cluster.client(&[2, 3]);
    while others.put("k", "meanwhile").await.is_err() {}
    let (lost, resumed, (revision, events)) = after_a_break(&mut watcher).await;
    assert!(lost.starts_with(&cluster.endpoint(1)) && !resumed.contains(&cluster.endpoint(1)), "{lost}, {resumed}");
    assert_eq!((revision, &events[0].kv.value[..]), (written + 1, &b"meanwhile"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_has_lost_the_cluster_is_left() {
    let mut cluster = Cluster::start(3);
    let mut writer = cluster.client(&[1, 2, 3]);
    let written = writer.put("k", "0").await.expect("written");
    let client = cluster.client(&[1]);
    let request = WatchRequest::key("k").start_revision(written + 1).report_connection();
    let mut watcher = client.watch(request).await.expect("created");
    cluster.kill(2);
    cluster.kill(3);
    let lost = next(&mut watcher).await.expect("no error");
    assert!(matches!(&lost, WatchItem::Lost { why } if why.ends_with("etcdserver: no leader")), "{lost:?}");
    cluster.restart(2);
    let resumed = next(&mut watcher).await.expect("no error");
    assert_eq!(resumed, WatchItem::Resumed { endpoint: cluster.endpoint(1) });
    while writer.put("k", "1").await.is_err() {}
    loop {
        // It may lose its leader again.
        if let WatchItem::Events { revision, .. } = next(&mut watcher).await.expect("no error") {
            break assert_eq!(revision, written + 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_ends_it_with_a_typed_error() {
    let mut cluster = Cluster::start(1);
    let mut client = cluster.client(&[1]);
    match client.watch(WatchRequest::range("b", "a")).await {
        Err(ClientError::Refused { status, .. }) => assert_eq!(status.code(), Code::InvalidArgument),
        other => panic!("{other:?}"),
    }
    let mut live = client.watch(WatchRequest::key("k")).await.expect("created");
    let first = client.put("k", "1").await.expect("written");
    let last = client.put("k", "2").await.expect("written");
    client.compact(last, false).await.expect("compacted");
    let mut late = client.watch(WatchRequest::key("k").start_revision(first)).await.expect("created");
    match next(&mut late).await {
        Err(ClientError::Compacted { next, compact_revision }) => assert_eq!((next, compact_revision), (first, last)),
        other => panic!("{other:?}"),
    }
    assert!(late.next().await.is_none(), "it has ended");
    // Who has had the events misses nothing.
    assert_eq!((events(&mut live).await.0, events(&mut live).await.0), (first, last));
    cluster.kill(1);
    cluster.restart(1);
    let mut client = cluster.client(&[1]);
    let after = loop {
        if let Ok(after) = client.put("k", "3").await {
            break after;
        }
    };
    assert_eq!(events(&mut live).await.0, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_revisions_come_in_one_piece_and_wait_for_a_slow_caller() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client(&[1]);
    let mut watcher = client.watch(WatchRequest::prefix("large/").prev_kv()).await.expect("created");
    let value = "v".repeat(450_000);
    let put = |key: &str| {
        let (key, value) = (key.to_owned().into(), value.clone().into());
        let request = pb::request_op::Request::RequestPut(pb::PutRequest { key, value, ..Default::default() });
        pb::RequestOp { request: Some(request) }
    };
    let txn = pb::TxnRequest { success: ["large/a", "large/b", "large/c"].map(put).into(), ..Default::default() };
    let mut written = Vec::new();
    // With the keys before, each has more bytes than one message; there are more than wait for the caller.
    for _ in 0..24 {
        written
            .push(client.txn_request(txn.clone()).await.expect("written").header.map_or(0, |header| header.revision));
    }
    for (number, expected) in written.into_iter().enumerate() {
        let (revision, events) = events(&mut watcher).await;
        let keys: Vec<&[u8]> = events.iter().map(|event| &event.kv.key[..]).collect();
        assert_eq!((revision, keys), (expected, vec![&b"large/a"[..], b"large/b", b"large/c"]));
        let before = events.iter().filter(|event| event.prev_kv.as_ref().is_some_and(|kv| kv.value == value));
        assert_eq!(before.count(), if number == 0 { 0 } else { 3 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_is_delivered() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client(&[1]);
    let put = client.put("k", "1").await.expect("written");
    client.delete("k", "").await.expect("deleted");
    let last = client.put("l", "2").await.expect("written");
    let all = WatchRequest::range("", [0].to_vec()).start_revision(put);
    let kinds = async |request: WatchRequest, count| {
        let mut watcher = client.watch(request).await.expect("created");
        let mut seen = Vec::new();
        while seen.len() < count {
            seen.extend(events(&mut watcher).await.1.into_iter().map(|event| (event.kind, event.kv.mod_revision)));
        }
        watcher.request_progress();
        assert_eq!(next(&mut watcher).await.expect("no error"), WatchItem::Progress { revision: last });
        seen
    };
    use EventKind::{Delete, Put};
    assert_eq!(kinds(all.clone(), 3).await, [(Put, put), (Delete, put + 1), (Put, last)]);
    assert_eq!(kinds(all.clone().only(Put), 2).await, [(Put, put), (Put, last)]);
    assert_eq!(kinds(all.clone().only(Delete), 1).await, [(Delete, put + 1)]);
    assert_eq!(kinds(WatchRequest::prefix("k").start_revision(put), 2).await, [(Put, put), (Delete, put + 1)]);
    let mut told = client.watch(WatchRequest::key("quiet").progress_notify()).await.expect("created");
    let mut untold = client.watch(WatchRequest::key("quiet")).await.expect("created");
    for _ in 0..3 {
        assert_eq!(next(&mut told).await.expect("no error"), WatchItem::Progress { revision: last });
    }
    let at = client.put("quiet", "3").await.expect("written");
    assert_eq!(events(&mut untold).await.0, at, "who did not ask for progress is not told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_resumes_after_a_compaction() {
    let mut cluster = Cluster::start(1);
    let mut client = cluster.client(&[1]);
    client.put("other", "0").await.expect("written");
    let mut watcher = client.watch(WatchRequest::key("quiet").progress_notify()).await.expect("created");
    let mut last = 0;
    for value in ["1", "2", "3"] {
        last = client.put("other", value).await.expect("written");
    }
    // Writes of other keys count.
    until(&mut watcher, |item| *item == WatchItem::Progress { revision: last }).await;
    client.compact(last, false).await.expect("compacted");
    cluster.kill(1);
    cluster.restart(1);
    while client.put("quiet", "1").await.is_err() {}
    until(&mut watcher, |item| matches!(item, WatchItem::Events { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_it_cancels_it_at_the_member() {
    let cluster = Cluster::start(1);
    let client = cluster.client(&[1]);
    let watcher = client.watch(WatchRequest::key("k")).await.expect("created");
    cluster.has_watchers(1, 1).await;
    drop(watcher);
    cluster.has_watchers(1, 0).await;
}
