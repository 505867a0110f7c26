//! Section 2.4: transactions.

use bowline_kv::store::CompareResult::{Equal, Greater, Less, NotEqual};
use bowline_kv::store::*;
use bytes::Bytes;

use crate::bench::*;

fn value(text: &str) -> CompareTarget {
    CompareTarget::Value(bytes(text))
}

#[test]
fn t01_all_comparisons_must_hold_and_none_always_does() {
    let mut kv = Kv::new();
    kv.put("k", "v");
    let yes = compare("k", Equal, CompareTarget::Version(1));
    let no = compare("k", Equal, CompareTarget::Version(2));
    for (compare, expected) in [
        (vec![], true),
        (vec![yes.clone(), yes.clone()], true),
        (vec![yes.clone(), no.clone()], false),
        (vec![no, yes], false),
    ] {
        let response = kv.txn(TxnRequest { compare, ..TxnRequest::default() }).expect("allowed");
        assert_eq!(response.succeeded, expected);
    }
}

#[test]
fn t02_every_result_on_every_target() {
    let mut kv = Kv::new();
    kv.put("other", "");
    kv.put("k", "b");
    kv.put("k", "m");
    type Target = fn(i64) -> CompareTarget;
    let numbers: [(Target, i64); 4] =
        [(CompareTarget::Version, 2), (CompareTarget::Create, 3), (CompareTarget::Mod, 4), (CompareTarget::Lease, 0)];
    for (target, is) in numbers {
        for (operand, holding) in [
            (is, [true, false, false, false]),
            (is - 1, [false, true, false, true]),
            (is + 1, [false, false, true, true]),
        ] {
            for (result, holds) in [Equal, Greater, Less, NotEqual].into_iter().zip(holding) {
                assert_eq!(kv.holds(compare("k", result, target(operand))), holds, "{result:?} {:?}", target(operand));
            }
        }
    }
    for (operand, holding) in
        [("m", [true, false, false, false]), ("a", [false, true, false, true]), ("z", [false, false, true, true])]
    {
        for (result, holds) in [Equal, Greater, Less, NotEqual].into_iter().zip(holding) {
            assert_eq!(kv.holds(compare("k", result, value(operand))), holds, "{result:?} {operand}");
        }
    }
    for unknown in [-1, 4] {
        let compare = Compare { result: unknown, ..compare("k", Equal, CompareTarget::Version(1)) };
        let txn = TxnRequest { compare: vec![compare], success: vec![op_put("k", "x")], ..TxnRequest::default() };
        assert_eq!(Command::Txn(txn.clone()).check(&Limits::default()), Err(KvError::Unreadable));
        assert_eq!(kv.txn(txn), Err(KvError::Unreadable), "it must not guard a write");
    }
}

#[test]
fn t03_a_missing_key_is_all_zeros_but_its_value_compares_with_nothing() {
    let mut kv = Kv::new();
    for target in [CompareTarget::Version(0), CompareTarget::Create(0), CompareTarget::Mod(0), CompareTarget::Lease(0)]
    {
        assert!(kv.holds(compare("missing", Equal, target)));
    }
    assert!(kv.holds(compare("missing", Less, CompareTarget::Version(1))));
    for result in [Equal, NotEqual, Greater, Less] {
        assert!(!kv.holds(compare("missing", result, value(""))), "{result:?}");
    }
}

#[test]
fn t05_a_comparison_of_a_range_must_hold_for_each_key() {
    let mut kv = Kv::new();
    kv.put("a", "v");
    kv.put("b", "v");
    kv.put("c", "w");
    let over =
        |from: &str, range_end: &str, target| Compare { range_end: bytes(range_end), ..compare(from, Equal, target) };
    assert!(kv.holds(over("a", "c", value("v"))));
    assert!(!kv.holds(over("a", "d", value("v"))));
    assert!(!kv.holds(over("a", "\0", value("v"))));
    assert!(kv.holds(over("x", "z", CompareTarget::Version(0))));
    assert!(!kv.holds(over("x", "z", value(""))));
    assert!(kv.holds(over("c", "a", CompareTarget::Version(0))), "an empty range is like a missing key");
}

#[test]
fn t06_operations_see_the_earlier_ones() {
    let mut kv = Kv::new();
    kv.put("a", "1");
    let ops = vec![op_range("a", ""), op_put("b", "2"), op_range("a", "z"), op_delete("a", "b"), op_range("a", "z")];
    let response = kv.all(ops).expect("allowed");
    let seen: Vec<_> = response
        .responses
        .iter()
        .filter_map(|response| match response {
            ResponseOp { response: Some(OperationResponse::Range(range)) } => Some((range.revision, keys(&range.kvs))),
            _ => None,
        })
        .collect();
    assert_eq!(seen, [(2, vec!["a"]), (3, vec!["a", "b"]), (3, vec!["b"])]);
}

