//! Watches.

use std::collections::BTreeMap;
use std::time::Duration;

use bowline_api::authpb::permission::Type as Kind;
use bowline_api::etcdserverpb as pb;
use bowline_api::mvccpb::event::EventType;
use bowline_api::mvccpb::{self, KeyValue};
use bowline_node::raft::Random;
use bytes::Bytes;
use pb::watch_client::WatchClient;
use pb::watch_create_request::FilterType;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};

use crate::a::{Visitor, with_users};
use crate::cluster::http;
use crate::line::{Line, line};
use crate::requests::*;
use crate::site::{Site, revision};

/// How long a message that must come may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Found and mended in 2026.
const BYPASS: &str = "it takes a permission for a key for one for all keys after it (GHSA-xg4h-6gfc-h4m8)";

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line!(Shared, w01_the_first_message_says_that_the_watcher_was_created),
        line!(Shared, w02_numbers_are_assigned_or_chosen_and_never_twice),
        line!(Shared, w03_an_empty_range_is_refused),
        line!(Fresh, w04_an_empty_key_is_the_first_one_and_an_end_of_zero_is_none),
        line!(Shared, w05_without_a_start_only_later_events_come),
        line!(Fresh, w06_history_comes_first_and_no_revision_is_split),
        line!(Fresh, w07_a_future_start_waits),
        line!(Fresh, w08_a_compacted_start_is_cancelled_after_the_creation),
        line!(Shared, w09_a_negative_start_is_refused).not_on_3_4("3.4.23 accepts it"),
        line!(Shared, w10_the_events_of_a_revision_come_in_one_message),
        line!(Shared, w11_a_put_has_the_key_and_a_deletion_its_revision),
        line!(Shared, w12_the_key_before_comes_with_updates_and_deletions),
        line!(Shared, w13_filters_drop_puts_or_deletions),
        line!(Shared, w14_large_messages_are_split_if_that_is_wanted),
        line!(Shared, w15_a_cancellation_is_confirmed_and_an_unknown_one_is_not),
        line!(Shared, w16_progress_is_told_for_the_stream),
        line!(Fresh, w17_progress_is_told_to_a_quiet_watcher_that_asks).not_on_etcd("its interval is ten minutes"),
        line!(Fresh, w18_the_published_guarantees_hold),
        line!(Fresh, w19_a_client_that_does_not_read_delays_nobody_and_loses_nothing),
        line!(Members, w20_a_stream_that_requires_a_leader_ends_without_one),
        line!(Fresh, w21_a_refusal_comes_in_the_stream).not_on_3_4(BYPASS),
        line!(Fresh, w21_a_watch_ends_with_the_permission).not_on_etcd("it goes on there"),
        line!(Members, w22_a_watcher_misses_nothing_when_its_member_gets_a_snapshot),
        line!(Fresh, w23_permission_is_checked_for_the_range_that_is_watched).not_on_3_4(BYPASS),
    ]
}

/// A stream of watches.
struct Watch {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Watch {
    async fn open(site: &Site, first: pb::WatchCreateRequest) -> (Watch, pb::WatchResponse) {
        Watch::open_on(site.channel(), first, false).await
    }

    /// A stream of a connection; with `insists`, one that requires a leader.
    async fn open_on(channel: Channel, first: pb::WatchCreateRequest, insists: bool) -> (Watch, pb::WatchResponse) {
        let (requests, waiting) = mpsc::channel(64);
        // A server may send nothing before the first request.
        requests.send(wrapped(RequestUnion::CreateRequest(first))).await.expect("there is room");
        let mut client = WatchClient::new(channel).max_decoding_message_size(64 << 20);
        let mut request = Request::new(ReceiverStream::new(waiting));
        if insists {
            request.metadata_mut().insert("hasleader", "true".parse().expect("a good value"));
        }
        let responses = client.watch(request).await.expect("a stream").into_inner();
        let mut watch = Watch { requests, responses };
        let created = watch.next().await;
        (watch, created)
    }

    async fn send(&self, request: RequestUnion) {
        self.requests.send(wrapped(request)).await.expect("the stream is open");
    }

    async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.send(RequestUnion::CreateRequest(request)).await;
        self.next().await
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let next = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        next.expect("a message in time").expect("no error").expect("the stream is open")
    }

