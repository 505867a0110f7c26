//! Lines X10 and X11 of the checklist, as far as the state machine decides them.

use bowline_kv::store::*;
use bowline_node::StateMachine;

use crate::bench::*;

fn alarm(member: u64, kind: AlarmKind, automatic: bool) -> Alarm {
    Alarm { member, kind: kind.into(), automatic }
}

/// Activates or deactivates an alarm. Returns what has changed.
fn set(kv: &mut Kv, alarm: Alarm, active: bool) -> Vec<Alarm> {
    let Alarm { member, kind, automatic } = alarm;
    kv.change(AlarmRequest { member, kind, automatic, active }).expect("alarms can always be changed").alarms
}

fn list(kv: &Kv, kind: AlarmKind) -> Vec<Alarm> {
    kv.ask(&AlarmListRequest { kind: kind.into() }).expect("alarms can always be listed").alarms
}

#[test]
fn x09_alarms_are_activated_listed_and_deactivated() {
    let mut kv = Kv::new();
    let (full, other, corrupt) =
        (alarm(1, AlarmKind::NoSpace, false), alarm(0, AlarmKind::NoSpace, false), alarm(1, AlarmKind::Corrupt, false));
    for alarm in [full, other, corrupt, full] {
        assert_eq!(set(&mut kv, alarm, true), [alarm]);
    }
    assert_eq!(set(&mut kv, alarm(1, AlarmKind::None, false), true), []);
    assert_eq!(list(&kv, AlarmKind::None), [other, full, corrupt]);
    assert_eq!(list(&kv, AlarmKind::NoSpace), [other, full]);
    assert_eq!(set(&mut kv, alarm(2, AlarmKind::NoSpace, false), false), []);
    assert_eq!(set(&mut kv, alarm(1, AlarmKind::None, false), false), []);
    assert_eq!(set(&mut kv, full, false), [full]);
    assert_eq!(set(&mut kv, full, false), []);
    assert_eq!(list(&kv, AlarmKind::None), [other, corrupt]);
    let unknown = AlarmRequest { member: 1, kind: 3, automatic: false, active: true };
    assert_eq!(kv.change(unknown), Err(KvError::Unreadable));
}

#[test]
fn an_alarm_of_an_operator_is_not_taken_back_by_its_member() {
    let mut kv = Kv::new();
    let [operator, automatic] = [false, true].map(|automatic| alarm(1, AlarmKind::NoSpace, automatic));
    assert_eq!(set(&mut kv, automatic, true), [automatic]);
    assert_eq!(set(&mut kv, automatic, false), [automatic]);
    for (first, second) in [(automatic, operator), (operator, automatic)] {
        assert_eq!(set(&mut kv, first, true), [first]);
        assert_eq!(set(&mut kv, second, true), [operator]);
        assert_eq!(set(&mut kv, automatic, false), []);
        assert_eq!(set(&mut kv, operator, false), [operator]);
    }
    set(&mut kv, automatic, true);
    assert_eq!(set(&mut kv, operator, false), [automatic], "an operator may deactivate both");
}

#[test]
fn x10_without_space_nothing_is_added() {
    let mut kv = Kv::new();
    kv.put("k", "v");
    kv.grant(7, 10).expect("allowed");
    let full = alarm(1, AlarmKind::NoSpace, true);
    set(&mut kv, full, true);
    let put_op = || RequestOp::from(Operation::Put(put("k", "w")));
    let branches = |success, failure| TxnRequest { success, failure, ..TxnRequest::default() };
    assert_eq!(kv.try_put(put("k", "w")), Err(KvError::NoSpace));
    assert_eq!(kv.grant(8, 10), Err(KvError::NoSpace));
    for txn in [
        branches(vec![put_op()], vec![]),
        branches(vec![], vec![put_op()]),
        branches(vec![op_txn(vec![op_txn(vec![put_op()])])], vec![]),
    ] {
        assert_eq!(kv.txn(txn), Err(KvError::NoSpace));
    }
    let read = kv.all(vec![Operation::Range(range("k", "")).into()]).expect("it only reads");
    assert_eq!(read.responses.len(), 1);
    kv.delete("k", "");
    kv.all(vec![Operation::DeleteRange(delete("k", "")).into()]).expect("it only deletes");
    let revision = kv.revision();
    kv.compact(revision).expect("allowed");
    kv.revoke(7).expect("allowed");
    set(&mut kv, full, false);
    kv.put("k", "w");
    assert_eq!(KvError::NoSpace.to_string(), "etcdserver: mvcc: database space exceeded");
    assert_eq!(KvError::NoSpace.code(), Code::ResourceExhausted);
}

