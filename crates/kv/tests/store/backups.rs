//! Backups: the store as a bbolt file in etcd's form, and back.

use std::collections::BTreeMap;
use std::io::Cursor;

use bowline_bolt::{Bolt, Writer};
use bowline_kv::store::*;
use bowline_node::StateMachine;
use bowline_node::raft::Index;
use proptest::prelude::*;

use crate::bench::*;
use crate::disk::apply;

/// The index of a new cluster's first state.
const START: Index = Index(1);

type Buckets = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

fn backup_of<E: Engine>(store: &Store<E>) -> Vec<u8> {
    let origin = BackupOrigin { term: 3, voters: vec![1, u64::MAX], learners: vec![] };
    let dump = store.dump().expect("it is whole");
    dump.write_backup(&origin, Cursor::new(Vec::new())).expect("memory takes it").into_inner()
}

fn restored(file: &[u8], raise: Option<i64>) -> Result<Store<MemoryEngine>, BackupError> {
    let backup = Backup::open(file)?;
    let plan = backup.plan(raise)?;
    let mut snapshot = Vec::new();
    backup.write_snapshot(&plan, START, &mut snapshot)?;
    let store = Store::<MemoryEngine>::restore(&snapshot).expect("what was checked is good");
    assert_eq!((store.revision(), store.compacted_revision()), (plan.revision(), plan.compacted_revision()));
    assert_eq!((store.len(), store.applied()), (plan.keys(), START));
    Ok(store)
}

fn refused(buckets: &Buckets) -> String {
    restored(&file_of(buckets), None).expect_err("it must be refused").to_string()
}

fn buckets_of(file: &[u8]) -> Buckets {
    let bolt = Bolt::open(file).expect("it is whole");
    let (mut found, mut names) = (Buckets::new(), bolt.cursor(&bolt.root()));
    while let Some(entry) = names.next().expect("it is whole") {
        let bucket = entry.bucket.expect("only buckets are in the root");
        let (mut pairs, mut cursor) = (Vec::new(), bolt.cursor(&bucket));
        while let Some(pair) = cursor.next().expect("it is whole") {
            pairs.push((pair.key.to_vec(), pair.value.expect("no bucket is in a bucket").to_vec()));
        }
        found.insert(String::from_utf8_lossy(entry.key).into_owned(), pairs);
    }
    found
}

fn file_of(buckets: &Buckets) -> Vec<u8> {
    let mut writer = Writer::new(Cursor::new(Vec::new()), 4096).expect("a good size");
    for (name, pairs) in buckets {
        writer.bucket(name.as_bytes()).expect("they are sorted");
        pairs.iter().for_each(|(key, value)| writer.put(key, value).expect("they are sorted"));
    }
    writer.finish().expect("memory takes it").into_inner()
}

/// A store with a bit of everything.
fn example() -> Kv {
    let mut kv = Kv::new();
    kv.grant(7, 60).expect("allowed");
    kv.grant(-8, 90).expect("allowed");
    kv.put("a", "1");
    kv.try_put(leased("b", 7)).expect("allowed");
    kv.all(vec![op_put("a", "2"), op_delete("b", ""), op_put("c", "3")]).expect("allowed");
    kv.compact(3).expect("allowed");
    kv.try_put(leased("a", -8)).expect("allowed");
    kv.change(AlarmRequest { member: 9, kind: AlarmKind::NoSpace.into(), automatic: true, active: true })
        .expect("allowed");
    kv
}