    /// The next events: kind, key and revision of each.
    async fn events(&mut self, count: usize) -> Vec<(EventType, Bytes, i64)> {
        let mut events = Vec::new();
        while events.len() < count {
            let message = self.next().await;
            assert!(!message.canceled, "{message:?}");
            for event in message.events {
                let kind = event.r#type();
                let kv = event.kv.expect("a key");
                events.push((kind, kv.key, kv.mod_revision));
            }
        }
        assert_eq!(events.len(), count, "{events:?}");
        events
    }
}

fn wrapped(request: RequestUnion) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(request) }
}

fn of(key: impl Into<Bytes>) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.into(), ..Default::default() }
}

/// All keys of a line.
fn prefix(site: &Site) -> pb::WatchCreateRequest {
    let mut end = site.key("").into_bytes();
    *end.last_mut().expect("it ends with a slash") += 1;
    pb::WatchCreateRequest { range_end: end.into(), ..of(site.key("")) }
}

async fn w01_the_first_message_says_that_the_watcher_was_created(site: Site) {
    let at = revision(&site.put("k", "1").await.header);
    let (mut watch, created) =
        Watch::open(&site, pb::WatchCreateRequest { start_revision: at, ..of(site.key("k")) }).await;
    assert!(created.created && !created.canceled && created.events.is_empty(), "{created:?}");
    assert!(revision(&created.header) >= at);
    assert_eq!(watch.events(1).await, [(EventType::Put, site.key("k").into(), at)]);
}

