//! Transactions.

use bowline_api::etcdserverpb as pb;
use pb::compare::TargetUnion;
use pb::request_op::Request;
use tonic::Code;

use crate::line::{Line, line};
use crate::requests::*;
use crate::site::{Site, bytes, refused, revision};

const TOO_MANY: &str = "etcdserver: too many operations in txn request";
const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";
const NOT_FOUND: &str = "etcdserver: key not found";

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line!(Shared, t01_all_comparisons_must_hold_and_none_always_does),
        line!(Shared, t02_every_result_on_every_target),
        line!(Shared, t03_a_missing_key_is_all_zeros_but_its_value_compares_with_nothing),
        line!(Shared, t04_a_missing_operand_is_zero_or_empty),
        line!(Shared, t05_a_comparison_of_a_range_must_hold_for_each_key),
        line!(Shared, t06_operations_see_the_earlier_ones),
        line!(Shared, t07_comparisons_within_see_the_state_before_the_whole),
        line!(Shared, t08_responses_stand_beside_the_operations_of_the_branch_that_was_taken),
        line!(Shared, t09_operations_are_counted_with_those_within),
        line!(Shared, t10_a_key_is_written_once),
        line!(Shared, t11_an_operation_of_no_kind_is_refused),
        line!(Fresh, t12_what_can_not_be_done_in_the_taken_branch_undoes_the_whole),
        line!(Fresh, t12_what_is_kept_must_be_there_when_its_turn_comes)
            .not_on_etcd("one such request ends the process of etcd 3.4.23"),
        line!(Fresh, t13_a_txn_that_only_reads_skips_the_log),
        line!(Members, t13_a_txn_is_serializable_only_if_every_range_is),
        line!(Members, t14_a_read_of_the_past_within_a_txn_ends_alike_on_all_members),
    ]
}

async fn t01_all_comparisons_must_hold_and_none_always_does(site: Site) {
    let (a, b) = (site.key("a"), site.key("b"));
    site.put("a", "1").await;
    site.put("b", "2").await;
    let succeeds = async |compare| site.txn(branches(compare, vec![], vec![])).await.succeeded;
    assert!(succeeds(vec![]).await);
    assert!(succeeds(vec![value_is(&a, "1"), value_is(&b, "2")]).await);
    assert!(!succeeds(vec![value_is(&a, "1"), value_is(&b, "1")]).await);
    assert!(!succeeds(vec![value_is(&a, "2"), value_is(&b, "2")]).await);
}

async fn t02_every_result_on_every_target(site: Site) {
    let key = site.key("k");
    let created = revision(&site.put("k", "b").await.header);
    let changed = revision(&site.put("k", "m").await.header);
    let value = |text: &str| TargetUnion::Value(bytes(text));
    // Less than the key's, the same, and more.
    let operands = [
        [1, 2, 3].map(TargetUnion::Version),
        [created - 1, created, created + 1].map(TargetUnion::CreateRevision),
        [changed - 1, changed, changed + 1].map(TargetUnion::ModRevision),
        [value("a"), value("m"), value("ma")],
        [-1, 0, 1].map(TargetUnion::Lease),
    ];
    let results = [
        (EQUAL, [false, true, false]),
        (GREATER, [true, false, false]),
        (LESS, [false, false, true]),
        (NOT_EQUAL, [true, false, true]),
    ];
    for operands in operands {
        for (result, expected) in results {
            for (operand, expected) in operands.iter().zip(expected) {
                let held = site.holds(compare(&key, result, operand.clone())).await;
                assert_eq!(held, expected, "{result} {operand:?}");
            }
        }
    }
}