#[test]
fn x11_in_a_corrupt_cluster_neither_keys_nor_leases_are_touched() {
    let mut kv = Kv::new();
    kv.put("k", "v");
    kv.grant(7, 10).expect("allowed");
    let before = kv.store.hash_kv(0);
    let corrupt = alarm(2, AlarmKind::Corrupt, false);
    set(&mut kv, corrupt, true);
    let read = TxnRequest { success: vec![Operation::Range(range("k", "")).into()], ..TxnRequest::default() };
    let expired = LeaseExpireRequest { leases: vec![ExpiredLease { id: 7, granted_at: 2 }] };
    assert_eq!(kv.try_put(put("k", "w")), Err(KvError::Corrupt));
    assert_eq!(kv.try_delete(delete("k", "")), Err(KvError::Corrupt));
    assert_eq!(kv.txn(read.clone()), Err(KvError::Corrupt));
    assert_eq!(kv.ask(&read), Err(KvError::Corrupt));
    assert_eq!(kv.range(range("k", "")), Err(KvError::Corrupt));
    assert_eq!((kv.compact(2), kv.revoke(7)), (Err(KvError::Corrupt), Err(KvError::Corrupt)));
    assert_eq!(kv.grant(8, 10), Err(KvError::Corrupt));
    assert_eq!(kv.change(expired), Err(KvError::Corrupt));
    assert_eq!(kv.ask(&LeaseTimeToLiveRequest { id: 7, keys: true }), Err(KvError::Corrupt));
    assert_eq!(kv.ask(&LeaseListRequest { from: 0, limit: 9 }), Err(KvError::Corrupt));
    assert_eq!(kv.store.hash_kv(0), before);
    kv.change(ClusterVersionRequest { version: 9 }).expect("allowed");
    set(&mut kv, corrupt, false);
    assert!(kv.get_at("k", 0).expect("allowed").is_some());
    assert_eq!(KvError::Corrupt.to_string(), "etcdserver: corrupt cluster");
    assert_eq!(KvError::Corrupt.code(), Code::DataLoss);
}

#[test]
fn a_cost_is_that_of_the_larger_branch() {
    let put_op = |value: &str| RequestOp::from(Operation::Put(put("key", value)));
    let cost = |success, failure| Command::Txn(TxnRequest { success, failure, ..TxnRequest::default() }).cost();
    assert_eq!(Command::Put(put("key", "value")).cost(), 264);
    assert_eq!(Command::LeaseGrant(LeaseGrantRequest { id: 1, ttl: 1 }).cost(), 64);
    assert_eq!(Command::DeleteRange(delete("key", "")).cost(), 0);
    assert_eq!(cost(vec![], vec![]), 0);
    assert_eq!(cost(vec![put_op("value"), put_op("")], vec![put_op("longer value")]), 264 + 259);
    assert_eq!(cost(vec![op_txn(vec![put_op("value")])], vec![put_op("")]), 264);
}

#[test]
fn alarms_outlast_a_restart_and_a_snapshot_and_leave_no_trace() {
    let mut kv = Kv::new();
    kv.put("k", "v");
    let (without, alarms) =
        (kv.store.snapshot(), [alarm(1, AlarmKind::NoSpace, true), alarm(3, AlarmKind::Corrupt, false)]);
    for alarm in alarms {
        set(&mut kv, alarm, true);
    }
    let with = kv.store.snapshot();
    let mut store = Store::restore_from(MemoryEngine::default(), &mut &with[..]).expect("it is one");
    assert!(store.alarms().eq(alarms));
    store.checkpoint().expect("there is room");
    let reopened = Store::open(store.engine().clone()).expect("it is whole");
    assert!(reopened.alarms().eq(alarms));
    // Only with alarms the format is one that the program before does not know.
    let note = |store: &Store<MemoryEngine>| store.engine().meta().expect("memory does not fail")[0];
    assert_eq!((without[9], with[9], note(&reopened)), (4, 5, 4));
    for alarm in alarms {
        set(&mut kv, alarm, false);
    }
    kv.store.flush().expect("memory does not fail");
    assert_eq!((kv.store.snapshot()[9], note(&kv.store)), (4, 3));
}