async fn w02_numbers_are_assigned_or_chosen_and_never_twice(site: Site) {
    let (mut watch, first) = Watch::open(&site, of(site.key("k"))).await;
    let second = watch.create(of(site.key("k"))).await;
    assert_eq!((first.watch_id, second.watch_id), (0, 1));
    let chosen = watch.create(pb::WatchCreateRequest { watch_id: 7, ..of(site.key("k")) }).await;
    assert_eq!((chosen.watch_id, chosen.created, chosen.canceled), (7, true, false));
    let twice = watch.create(pb::WatchCreateRequest { watch_id: 7, ..of(site.key("k")) }).await;
    assert_eq!((twice.watch_id, twice.created, twice.canceled), (-1, true, true));
    assert_eq!(twice.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
}

async fn w03_an_empty_range_is_refused(site: Site) {
    let empty = |end: &str| pb::WatchCreateRequest { range_end: site.key(end).into(), ..of(site.key("k")) };
    let (mut watch, first) = Watch::open(&site, empty("a")).await;
    let second = watch.create(empty("k")).await;
    for refused in [first, second] {
        assert_eq!((refused.watch_id, refused.created, refused.canceled), (-1, true, true));
        assert_eq!(refused.cancel_reason, "mvcc: watcher range is empty");
    }
}

async fn w04_an_empty_key_is_the_first_one_and_an_end_of_zero_is_none(site: Site) {
    let all = pb::WatchCreateRequest { range_end: Bytes::from_static(b"\0"), ..of("") };
    let (mut watch, _) = Watch::open(&site, all).await;
    let (mut single, _) = Watch::open(&site, of("")).await;
    let mut kv = site.kv();
    kv.put(pb::PutRequest { key: Bytes::from_static(b"\0"), ..Default::default() }).await.expect("written");
    kv.put(pb::PutRequest { key: Bytes::from_static(b"\xff\xff"), ..Default::default() }).await.expect("written");
    let keys: Vec<_> = watch.events(2).await.into_iter().map(|(_, key, _)| key).collect();
    assert_eq!(keys, [&b"\0"[..], b"\xff\xff"]);
    assert_eq!(single.events(1).await[0].1, &b"\0"[..]);
}

async fn w05_without_a_start_only_later_events_come(site: Site) {
    site.put("k", "before").await;
    let (mut watch, created) = Watch::open(&site, of(site.key("k"))).await;
    let at = revision(&site.put("k", "after").await.header);
    let events = watch.events(1).await;
    assert_eq!(events, [(EventType::Put, site.key("k").into(), at)]);
    assert!(at > revision(&created.header));
}

async fn w06_history_comes_first_and_no_revision_is_split(site: Site) {
    let mut at = Vec::new();
    for round in 0..700 {
        let ops = (0..3).map(|part| op_put(&site.key(&format!("{part}")), &format!("{round}"))).collect();
        let written = site.kv().txn(all(ops)).await.expect("written").into_inner();
        at.push(revision(&written.header));
    }
    let from = pb::WatchCreateRequest { start_revision: at[0], ..prefix(&site) };
    let (mut watch, _) = Watch::open(&site, from).await;
    let mut seen = Vec::new();
    while seen.len() < 2_100 {
        let message = watch.next().await;
        let revisions: Vec<i64> =
            message.events.iter().map(|event| event.kv.as_ref().expect("a key").mod_revision).collect();
        let last = *revisions.last().expect("events");
        assert_eq!(revisions.iter().filter(|revision| **revision == last).count(), 3, "a revision is split");
        assert!(revision(&message.header) >= last);
        seen.extend(revisions);
    }
    let expected: Vec<i64> = at.iter().flat_map(|at| [*at; 3]).collect();
    assert_eq!(seen, expected);
}

async fn w07_a_future_start_waits(site: Site) {
    let now = revision(&site.put("k", "1").await.header);
    let later = pb::WatchCreateRequest { start_revision: now + 3, ..of(site.key("k")) };
    let (mut watch, created) = Watch::open(&site, later).await;
    assert!(created.created && !created.canceled);
    for value in ["2", "3", "4"] {
        site.put("k", value).await;
    }
    assert_eq!(watch.events(1).await[0].2, now + 3);
}

async fn w08_a_compacted_start_is_cancelled_after_the_creation(site: Site) {
    let first = revision(&site.put("k", "1").await.header);
    let at = revision(&site.put("k", "2").await.header);
    site.compact(at).await;
    let (mut watch, created) =
        Watch::open(&site, pb::WatchCreateRequest { start_revision: first, ..of(site.key("k")) }).await;
    assert!(created.created && !created.canceled, "{created:?}");
    let cancelled = watch.next().await;
    assert_eq!((cancelled.canceled, cancelled.compact_revision), (true, at), "{cancelled:?}");
    assert_eq!((revision(&cancelled.header), cancelled.cancel_reason.as_str()), (0, ""));
}

async fn w09_a_negative_start_is_refused(site: Site) {
    let (_, refused) = Watch::open(&site, pb::WatchCreateRequest { start_revision: -1, ..of(site.key("k")) }).await;
    assert_eq!((refused.watch_id, refused.created, refused.canceled), (-1, true, true));
    assert_eq!(refused.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
}

async fn w10_the_events_of_a_revision_come_in_one_message(site: Site) {
    let (mut watch, _) = Watch::open(&site, prefix(&site)).await;
    site.put("b", "0").await;
    watch.events(1).await;
    let ops = vec![op_put(&site.key("c"), "1"), op_delete(&site.key("b"), ""), op_put(&site.key("a"), "2")];
    let at = revision(&site.kv().txn(all(ops)).await.expect("written").into_inner().header);
    let message = watch.next().await;
    let seen: Vec<_> = message.events.iter().map(|event| (event.r#type(), event.kv.clone().expect("a key"))).collect();
    let keys: Vec<_> = seen.iter().map(|(kind, kv)| (*kind, kv.key.clone(), kv.mod_revision)).collect();
    let expected = [(EventType::Put, "c"), (EventType::Delete, "b"), (EventType::Put, "a")];
    assert_eq!(keys, expected.map(|(kind, key)| (kind, Bytes::from(site.key(key)), at)));
}

async fn w11_a_put_has_the_key_and_a_deletion_its_revision(site: Site) {
    let (mut watch, _) = Watch::open(&site, of(site.key("k"))).await;
    let mut put_one = put(&site.key("k"), "v");
    put_one.value = Bytes::from_static(b"value");
    let created = revision(&site.try_put(put_one).await.expect("written").header);
    let deleted = revision(&site.delete("k").await.header);
    let event = watch.next().await.events.remove(0);
    let kv = event.kv.expect("a key");
    assert_eq!((&kv.value[..], kv.version, kv.create_revision, kv.mod_revision), (&b"value"[..], 1, created, created));
    let event = watch.next().await.events.remove(0);
    assert_eq!(event.r#type(), EventType::Delete);
    let kv = event.kv.expect("a key");
    assert_eq!((kv.mod_revision, kv.create_revision, kv.version, kv.value.len()), (deleted, 0, 0, 0));
    assert!(event.prev_kv.is_none());
}

async fn w12_the_key_before_comes_with_updates_and_deletions(site: Site) {
    let (mut watch, _) = Watch::open(&site, pb::WatchCreateRequest { prev_kv: true, ..of(site.key("k")) }).await;
    site.put("k", "1").await;
    site.put("k", "2").await;
    site.delete("k").await;
    let mut before = Vec::new();
    while before.len() < 3 {
        let events = watch.next().await.events;
        before.extend(events.into_iter().map(|event| event.prev_kv.map(|kv| (kv.value, kv.version))));
    }
    assert_eq!(before, [None, Some((Bytes::from_static(b"1"), 1)), Some((Bytes::from_static(b"2"), 2))]);
}

async fn w13_filters_drop_puts_or_deletions(site: Site) {
    let filtered = |filter: FilterType| pb::WatchCreateRequest { filters: vec![filter as i32], ..of(site.key("k")) };
    let (mut no_put, _) = Watch::open(&site, filtered(FilterType::Noput)).await;
    let (mut no_delete, _) = Watch::open(&site, filtered(FilterType::Nodelete)).await;
    let first = revision(&site.put("k", "1").await.header);
    let deleted = revision(&site.delete("k").await.header);
    let second = revision(&site.put("k", "2").await.header);
    let at = |events: Vec<(EventType, Bytes, i64)>| events.into_iter().map(|(_, _, at)| at).collect::<Vec<_>>();
    assert_eq!(at(no_put.events(1).await), [deleted]);
    assert_eq!(at(no_delete.events(2).await), [first, second]);
}

async fn w14_large_messages_are_split_if_that_is_wanted(site: Site) {
    let value = "v".repeat(1_000_000);
    let first = revision(&site.put("a", &value).await.header);
    for key in ["b", "c", "d"] {
        site.put(key, &value).await;
    }
    let from = pb::WatchCreateRequest { start_revision: first, fragment: true, ..prefix(&site) };
    let (mut watch, _) = Watch::open(&site, from).await;
    let (mut events, mut messages) = (0, 0);
    while events < 4 {
        let message = watch.next().await;
        events += message.events.len();
        messages += 1;
        assert!(message.events.len() <= 2, "{} events in one fragment", message.events.len());
        assert!(!message.fragment || events < 4, "the last one is no fragment");
    }
    assert!(messages >= 2, "{messages} messages");
}

async fn w15_a_cancellation_is_confirmed_and_an_unknown_one_is_not(site: Site) {
    let (mut watch, created) = Watch::open(&site, of(site.key("k"))).await;
    watch.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 99 })).await;
    watch.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: created.watch_id })).await;
    let cancelled = watch.next().await;
    assert_eq!((cancelled.watch_id, cancelled.canceled), (created.watch_id, true));
    assert_eq!(cancelled.compact_revision, 0);
    site.put("k", "1").await;
    let again = watch.create(of(site.key("k"))).await;
    assert!(again.created && !again.canceled, "the stream lives, and says nothing of what was cancelled: {again:?}");
}

