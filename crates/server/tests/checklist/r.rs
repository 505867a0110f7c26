//! Reads.

use bowline_api::etcdserverpb as pb;
use bytes::Bytes;
use pb::compare::TargetUnion;
use tonic::Code;

use crate::line::{Line, line};
use crate::requests::*;
use crate::site::{Site, refused, revision};

const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line!(Shared, r01_an_empty_key_is_refused_everywhere),
        line!(Fresh, r02_the_end_names_one_key_a_range_or_all_that_follow),
        line!(Fresh, r03_the_end_of_a_prefix_carries),
        line!(Shared, r04_a_range_that_ends_before_it_begins_is_empty),
        line!(Shared, r05_keys_come_in_the_order_of_their_bytes),
        line!(Shared, r06_a_limit_of_zero_or_less_is_none),
        line!(Shared, r07_a_limit_sets_more_and_does_not_change_the_count),
        line!(Shared, r08_count_only_counts_all),
        line!(Shared, r09_keys_only_leaves_out_the_values_alone),
        line!(Shared, r10_keys_only_sorts_by_the_real_values),
        line!(Shared, r11_bounds_on_revisions_are_inclusive_and_do_not_change_the_count),
        line!(Shared, r12_every_target_sorts_both_ways_and_none_means_ascending),
        line!(Shared, r13_the_whole_range_is_sorted_before_it_is_cut),
        line!(Shared, r13_without_an_order_only_what_the_limit_takes_is_sorted),
        line!(Shared, r14_unknown_sort_options_are_refused)
            .not_on_etcd("one such request ends the process of etcd 3.4 and 3.5"),
        line!(Shared, r15_zero_or_less_is_the_latest_and_the_future_is_refused),
        line!(Fresh, r16_the_compacted_revision_is_the_oldest_that_is_readable),
        line!(Shared, r17_a_deleted_key_is_still_there_in_the_past),
        line!(Members, r18_a_read_sees_what_was_written_through_any_member),
        line!(Members, r19_a_serializable_read_needs_nobody_else),
        line!(Shared, r20_a_streamed_range_merges_to_the_same_range).not_on_etcd("RangeStream came with etcd 3.7"),
        line!(Shared, r21_a_method_that_is_not_there_is_unimplemented),
    ]
}

async fn fill(site: &Site, names: &[&str]) {
    for name in names {
        site.put(name, &format!("value of {name}")).await;
    }
}

async fn r01_an_empty_key_is_refused_everywhere(site: Site) {
    let text = "etcdserver: key is not provided";
    refused(site.try_range(get("")).await, Code::InvalidArgument, text);
    refused(site.try_range(range("", "z")).await, Code::InvalidArgument, text);
    refused(site.try_put(put("", "v")).await, Code::InvalidArgument, text);
    refused(site.try_delete(delete("")).await, Code::InvalidArgument, text);
    for op in [op_get(""), op_put("", "v"), op_delete("", ""), op_txn(all(vec![op_get("")]))] {
        refused(site.try_txn(all(vec![op.clone()])).await, Code::InvalidArgument, text);
        refused(site.try_txn(branches(vec![], vec![], vec![op])).await, Code::InvalidArgument, text);
    }
    let compared = branches(vec![version_is("", 0)], vec![], vec![]);
    refused(site.try_txn(compared.clone()).await, Code::InvalidArgument, text);
    refused(site.try_txn(all(vec![op_txn(compared)])).await, Code::InvalidArgument, text);
}

async fn r02_the_end_names_one_key_a_range_or_all_that_follow(site: Site) {
    let kv = |key: &str, end: &str| site.try_range(range(key, end));
    for key in ["a", "ab", "b", "c"] {
        site.try_put(put(key, "v")).await.expect("written");
    }
    let names = |response: pb::RangeResponse| {
        response.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(kv("a", "").await.expect("read")), ["a"]);
    assert_eq!(names(kv("a", "b").await.expect("read")), ["a", "ab"]);
    assert_eq!(names(kv("ab", "\0").await.expect("read")), ["ab", "b", "c"]);
    assert_eq!(names(kv("\0", "\0").await.expect("read")), ["a", "ab", "b", "c"]);
    assert_eq!(site.try_delete(delete_range("b", "\0")).await.expect("deleted").deleted, 2);
    assert_eq!(names(kv("\0", "\0").await.expect("read")), ["a", "ab"]);
}