#[test]
fn t07_comparisons_within_see_the_state_before_the_whole() {
    let mut kv = Kv::new();
    let within = op_branches(
        vec![compare("a", Equal, CompareTarget::Version(0))],
        vec![op_put("then", "")],
        vec![op_put("else", "")],
    );
    let response = kv.all(vec![op_put("a", "1"), within]).expect("allowed");
    assert!(
        matches!(&response.responses[1], ResponseOp { response: Some(OperationResponse::Txn(txn)) } if txn.succeeded)
    );
    assert!(kv.get("then").is_some() && kv.get("else").is_none());
}

#[test]
fn t08_responses_stand_beside_the_operations_of_the_branch_that_was_taken() {
    let mut kv = Kv::new();
    let txn = TxnRequest {
        compare: vec![compare("k", Greater, CompareTarget::Version(0))],
        success: vec![op_put("k", "then")],
        failure: vec![op_range("k", ""), op_put("k", "else"), op_delete("x", "")],
    };
    let response = kv.txn(txn.clone()).expect("allowed");
    assert!(!response.succeeded);
    assert!(matches!(
        &response.responses[..],
        [
            ResponseOp { response: Some(OperationResponse::Range(_)) },
            ResponseOp { response: Some(OperationResponse::Put(_)) },
            ResponseOp { response: Some(OperationResponse::DeleteRange(_)) }
        ]
    ));
    let response = kv.txn(txn).expect("allowed");
    assert!(response.succeeded);
    assert!(matches!(&response.responses[..], [ResponseOp { response: Some(OperationResponse::Put(_)) }]));
}

#[test]
fn t09_operations_are_counted_with_those_within() {
    let mut kv = Kv::new();
    let puts = |count: usize| (0..count).map(|n| op_put(&format!("k{n}"), "")).collect::<Vec<_>>();
    let compares = |count| vec![compare("k", Equal, CompareTarget::Version(0)); count];
    assert!(kv.all(puts(128)).is_ok());
    assert_eq!(kv.all(puts(129)), Err(KvError::TooManyOps));
    assert_eq!(kv.txn(TxnRequest { failure: puts(129), ..TxnRequest::default() }), Err(KvError::TooManyOps));
    assert!(kv.txn(TxnRequest { compare: compares(128), ..TxnRequest::default() }).is_ok());
    let many = TxnRequest { compare: compares(129), ..TxnRequest::default() };
    assert_eq!(kv.txn(many), Err(KvError::TooManyOps));
    // Within, 128 less the most of the outer one.
    assert!(kv.all(vec![op_txn(puts(127))]).is_ok());
    assert_eq!(kv.all(vec![op_txn(puts(128))]), Err(KvError::TooManyOps));
    assert_eq!(KvError::TooManyOps.to_string(), "etcdserver: too many operations in txn request");
}

#[test]
fn t09_nesting_is_bounded_a_thousand_levels_are_an_error() {
    let nested = |levels: usize| {
        // With something in it, which is a message more.
        let mut txn = TxnRequest { success: vec![op_put("k", "v")], ..TxnRequest::default() };
        for _ in 1..levels {
            txn = TxnRequest { success: vec![Operation::Txn(Box::new(txn)).into()], ..TxnRequest::default() };
        }
        txn
    };
    let mut kv = Kv::new();
    // It goes through the log as bytes, and those can be read.
    assert!(kv.txn(nested(MAX_TXN_DEPTH)).is_ok());
    assert_eq!(kv.txn(nested(MAX_TXN_DEPTH + 1)), Err(KvError::TooManyOps));
    let deep = Command::Txn(nested(1000));
    let generous = Limits { max_txn_ops: 1_000_000, ..Limits::default() };
    assert_eq!(deep.check(&generous), Err(KvError::TooManyOps));
    assert!(matches!(Command::from_bytes(&deep.to_bytes()), Err(CodecError::Message(_))));
    // Not even what was never checked gets through.
    let index = bowline_node::raft::Index(10);
    assert_eq!(kv.store.apply_command(index, &deep), Err(KvError::TooManyOps));
}