async fn t03_a_missing_key_is_all_zeros_but_its_value_compares_with_nothing(site: Site) {
    let key = site.key("missing");
    for target in [TargetUnion::Version, TargetUnion::CreateRevision, TargetUnion::ModRevision, TargetUnion::Lease] {
        assert!(site.holds(compare(&key, EQUAL, target(0))).await);
        assert!(site.holds(compare(&key, LESS, target(1))).await);
        assert!(site.holds(compare(&key, GREATER, target(-1))).await);
        assert!(!site.holds(compare(&key, NOT_EQUAL, target(0))).await);
    }
    for result in [EQUAL, GREATER, LESS, NOT_EQUAL] {
        for operand in ["", "v"] {
            assert!(!site.holds(compare(&key, result, TargetUnion::Value(bytes(operand)))).await, "{result}");
        }
    }
}

async fn t04_a_missing_operand_is_zero_or_empty(site: Site) {
    site.put("empty", "").await;
    site.put("k", "v").await;
    let bare = |name: &str, result, target| pb::Compare {
        result,
        target,
        key: bytes(&site.key(name)),
        ..pb::Compare::default()
    };
    for target in [0, 1, 2] {
        assert!(site.holds(bare("missing", EQUAL, target)).await, "{target}");
        assert!(site.holds(bare("k", GREATER, target)).await, "{target}");
        assert!(!site.holds(bare("k", EQUAL, target)).await, "{target}");
    }
    assert!(site.holds(bare("empty", EQUAL, 3)).await);
    assert!(site.holds(bare("k", GREATER, 3)).await);
    assert!(site.holds(bare("k", EQUAL, 4)).await);
    // One of another kind than the target counts as missing.
    let strange = pb::Compare { target_union: Some(TargetUnion::Version(1)), ..bare("k", EQUAL, 4) };
    assert!(site.holds(strange).await);
    let strange = pb::Compare { target_union: Some(TargetUnion::Lease(1)), ..bare("k", EQUAL, 0) };
    assert!(!site.holds(strange).await);
}

async fn t05_a_comparison_of_a_range_must_hold_for_each_key(site: Site) {
    for name in ["a", "b", "c"] {
        site.put(name, "v").await;
    }
    site.put("c", "w").await;
    let over = |from: &str, to: &str, compare: pb::Compare| pb::Compare {
        key: bytes(&site.key(from)),
        range_end: bytes(&site.key(to)),
        ..compare
    };
    let is_v = || value_is("", "v");
    assert!(site.holds(over("a", "c", is_v())).await);
    assert!(!site.holds(over("a", "d", is_v())).await);
    assert!(site.holds(over("a", "d", compare("", GREATER, TargetUnion::Version(0)))).await);
    assert!(!site.holds(over("a", "d", version_is("", 1))).await);
    // Nothing in it: as a key that is not there.
    assert!(site.holds(over("x", "z", version_is("", 0))).await);
    assert!(!site.holds(over("x", "z", version_is("", 1))).await);
    assert!(!site.holds(over("x", "z", is_v())).await);
    assert!(!site.holds(over("x", "z", compare("", NOT_EQUAL, TargetUnion::Value(bytes("v"))))).await);
}

async fn t06_operations_see_the_earlier_ones(site: Site) {
    let key = site.key("k");
    let at = revision(&site.put("k", "old").await.header);
    let done = site.txn(all(vec![op_get(&key), op_put(&key, "new"), op_get(&key)])).await;
    let at_end = revision(&done.header);
    assert!(at_end > at);
    let (before, after) = (ranged(&done.responses[0]), ranged(&done.responses[2]));
    assert_eq!((&before.kvs[0].value[..], revision(&before.header)), (&b"old"[..], at_end - 1));
    assert_eq!((&after.kvs[0].value[..], revision(&after.header)), (&b"new"[..], at_end));
    assert_eq!((after.kvs[0].mod_revision, after.kvs[0].version), (at_end, 2));
    let done = site.txn(all(vec![op_delete(&key, ""), op_get(&key)])).await;
    assert_eq!(ranged(&done.responses[1]).count, 0);
}

