//! Compaction.

use bowline_api::etcdserverpb as pb;
use pb::watch_client::WatchClient;
use tonic::Code;

use crate::line::{Line, line};
use crate::requests::*;
use crate::site::{Site, refused, revision};

const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line!(Fresh, c01_the_future_and_what_is_compacted_are_refused),
        line!(Fresh, c02_reads_at_the_compacted_revision_succeed_and_before_it_fail),
        line!(Members, c02_the_member_that_was_asked_has_compacted_when_it_answers),
        line!(Fresh, c02_a_watch_from_the_compacted_revision_succeeds_and_from_before_it_fails),
        line!(Fresh, c03_a_tombstone_at_the_compacted_revision_is_still_watched)
            .not_on_3_4("3.4.23 never tells of it, which is the bug that the line is about (etcd#19179)"),
        line!(Fresh, c04_a_physical_compaction_is_answered_when_the_data_is_gone),
        line!(Fresh, c05_the_newest_value_of_each_key_stays),
        line!(Fresh, c06_a_compaction_blocks_neither_reads_nor_writes),
        line!(Fresh, c07_old_revisions_are_compacted_automatically).with(&[("auto_compaction_retention", "1s")]),
        line!(Members, c07_a_new_leader_compacts_automatically).with(&[("auto_compaction_retention", "1s")]),
    ]
}

async fn c01_the_future_and_what_is_compacted_are_refused(site: Site) {
    site.put("k", "1").await;
    let at = revision(&site.put("k", "2").await.header);
    refused(site.try_compact(at + 1).await, Code::OutOfRange, FUTURE);
    refused(site.try_compact(i64::MAX).await, Code::OutOfRange, FUTURE);
    site.compact(at - 1).await;
    for revision in [at - 1, at - 2, 0, -1, i64::MIN] {
        refused(site.try_compact(revision).await, Code::OutOfRange, COMPACTED);
    }
    site.compact(at).await;
    refused(site.try_compact(at).await, Code::OutOfRange, COMPACTED);
}

async fn c02_reads_at_the_compacted_revision_succeed_and_before_it_fail(site: Site) {
    let mut at = Vec::new();
    for value in ["1", "2", "3", "4"] {
        at.push(revision(&site.put("k", value).await.header));
    }
    site.compact(at[2]).await;
    let read = |revision| site.try_range(pb::RangeRequest { revision, ..get(&site.key("k")) });
    refused(read(at[1]).await, Code::OutOfRange, COMPACTED);
    refused(read(at[0]).await, Code::OutOfRange, COMPACTED);
    assert_eq!(&read(at[2]).await.expect("read").kvs[0].value[..], b"3");
    assert_eq!(&read(at[3]).await.expect("read").kvs[0].value[..], b"4");
    refused(site.hash(at[1]).await, Code::OutOfRange, COMPACTED);
}

async fn c02_the_member_that_was_asked_has_compacted_when_it_answers(site: Site) {
    for round in 0..30_usize {
        let mut member = site.member(round).await;
        let written = member.put(put(&site.key("k"), "v")).await.expect("written").into_inner();
        let at = revision(&written.header);
        let compaction = pb::CompactionRequest { revision: at, physical: round % 2 == 0 };
        member.compact(compaction).await.expect("compacted");
        let past = pb::RangeRequest { revision: at - 1, serializable: true, ..get(&site.key("k")) };
        refused(member.range(past).await, Code::OutOfRange, COMPACTED);
    }
}

/// What a watch from a revision on gets to see next, after it is created.
async fn watched(site: &Site, start_revision: i64) -> pb::WatchResponse {
    let create = pb::WatchCreateRequest { key: site.key("k").into(), start_revision, ..Default::default() };
    let request = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
    let mut stream = WatchClient::new(site.channel()).watch(requests).await.expect("a stream").into_inner();
    assert!(stream.message().await.expect("told").expect("there is one").created);
    let next = tokio::time::timeout(std::time::Duration::from_secs(5), stream.message()).await;
    next.expect("it is told in time").expect("told").expect("there is one")
}

async fn c02_a_watch_from_the_compacted_revision_succeeds_and_from_before_it_fails(site: Site) {
    site.put("k", "1").await;
    let at = revision(&site.put("k", "2").await.header);
    site.put("k", "3").await;
    site.compact(at).await;
    let seen = watched(&site, at).await;
    assert_eq!((seen.canceled, seen.events.len()), (false, 2));
    let seen = watched(&site, at - 1).await;
    assert_eq!((seen.canceled, seen.compact_revision), (true, at));
}