async fn w16_progress_is_told_for_the_stream(site: Site) {
    let first = revision(&site.put("k", "1").await.header);
    let (mut watch, _) =
        Watch::open(&site, pb::WatchCreateRequest { start_revision: first, ..of(site.key("k")) }).await;
    watch.events(1).await;
    watch.create(of(site.key("other"))).await;
    let at = revision(&site.put("k", "2").await.header);
    watch.events(1).await;
    // etcd says nothing while a watcher is not synchronised: ask again then.
    let progress = loop {
        watch.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
        if let Ok(message) = tokio::time::timeout(Duration::from_millis(500), watch.responses.message()).await {
            break message.expect("no error").expect("a message");
        }
    };
    assert_eq!((progress.watch_id, progress.events.len(), progress.created), (-1, 0, false), "{progress:?}");
    assert!(revision(&progress.header) >= at);
}

async fn w17_progress_is_told_to_a_quiet_watcher_that_asks(site: Site) {
    let asks = pb::WatchCreateRequest { progress_notify: true, watch_id: 5, ..of(site.key("k")) };
    let (mut watch, _) = Watch::open(&site, asks).await;
    watch.create(of(site.key("k"))).await;
    assert!(watch.next().await.events.is_empty());
    // A write of another key is progress too.
    let at = revision(&site.put("other", "1").await.header);
    let mut progress = watch.next().await;
    while revision(&progress.header) < at {
        progress = watch.next().await;
    }
    assert_eq!((progress.watch_id, progress.events.len(), progress.canceled), (5, 0, false), "{progress:?}");
    assert_eq!(revision(&progress.header), at);
}

