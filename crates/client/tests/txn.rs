//! Transactions of the client at real members.

mod support;

use std::time::Duration;

use bowline_client::{Client, ClientError, Compare, KeyValue, Op, OpResponse, SortBy};
use support::{Cluster, silent};

async fn holds(client: &mut Client, compare: Compare) -> bool {
    client.txn().when(compare).commit().await.expect("done").succeeded
}

fn keys(kvs: &[KeyValue]) -> Vec<&str> {
    kvs.iter().map(|kv| std::str::from_utf8(&kv.key).expect("text")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_comparison_compares_what_it_says() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client(&[1]);
    let lease = client.lease_grant(60, 0).await.expect("granted").id;
    let created = client.put("a/1", "1").await.expect("put");
    let put = Op::put("a/1", "2").lease(lease);
    let modified = client.put_request(put).await.expect("put").header.expect("a header").revision;
    client.put("a/2", "2").await.expect("put");
    let number = |operand: fn(&'static str) -> bowline_client::Operand<i64>, value: i64| {
        [
            (operand("a/1").eq(value), true),
            (operand("a/1").ne(value), false),
            (operand("a/1").gt(value - 1), true),
            (operand("a/1").gt(value), false),
            (operand("a/1").lt(value + 1), true),
            (operand("a/1").lt(value), false),
            (operand("none").eq(0), true),
            (operand("none/").prefix().eq(0), true),
            (operand("a/").prefix().eq(value), false),
            (operand("a/1").range_end("a/2").eq(value), true),
        ]
    };
    let numbers = [
        number(Compare::version, 2),
        number(Compare::create_revision, created),
        number(Compare::mod_revision, modified),
        number(Compare::lease, lease),
    ];
    let values = [
        (Compare::value("a/1").eq("2"), true),
        (Compare::value("a/1").ne("2"), false),
        (Compare::value("a/1").gt("1"), true),
        (Compare::value("a/1").lt("2"), false),
        (Compare::value("a/").prefix().eq("2"), true),
        (Compare::value("").prefix().eq("2"), true),
        (Compare::value("none").ne("2"), false),
    ];
    for (compare, expected) in numbers.into_iter().flatten().chain(values) {
        assert_eq!(holds(&mut client, compare.clone()).await, expected, "{compare:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_returns_its_response() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client(&[1]);
    let nested = Op::txn()
        .when(Compare::version("b").gt(0))
        .then(Op::get("b"))
        .or_else(Op::get("a/").prefix().descending(SortBy::Key).limit(1).keys_only());
    let txn = client.txn().then(Op::put("a/1", "1")).then(Op::put("a/2", "2")).then(nested);
    let first = txn.commit().await.expect("done");
    let [OpResponse::Put { prev_kv: None }, OpResponse::Put { .. }, OpResponse::Txn(inner)] = &first.responses[..]
    else {
        panic!("{first:?}")
    };
    let OpResponse::Get { kvs, count: 2, more: true } = &inner.responses[0] else { panic!("{inner:?}") };
    assert!(first.succeeded && !inner.succeeded && keys(kvs) == ["a/2"] && kvs[0].value.is_empty());

    let txn = client.txn().when(Compare::version("b").eq(1)).then(Op::put("c", "")).or_else(Op::put("b", ""));
    let second = txn.commit().await.expect("done");
    assert_eq!((second.succeeded, second.revision), (false, first.revision + 1));

    let kept = Op::put("a/1", "").ignore_value().ignore_lease().prev_kv();
    let third = client.txn().then(kept).then(Op::get("a/1")).then(Op::txn().then(Op::get("b"))).commit().await;
    let third = third.expect("done");
    assert_eq!((third.responses[0].kvs()[0].version, third.responses[1].kvs()[0].version), (1, 2));
    assert_eq!(third.responses[1].kvs()[0].value, "1");

    let nested = Op::txn().when(Compare::version("b").gt(0)).then(Op::delete("a/").prefix().prev_kv());
    let last = client.txn().then(nested).commit().await.expect("done");
    let OpResponse::Txn(inner) = &last.responses[0] else { panic!("{last:?}") };
    let OpResponse::Delete { deleted: 2, prev_kvs } = &inner.responses[0] else { panic!("{inner:?}") };
    assert_eq!(keys(prev_kvs), ["a/1", "a/2"]);

    // The operations are requests, too.
    let old = client.range(Op::get("a/").range_end("b").revision(first.revision).count_only()).await.expect("read");
    assert_eq!(old.count, 2);
    let found = client.range(Op::get("").prefix().serializable().ascending(SortBy::ModRevision)).await.expect("read");
    assert_eq!(keys(&found.kvs), ["b"]);
    let made = second.revision..=second.revision;
    let range = Op::get("").prefix().mod_revisions(made.clone()).create_revisions(made);
    assert_eq!(keys(&client.range(range).await.expect("read").kvs), ["b"]);
    assert_eq!(client.delete_request(Op::delete("b").range_end("c").prev_kv()).await.expect("done").prev_kvs.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_harmless_is_sent_twice() {
    let cluster = Cluster::start(1);
    let (_silent, address) = silent();
    let client = || Client::new(&[address.clone(), cluster.endpoint(1)], Duration::from_secs(2)).expect("endpoints");
    let put = || Op::put("k", "v");
    match client().txn().when(Compare::version("k").eq(0)).then(put()).commit().await {
        Err(ClientError::Unknown { endpoint, .. }) => assert!(endpoint.contains(&address)),
        other => panic!("{other:?}"),
    }
    let read = client().txn().then(Op::get("k")).or_else(Op::txn().then(Op::get("k"))).commit().await.expect("read");
    assert!(read.responses[0].kvs().is_empty(), "the first was not sent to another member");
    let repeated = client().txn().when(Compare::version("k").eq(0)).then(put()).repeatable().commit().await;
    assert!(repeated.expect("done").succeeded);
}
