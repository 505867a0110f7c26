//! Section 2.7, as far as the state machine decides it: leases, and the keys that go with them.

use bowline_kv::store::*;
use bowline_node::StateMachine;
use bowline_node::raft::Index;

use crate::bench::*;
use crate::disk::open;

#[test]
fn l01_an_identity_is_one_leases() {
    let mut kv = Kv::new();
    assert_eq!(kv.grant(7, 10), Ok(LeaseGrantResponse { revision: 1, id: 7, ttl: 10 }));
    assert_eq!(kv.grant(7, 20), Err(KvError::LeaseExists));
    assert_eq!(KvError::LeaseExists.to_string(), "etcdserver: lease already exists");
    assert_eq!(KvError::LeaseExists.code(), Code::FailedPrecondition);
    assert_eq!(kv.store.lease(7), Some(&Lease { id: 7, ttl: 10, granted_at: Index(1) }));
    // Free again.
    assert_eq!(kv.revoke(7), Ok(1));
    assert_eq!(kv.grant(7, 20), Ok(LeaseGrantResponse { revision: 1, id: 7, ttl: 20 }));
}

#[test]
fn l02_a_time_to_live_is_bounded() {
    let mut kv = Kv::new();
    assert!(kv.grant(1, MAX_LEASE_TTL).is_ok());
    assert_eq!(kv.grant(2, MAX_LEASE_TTL + 1), Err(KvError::LeaseTtlTooLarge));
    assert_eq!(KvError::LeaseTtlTooLarge.to_string(), "etcdserver: too large lease TTL");
    assert_eq!(KvError::LeaseTtlTooLarge.code(), Code::OutOfRange);
    // No server proposes these.
    assert_eq!((kv.grant(3, 0), kv.grant(0, 5)), (Err(KvError::Unreadable), Err(KvError::Unreadable)));
    assert_eq!(kv.store.leases().count(), 1);
}

#[test]
fn l05_an_unknown_lease_is_not_revoked() {
    let mut kv = Kv::new();
    assert_eq!(kv.revoke(7), Err(KvError::LeaseNotFound));
}

#[test]
fn h09_a_lease_goes_with_its_keys_in_order_at_one_revision_or_at_none() {
    let mut kv = Kv::new();
    kv.grant(7, 10).expect("allowed");
    kv.grant(8, 10).expect("allowed");
    for key in ["c", "a", "b"] {
        kv.try_put(leased(key, 7)).expect("allowed");
    }
    kv.put("free", "v");
    assert_eq!((kv.revision(), kv.revoke(7)), (5, Ok(6)));
    assert_eq!(keys(&kv.range(everything()).expect("allowed").kvs), ["free"]);
    assert_eq!(kv.get_at("b", 5).expect("allowed").expect("it was there").lease, 7);
    assert_eq!((kv.revoke(8), kv.revision()), (Ok(6), 6), "nothing was attached to it");
    // In the order of the keys: a history in which they were deleted by hand has the same checksum.
    let mut by_hand = Kv::new();
    by_hand.grant(7, 10).expect("allowed");
    for key in ["c", "a", "b"] {
        by_hand.try_put(leased(key, 7)).expect("allowed");
    }
    by_hand.put("free", "v");
    by_hand.delete("a", "d");
    assert_eq!(kv.hash(0), by_hand.hash(0));
}

#[test]
fn p06_a_put_moves_a_key_to_its_lease_or_to_none() {
    let mut kv = Kv::new();
    kv.grant(7, 10).expect("allowed");
    kv.grant(8, 10).expect("allowed");
    kv.try_put(leased("k", 7)).expect("allowed");
    assert_eq!(kv.get("k").expect("it is there").lease, 7);
    kv.try_put(leased("k", 8)).expect("allowed");
    assert_eq!((kv.attached(7), kv.attached(8)), (Some(vec![]), Some(vec!["k".to_owned()])));
    kv.try_put(PutRequest { ignore_lease: true, ..put("k", "w") }).expect("allowed");
    assert_eq!(kv.get("k").expect("it is there").lease, 8);
    kv.try_put(PutRequest { ignore_value: true, ..put("k", "") }).expect("allowed");
    assert_eq!((kv.get("k").expect("it is there").lease, kv.attached(8)), (0, Some(vec![])));
    kv.revoke(8).expect("it is there");
    assert_eq!(kv.get("k").expect("it stays").value, &b"w"[..]);
}

#[test]
fn p08_a_deletion_detaches_a_key() {
    let mut kv = Kv::new();
    kv.grant(7, 10).expect("allowed");
    kv.try_put(leased("a", 7)).expect("allowed");
    kv.try_put(leased("b", 7)).expect("allowed");
    kv.delete("a", "");
    assert_eq!(kv.attached(7), Some(vec!["b".to_owned()]));
    kv.put("a", "again");
    kv.revoke(7).expect("it is there");
    assert_eq!(keys(&kv.range(everything()).expect("allowed").kvs), ["a"]);
}