/// A write as a watcher must see it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    kind: EventType,
    kv: KeyValue,
    before: Option<KeyValue>,
}

/// The events of a message, and the revision in its header. The events are ordered, and none is split off.
fn events_of(message: pb::WatchResponse, last: &mut i64) -> Vec<Seen> {
    assert!(!message.canceled && !message.created && !message.fragment, "{message:?}");
    let at = revision(&message.header);
    let see = |event: mvccpb::Event| {
        let (kind, kv) = (event.r#type(), event.kv.expect("a key"));
        Seen { kind, kv, before: event.prev_kv }
    };
    let events: Vec<Seen> = message.events.into_iter().map(see).collect();
    let Some(first) = events.first() else { return events };
    assert!(first.kv.mod_revision > *last, "a revision comes again, or its events come in two messages");
    assert!(events.is_sorted_by_key(|seen| seen.kv.mod_revision), "Ordered");
    *last = events.last().map_or(*last, |seen| seen.kv.mod_revision);
    assert!(at >= *last, "the header is of before the events");
    events
}

/// Puts, deletions and transactions of a few keys; returns the revision of the last.
async fn write_at_random(site: &Site, writer: u64) -> i64 {
    let (mut random, mut last) = (Random::new(writer), 0);
    let mut kv = site.kv();
    for round in 0..60 {
        let mut keys: Vec<u64> = (0..4).collect();
        random.shuffle(&mut keys);
        keys.truncate(1 + usize::try_from(random.below(3)).expect("a small number"));
        let op = |key: &u64| match random.chance(0.25) {
            true => op_delete(&site.key(&key.to_string()), ""),
            false => op_put(&site.key(&key.to_string()), &format!("{writer}/{round}")),
        };
        let ops = keys.iter().map(op).collect();
        last = revision(&kv.txn(all(ops)).await.expect("written").get_ref().header);
    }
    last
}

/// Watches until a revision, and starts anew after each message if `resumes`.
async fn watch_until(site: &Site, from: i64, until: i64, resumes: bool) -> Vec<Seen> {
    let request = |from| pb::WatchCreateRequest { start_revision: from, prev_kv: true, ..prefix(site) };
    let (mut seen, mut last) = (Vec::new(), from - 1);
    let (mut watch, _) = Watch::open(site, request(from)).await;
    while last < until {
        seen.extend(events_of(watch.next().await, &mut last));
        if resumes {
            (watch, _) = Watch::open(site, request(last + 1)).await;
        }
    }
    seen
}

async fn w18_the_published_guarantees_hold(site: Site) {
    let first = site.revision().await + 1;
    let (live, _) = Watch::open(&site, pb::WatchCreateRequest { prev_kv: true, ..prefix(&site) }).await;
    let ((a, b, c), resumed) = tokio::join!(
        async { tokio::join!(write_at_random(&site, 1), write_at_random(&site, 2), write_at_random(&site, 3)) },
        watch_until(&site, first, first + 60, true),
    );
    let until = a.max(b).max(c);
    let (mut watch, mut seen, mut last) = (live, Vec::new(), first - 1);
    while last < until {
        seen.extend(events_of(watch.next().await, &mut last));
    }
    // Reliable and Resumable: live, from history and with breaks, the same events.
    assert_eq!(watch_until(&site, first, until, false).await, seen);
    assert_eq!(resumed, seen[..resumed.len()]);
    // Unique, Reliable and Atomic: together the events are the state, and each revision's are those of its transaction.
    let mut state: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
    for Seen { kind, kv, before } in &seen {
        assert_eq!(state.remove(&kv.key), *before, "the key before");
        match kind {
            EventType::Put => {
                let created = before.as_ref().map_or((kv.mod_revision, 1), |kv| (kv.create_revision, kv.version + 1));
                assert_eq!((kv.create_revision, kv.version), created);
                state.insert(kv.key.clone(), kv.clone());
            }
            EventType::Delete => assert!(before.is_some(), "nothing is deleted twice"),
        }
    }
    assert_eq!(site.range(site.all()).await.kvs, state.into_values().collect::<Vec<_>>());
    for at in [first, first + 20, until] {
        let kvs = site.range(pb::RangeRequest { revision: at, min_mod_revision: at, ..site.all() }).await.kvs;
        let puts = seen.iter().filter(|seen| seen.kv.mod_revision == at && seen.kind == EventType::Put);
        let mut puts: Vec<KeyValue> = puts.map(|seen| seen.kv.clone()).collect();
        puts.sort_by(|one, other| one.key.cmp(&other.key));
        assert_eq!(kvs, puts);
    }
    // Bookmarkable: all events up to the revision of a message of progress were sent.
    watch.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let progress = watch.next().await;
    assert_eq!((progress.events.len(), revision(&progress.header)), (0, until));
}

async fn w19_a_client_that_does_not_read_delays_nobody_and_loses_nothing(site: Site) {
    const VALUES: usize = 300;
    let first = site.revision().await + 1;
    // A connection of its own: what is not read fills the window of the whole connection.
    let (mut stalled, _) = Watch::open_on(site.channel_to(0).await, of(site.key("k")), false).await;
    let (mut other, _) = Watch::open_on(site.channel_to(0).await, of(site.key("k")), false).await;
    let value = "v".repeat(100_000);
    let mut last = first - 1;
    for _ in 0..VALUES {
        let at = revision(&site.put("k", &value).await.header);
        while last < at {
            last = other.events(1).await[0].2;
        }
    }
    let revisions = stalled.events(VALUES).await.into_iter().map(|(_, _, at)| at);
    assert!(revisions.eq(first..=last), "each event once");
}

async fn w20_a_stream_that_requires_a_leader_ends_without_one(mut site: Site) {
    let cluster = site.members();
    let leader = cluster.leader().await;
    let stays = cluster.follower().await;
    let (mut insists, _) = Watch::open_on(cluster.channel(stays).await, of("k"), true).await;
    let (mut quiet, _) = Watch::open_on(cluster.channel(stays).await, of("k"), false).await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != stays).collect();
    others.iter().for_each(|id| cluster.kill(*id));
    let ended = tokio::time::timeout(PATIENCE, insists.responses.message()).await.expect("it ends in time");
    let error = ended.expect_err("it ends");
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "etcdserver: no leader"));
    // Whoever did not ask for that waits, and goes on.
    others.iter().for_each(|id| cluster.restart(*id));
    cluster.leader_of_all().await;
    cluster.client(leader).await.put(put("k", "v")).await.expect("written");
    assert_eq!(quiet.events(1).await[0].1, "k");
}