async fn t07_comparisons_within_see_the_state_before_the_whole(site: Site) {
    let (key, out) = (site.key("k"), site.key("out"));
    site.put("k", "old").await;
    let within = branches(vec![value_is(&key, "old")], vec![op_put(&out, "then")], vec![op_put(&out, "else")]);
    let done = site.txn(all(vec![op_put(&key, "new"), op_txn(within)])).await;
    assert!(transacted(&done.responses[1]).succeeded, "the put before is not seen");
    assert_eq!(&site.get("out").await.expect("written").value[..], b"then");
    assert_eq!(&site.get("k").await.expect("written").value[..], b"new");
}

async fn t08_responses_stand_beside_the_operations_of_the_branch_that_was_taken(site: Site) {
    let key = site.key("k");
    site.put("k", "v").await;
    let txn = |value: &str| {
        let then = vec![op_get(&key), op_put(&key, "w"), op_delete(&site.key("missing"), "")];
        branches(vec![value_is(&key, value)], then, vec![op_delete(&key, "")])
    };
    let kinds = |done: &pb::TxnResponse| -> String {
        let kind = |op: &pb::ResponseOp| match op.response {
            Some(pb::response_op::Response::ResponseRange(_)) => 'r',
            Some(pb::response_op::Response::ResponsePut(_)) => 'p',
            Some(pb::response_op::Response::ResponseDeleteRange(_)) => 'd',
            _ => '?',
        };
        done.responses.iter().map(kind).collect()
    };
    let done = site.txn(txn("v")).await;
    assert_eq!((done.succeeded, kinds(&done).as_str()), (true, "rpd"));
    let done = site.txn(txn("v")).await;
    assert_eq!((done.succeeded, kinds(&done).as_str()), (false, "d"));
    assert_eq!(site.get("k").await, None, "the other branch is carried out, not merely looked at");
    let done = site.txn(branches(vec![version_is(&key, 7)], vec![op_get(&key)], vec![])).await;
    assert_eq!((done.succeeded, done.responses.len()), (false, 0));
}

async fn t09_operations_are_counted_with_those_within(site: Site) {
    let gets = |count: usize| vec![op_get(&site.key("k")); count];
    let compares = |count: usize| vec![version_is(&site.key("k"), 0); count];
    let ends = async |txn, allowed| {
        let outcome = site.try_txn(txn).await;
        if allowed {
            assert!(outcome.is_ok(), "{outcome:?}");
        } else {
            refused(outcome, Code::InvalidArgument, TOO_MANY);
        }
    };
    // The largest of the three lists counts.
    ends(branches(compares(128), gets(128), gets(128)), true).await;
    ends(branches(compares(129), vec![], vec![]), false).await;
    ends(branches(vec![], gets(129), vec![]), false).await;
    ends(branches(vec![], vec![], gets(129)), false).await;
    // What is within has what its parent's largest list leaves.
    let with_inner = |outer: usize, inner: usize| {
        let mut ops = gets(outer - 1);
        ops.push(op_txn(all(gets(inner))));
        all(ops)
    };
    ends(with_inner(1, 127), true).await;
    ends(with_inner(1, 128), false).await;
    ends(with_inner(100, 28), true).await;
    ends(with_inner(100, 29), false).await;
    ends(with_inner(128, 0), true).await;
    ends(branches(compares(120), vec![op_txn(all(gets(9)))], vec![]), false).await;
    ends(branches(vec![], vec![], vec![op_txn(all(gets(128)))]), false).await;
}

