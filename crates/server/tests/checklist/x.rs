//! Maintenance.

use bowline_api::etcdserverpb as pb;
use bowline_api::{Message, mvccpb};
use bowline_bolt::Bolt;
use pb::alarm_request::AlarmAction;
use pb::maintenance_client::MaintenanceClient;
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::line::{Line, line};
use crate::requests::*;
use crate::site::{Site, bytes, refused, revision};

const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const CORRUPT: &str = "etcdserver: corrupt cluster";

/// A quota that a few puts reach.
const SMALL: (&str, &str) = ("quota_backend_bytes", "16777216");

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line!(Fresh, x01_the_status_tells_how_a_member_is),
        line!(Members, x01_the_status_tells_that_nobody_leads),
        line!(Shared, x02_the_version_is_three_numbers),
        line!(Fresh, x03_a_snapshot_comes_in_blobs_and_ends_with_its_checksum),
        line!(Members, x03_snapshots_wait_for_each_other_but_not_for_a_client_that_is_gone),
        line!(Fresh, x04_a_snapshot_is_a_database_of_etcd),
        line!(Fresh, x05_the_checksum_is_made_of_the_history),
        line!(Fresh, x05_the_checksums_of_the_latest_compactions_are_kept).not_on_3_4("it is new with 3.5"),
        line!(Fresh, x06_a_checksum_has_the_bounds_of_a_read),
        line!(Shared, x07_the_hash_of_the_database_is_etcds_own),
        line!(Members, x08_only_the_leader_hands_over_and_only_to_a_member),
        line!(Fresh, x08_leadership_goes_to_members_only),
        line!(Fresh, x09_whoever_asks_for_alarms_finds_none),
        line!(Fresh, x09_activating_no_alarm_changes_nothing).not_on_3_4("3.4.23 panics, and again at every start"),
        line!(Fresh, x09_alarms_are_activated_listed_and_deactivated),
        line!(Members, x09_what_is_no_alarm_is_refused),
        line!(Fresh, x10_with_an_alarm_of_an_operator_nothing_is_added),
        line!(Fresh, x10_a_store_that_reaches_its_quota_raises_the_alarm).with(&[SMALL]),
        line!(Fresh, x10_a_full_store_refuses_puts_and_frees_itself)
            .with(&[SMALL])
            .not_on_etcd("its alarm stays until an operator deactivates it"),
        line!(Members, x10_an_alarm_of_one_member_is_for_all),
        line!(Fresh, x11_in_a_corrupt_cluster_neither_keys_nor_leases_are_touched),
        line!(Fresh, x12_the_quota_is_two_gibibytes),
        line!(Fresh, x12_a_negative_quota_is_none).with(&[("quota_backend_bytes", "-1")]),
        line!(Shared, x13_defragment_is_answered),
        line!(Fresh, x14_a_downgrade_has_a_target_one_minor_version_below).not_on_3_4("came with 3.5"),
    ]
}