async fn c03_a_tombstone_at_the_compacted_revision_is_still_watched(site: Site) {
    site.put("k", "1").await;
    let at = revision(&site.delete("k").await.header);
    site.put("other", "2").await;
    site.compact(at).await;
    let seen = watched(&site, at).await;
    assert_eq!((seen.events.len(), seen.events[0].r#type), (1, 1));
    assert_eq!(seen.events[0].kv.as_ref().expect("a key").mod_revision, at);
}

async fn c04_a_physical_compaction_is_answered_when_the_data_is_gone(site: Site) {
    for _ in 0..40 {
        site.put("k", &"x".repeat(100_000)).await;
    }
    let before = until_told(&site, |size| size > 4_000_000).await;
    let at = revision(&site.put("k", "last").await.header);
    let request = pb::CompactionRequest { revision: at, physical: true };
    let done = site.kv().compact(request).await.expect("compacted").into_inner();
    assert_eq!(revision(&done.header), at);
    let after = until_told(&site, |size| size < before - 2_000_000).await;
    assert!(after < before - 2_000_000, "{before} bytes were in use, and {after} are");
}

/// The bytes in use, as soon as they are so, or as they are in the end: etcd tells them a moment late.
async fn until_told(site: &Site, so: impl Fn(i64) -> bool) -> i64 {
    let mut size = 0;
    for _ in 0..50 {
        size = site.status().await.db_size_in_use;
        if so(size) {
            return size;
        }
        // What was given up is free for etcd only after another write.
        site.put("other", "v").await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    size
}

async fn c05_the_newest_value_of_each_key_stays(site: Site) {
    for (name, value) in [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1")] {
        site.put(name, value).await;
    }
    site.delete("c").await;
    let at = revision(&site.put("d", "1").await.header);
    site.put("a", "3").await;
    let before = site.range(pb::RangeRequest { revision: at, ..site.all() }).await;
    let request = pb::CompactionRequest { revision: at, physical: true };
    site.kv().compact(request).await.expect("compacted");
    let after = site.range(pb::RangeRequest { revision: at, ..site.all() }).await;
    assert_eq!((&after.kvs, after.count), (&before.kvs, before.count));
    let values = |found: &pb::RangeResponse| -> Vec<String> {
        found.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()).collect()
    };
    assert_eq!((site.names(&after.kvs).concat().as_str(), values(&after).concat().as_str()), ("abd", "211"));
    assert_eq!(values(&site.range(site.all()).await).concat(), "311");
}

async fn c06_a_compaction_blocks_neither_reads_nor_writes(site: Site) {
    for round in 0..30 {
        let puts = (0..100).map(|number| op_put(&site.key(&format!("{number:02}")), &round.to_string()));
        site.txn(all(puts.collect())).await;
    }
    let at = site.revision().await;
    let compaction = async {
        let request = pb::CompactionRequest { revision: at, physical: true };
        site.kv().compact(request).await.expect("compacted");
    };
    let others = async {
        for number in 0..50 {
            let written = revision(&site.put("other", &number.to_string()).await.header);
            assert_eq!(written, at + number + 1);
            assert_eq!(site.get("99").await.expect("it is there").mod_revision, at);
        }
    };
    tokio::join!(compaction, others);
}

async fn c07_old_revisions_are_compacted_automatically(site: Site) {
    let at = revision(&site.put("k", "1").await.header);
    site.put("k", "2").await;
    compacts(&mut site.kv(), &site.key("k"), at).await;
    assert_eq!(&site.get("k").await.expect("it is there").value[..], b"2");
}

async fn c07_a_new_leader_compacts_automatically(mut site: Site) {
    let key = site.key("k");
    let leader = site.members().leader().await;
    site.members().kill(leader);
    let other = site.members().leader().await;
    let mut client = site.members().client(other).await;
    let at = revision(&client.put(put(&key, "1")).await.expect("written").into_inner().header);
    client.put(put(&key, "2")).await.expect("written");
    compacts(&mut client, &key, at).await;
}

/// Waits until a revision is compacted, with no request to compact it.
async fn compacts(client: &mut pb::kv_client::KvClient<tonic::transport::Channel>, key: &str, revision: i64) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let past = pb::RangeRequest { revision, ..get(key) };
        match client.range(past).await {
            Err(status) if status.message() == COMPACTED => return,
            other => drop(other.expect("it is readable until then")),
        }
        assert!(std::time::Instant::now() < until, "revision {revision} is not compacted");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