async fn t10_a_key_is_written_once(site: Site) {
    let (a, b, c) = (site.key("a"), site.key("b"), site.key("c"));
    let ends = async |txn, allowed| {
        let outcome = site.try_txn(txn).await;
        if allowed {
            assert!(outcome.is_ok(), "{outcome:?}");
        } else {
            refused(outcome, Code::InvalidArgument, DUPLICATE);
        }
    };
    let put_a = || op_put(&a, "v");
    ends(all(vec![put_a(), put_a()]), false).await;
    ends(all(vec![put_a(), op_put(&b, "v")]), true).await;
    ends(all(vec![put_a(), op_delete(&a, "")]), false).await;
    ends(all(vec![op_delete(&a, ""), put_a()]), false).await;
    ends(all(vec![op_delete(&a, &c), op_put(&b, "v")]), false).await;
    ends(all(vec![op_delete(&a, &c), op_put(&c, "v")]), true).await;
    ends(all(vec![op_delete(&a, ""), op_delete(&a, &c), op_delete(&a, "")]), true).await;
    ends(all(vec![op_delete(&b, &a), put_a()]), true).await;
    // The branch that is not taken is looked at too.
    ends(branches(vec![], vec![], vec![put_a(), put_a()]), false).await;
    ends(branches(vec![version_is(&a, 99)], vec![put_a(), put_a()], vec![]), false).await;
    // One key in both branches; within, too.
    ends(branches(vec![], vec![put_a()], vec![put_a()]), true).await;
    ends(all(vec![op_txn(branches(vec![], vec![put_a()], vec![put_a()]))]), true).await;
    ends(all(vec![put_a(), op_txn(all(vec![put_a()]))]), false).await;
    ends(all(vec![op_txn(all(vec![put_a()])), put_a()]), false).await;
    ends(all(vec![op_txn(all(vec![put_a()])), op_txn(all(vec![put_a()]))]), false).await;
    ends(all(vec![op_delete(&a, &c), op_txn(all(vec![put_a()]))]), false).await;
}

async fn t11_an_operation_of_no_kind_is_refused(site: Site) {
    let nothing = pb::RequestOp { request: None };
    refused(site.try_txn(all(vec![nothing])).await, Code::InvalidArgument, NOT_FOUND);
    let other = branches(vec![], vec![op_put(&site.key("k"), "v")], vec![nothing_again()]);
    refused(site.try_txn(other).await, Code::InvalidArgument, NOT_FOUND);
    let within = all(vec![op_txn(all(vec![nothing_again()]))]);
    refused(site.try_txn(within).await, Code::InvalidArgument, NOT_FOUND);
    assert_eq!(site.get("k").await, None);
}

fn nothing_again() -> pb::RequestOp {
    pb::RequestOp { request: None }
}

async fn t12_what_can_not_be_done_in_the_taken_branch_undoes_the_whole(site: Site) {
    let (key, missing) = (site.key("k"), site.key("missing"));
    site.put("k", "1").await;
    let compacted = revision(&site.put("k", "2").await.header);
    let at = revision(&site.put("k", "3").await.header);
    site.compact(compacted).await;
    let op_put_of = |request| op(Request::RequestPut(request));
    let at_revision = |revision| op_range(pb::RangeRequest { revision, ..get(&key) });
    let future = "etcdserver: mvcc: required revision is a future revision";
    let past = "etcdserver: mvcc: required revision has been compacted";
    let bad = [
        (op_put_of(pb::PutRequest { lease: 4_711, ..put(&missing, "v") }), Code::NotFound, NO_LEASE),
        (op_put_of(pb::PutRequest { ignore_value: true, ..put(&missing, "") }), Code::InvalidArgument, NOT_FOUND),
        (op_put_of(pb::PutRequest { ignore_lease: true, ..put(&missing, "v") }), Code::InvalidArgument, NOT_FOUND),
        (at_revision(at + 10), Code::OutOfRange, future),
        (at_revision(compacted - 1), Code::OutOfRange, past),
    ];
    for (bad, code, text) in bad {
        let good = || op_put(&key, "changed");
        refused(site.try_txn(all(vec![good(), bad.clone()])).await, code, text);
        refused(site.try_txn(all(vec![bad.clone(), good()])).await, code, text);
        refused(site.try_txn(all(vec![good(), op_txn(all(vec![bad.clone()]))])).await, code, text);
        let not_taken = site.try_txn(branches(vec![version_is(&key, 99)], vec![bad], vec![])).await;
        assert!(!not_taken.expect("what is not taken is not tried").succeeded);
    }
    let kv = site.get("k").await.expect("it is there");
    assert_eq!((&kv.value[..], kv.mod_revision, site.revision().await), (&b"3"[..], at, at));
}