#[test]
fn the_buckets_are_those_of_etcd() {
    let kv = example();
    let buckets = buckets_of(&backup_of(&kv.store));
    let names: Vec<&str> = buckets.keys().map(String::as_str).collect();
    let expected =
        ["alarm", "auth", "authRoles", "authUsers", "cluster", "key", "lease", "members", "members_removed", "meta"];
    assert_eq!(names, expected);
    let place = |main: i64, sub: u64| [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes()].concat();
    let keys: Vec<Vec<u8>> = buckets["key"].iter().map(|(key, _)| key.clone()).collect();
    let tombstone = [&place(4, 1)[..], b"t"].concat();
    assert_eq!(keys, [place(2, 0), place(3, 0), place(4, 0), tombstone, place(4, 2), place(5, 0)]);
    assert_eq!(buckets["key"][3].1, b"\x0a\x01b");
    assert_eq!(
        buckets["lease"],
        [
            (7_i64.to_be_bytes().to_vec(), b"\x08\x07\x10\x3c".to_vec()),
            ((-8_i64).to_be_bytes().to_vec(), b"\x08\xf8\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\x5a".to_vec()),
        ]
    );
    assert_eq!(buckets["alarm"], [(b"\x08\x09\x10\x01".to_vec(), vec![])]);
    let meta: BTreeMap<&[u8], &[u8]> = buckets["meta"].iter().map(|(key, value)| (&key[..], &value[..])).collect();
    assert_eq!(meta[&b"confState"[..]], br#"{"voters":[1,18446744073709551615],"auto_leave":false}"#);
    assert_eq!(meta[&b"consistent_index"[..]], kv.store.applied().0.to_be_bytes());
    assert_eq!(meta[&b"term"[..]], 3_u64.to_be_bytes());
    for key in [&b"finishedCompactRev"[..], b"scheduledCompactRev"] {
        assert_eq!(meta[key], place(3, 0));
    }
    let empty = buckets_of(&backup_of(&Kv::new().store));
    assert_eq!((empty["key"].len(), empty["meta"].len()), (0, 3));
}

#[test]
fn the_summary_is_that_of_etcds_tools() {
    let file = backup_of(&example().store);
    let summary = Backup::open(&file).expect("it is whole").summary().expect("it is whole");
    let mut hash = 0;
    for (name, pairs) in buckets_of(&file) {
        hash = crc32c::crc32c_append(hash, name.as_bytes());
        for (key, value) in pairs {
            hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, &key), &value);
        }
    }
    let (total_bytes, version) = (file.len() as u64, "3.5.0".to_owned());
    assert_eq!(summary, BackupSummary { hash, revision: 5, total_keys: 14, total_bytes, version });
}

/// Everything that clients can see of a history, at each readable revision, and the leases.
fn seen<E: Engine>(store: &Store<E>) -> Vec<String> {
    let leases: Vec<(i64, i64)> = store.leases().map(|lease| (lease.id, lease.ttl)).collect();
    let mut seen = vec![format!("{} {} {leases:?}", store.revision(), store.compacted_revision())];
    for revision in store.compacted_revision().max(1)..=store.revision() {
        let range = store.range(&RangeRequest { revision, ..everything() }).expect("it is readable");
        seen.push(format!(
            "{revision}: {:?} {:?}",
            range.kvs,
            store.hash_kv_now(revision).expect("it is readable").hash
        ));
    }
    for lease in store.leases() {
        let asked = LeaseTimeToLiveRequest { id: lease.id, keys: true };
        seen.push(format!("{:?}", store.ask(&asked).expect("it is readable").keys));
    }
    seen
}

#[test]
fn a_restored_store_without_alarms_goes_on() {
    let kv = example();
    let mut store = restored(&backup_of(&kv.store), None).expect("it is good");
    assert_eq!(seen(&store), seen(&kv.store));
    assert_eq!(store.alarms().count(), 0);
    store.apply_command(Index(2), &Command::Put(put("a", "new"))).expect("nothing forbids it");
    let found = store.range(&range("a", "")).expect("it is readable");
    assert_eq!((found.revision, found.kvs[0].version, found.kvs[0].create_revision), (6, 4, 2));
    store.apply_command(Index(3), &Command::LeaseRevoke(LeaseRevokeRequest { id: 7 })).expect("it was kept");
}

#[test]
fn a_raised_revision_hides_what_was_before() {
    let kv = example();
    let store = restored(&backup_of(&kv.store), Some(1_000)).expect("it is good");
    assert_eq!((store.revision(), store.compacted_revision()), (1_005, 1_005));
    let all = store.range(&everything()).expect("it is readable");
    assert_eq!(all.kvs, kv.store.range(&everything()).expect("it is readable").kvs);
    let old = RangeRequest { revision: 1_004, ..everything() };
    assert_eq!(store.range(&old), Err(KvError::Compacted));
    let backup = backup_of(&store);
    assert_eq!(buckets_of(&backup)["key"].len(), 2, "only what exists is kept");
    assert_eq!(seen(&restored(&backup, None).expect("it is good")), seen(&store));
    let error = restored(&backup, Some(i64::MAX)).expect_err("too high").to_string();
    assert_eq!(error, "revision 1005, raised by 9223372036854775807, is beyond 2^62");
}