async fn w22_a_watcher_misses_nothing_when_its_member_gets_a_snapshot(mut site: Site) {
    let all = || pb::WatchCreateRequest { range_end: Bytes::from_static(b"\0"), ..of("a") };
    let cluster = site.members();
    let leader = cluster.leader().await;
    let behind = cluster.follower().await;
    let third = (1..=3).find(|id| *id != leader && *id != behind).expect("there are three");
    let mut client = cluster.client(leader).await;
    let start = revision(&client.put(put("k", "first")).await.expect("written").get_ref().header);
    cluster.kill(behind);
    // More than the log keeps.
    for number in 0..200 {
        client.put(put(&format!("k/{number:03}"), &"x".repeat(2_000))).await.expect("written");
    }
    // Nobody can lead, so nobody sends a snapshot before the watchers are there.
    cluster.kill(third);
    cluster.without_leader(leader).await;
    cluster.restart(behind);
    let from_start = pb::WatchCreateRequest { start_revision: start, ..all() };
    let (mut from_start, created) = Watch::open_on(cluster.channel(behind).await, from_start, false).await;
    let behind_at = revision(&created.header);
    let (mut live, created) = Watch::open_on(cluster.channel(behind).await, all(), false).await;
    assert_eq!(revision(&created.header), behind_at, "it has nothing new yet");
    assert!(behind_at < start + 200, "it is behind");
    cluster.restart(third);
    let last = start + 200;
    for (watch, first) in [(&mut from_start, start), (&mut live, behind_at + 1)] {
        let count = usize::try_from(last + 1 - first).expect("more than none");
        let revisions = watch.events(count).await.into_iter().map(|(_, _, at)| at);
        assert!(revisions.eq(first..=last), "each event once");
    }
    let metrics = http(cluster.server(behind).client_address(), "GET /metrics").await;
    assert!(metrics.contains("\netcd_network_snapshot_receive_success{"), "it got no snapshot: {metrics}");
}