async fn t12_what_is_kept_must_be_there_when_its_turn_comes(site: Site) {
    let key = site.key("k");
    let at = revision(&site.put("k", "v").await.header);
    let keep = op(Request::RequestPut(pb::PutRequest { ignore_lease: true, ..put(&key, "w") }));
    // A deletion of all keys from one on is not compared with the puts, so this gets as far as that.
    let txn = all(vec![op_delete(&key, "\0"), keep]);
    refused(site.try_txn(txn).await, Code::InvalidArgument, NOT_FOUND);
    let kv = site.get("k").await.expect("nothing of it was done");
    assert_eq!((&kv.value[..], kv.mod_revision, site.revision().await), (&b"v"[..], at, at));
    // Of two reasons, the key's is told.
    let both = pb::PutRequest { ignore_value: true, lease: 4_711, ..put(&site.key("missing"), "") };
    let txn = all(vec![op(Request::RequestPut(both))]);
    refused(site.try_txn(txn).await, Code::InvalidArgument, NOT_FOUND);
}

const NO_LEASE: &str = "etcdserver: requested lease not found";

async fn t13_a_txn_that_only_reads_skips_the_log(site: Site) {
    let key = site.key("k");
    site.put("k", "v").await;
    let reads = branches(vec![value_is(&key, "v")], vec![op_get(&key)], vec![op_get(&key), op_get(&key)]);
    let before = site.status().await;
    for _ in 0..40 {
        let done = site.txn(reads.clone()).await;
        assert_eq!((done.succeeded, ranged(&done.responses[0]).count), (true, 1));
    }
    let after = site.status().await;
    // Members may have something of their own to agree on meanwhile.
    let grown = after.raft_index - before.raft_index;
    assert!(grown < 10, "forty reads took {grown} entries of the log");
    for _ in 0..10 {
        site.txn(branches(vec![], vec![op_get(&key)], vec![op_put(&key, "w")])).await;
    }
    let written = site.status().await;
    assert!(written.raft_index >= after.raft_index + 10, "a branch that writes makes it a write");
    assert_eq!(revision(&written.header), revision(&before.header));
}

async fn t13_a_txn_is_serializable_only_if_every_range_is(mut site: Site) {
    let key = site.key("k");
    site.put("k", "v").await;
    for id in [2, 3] {
        site.members().kill(id);
    }
    let local = || op_range(pb::RangeRequest { serializable: true, ..get(&key) });
    let done = site.txn(branches(vec![value_is(&key, "v")], vec![local()], vec![local()])).await;
    assert_eq!(ranged(&done.responses[0]).count, 1);
    let mixed = branches(vec![value_is(&key, "v")], vec![local()], vec![op_get(&key)]);
    let waited = tokio::time::timeout(std::time::Duration::from_secs(1), site.try_txn(mixed)).await;
    assert!(!matches!(waited, Ok(Ok(_))), "nobody could tell that this is the latest: {waited:?}");
}

async fn t14_a_read_of_the_past_within_a_txn_ends_alike_on_all_members(site: Site) {
    let key = site.key("k");
    let mut first = None;
    for round in 0..40 {
        let at = revision(&site.put("k", &round.to_string()).await.header);
        let past = first.get_or_insert(at).max(&mut (at - 3)).to_owned();
        let read_and_write = all(vec![
            op_range(pb::RangeRequest { revision: past, ..get(&key) }),
            op_put(&site.key("seen"), &round.to_string()),
        ]);
        let (mut one, mut other) = (site.member(round).await, site.member(round + 1).await);
        let compaction = pb::CompactionRequest { revision: at - 2, physical: false };
        // Which comes first is open; that all members see the same is not.
        let (_, _) = tokio::join!(one.txn(read_and_write), other.compact(compaction));
    }
    let mut hashes = Vec::new();
    let at = site.revision().await;
    for member in 0..3 {
        site.member(member).await.range(get(&key)).await.expect("read");
        hashes.push(site.hash_at(member, at).await);
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}
