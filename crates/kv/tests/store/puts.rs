//! Section 2.3: puts and deletions.

use bowline_kv::store::*;

use crate::bench::*;

#[test]
fn p01_prev_kv_is_what_was_there() {
    let mut kv = Kv::new();
    assert_eq!(kv.try_put(PutRequest { prev_kv: true, ..put("k", "1") }).expect("allowed").prev_kv, None);
    let old = kv.get("k");
    assert_eq!(kv.try_put(PutRequest { prev_kv: true, ..put("k", "2") }).expect("allowed").prev_kv, old);
    assert_eq!(kv.put("k", "3").prev_kv, None);
}

#[test]
fn p02_what_is_ignored_must_not_be_given() {
    let mut kv = Kv::new();
    kv.put("k", "v");
    let refused = kv.try_put(PutRequest { ignore_value: true, ..put("k", "x") });
    assert_eq!(refused, Err(KvError::ValueProvided));
    let refused = kv.try_put(PutRequest { ignore_lease: true, lease: 7, ..put("k", "x") });
    assert_eq!(refused, Err(KvError::LeaseProvided));
    assert_eq!(KvError::ValueProvided.to_string(), "etcdserver: value is provided");
    assert_eq!(KvError::LeaseProvided.to_string(), "etcdserver: lease is provided");
}

#[test]
fn p03_what_is_kept_must_be_there() {
    let mut kv = Kv::new();
    let value = PutRequest { ignore_value: true, ..put("k", "") };
    let lease = PutRequest { ignore_lease: true, ..put("k", "v") };
    assert_eq!(kv.try_put(value.clone()), Err(KvError::KeyNotFound));
    assert_eq!(kv.try_put(lease), Err(KvError::KeyNotFound));
    kv.put("k", "v");
    kv.delete("k", "");
    assert_eq!(kv.try_put(value), Err(KvError::KeyNotFound));
    assert_eq!(kv.revision(), 3);
    assert_eq!(KvError::KeyNotFound.to_string(), "etcdserver: key not found");
}

#[test]
fn p04_ignore_value_keeps_the_value_and_takes_a_revision() {
    let mut kv = Kv::new();
    kv.put("k", "v");
    let response = kv.try_put(PutRequest { ignore_value: true, ..put("k", "") }).expect("allowed");
    assert_eq!((response.revision, response.prev_kv), (3, None));
    let found = kv.get("k").expect("it is there");
    assert_eq!((&found.value[..], found.version, found.lease), (&b"v"[..], 2, 0));
    kv.try_put(PutRequest { ignore_lease: true, ..put("k", "w") }).expect("allowed");
    assert_eq!(kv.get("k").expect("it is there").value, &b"w"[..]);
}

#[test]
fn p05_an_unknown_lease_is_refused() {
    let mut kv = Kv::new();
    for lease in [1, -1, i64::MAX] {
        assert_eq!(kv.try_put(PutRequest { lease, ..put("k", "v") }), Err(KvError::LeaseNotFound));
    }
    // Before the key is looked for, as in etcd.
    let request = PutRequest { lease: 1, ignore_value: true, ..put("missing", "") };
    assert_eq!(kv.try_put(request), Err(KvError::LeaseNotFound));
    assert_eq!(kv.revision(), 1);
    assert_eq!(KvError::LeaseNotFound.to_string(), "etcdserver: requested lease not found");
    assert_eq!(KvError::LeaseNotFound.code(), Code::NotFound);
}

#[test]
fn p07_a_deletion_counts_and_shows_what_was_there_in_order() {
    let mut kv = Kv::new();
    for key in ["c", "a", "b", "x"] {
        kv.put(key, key);
    }
    let response = kv.try_delete(DeleteRangeRequest { prev_kv: true, ..delete("a", "d") }).expect("allowed");
    assert_eq!((response.deleted, response.revision), (3, 6));
    assert_eq!(keys(&response.prev_kvs), ["a", "b", "c"]);
    assert_eq!(response.prev_kvs[2].create_revision, 2);
    assert!(kv.delete("x", "\0").prev_kvs.is_empty());
    assert!(kv.store.is_empty());
}