async fn x01_the_status_tells_how_a_member_is(site: Site) {
    let before = site.status().await;
    site.put("k", &"v".repeat(1_000)).await;
    let mut status = site.status().await;
    // etcd answers a put a little before it counts the entry as applied.
    for _ in 0..500 {
        if status.raft_applied_index > before.raft_applied_index {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        status = site.status().await;
    }
    let header = status.header.expect("a header");
    assert_eq!((status.leader, status.raft_term), (header.member_id, header.raft_term));
    assert!(status.raft_index > before.raft_index && status.raft_index >= status.raft_applied_index);
    assert!(status.raft_applied_index > before.raft_applied_index);
    assert!(status.db_size > 1_000 && status.db_size_in_use > 1_000 && status.db_size >= status.db_size_in_use);
    assert!(status.errors.is_empty() && !status.is_learner, "{status:?}");
    if !site.is_etcd() {
        assert_eq!(status.storage_version.split('.').count(), 3);
        assert!(!status.downgrade_info.expect("it is told").enabled);
    }
}

async fn x01_the_status_tells_that_nobody_leads(mut site: Site) {
    for id in [2, 3] {
        site.members().kill(id);
    }
    let mut status = site.status().await;
    for _ in 0..200 {
        if status.leader == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        status = site.status().await;
    }
    assert_eq!((status.leader, status.errors), (0, vec!["etcdserver: no leader".to_owned()]));
}

async fn x02_the_version_is_three_numbers(site: Site) {
    let version = site.status().await.version;
    let parts: Vec<u32> = version.split('.').map(|part| part.parse().expect("a number")).collect();
    assert_eq!(parts.len(), 3, "{version}");
    // From here on Kubernetes believes what is said about progress.
    let trusted = parts >= vec![3, 5, 13];
    assert!(trusted || site.is_etcd(), "{version}");
}

/// The checksum of a history: etcd's formula, written down once more.
#[derive(Clone)]
struct Checksum(u32);

impl Checksum {
    fn new() -> Checksum {
        Checksum(crc32c::crc32c(b"key"))
    }

    fn place(&mut self, main: i64, sub: i64, tombstone: bool) {
        let mut place = main.to_be_bytes().to_vec();
        place.push(b'_');
        place.extend_from_slice(&sub.to_be_bytes());
        place.extend_from_slice(if tombstone { b"t" } else { b"" });
        self.0 = crc32c::crc32c_append(self.0, &place);
    }

    fn put(&mut self, sub: i64, kv: &mvccpb::KeyValue) {
        self.place(kv.mod_revision, sub, false);
        self.0 = crc32c::crc32c_append(self.0, &kv.encode_to_vec());
    }

    fn tombstone(&mut self, main: i64, sub: i64, key: &str) {
        self.place(main, sub, true);
        let kv = mvccpb::KeyValue { key: bytes(key), ..mvccpb::KeyValue::default() };
        self.0 = crc32c::crc32c_append(self.0, &kv.encode_to_vec());
    }
}

async fn x05_the_checksum_is_made_of_the_history(site: Site) {
    let (a, b) = (site.key("a"), site.key("b"));
    let mut checksum = Checksum::new();
    assert_eq!(site.hash(0).await.expect("told").hash, checksum.0, "of nothing");
    let kv = |key: &str, value: &str, create_revision, mod_revision, version| mvccpb::KeyValue {
        key: bytes(key),
        value: bytes(value),
        create_revision,
        mod_revision,
        version,
        lease: 0,
    };
    site.put("a", "1").await;
    checksum.put(0, &kv(&a, "1", 2, 2, 1));
    assert_eq!(site.hash(0).await.expect("told").hash, checksum.0);
    site.put("a", "2").await;
    checksum.put(0, &kv(&a, "2", 2, 3, 2));
    let at_three = checksum.clone();
    site.txn(all(vec![op_put(&b, ""), op_delete(&a, "")])).await;
    checksum.put(0, &kv(&b, "", 4, 4, 1));
    checksum.tombstone(4, 1, &a);
    assert_eq!(site.hash(0).await.expect("told").hash, checksum.0);
    assert_eq!(site.hash(3).await.expect("told").hash, at_three.0, "as it was");
    let at_four = site.hash(4).await.expect("told").hash;
    site.put("b", "new").await;
    // What is superseded is skipped, and so is a tombstone exactly at the compacted revision.
    site.kv().compact(pb::CompactionRequest { revision: 4, physical: true }).await.expect("compacted");
    let mut latest = Checksum::new();
    latest.put(0, &kv(&b, "new", 4, 5, 2));
    assert_eq!(site.hash(5).await.expect("told").hash, latest.0);
    if !site.is_3_4() {
        // There, the compacted revision itself has no checksum any more: since then the one from before is kept.
        let told = site.hash(4).await.expect("told");
        assert_eq!((told.hash, told.compact_revision, told.hash_revision), (at_four, -1, 4));
    }
}

async fn x05_the_checksums_of_the_latest_compactions_are_kept(site: Site) {
    for number in 0..20 {
        site.put("k", &number.to_string()).await;
    }
    let mut told = Vec::new();
    for at in [5, 10, 15] {
        told.push(site.hash(at).await.expect("told"));
        site.kv().compact(pb::CompactionRequest { revision: at, physical: true }).await.expect("compacted");
    }
    assert_eq!(told.iter().map(|told| told.compact_revision).collect::<Vec<_>>(), [-1, 5, 10]);
    for before in told {
        let kept = site.hash(before.hash_revision).await.expect("told");
        assert_eq!((kept.hash, kept.compact_revision), (before.hash, before.compact_revision));
    }
}

async fn x06_a_checksum_has_the_bounds_of_a_read(site: Site) {
    assert_eq!(site.hash(0).await.expect("told").compact_revision, -1);
    site.put("k", "1").await;
    site.put("k", "2").await;
    let at = revision(&site.put("k", "3").await.header);
    site.compact(at - 1).await;
    let told = site.hash(0).await.expect("told");
    assert_eq!((told.compact_revision, revision(&told.header)), (at - 1, at));
    assert_eq!(site.hash(at).await.expect("told").hash, told.hash);
    if !site.is_3_4() {
        // There neither is: what is compacted begins one earlier, and the revision is not told.
        assert_eq!(told.hash_revision, at);
        site.hash(at - 1).await.expect("it is readable");
    }
    let past = "etcdserver: mvcc: required revision has been compacted";
    refused(site.hash(at - 2).await, Code::OutOfRange, past);
    let future = "etcdserver: mvcc: required revision is a future revision";
    refused(site.hash(at + 1).await, Code::OutOfRange, future);
}

/// All messages of a snapshot.
async fn snapshot(site: &Site) -> Vec<pb::SnapshotResponse> {
    let mut stream = site.maintenance().snapshot(pb::SnapshotRequest {}).await.expect("it begins").into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.expect("it goes on") {
        messages.push(message);
    }
    messages
}

/// The database in it.
fn database(mut messages: Vec<pb::SnapshotResponse>) -> Vec<u8> {
    messages.pop();
    messages.iter().flat_map(|message| message.blob.to_vec()).collect()
}

async fn x03_a_snapshot_comes_in_blobs_and_ends_with_its_checksum(site: Site) {
    for number in 0..50 {
        site.put(&number.to_string(), &"v".repeat(3_000)).await;
    }
    let messages = snapshot(&site).await;
    let (last, blobs) = messages.split_last().expect("there are some");
    let total: usize = blobs.iter().map(|message| message.blob.len()).sum();
    assert!(total > 150_000 && total.is_multiple_of(512), "{total}");
    let mut left = total;
    for (number, message) in blobs.iter().enumerate() {
        assert!(message.blob.len() == 32 << 10 || number + 1 == blobs.len(), "{number}: {}", message.blob.len());
        left -= message.blob.len();
        assert_eq!((message.remaining_bytes, &message.header), (left as u64, &None));
    }
    assert_eq!((last.remaining_bytes, &last.header), (0, &None));
    let hash = Sha256::digest(blobs.iter().flat_map(|message| message.blob.to_vec()).collect::<Vec<u8>>());
    assert_eq!(last.blob[..], hash[..]);
    if !site.is_etcd() {
        assert!(messages.iter().all(|message| message.version == "3.5.0"), "the database has the form of 3.5");
    }
}

async fn x03_snapshots_wait_for_each_other_but_not_for_a_client_that_is_gone(mut site: Site) {
    for number in 0..8 {
        site.put(&number.to_string(), &"v".repeat(1_000_000)).await;
    }
    // It takes a message, so it has its turn; and not the rest, which is more than the connection holds.
    let mut first = site.maintenance().snapshot(pb::SnapshotRequest {}).await.expect("it begins").into_inner();
    assert!(first.message().await.expect("it begins").is_some());
    let mut second = site.maintenance().snapshot(pb::SnapshotRequest {}).await.expect("it waits").into_inner();
    drop(first);
    let mut total = 0;
    while let Some(message) = second.message().await.expect("it goes on") {
        total += message.blob.len();
    }
    assert!(total > 8_000_000, "{total}");
    let folder = site.members().data_dir(1);
    let names = std::fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it is there").file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with("snapshot")), "no file is left");
}

async fn x04_a_snapshot_is_a_database_of_etcd(site: Site) {
    let (a, b) = (site.key("a"), site.key("b"));
    let lease = grant(&site, 0).await.expect("granted").id;
    site.try_put(pb::PutRequest { lease, ..put(&a, "1") }).await.expect("written");
    site.put("a", "2").await;
    site.txn(all(vec![op_put(&b, "3"), op_delete(&a, "")])).await;
    site.compact(3).await;
    let total = snapshot(&site).await.iter().map(|message| message.blob.len()).sum::<usize>();
    assert_eq!(total % 512, 32, "etcdctl refuses any other");

    let bolt = Bolt::open(database(snapshot(&site).await)).expect("it is a bbolt file");
    let (mut names, mut cursor) = (Vec::new(), bolt.cursor(&bolt.root()));
    while let Some(entry) = cursor.next().expect("it is whole") {
        names.push(String::from_utf8_lossy(entry.key).into_owned());
    }
    let of_etcd =
        ["alarm", "auth", "authRoles", "authUsers", "cluster", "key", "lease", "members", "members_removed", "meta"];
    assert_eq!(names, of_etcd);
    let pairs = |bucket: &str| {
        let bucket = bolt.bucket(bucket.as_bytes()).expect("it is whole").expect("it is there");
        let (mut pairs, mut cursor) = (Vec::new(), bolt.cursor(&bucket));
        while let Some(entry) = cursor.next().expect("it is whole") {
            pairs.push((entry.key.to_vec(), entry.value.expect("it is a pair").to_vec()));
        }
        pairs
    };
    // The record of revision 3 stays for readers at that revision, but does not count any more.
    let records = pairs("key");
    let mut checksum = crc32c::crc32c(b"key");
    for (key, value) in records.iter().filter(|(key, _)| key[7] > 3) {
        checksum = crc32c::crc32c_append(crc32c::crc32c_append(checksum, key), value);
    }
    assert_eq!(checksum, site.hash(0).await.expect("told").hash);
    let leases = pairs("lease");
    assert_eq!((leases.len(), &leases[0].0[..]), (1, &lease.to_be_bytes()[..]));
    let meta = pairs("meta");
    let compacted = meta.iter().find(|(key, _)| key == b"scheduledCompactRev").expect("it is there");
    assert_eq!(compacted.1[..8], 3_i64.to_be_bytes());
}

async fn x07_the_hash_of_the_database_is_etcds_own(site: Site) {
    let hash = site.maintenance().hash(pb::HashRequest {}).await;
    match site.is_etcd() {
        true => assert!(hash.expect("told").into_inner().header.is_some()),
        false => {
            let text = "bowline: Hash depends on etcd's own files; use HashKV";
            refused(hash, Code::Unimplemented, text);
        }
    }
}

async fn x08_only_the_leader_hands_over_and_only_to_a_member(mut site: Site) {
    let leader = site.members().leader().await;
    let follower = site.members().follower().await;
    let url = |site: &mut Site, id| format!("http://{}", site.members().server(id).client_address());
    let mut asked = MaintenanceClient::connect(url(&mut site, follower)).await.expect("it listens");
    let to = |target_id| pb::MoveLeaderRequest { target_id };
    let not_leader = "etcdserver: not leader";
    refused(asked.move_leader(to(follower)).await, Code::FailedPrecondition, not_leader);
    let mut asked = MaintenanceClient::connect(url(&mut site, leader)).await.expect("it listens");
    let bad = "etcdserver: bad leader transferee";
    refused(asked.move_leader(to(99)).await, Code::FailedPrecondition, bad);
    asked.move_leader(to(follower)).await.expect("handed over");
    assert_eq!(site.members().leader().await, follower);
}

async fn x08_leadership_goes_to_members_only(site: Site) {
    let outcome = site.maintenance().move_leader(pb::MoveLeaderRequest { target_id: 4_711 }).await;
    refused(outcome, Code::FailedPrecondition, "etcdserver: bad leader transferee");
}

async fn alarms(site: &Site, action: AlarmAction, alarm: pb::AlarmType) -> usize {
    site.alarm(action, 0, alarm).await.len()
}

async fn x09_whoever_asks_for_alarms_finds_none(site: Site) {
    for kind in [pb::AlarmType::None, pb::AlarmType::Nospace, pb::AlarmType::Corrupt] {
        assert_eq!(alarms(&site, AlarmAction::Get, kind).await, 0);
    }
    assert_eq!(alarms(&site, AlarmAction::Deactivate, pb::AlarmType::Nospace).await, 0);
}

async fn x09_activating_no_alarm_changes_nothing(mut site: Site) {
    assert_eq!(alarms(&site, AlarmAction::Activate, pb::AlarmType::None).await, 0);
    assert_eq!(alarms(&site, AlarmAction::Deactivate, pb::AlarmType::None).await, 0);
    site.put("k", "v").await;
    site.restart().await;
    assert_eq!(&site.get("k").await.expect("it is there").value[..], b"v");
}

/// An alarm as the API tells it.
fn member(member_id: u64, alarm: pb::AlarmType) -> pb::AlarmMember {
    pb::AlarmMember { member_id, alarm: alarm as i32 }
}

async fn x09_alarms_are_activated_listed_and_deactivated(mut site: Site) {
    use AlarmAction::{Activate, Deactivate, Get};
    use pb::AlarmType::{Corrupt, None, Nospace};
    for (id, kind) in [(0, Nospace), (7, Nospace), (7, Nospace), (7, Corrupt)] {
        assert_eq!(site.alarm(Activate, id, kind).await, [member(id, kind)]);
    }
    let sorted = |mut alarms: Vec<pb::AlarmMember>| {
        alarms.sort_by_key(|alarm| (alarm.alarm, alarm.member_id));
        alarms
    };
    let all = [member(0, Nospace), member(7, Nospace), member(7, Corrupt)];
    assert_eq!(sorted(site.alarm(Get, 0, None).await), all);
    assert_eq!(sorted(site.alarm(Get, 0, Nospace).await), all[..2]);
    let mut errors = site.status().await.errors;
    errors.sort();
    assert_eq!(errors, ["alarm:NOSPACE ", "memberID:7 alarm:CORRUPT ", "memberID:7 alarm:NOSPACE "]);
    site.restart().await;
    assert_eq!(sorted(site.alarm(Get, 0, None).await), all);
    assert_eq!(site.alarm(Deactivate, 9, Nospace).await, []);
    assert_eq!(site.alarm(Deactivate, 7, None).await, []);
    for alarm in all {
        assert_eq!(site.alarm(Deactivate, alarm.member_id, alarm.alarm()).await, [alarm]);
    }
    assert_eq!(site.alarm(Get, 0, None).await, []);
    assert!(site.status().await.errors.is_empty());
}

async fn x09_what_is_no_alarm_is_refused(site: Site) {
    for (action, alarm, text) in [
        (9, 1, "bowline: action is 9; allowed: GET, ACTIVATE, DEACTIVATE"),
        (1, 9, "bowline: alarm is 9; allowed: NONE, NOSPACE, CORRUPT"),
        (2, -1, "bowline: alarm is -1; allowed: NONE, NOSPACE, CORRUPT"),
    ] {
        let request = pb::AlarmRequest { action, member_id: 1, alarm };
        refused(site.maintenance().alarm(request).await, Code::InvalidArgument, text);
    }
    assert_eq!(site.alarm(AlarmAction::Get, 0, pb::AlarmType::None).await, []);
}

async fn grant(site: &Site, id: i64) -> Result<pb::LeaseGrantResponse, tonic::Status> {
    let granted = site.member_leases(0).await.lease_grant(pb::LeaseGrantRequest { ttl: 600, id }).await;
    granted.map(tonic::Response::into_inner)
}

async fn x10_with_an_alarm_of_an_operator_nothing_is_added(site: Site) {
    let key = site.key("k");
    site.put("k", "v").await;
    let lease = grant(&site, 0).await.expect("granted").id;
    site.alarm(AlarmAction::Activate, 0, pb::AlarmType::Nospace).await;
    let full = Code::ResourceExhausted;
    refused(site.try_put(put(&key, "w")).await, full, NO_SPACE);
    refused(site.try_txn(all(vec![op_put(&key, "w")])).await, full, NO_SPACE);
    refused(site.try_txn(branches(vec![], vec![], vec![op_put(&key, "w")])).await, full, NO_SPACE);
    if !site.is_etcd() {
        // There, nested puts don't count.
        refused(site.try_txn(all(vec![op_txn(all(vec![op_put(&key, "w")]))])).await, full, NO_SPACE);
    }
    refused(grant(&site, 0).await, full, NO_SPACE);
    assert_eq!(&site.get("k").await.expect("it is there").value[..], b"v");
    site.txn(all(vec![op_get(&key), op_delete(&site.key("other"), "")])).await;
    let at = revision(&site.delete("k").await.header);
    site.compact(at).await;
    site.maintenance().defragment(pb::DefragmentRequest {}).await.expect("done");
    let revoke = pb::LeaseRevokeRequest { id: lease };
    site.member_leases(0).await.lease_revoke(revoke).await.expect("revoked");
    // It is the operator's, and so it stays, although there is space.
    refused(site.try_put(put(&key, "w")).await, full, NO_SPACE);
    site.alarm(AlarmAction::Deactivate, 0, pb::AlarmType::Nospace).await;
    site.put("k", "w").await;
}

/// Puts until there is no more space. Every put is of another key.
async fn fill(site: &Site) {
    let value = "v".repeat(500_000);
    for number in 0..200 {
        match site.try_put(put(&site.key(&format!("{number:03}")), &value)).await {
            Ok(_) => {}
            outcome => return refused(outcome, Code::ResourceExhausted, NO_SPACE),
        }
    }
    panic!("100 MB fit into 16 MiB");
}

/// Deletes all keys of this line, and what is known of them.
async fn empty(site: &Site) {
    let request = site.all();
    let delete = pb::DeleteRangeRequest { key: request.key, range_end: request.range_end, prev_kv: false };
    let at = revision(&site.try_delete(delete).await.expect("deleted").header);
    let request = pb::CompactionRequest { revision: at, physical: true };
    site.kv().compact(request).await.expect("compacted");
}

async fn x10_a_store_that_reaches_its_quota_raises_the_alarm(site: Site) {
    fill(&site).await;
    let status = site.status().await;
    let own = status.header.expect("a header").member_id;
    let alarm = member(own, pb::AlarmType::Nospace);
    assert_eq!(site.alarm(AlarmAction::Get, 0, pb::AlarmType::None).await, [alarm]);
    assert_eq!(site.status().await.errors, [format!("memberID:{own} alarm:NOSPACE ")]);
    assert_eq!(status.db_size_quota, if site.is_3_4() { 0 } else { 16 << 20 });
    refused(site.try_put(put(&site.key("small"), "v")).await, Code::ResourceExhausted, NO_SPACE);
    empty(&site).await;
    site.maintenance().defragment(pb::DefragmentRequest {}).await.expect("done");
    // Ours may have been quicker.
    site.alarm(AlarmAction::Deactivate, own, pb::AlarmType::Nospace).await;
    site.put("small", "v").await;
}

async fn x10_a_full_store_refuses_puts_and_frees_itself(site: Site) {
    fill(&site).await;
    assert_eq!(site.alarm(AlarmAction::Get, 0, pb::AlarmType::None).await.len(), 1);
    empty(&site).await;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !site.alarm(AlarmAction::Get, 0, pb::AlarmType::None).await.is_empty() {
        assert!(std::time::Instant::now() < until, "the alarm stays: {:?}", site.status().await);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    site.put("small", "v").await;
}

async fn x10_an_alarm_of_one_member_is_for_all(site: Site) {
    site.alarm(AlarmAction::Activate, 2, pb::AlarmType::Nospace).await;
    for number in 0..3 {
        let outcome = site.member(number).await.put(put(&site.key("k"), "v")).await;
        refused(outcome, Code::ResourceExhausted, NO_SPACE);
    }
    site.alarm(AlarmAction::Deactivate, 2, pb::AlarmType::Nospace).await;
    for number in 0..3 {
        site.member(number).await.put(put(&site.key("k"), "v")).await.expect("written");
    }
}

async fn x11_in_a_corrupt_cluster_neither_keys_nor_leases_are_touched(site: Site) {
    let (key, lost) = (site.key("k"), Code::DataLoss);
    site.put("k", "v").await;
    let at = revision(&site.put("k", "w").await.header);
    let id = grant(&site, 0).await.expect("granted").id;
    let before = site.hash(0).await.expect("told").hash;
    site.alarm(AlarmAction::Activate, 3, pb::AlarmType::Corrupt).await;
    refused(site.try_put(put(&key, "x")).await, lost, CORRUPT);
    refused(site.try_delete(delete(&key)).await, lost, CORRUPT);
    refused(site.try_txn(all(vec![op_put(&key, "x")])).await, lost, CORRUPT);
    refused(site.try_compact(at).await, lost, CORRUPT);
    refused(grant(&site, 0).await, lost, CORRUPT);
    let mut leases = site.member_leases(0).await;
    refused(leases.lease_revoke(pb::LeaseRevokeRequest { id }).await, lost, CORRUPT);
    if !site.is_etcd() {
        // Etcd goes on with everything that does not go through its log.
        refused(site.try_txn(all(vec![op_get(&key)])).await, lost, CORRUPT);
        refused(site.try_range(get(&key)).await, lost, CORRUPT);
        refused(site.try_range(pb::RangeRequest { serializable: true, ..get(&key) }).await, lost, CORRUPT);
        let asked = pb::LeaseTimeToLiveRequest { id, keys: false };
        refused(leases.lease_time_to_live(asked).await, lost, CORRUPT);
        refused(leases.lease_leases(pb::LeaseLeasesRequest {}).await, lost, CORRUPT);
        let keep = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
        let mut stream = leases.lease_keep_alive(keep).await.expect("a stream").into_inner();
        refused(stream.message().await, lost, CORRUPT);
    }
    assert_eq!(site.hash(0).await.expect("told").hash, before);
    site.maintenance().defragment(pb::DefragmentRequest {}).await.expect("done");
    assert_eq!(site.status().await.errors, ["memberID:3 alarm:CORRUPT "]);
    site.alarm(AlarmAction::Deactivate, 3, pb::AlarmType::Corrupt).await;
    assert_eq!(&site.get("k").await.expect("it is there").value[..], b"w");
    leases.lease_revoke(pb::LeaseRevokeRequest { id }).await.expect("revoked");
}

/// The quota in `/metrics`.
async fn told_quota(site: &Site) -> f64 {
    let page = crate::g::ask(site.url(), "GET /metrics").await;
    let line = page.lines().find_map(|line| line.strip_prefix("etcd_server_quota_backend_bytes "));
    line.and_then(|value| value.parse().ok()).expect("it is there")
}

async fn x12_the_quota_is_two_gibibytes(site: Site) {
    assert_eq!(told_quota(&site).await, 2_147_483_648.0);
    assert_eq!(site.status().await.db_size_quota, if site.is_3_4() { 0 } else { 2 << 30 });
}

async fn x12_a_negative_quota_is_none(site: Site) {
    site.put("k", "v").await;
    if !site.is_etcd() {
        assert_eq!((told_quota(&site).await, site.status().await.db_size_quota), (-1.0, -1));
    }
}

async fn x14_a_downgrade_has_a_target_one_minor_version_below(site: Site) {
    use pb::downgrade_request::DowngradeAction::{Cancel, Enable, Validate};
    let ask = async |action: pb::downgrade_request::DowngradeAction, version: &str| {
        let request = pb::DowngradeRequest { action: action as i32, version: version.to_owned() };
        site.maintenance().downgrade(request).await.map(tonic::Response::into_inner)
    };
    let version = site.status().await.version;
    let minor: u32 = version.split('.').nth(1).expect("three numbers").parse().expect("a number");
    for action in [Validate, Enable] {
        for text in ["", "x", "3", "3.x", "3.5.0.0"] {
            let wrong = "etcdserver: wrong downgrade target version format";
            refused(ask(action, text).await, Code::InvalidArgument, wrong);
        }
        for text in [version.clone(), format!("3.{}.0", minor - 2), format!("3.{}", minor + 1), "2.3.0".to_owned()] {
            let invalid = "etcdserver: invalid downgrade target version";
            refused(ask(action, &text).await, Code::InvalidArgument, invalid);
        }
    }
    let below = format!("3.{}.0", minor - 1);
    match site.is_etcd() {
        true => drop(ask(Validate, &below).await.expect("it is valid")),
        false => assert_eq!(ask(Validate, &below).await.expect_err("there is none").code(), Code::Unimplemented),
    }
    refused(ask(Cancel, "").await, Code::FailedPrecondition, "etcdserver: no inflight downgrade job");
}

async fn x13_defragment_is_answered(site: Site) {
    site.put("k", "v").await;
    let done = site.maintenance().defragment(pb::DefragmentRequest {}).await.expect("done").into_inner();
    assert_eq!(done, pb::DefragmentResponse { header: None });
    assert!(site.get("k").await.is_some());
}