#[test]
fn t10_a_key_is_written_once() {
    let mut kv = Kv::new();
    let cmp = || vec![compare("x", Equal, CompareTarget::Version(0))];
    let refused = [
        vec![op_put("a", ""), op_put("a", "")],
        vec![op_put("a", ""), op_delete("a", "")],
        vec![op_delete("a", "c"), op_put("b", "")],
        vec![op_put("b", ""), op_delete("a", "c")],
        vec![op_put("a", ""), op_txn(vec![op_put("a", "")])],
        vec![op_txn(vec![op_put("a", "")]), op_txn(vec![op_put("a", "")])],
        vec![op_delete("a", ""), op_branches(cmp(), vec![], vec![op_put("a", "")])],
        vec![op_put("a", ""), op_txn(vec![op_delete("a", "")])],
        vec![op_txn(vec![op_delete("a", "")]), op_txn(vec![op_put("a", "")])],
        vec![op_delete("a", "c"), op_delete("b", "e"), op_delete("x", ""), op_put("d", "")],
    ];
    for ops in refused {
        assert_eq!(kv.all(ops.clone()), Err(KvError::DuplicateKey), "{ops:?}");
        // Of the branch that isn't taken, too.
        let failure = TxnRequest { failure: ops, ..TxnRequest::default() };
        assert_eq!(kv.txn(failure), Err(KvError::DuplicateKey));
    }
    assert_eq!(kv.revision(), 1);
    let allowed = [
        vec![op_put("a", ""), op_put("b", "")],
        vec![op_delete("a", "c"), op_delete("b", "")],
        vec![op_delete("a", "c"), op_put("c", "")],
        vec![op_branches(cmp(), vec![op_put("a", "")], vec![op_put("a", "")])],
        vec![op_branches(cmp(), vec![op_put("a", "")], vec![op_delete("a", "")])],
        vec![op_delete("b", "a"), op_put("b", "")],
        // So does etcd 3.4.23: a deletion "from here on" is not held against the puts, and one in a
        // later transaction within may meet the puts of an earlier one.
        vec![op_delete("a", "\0"), op_put("b", "")],
        vec![op_txn(vec![op_put("b", "")]), op_txn(vec![op_delete("b", "")])],
    ];
    for ops in allowed {
        assert!(kv.all(ops.clone()).is_ok(), "{ops:?}");
    }
    assert_eq!(KvError::DuplicateKey.to_string(), "etcdserver: duplicate key given in txn request");
}

#[test]
fn t10_writes_of_one_key_in_one_txn_take_effect_in_order() {
    let mut kv = Kv::new();
    kv.put("b", "old");
    kv.all(vec![op_txn(vec![op_put("b", "new")]), op_txn(vec![op_delete("b", "")])]).expect("etcd allows it");
    assert_eq!((kv.get("b"), kv.revision()), (None, 3));
    kv.put("b", "old");
    kv.all(vec![op_delete("a", "\0"), op_put("b", "new")]).expect("etcd allows it");
    let found = kv.get("b").expect("it is there");
    assert_eq!((found.create_revision, found.version, &found.value[..]), (5, 1, &b"new"[..]));
    // Here a released etcd dies: the key is there when it is checked, and gone when it is needed.
    let keeping = Operation::Put(PutRequest { ignore_value: true, ..put("b", "") }).into();
    assert_eq!(kv.all(vec![op_delete("a", "\0"), keeping]), Err(KvError::KeyNotFound));
    assert_eq!(kv.get("b").expect("nothing was done"), found);
}

#[test]
fn t11_an_operation_of_no_kind_is_refused() {
    let mut kv = Kv::new();
    assert_eq!(kv.all(vec![RequestOp::default()]), Err(KvError::KeyNotFound));
    assert_eq!(kv.all(vec![op_put("a", ""), op_txn(vec![RequestOp::default()])]), Err(KvError::KeyNotFound));
    // Unchecked, too.
    let txn = TxnRequest { success: vec![op_put("a", ""), RequestOp::default()], ..TxnRequest::default() };
    let index = bowline_node::raft::Index(10);
    assert_eq!(kv.store.apply_command(index, &Command::Txn(txn)), Err(KvError::KeyNotFound));
    assert_eq!((kv.revision(), kv.get("a")), (1, None));
}