#[test]
fn what_etcd_has_not_removed_yet_is_not_restored() {
    let mut kv = example();
    let mut buckets = buckets_of(&backup_of(&kv.store));
    // As in a database that etcd is about to compact.
    for (key, value) in buckets.get_mut("meta").expect("it is there") {
        if key.starts_with(b"scheduled") {
            value[..8].copy_from_slice(&4_i64.to_be_bytes());
        }
    }
    kv.compact(4).expect("allowed");
    let store = restored(&file_of(&buckets), None).expect("it is good");
    assert_eq!(seen(&store), seen(&kv.store));
    kv.scrub();
    assert_eq!(buckets_of(&backup_of(&store))["key"], buckets_of(&backup_of(&kv.store))["key"]);
}

#[test]
fn what_etcds_tools_leave_behind_is_understood() {
    let kv = example();
    let mut buckets = buckets_of(&backup_of(&kv.store));
    // A raised revision is an empty record; a store without users has these.
    let raised = [&100_i64.to_be_bytes()[..], b"_", &0_u64.to_be_bytes()].concat();
    buckets.get_mut("key").expect("it is there").push((raised, vec![]));
    let auth = [("authEnabled", vec![0]), ("authRevision", vec![0, 0, 0, 0, 0, 0, 0, 1])];
    buckets.insert("auth".to_owned(), auth.map(|(key, value)| (key.into(), value)).to_vec());
    buckets.get_mut("meta").expect("it is there").push((b"zzz".to_vec(), b"unknown".to_vec()));
    assert_eq!(restored(&file_of(&buckets), None).expect("it is good").revision(), 100);
    buckets.remove("lease");
    assert!(refused(&buckets).contains("a key is attached to lease -8, which does not exist"));
}