async fn r03_the_end_of_a_prefix_carries(site: Site) {
    let keys: [&[u8]; 5] = [b"a\xfe", b"a\xff", b"a\xff\xff", b"b", b"\xff\xff"];
    for key in keys {
        let request = pb::PutRequest { key: Bytes::from_static(key), ..pb::PutRequest::default() };
        site.try_put(request).await.expect("written");
    }
    for (prefix, end, expected) in [
        (&b"a\xff"[..], &b"b"[..], &keys[1..3]),
        (b"a", b"b", &keys[..3]),
        (b"\xff", b"\0", &keys[4..]),
        (b"\xff\xff", b"\0", &keys[4..]),
    ] {
        assert_eq!(&bowline_kv::store::prefix_end(prefix)[..], end);
        let request = pb::RangeRequest {
            key: Bytes::copy_from_slice(prefix),
            range_end: Bytes::copy_from_slice(end),
            ..pb::RangeRequest::default()
        };
        let found = site.range(request).await;
        let found: Vec<&[u8]> = found.kvs.iter().map(|kv| &kv.key[..]).collect();
        assert_eq!(found, expected);
    }
}

async fn r04_a_range_that_ends_before_it_begins_is_empty(site: Site) {
    fill(&site, &["a", "b", "c"]).await;
    for (from, to) in [("b", "a"), ("b", "b"), ("c", "a")] {
        let found = site.range(range(&site.key(from), &site.key(to))).await;
        assert_eq!((found.kvs.len(), found.count, found.more), (0, 0, false));
        let deleted = site.try_delete(delete_range(&site.key(from), &site.key(to))).await.expect("done");
        assert_eq!(deleted.deleted, 0);
    }
    assert_eq!(site.range(site.all()).await.count, 3);
}

async fn r05_keys_come_in_the_order_of_their_bytes(site: Site) {
    fill(&site, &["b", "aa", "B", "a", "ab", "ä"]).await;
    assert_eq!(site.names(&site.range(site.all()).await.kvs), ["B", "a", "aa", "ab", "b", "ä"]);
}

async fn r06_a_limit_of_zero_or_less_is_none(site: Site) {
    fill(&site, &["a", "b", "c"]).await;
    for limit in [0, -1, i64::MIN] {
        let found = site.range(pb::RangeRequest { limit, ..site.all() }).await;
        assert_eq!((found.kvs.len(), found.count, found.more), (3, 3, false), "with limit {limit}");
    }
}

async fn r07_a_limit_sets_more_and_does_not_change_the_count(site: Site) {
    fill(&site, &["a", "b", "c"]).await;
    for (limit, shown, more) in [(1, 1, true), (2, 2, true), (3, 3, false), (4, 3, false), (i64::MAX, 3, false)] {
        let found = site.range(pb::RangeRequest { limit, ..site.all() }).await;
        assert_eq!((found.kvs.len(), found.count, found.more), (shown, 3, more), "with limit {limit}");
    }
}

async fn r08_count_only_counts_all(site: Site) {
    fill(&site, &["a", "b", "c"]).await;
    for limit in [0, 2] {
        let found = site.range(pb::RangeRequest { limit, count_only: true, ..site.all() }).await;
        assert_eq!((found.kvs.len(), found.count), (0, 3), "with limit {limit}");
    }
}

async fn r09_keys_only_leaves_out_the_values_alone(site: Site) {
    fill(&site, &["a", "b", "a"]).await;
    let whole = site.range(site.all()).await.kvs;
    let bare = site.range(pb::RangeRequest { keys_only: true, ..site.all() }).await.kvs;
    let mut expected = whole.clone();
    expected.iter_mut().for_each(|kv| kv.value.clear());
    assert!(whole.iter().all(|kv| !kv.value.is_empty()) && whole[0].version == 2);
    assert_eq!(bare, expected);
}

async fn r10_keys_only_sorts_by_the_real_values(site: Site) {
    for (name, value) in [("a", "2"), ("b", "3"), ("c", "1")] {
        site.put(name, value).await;
    }
    let request = pb::RangeRequest { keys_only: true, sort_target: 4, sort_order: 1, ..site.all() };
    let found = site.range(request).await;
    assert_eq!(site.names(&found.kvs), ["c", "a", "b"]);
    assert!(found.kvs.iter().all(|kv| kv.value.is_empty()));
}

async fn r11_bounds_on_revisions_are_inclusive_and_do_not_change_the_count(site: Site) {
    let mut at = Vec::new();
    for name in ["a", "b", "c", "d", "a"] {
        at.push(revision(&site.put(name, "v").await.header));
    }
    let found = async |bounds: pb::RangeRequest| {
        let found = site.range(bounds).await;
        assert_eq!(found.count, 4);
        (site.names(&found.kvs).concat(), found.more)
    };
    let all = || site.all();
    let written = pb::RangeRequest { min_mod_revision: at[2], max_mod_revision: at[3], ..all() };
    assert_eq!(found(written).await, ("cd".to_owned(), false));
    assert_eq!(found(pb::RangeRequest { min_mod_revision: at[3], ..all() }).await.0, "ad");
    assert_eq!(found(pb::RangeRequest { max_mod_revision: at[2], ..all() }).await.0, "bc");
    let created = pb::RangeRequest { min_create_revision: at[0], max_create_revision: at[1], ..all() };
    assert_eq!(found(created).await.0, "ab");
    assert_eq!(found(pb::RangeRequest { min_create_revision: at[3], ..all() }).await.0, "d");
    // The limit comes after the bounds.
    let cut = pb::RangeRequest { min_mod_revision: at[2], limit: 2, ..all() };
    assert_eq!(found(cut).await, ("ac".to_owned(), true));
    let cut = pb::RangeRequest { min_mod_revision: at[2], limit: 3, ..all() };
    assert_eq!(found(cut).await, ("acd".to_owned(), false));
}

