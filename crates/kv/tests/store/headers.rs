//! Section 2.1: revisions.

use bowline_kv::store::*;

use crate::bench::*;

#[test]
fn h02_a_fresh_store_is_at_1_and_the_first_write_at_2() {
    let mut kv = Kv::new();
    assert_eq!(kv.revision(), 1);
    assert_eq!(kv.range(range("k", "")).expect("it is empty").revision, 1);
    assert_eq!(kv.put("k", "v").revision, 2);
}

#[test]
fn h04_inner_responses_have_their_own_revision_and_an_inner_txn_none() {
    let mut kv = Kv::new();
    let response = kv.all(vec![op_put("a", "1"), op_txn(vec![op_range("a", "")])]).expect("nothing forbids it");
    assert_eq!(response.revision, 2);
    let [
        ResponseOp { response: Some(OperationResponse::Put(put)) },
        ResponseOp { response: Some(OperationResponse::Txn(txn)) },
    ] = &response.responses[..]
    else {
        panic!("{response:?}");
    };
    assert_eq!((put.revision, txn.revision), (2, 0));
    assert!(
        matches!(&txn.responses[..], [ResponseOp { response: Some(OperationResponse::Range(range)) }] if range.revision == 2)
    );
}

#[test]
fn h05_a_write_that_changes_nothing_takes_no_revision() {
    let mut kv = Kv::new();
    kv.put("k", "v");
    assert_eq!(kv.delete("missing", "").revision, 2);
    assert_eq!(kv.all(vec![]).expect("empty").revision, 2);
    assert_eq!(kv.all(vec![op_delete("x", "z"), op_range("k", "")]).expect("nothing to do").revision, 2);
    assert_eq!(kv.revision(), 2);
}

#[test]
fn h06_a_put_of_the_same_value_takes_a_revision() {
    let mut kv = Kv::new();
    assert_eq!(kv.put("k", "v").revision, 2);
    assert_eq!(kv.put("k", "v").revision, 3);
}

#[test]
fn h07_the_writes_of_a_txn_share_one_revision() {
    let mut kv = Kv::new();
    kv.put("old", "v");
    let response = kv.all(vec![op_put("a", "1"), op_delete("old", ""), op_put("b", "2")]).expect("nothing forbids it");
    assert_eq!((response.revision, kv.revision()), (3, 3));
    let kvs = kv.range(everything()).expect("nothing forbids it").kvs;
    assert!(kvs.iter().all(|kv| (kv.create_revision, kv.mod_revision) == (3, 3)), "{kvs:?}");
}

#[test]
fn h08_revisions_have_no_gap_and_are_never_shared() {
    let mut kv = Kv::new();
    for expected in 2..50 {
        let revision = match expected % 3 {
            0 => kv.put("a", "x").revision,
            1 => kv.delete("a", "").revision,
            _ => kv.all(vec![op_put("a", "y"), op_put("b", "y")]).expect("nothing forbids it").revision,
        };
        assert_eq!(revision, expected);
        // What is refused or does nothing takes none.
        kv.delete("missing", "");
        assert_eq!(kv.compact(1000), Err(KvError::FutureRevision));
    }
}

#[test]
fn h09_a_compaction_takes_no_revision() {
    let mut kv = Kv::new();
    kv.put("k", "v");
    assert_eq!(kv.compact(2), Ok(2));
    assert_eq!(kv.revision(), 2);
}

#[test]
fn h10_create_revision_and_version_start_again_after_a_deletion() {
    let mut kv = Kv::new();
    kv.put("k", "1");
    kv.put("k", "2");
    let found = kv.get("k").expect("it is there");
    assert_eq!((found.create_revision, found.mod_revision, found.version), (2, 3, 2));
    kv.delete("k", "");
    kv.put("k", "3");
    let found = kv.get("k").expect("it is there");
    assert_eq!((found.create_revision, found.mod_revision, found.version), (5, 5, 1));
}

#[test]
fn h11_a_range_in_the_past_shows_the_current_revision() {
    let mut kv = Kv::new();
    kv.put("k", "1");
    kv.put("k", "2");
    let old = kv.range(RangeRequest { revision: 2, ..range("k", "") }).expect("it is readable");
    assert_eq!((old.revision, &old.kvs[0].value[..]), (3, &b"1"[..]));
}

#[test]
fn h12_the_revision_survives_that_everything_is_deleted_and_removed() {
    let mut kv = Kv::new();
    kv.put("k", "1");
    kv.delete("k", "");
    assert_eq!(kv.compact(3), Ok(3));
    kv.scrub();
    kv.store.checkpoint().expect("memory does not fail");
    let again = Store::open(kv.store.engine().clone()).expect("memory does not fail");
    assert_eq!((again.revision(), again.compacted_revision(), again.len()), (3, 3, 0));
}