#[test]
fn what_can_not_be_restored_is_refused_with_the_reason() {
    let good = buckets_of(&backup_of(&example().store));
    let with = |name: &str, pairs: Vec<(Vec<u8>, Vec<u8>)>| {
        let mut buckets = good.clone();
        buckets.insert(name.to_owned(), pairs);
        refused(&buckets)
    };
    let one = |key: &[u8], value: &[u8]| vec![(key.to_vec(), value.to_vec())];
    for (name, pairs) in [
        ("authUsers", one(b"root", b"\xff")),
        ("authUsers", one(b"ann", b"\x0a\x03ann\x1a\x04none")),
        ("authRoles", one(b"r", b"")),
        ("auth", one(b"authRevision", b"\0")),
    ] {
        let error = with(name, pairs);
        assert!(error.contains("user") || error.contains("role"), "{name}: {error}");
    }
    let place = [&2_i64.to_be_bytes()[..], b"_", &0_u64.to_be_bytes()].concat();
    let wrong = [&2_i64.to_be_bytes()[..], b"-", &0_u64.to_be_bytes()].concat();
    let far = [&2_i64.to_be_bytes()[..], b"_", &u64::MAX.to_be_bytes()].concat();
    let record = b"\x0a\x01a\x10\x02\x18\x02\x20\x01";
    for (key, value, expected) in [
        (&b"short"[..], &record[..], "a key of the bucket `key` has 5 bytes; allowed: 17 or 18"),
        (&wrong, record, "a key of the bucket `key` is no revision"),
        (&far, record, "a key of the bucket `key` is no revision"),
        (&place, b"\xff", "the record of revision 2: the storage engine could not read a record"),
        (&place, b"\x0a\x01a\x10\x02\x18\x09\x20\x01", "the record of revision 2 says that it is of 9"),
        (&place, b"\x0a\x01a\x10\x02\x18\x02", "a version is not positive"),
    ] {
        let error = with("key", one(key, value));
        assert!(error.contains(expected), "{error:?} should contain {expected:?}");
    }
    assert!(with("lease", one(&[0; 8], b"\x08\x07\x10\x3c")).contains("lease 7 has the key of another one"));
    assert!(with("lease", one(&7_i64.to_be_bytes(), b"\x08\x07")).contains("it holds an invalid lease"));
    assert!(with("meta", one(b"finishedCompactRev", b"\0")).contains("its compacted revision is too short"));
    for missing in ["key", "meta"] {
        let mut buckets = good.clone();
        buckets.remove(missing);
        assert_eq!(refused(&buckets), format!("it has no bucket `{missing}`, so it is no database of etcd"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_is_not_refused_can_be_restored(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
        raise in prop::option::of(any::<i64>().prop_map(|raise| raise.max(1))),
    ) {
        let good = buckets_of(&backup_of(&example().store));
        let mut buckets = good.clone();
        for (pair, at, byte) in changes {
            // Of the pairs that are read: their keys and values, anywhere.
            let mut read: Vec<&mut (Vec<u8>, Vec<u8>)> = Vec::new();
            read.extend(buckets.iter_mut().filter(|(name, _)| ["key", "lease", "meta"].contains(&&name[..])).flat_map(|(_, pairs)| pairs));
            let (key, value) = pair.get_mut(&mut read);
            let length = key.len() + value.len();
            let at = at.index(length);
            if at < key.len() { key[at] = byte } else { value[at - key.len()] = byte }
        }
        for pairs in buckets.values_mut() {
            pairs.sort();
            pairs.dedup_by(|one, other| one.0 == other.0);
        }
        // It restores what it accepts, and checks that.
        let _ = restored(&file_of(&buckets), raise);
    }

    #[test]
    fn what_is_restored_is_what_was_backed_up(
        rounds in prop::collection::vec((1..60_u64, 0..20_usize), 1..6), raise in prop::option::of(1..1_000_i64),
    ) {
        let mut store = Store::open(MemoryEngine::default()).expect("memory does not fail");
        for (entries, scrub) in rounds {
            apply(&mut store, entries);
            if scrub > 0 {
                store.scrub(scrub).expect("memory does not fail");
            }
        }
        let file = backup_of(&store);
        let again = restored(&file, None).expect("it is good");
        prop_assert_eq!(seen(&again), seen(&store));
        prop_assert_eq!(&buckets_of(&backup_of(&again))["key"], &buckets_of(&file)["key"]);
        let raised = restored(&file, raise).expect("it is good");
        prop_assert_eq!(raised.range(&everything()).map(|found| found.kvs), store.range(&everything()).map(|found| found.kvs));
        prop_assert_eq!(raised.revision(), store.revision() + raise.unwrap_or(0));
    }
}

#[test]
fn users_and_roles_come_back() {
    let mut kv = example();
    let permission = Permission { kind: PermissionKind::ReadWrite.into(), key: "k".into(), range_end: "l".into() };
    for change in [
        AuthChange::AddUser(NewPassword { user: ROOT.to_owned(), password_hash: "a hash".to_owned(), since: 0 }),
        AuthChange::AddUser(NewPassword { user: "cert".to_owned(), ..NewPassword::default() }),
        AuthChange::AddRole("r".to_owned()),
        AuthChange::GrantPermission(RolePermission { role: "r".to_owned(), permission: Some(permission) }),
        AuthChange::GrantRole(RoleOfUser { user: "cert".to_owned(), role: "r".to_owned() }),
        AuthChange::GrantRole(RoleOfUser { user: ROOT.to_owned(), role: ROOT.to_owned() }),
        AuthChange::Enable(()),
    ] {
        kv.change(AuthRequest { change: Some(change) }).expect("allowed");
    }
    let store = restored(&backup_of(&kv.store), None).expect("it is good");
    let (before, after) = (kv.store.auth(), store.auth());
    assert_eq!((after.is_enabled(), after.revision()), (true, before.revision()));
    assert_eq!(before.roles().collect::<Vec<_>>(), after.roles().collect::<Vec<_>>());
    let users = |auth: &AuthBook| -> Vec<User> { auth.users().map(|user| User { since: 0, ..user.clone() }).collect() };
    assert_eq!(users(before), users(after));
    let everybody = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    let by = |at| Principal::User(LoggedIn { user: "cert".into(), at });
    assert_eq!(store.ask(&everybody), Err(KvError::UserEmpty));
    assert_eq!(store.ask_by(&by(1), &everybody).0, Err(KvError::InvalidAuthToken), "everybody has to log in again");
    assert!(store.ask_by(&by(after.revision()), &everybody).0.is_ok());
}