async fn r12_every_target_sorts_both_ways_and_none_means_ascending(site: Site) {
    for (name, value) in [("c", "9"), ("a", "9"), ("b", "2"), ("c", "1"), ("a", "8"), ("a", "3")] {
        site.put(name, value).await;
    }
    let orders = [(0, "abc"), (1, "bca"), (2, "cab"), (3, "bca"), (4, "cba")];
    for (sort_target, ascending) in orders {
        let descending: String = ascending.chars().rev().collect();
        for (sort_order, expected) in [(0, ascending), (1, ascending), (2, &descending)] {
            let found = site.range(pb::RangeRequest { sort_target, sort_order, ..site.all() }).await;
            let found = site.names(&found.kvs).concat();
            assert_eq!(found, expected, "target {sort_target}, order {sort_order}");
        }
    }
}

async fn r13_the_whole_range_is_sorted_before_it_is_cut(site: Site) {
    fill(&site, &["d", "c", "b", "a"]).await;
    let first_created = pb::RangeRequest { sort_target: 2, sort_order: 1, limit: 1, ..site.all() };
    let found = site.range(first_created).await;
    assert_eq!((site.names(&found.kvs).concat().as_str(), found.count, found.more), ("d", 4, true));
    let last_key = pb::RangeRequest { sort_target: 0, sort_order: 2, limit: 2, ..site.all() };
    assert_eq!(site.names(&site.range(last_key).await.kvs).concat(), "dc");
}

async fn r13_without_an_order_only_what_the_limit_takes_is_sorted(site: Site) {
    for (name, value) in [("a", "4"), ("b", "3"), ("c", "1"), ("d", "0")] {
        site.put(name, value).await;
    }
    let found = site.range(pb::RangeRequest { sort_target: 4, limit: 2, ..site.all() }).await;
    assert_eq!((site.names(&found.kvs).concat().as_str(), found.count, found.more), ("cb", 4, true));
}

async fn r14_unknown_sort_options_are_refused(site: Site) {
    fill(&site, &["a", "b"]).await;
    let text = "etcdserver: invalid sort option";
    for number in [5, 6, 7, -1, i32::MAX, i32::MIN] {
        let by_target = pb::RangeRequest { sort_target: number, ..site.all() };
        let by_order = pb::RangeRequest { sort_order: number, ..site.all() };
        for request in [by_target, by_order] {
            refused(site.try_range(request.clone()).await, Code::InvalidArgument, text);
            refused(site.try_txn(all(vec![op_range(request)])).await, Code::InvalidArgument, text);
        }
    }
    assert_eq!(site.range(site.all()).await.count, 2);
}

async fn r15_zero_or_less_is_the_latest_and_the_future_is_refused(site: Site) {
    site.put("k", "1").await;
    let at = revision(&site.put("k", "2").await.header);
    for revision in [0, -1, i64::MIN, at] {
        let found = site.range(pb::RangeRequest { revision, ..get(&site.key("k")) }).await;
        assert_eq!(&found.kvs[0].value[..], b"2", "at {revision}");
    }
    for revision in [at + 1_000_000, i64::MAX] {
        for serializable in [false, true] {
            let request = pb::RangeRequest { revision, serializable, ..get(&site.key("k")) };
            refused(site.try_range(request.clone()).await, Code::OutOfRange, FUTURE);
            refused(site.try_txn(all(vec![op_range(request)])).await, Code::OutOfRange, FUTURE);
        }
    }
}

async fn r16_the_compacted_revision_is_the_oldest_that_is_readable(site: Site) {
    let first = revision(&site.put("k", "1").await.header);
    let second = revision(&site.put("k", "2").await.header);
    site.put("k", "3").await;
    site.compact(second).await;
    let at = |revision| pb::RangeRequest { revision, ..get(&site.key("k")) };
    assert_eq!(&site.range(at(second)).await.kvs[0].value[..], b"2");
    for revision in [1, first] {
        refused(site.try_range(at(revision)).await, Code::OutOfRange, COMPACTED);
        refused(site.try_txn(all(vec![op_range(at(revision))])).await, Code::OutOfRange, COMPACTED);
    }
    let past = pb::RangeRequest { revision: -1, ..get(&site.key("k")) };
    assert_eq!(&site.range(past).await.kvs[0].value[..], b"3", "a negative revision is the latest");
}