#[test]
fn t12_what_can_not_be_done_in_the_taken_branch_undoes_the_whole() {
    let mut kv = Kv::new();
    for revision in 2..6 {
        assert_eq!(kv.put("k", "v").revision, revision);
    }
    kv.compact(4).expect("allowed");
    let at = |revision| Operation::Range(RangeRequest { revision, ..range("k", "") }).into();
    let cases: [(RequestOp, KvError); 6] = [
        (Operation::Put(PutRequest { lease: 9, ..put("b", "") }).into(), KvError::LeaseNotFound),
        (Operation::Put(PutRequest { ignore_value: true, ..put("missing", "") }).into(), KvError::KeyNotFound),
        (Operation::Put(PutRequest { ignore_lease: true, ..put("missing", "") }).into(), KvError::KeyNotFound),
        (at(3), KvError::Compacted),
        (at(-5), KvError::Compacted),
        (at(6), KvError::FutureRevision),
    ];
    for (op, error) in cases {
        let before = (kv.hash(0), kv.range(everything()));
        let txn = vec![op_put("a", "new"), op_delete("k", ""), op.clone()];
        assert_eq!(kv.all(txn), Err(error), "{op:?}");
        assert_eq!(kv.all(vec![op_put("a", "new"), op_txn(vec![op.clone()])]), Err(error), "within: {op:?}");
        assert_eq!((kv.hash(0), kv.range(everything())), before);
        // In the other branch it does no harm.
        let other = TxnRequest { failure: vec![op], ..TxnRequest::default() };
        assert!(kv.txn(other).is_ok());
    }
    assert_eq!(kv.revision(), 5);
}

#[test]
fn t13_a_txn_that_only_reads_needs_no_log() {
    let mut kv = Kv::new();
    kv.put("k", "v");
    let serializable: RequestOp = Operation::Range(RangeRequest { serializable: true, ..range("k", "") }).into();
    let of = |success, failure| TxnRequest { success, failure, ..TxnRequest::default() };
    let reads = of(vec![op_range("k", "")], vec![serializable.clone()]);
    assert!(reads.is_read_only() && !reads.is_serializable());
    assert!(of(vec![serializable.clone()], vec![serializable]).is_serializable());
    assert!(of(vec![], vec![]).is_read_only());
    assert!(!of(vec![], vec![op_put("k", "")]).is_read_only());
    assert!(!of(vec![op_txn(vec![op_range("k", "")])], vec![]).is_read_only());
    let asked = kv.ask(&reads).expect("allowed");
    assert_eq!(asked, kv.txn(reads).expect("allowed"));
    let writes = of(vec![op_put("k", "")], vec![]);
    assert_eq!(kv.ask(&writes), Err(KvError::Unreadable), "a query never writes");
    let future = Operation::Range(RangeRequest { revision: 9, ..range("k", "") }).into();
    assert_eq!(kv.ask(&of(vec![future], vec![])), Err(KvError::FutureRevision));
}

#[test]
fn t14_a_read_of_the_past_within_a_txn_does_not_depend_on_what_is_removed_already() {
    let mut kvs = [Kv::new(), Kv::new(), Kv::new()];
    let mut outcomes = Vec::new();
    for (number, kv) in kvs.iter_mut().enumerate() {
        for value in ["1", "2", "3", "4"] {
            kv.put("k", value);
        }
        kv.compact(4).expect("allowed");
        match number {
            0 => {}
            1 => drop(kv.store.scrub(1)),
            _ => kv.scrub(),
        }
        let mut outcome = Vec::new();
        for revision in 1..=5 {
            let read = Operation::Range(RangeRequest { revision, ..range("k", "") }).into();
            outcome.push(kv.all(vec![op_put("n", &revision.to_string()), read]));
        }
        outcomes.push((outcome, kv.hash(0), kv.revision()));
    }
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(outcomes[0], outcomes[2]);
    assert_eq!(outcomes[0].0[2], Err(KvError::Compacted));
    assert!(outcomes[0].0[3].is_ok());
}

#[test]
fn too_large_requests_are_refused() {
    let mut kv = Kv::new();
    let big = |length: usize| PutRequest { value: Bytes::from(vec![7; length]), ..put("k", "") };
    let limit = Limits::default().max_request_bytes;
    let overhead = Command::Put(big(limit)).encoded_len() - limit;
    assert!(kv.try_put(big(limit - overhead)).is_ok());
    assert_eq!(kv.try_put(big(limit - overhead + 1)), Err(KvError::RequestTooLarge));
    assert_eq!(KvError::RequestTooLarge.to_string(), "etcdserver: request is too large");
    // Whatever a server allows: what no snapshot could hold is refused by all.
    let index = bowline_node::raft::Index(10);
    let huge = Command::Put(big(MAX_FIELD_BYTES + 1));
    assert_eq!(kv.store.apply_command(index, &huge), Err(KvError::RequestTooLarge));
}