/// The answer to a request for a watcher by somebody.
async fn asked_by(
    visitor: &Visitor,
    request: pb::WatchCreateRequest,
) -> (Streaming<pb::WatchResponse>, pb::WatchResponse) {
    let requests = tokio_stream::iter([wrapped(RequestUnion::CreateRequest(request))]).chain(tokio_stream::pending());
    let mut responses = visitor.watches().watch(requests).await.expect("a stream").into_inner();
    let first = tokio::time::timeout(PATIENCE, responses.message()).await.expect("in time");
    (responses, first.expect("no error").expect("it is open"))
}

const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";

fn is_denied(answer: &pb::WatchResponse) -> bool {
    (answer.watch_id, answer.created, answer.canceled, &answer.cancel_reason[..]) == (-1, true, true, DENIED)
}

async fn w21_a_refusal_comes_in_the_stream(site: Site) {
    let (nobody, _) = with_users(&site, &[("ann", &[(Kind::Read, "k", "m"), (Kind::Write, "w", "")])]).await;
    let ann = nobody.log_in_as("ann").await;
    for (key, end) in [("a", ""), ("w", ""), ("k", "n"), ("k", "\0"), ("", "\0")] {
        let request = pb::WatchCreateRequest { range_end: end.into(), ..of(key) };
        let (_, answer) = asked_by(&ann, request).await;
        assert!(is_denied(&answer), "{key:?} {end:?}: {answer:?}");
    }
    let request = pb::WatchCreateRequest { range_end: "m".into(), ..of("k") };
    let (_, answer) = asked_by(&ann, request).await;
    assert!(answer.created && !answer.canceled, "{answer:?}");
}

/// No event of a write after the permission was taken is sent.
async fn w21_a_watch_ends_with_the_permission(site: Site) {
    let (nobody, root) = with_users(&site, &[("ann", &[(Kind::Read, "k", ""), (Kind::Read, "l", "")])]).await;
    let ann = nobody.log_in_as("ann").await;
    let at = revision(&root.put_value("k", "1").await.header);
    let (mut live, _) = asked_by(&ann, of("k")).await;
    let (mut other, _) = asked_by(&ann, of("l")).await;
    let history = pb::WatchCreateRequest { start_revision: at, ..of("k") };
    let (mut lagging, _) = asked_by(&ann, history).await;
    let first = lagging.message().await.expect("no error").expect("it is open");
    assert_eq!(first.events.len(), 1);
    root.revoke("ann", "k", "").await.expect("root may");
    root.put_value("k", "secret").await;
    root.put_value("l", "told").await;
    for stream in [&mut live, &mut lagging] {
        let answer = tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time");
        let answer = answer.expect("no error").expect("it is open");
        assert!(answer.canceled && answer.events.is_empty(), "{answer:?}");
        assert_eq!(answer.cancel_reason, DENIED);
    }
    let answer = other.message().await.expect("no error").expect("it is open");
    assert_eq!(&answer.events[0].kv.as_ref().expect("a key").value[..], b"told");
}

async fn w23_permission_is_checked_for_the_range_that_is_watched(site: Site) {
    let (nobody, _) =
        with_users(&site, &[("ann", &[(Kind::Read, "k", "")]), ("all", &[(Kind::Read, "\0", "\0")])]).await;
    let (ann, all) = (nobody.log_in_as("ann").await, nobody.log_in_as("all").await);
    // A permission for one key is none for all keys after it, nor for a range that begins with it.
    for end in ["\0", "k\0\0", "l"] {
        let request = pb::WatchCreateRequest { range_end: end.into(), ..of("k") };
        assert!(is_denied(&asked_by(&ann, request.clone()).await.1), "{end:?}");
        assert!(!asked_by(&all, request).await.1.canceled, "{end:?}");
    }
    // No key is the first key.
    let everything = pb::WatchCreateRequest { range_end: "\0".into(), ..of("") };
    assert!(is_denied(&asked_by(&ann, everything.clone()).await.1));
    assert!(!asked_by(&all, everything).await.1.canceled);
    assert!(is_denied(&asked_by(&ann, of("")).await.1));
}