async fn r17_a_deleted_key_is_still_there_in_the_past(site: Site) {
    let at = revision(&site.put("k", "v").await.header);
    let gone = revision(&site.delete("k").await.header);
    assert_eq!(site.get("k").await, None);
    let found = site.range(pb::RangeRequest { revision: at, ..get(&site.key("k")) }).await;
    assert_eq!(&found.kvs[0].value[..], b"v");
    let found = site.range(pb::RangeRequest { revision: gone, ..get(&site.key("k")) }).await;
    assert_eq!((found.kvs.len(), found.count), (0, 0));
}

async fn r18_a_read_sees_what_was_written_through_any_member(site: Site) {
    for round in 0..30_usize {
        let value = round.to_string();
        let written = site.member(round).await.put(put(&site.key("k"), &value)).await.expect("written").into_inner();
        for other in 1..3 {
            let seen = site.member(round + other).await.range(get(&site.key("k"))).await.expect("read").into_inner();
            assert_eq!(&seen.kvs[0].value[..], value.as_bytes());
            assert!(revision(&seen.header) >= revision(&written.header));
        }
    }
}

async fn r19_a_serializable_read_needs_nobody_else(mut site: Site) {
    let key = site.key("k");
    // Through the member that will be left: so it has it.
    site.put("k", "v").await;
    for id in [2, 3] {
        site.members().kill(id);
    }
    let local = pb::RangeRequest { serializable: true, ..get(&key) };
    assert_eq!(&site.range(local.clone()).await.kvs[0].value[..], b"v");
    let read_only = all(vec![op_range(local)]);
    assert_eq!(&ranged(&site.txn(read_only).await.responses[0]).kvs[0].value[..], b"v");
}

async fn r20_a_streamed_range_merges_to_the_same_range(site: Site) {
    for chunk in 0..4 {
        let puts = (0..100).map(|number| op_put(&site.key(&format!("{chunk}/{number:02}")), &"v".repeat(200)));
        site.txn(all(puts.collect())).await;
    }
    let requests = [
        site.all(),
        pb::RangeRequest { limit: 70, ..site.all() },
        pb::RangeRequest { limit: 400, ..site.all() },
        pb::RangeRequest { count_only: true, ..site.all() },
        pb::RangeRequest { keys_only: true, ..site.all() },
        get(&site.key("0/00")),
        get(&site.key("not there")),
    ];
    for request in requests {
        let whole = site.range(request.clone()).await;
        let mut stream = site.kv().range_stream(request.clone()).await.expect("a stream").into_inner();
        let mut merged = pb::RangeResponse::default();
        while let Some(piece) = stream.message().await.expect("a piece") {
            let piece = piece.range_response.expect("it is one");
            let last = merged.header.is_none();
            assert!(last, "the header comes with the last piece");
            merged.kvs.extend(piece.kvs);
            (merged.header, merged.more, merged.count) = (piece.header, piece.more, piece.count);
        }
        // Others write meanwhile.
        merged.header = whole.header;
        assert_eq!(merged, whole, "{request:?}");
    }
    let text = "RangeStream does not support custom sort orders";
    for (sort_target, sort_order) in [(1, 0), (0, 2), (4, 1)] {
        let request = pb::RangeRequest { sort_target, sort_order, ..site.all() };
        let outcome = site.kv().range_stream(request).await.map(|_| ());
        refused(outcome, Code::Unimplemented, text);
    }
    let filtered = pb::RangeRequest { min_mod_revision: 1, ..site.all() };
    let text = "RangeStream does not support revision filters";
    refused(site.kv().range_stream(filtered).await.map(|_| ()), Code::Unimplemented, text);
}

async fn r21_a_method_that_is_not_there_is_unimplemented(site: Site) {
    let mut client = tonic::client::Grpc::new(site.channel());
    client.ready().await.expect("it listens");
    let codec = tonic_prost::ProstCodec::<pb::RangeRequest, pb::RangeResponse>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/etcdserverpb.KV/RangeBackwards");
    let outcome = client.unary(tonic::Request::new(site.all()), path, codec).await;
    assert_eq!(outcome.expect_err("there is no such method").code(), Code::Unimplemented);
    if site.is_etcd() {
        let error = site.kv().range_stream(site.all()).await.expect_err("it came with 3.7");
        assert_eq!(error.code(), Code::Unimplemented);
    }
    let compare = compare(&site.key("k"), EQUAL, TargetUnion::Version(0));
    assert!(site.holds(compare).await, "it serves all the same");
}
