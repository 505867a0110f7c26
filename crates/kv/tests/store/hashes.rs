//! X5: checksums that a real etcd (3.4.23, single member) gave for the same requests.

use bowline_kv::store::*;

use crate::bench::*;

/// The checksum, whatever is removed already.
fn hash(kv: &mut Kv, revision: i64) -> u32 {
    let before = kv.hash(revision).expect("it is readable");
    kv.store.scrub(1).expect("memory does not fail");
    assert_eq!(kv.hash(revision).expect("it is readable"), before);
    kv.scrub();
    assert_eq!(kv.hash(revision).expect("it is readable"), before);
    before.hash
}

#[test]
fn x05_checksums_are_those_of_a_real_etcd() {
    let mut kv = Kv::new();
    assert_eq!(hash(&mut kv, 0), 1_084_519_789);
    kv.put("a", "1");
    kv.put("b", "2");
    kv.put("a", "3");
    assert_eq!([0, 2, 3].map(|revision| hash(&mut kv, revision)), [2_069_675_932, 2_587_454_935, 1_827_592_406]);
    kv.all(vec![op_put("c", "4"), op_put("d", "5"), op_delete("b", "")]).expect("allowed");
    assert_eq!(hash(&mut kv, 0), 1_421_323_504);
    kv.delete("c", "");
    kv.put("c", "");
    kv.put("e", &"x".repeat(300));
    assert_eq!([0, 6, 5].map(|revision| hash(&mut kv, revision)), [1_572_324_807, 1_430_524_686, 1_421_323_504]);
    kv.compact(6).expect("allowed");
    assert_eq!([0, 7].map(|revision| hash(&mut kv, revision)), [3_862_793_349, 1_878_123_591]);
    kv.put("a", "9");
    assert_eq!([0, 8].map(|revision| hash(&mut kv, revision)), [3_041_737_808, 3_862_793_349]);
    kv.delete("a", "");
    kv.compact(10).expect("allowed");
    assert_eq!(hash(&mut kv, 0), 262_657_319);
    kv.delete("\0", "\0");
    assert_eq!(hash(&mut kv, 0), 902_948_318);
    kv.compact(11).expect("allowed");
    assert_eq!(hash(&mut kv, 0), 1_084_519_789);
    kv.put("z", "1");
    kv.put("z", "2");
    kv.delete("z", "");
    assert_eq!(hash(&mut kv, 0), 3_454_825_504);
    kv.compact(13).expect("allowed");
    assert_eq!(hash(&mut kv, 0), 949_493_609);
    kv.put("z", "3");
    assert_eq!(hash(&mut kv, 0), 1_898_273_043);
    kv.all(vec![op_delete("a", "\0"), op_put("b", "v")]).expect("allowed");
    kv.all(vec![op_delete("b", "\0"), op_put("b", "v")]).expect("allowed");
    kv.all(vec![op_txn(vec![op_put("b", "v")]), op_txn(vec![op_delete("b", "")])]).expect("allowed");
    assert_eq!((kv.revision(), hash(&mut kv, 0)), (18, 191_681_101));
}

#[test]
fn x06_a_checksum_has_the_bounds_of_a_read() {
    let mut kv = Kv::new();
    for value in ["1", "2", "3"] {
        kv.put("k", value);
    }
    let first = kv.hash(0).expect("it is readable");
    assert_eq!((first.revision, first.compact_revision, first.hash_revision), (4, -1, 4));
    kv.compact(3).expect("allowed");
    assert_eq!(kv.hash(2), Err(KvError::Compacted));
    assert_eq!(kv.hash(5), Err(KvError::FutureRevision));
    let at = kv.hash(3).expect("it is readable");
    assert_eq!((at.revision, at.compact_revision, at.hash_revision), (4, 3, 3));
}