#[test]
fn t12_an_unknown_lease_in_the_branch_that_is_taken_refuses_all() {
    let mut kv = Kv::new();
    kv.grant(7, 10).expect("allowed");
    kv.try_put(leased("k", 7)).expect("allowed");
    let ops = vec![op_delete("k", ""), Operation::Put(leased("a", 7)).into(), Operation::Put(leased("b", 9)).into()];
    assert_eq!(kv.all(ops), Err(KvError::LeaseNotFound));
    assert_eq!((kv.revision(), kv.attached(7)), (2, Some(vec!["k".to_owned()])));
    let ops = vec![op_delete("k", ""), Operation::Put(leased("a", 7)).into()];
    kv.all(ops).expect("allowed");
    assert_eq!((kv.revision(), kv.attached(7)), (3, Some(vec!["a".to_owned()])));
}

#[test]
fn only_the_lease_that_was_meant_expires() {
    let mut kv = Kv::new();
    kv.grant(7, 10).expect("allowed");
    kv.grant(8, 10).expect("allowed");
    kv.try_put(leased("a", 7)).expect("allowed");
    kv.try_put(leased("b", 8)).expect("allowed");
    kv.revoke(8).expect("it is there");
    // Granted at entry 6: whoever saw the other one expire does not mean this one.
    kv.grant(8, 10).expect("allowed");
    kv.try_put(leased("b", 8)).expect("allowed");
    let expired = |(id, granted_at)| ExpiredLease { id, granted_at };
    let leases = [(7, 1), (8, 2), (9, 3), (7, 1)].map(expired).to_vec();
    let reply = kv.apply(&Command::LeaseExpire(LeaseExpireRequest { leases }));
    assert_eq!(reply, Ok(Response::LeaseExpire(LeaseExpireResponse { revision: 6, expired: 1 })));
    assert_eq!((kv.attached(7), kv.attached(8)), (None, Some(vec!["b".to_owned()])));
}

#[test]
fn leases_are_listed_in_pieces() {
    let mut kv = Kv::new();
    for id in [5, i64::MIN, 9, i64::MAX] {
        kv.grant(id, 10).expect("allowed");
    }
    let list = |from: i64, limit: u32| {
        let list = kv.ask(&LeaseListRequest { from, limit }).expect("nothing forbids it");
        (list.leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), list.more)
    };
    assert_eq!(list(i64::MIN, 10), (vec![i64::MIN, 5, 9, i64::MAX], false));
    assert_eq!(list(i64::MIN, 3), (vec![i64::MIN, 5, 9], true));
    assert_eq!(list(10, 3), (vec![i64::MAX], false));
    assert_eq!(list(0, 0), (vec![], true));
}

/// Three leases, keys that were attached, moved, detached; one lease gone.
fn busy() -> Kv {
    let mut kv = Kv::new();
    for id in [3, 1, 2] {
        kv.grant(id, 10 * id).expect("allowed");
    }
    for (key, lease) in [("a", 1), ("b", 2), ("c", 3), ("d", 3), ("a", 2), ("c", 0)] {
        kv.try_put(leased(key, lease)).expect("allowed");
    }
    kv.revoke(1).expect("it is there");
    kv
}

#[test]
fn a_snapshot_holds_the_leases_and_what_is_attached_to_them() {
    let kv = busy();
    let snapshot = kv.store.snapshot();
    let restored = Store::<MemoryEngine>::restore(&snapshot).expect("it is one");
    assert!(restored.leases().eq(kv.store.leases()));
    assert!(restored.snapshot() == snapshot);
    for id in 1..=3 {
        let query = LeaseTimeToLiveRequest { id, keys: true };
        assert_eq!(restored.ask(&query), kv.ask(&query));
    }
    for at in 0..snapshot.len() {
        let mut damaged = snapshot.to_vec();
        damaged[at] ^= 0x04;
        assert!(Store::<MemoryEngine>::restore(&damaged).is_err(), "damaged at {at}");
    }
}

#[test]
fn leases_survive_a_restart() {
    let disk = bowline_storage::SimDisk::new();
    let mut store = open(&disk, 1 << 20).expect("it is new");
    for (index, id) in (1..).zip([3, 1, 2]) {
        let grant = Command::LeaseGrant(LeaseGrantRequest { id, ttl: 10 });
        store.apply_command(Index(index), &grant).expect("allowed");
    }
    store.apply_command(Index(4), &Command::Put(leased("k", 2))).expect("allowed");
    store.checkpoint().expect("the disk works");
    store.apply_command(Index(5), &Command::LeaseRevoke(LeaseRevokeRequest { id: 3 })).expect("allowed");
    store.checkpoint().expect("the disk works");
    let size = store.size().in_use;
    drop(store);
    let mut store = open(&disk, 1 << 20).expect("it is whole");
    assert_eq!(store.leases().map(|lease| (lease.id, lease.granted_at.0)).collect::<Vec<_>>(), [(1, 2), (2, 3)]);
    assert_eq!(store.size().in_use, size);
    store.apply_command(Index(6), &Command::LeaseRevoke(LeaseRevokeRequest { id: 2 })).expect("it is there");
    assert!(store.is_empty());
}

#[test]
fn a_snapshot_of_the_first_format_is_read() {
    let mut kv = Kv::new();
    kv.put("k", "v");
    let new = kv.store.snapshot();
    let head = [&new[..9], &[1], &new[10..34]].concat();
    let old = [&head[..], &crc32c::crc32c(&head).to_le_bytes(), &new[42..]].concat();
    let restored = Store::<MemoryEngine>::restore(&old).expect("it is one");
    assert_eq!(restored.hash_kv(0), kv.hash(0));
}
