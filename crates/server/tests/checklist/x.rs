//! Maintenance.

use bowline_api::etcdserverpb as pb;
use bowline_api::{Message, mvccpb};
use pb::alarm_request::AlarmAction;
use pb::maintenance_client::MaintenanceClient;
use tonic::Code;

use crate::line::{Line, line};
use crate::requests::*;
use crate::site::{Site, bytes, refused, revision};

const NO_SNAPSHOT: &str = "fetching snapshots is not supported yet";
const NO_ALARMS: &str = "there are no alarms and no quota yet; a full disk is tested in cluster/full_disk.rs";

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line!(Fresh, x01_the_status_tells_how_a_member_is),
        line!(Members, x01_the_status_tells_that_nobody_leads),
        line!(Shared, x02_the_version_is_three_numbers),
        Line::untested("x03_snapshots", NO_SNAPSHOT),
        Line::untested("x04_snapshots_for_etcdctl", NO_SNAPSHOT),
        line!(Fresh, x05_the_checksum_is_made_of_the_history),
        line!(Fresh, x05_the_checksums_of_the_latest_compactions_are_kept).not_on_3_4("it is new with 3.5"),
        line!(Fresh, x06_a_checksum_has_the_bounds_of_a_read),
        Line::untested("x07_hash", "it depends on etcd's own files, by the line itself; ours has none"),
        line!(Members, x08_only_the_leader_hands_over_and_only_to_a_member),
        line!(Fresh, x08_leadership_goes_to_members_only),
        line!(Fresh, x09_whoever_asks_for_alarms_finds_none),
        line!(Fresh, x09_activating_no_alarm_changes_nothing).not_on_3_4("3.4.23 panics, and again at every start"),
        Line::untested("x10_no_space", NO_ALARMS),
        Line::untested("x11_corrupt", NO_ALARMS),
        Line::untested("x12_quota", NO_ALARMS),
        line!(Shared, x13_defragment_is_answered),
        Line::untested("x14_downgrade", "downgrades are not supported yet"),
    ]
}

async fn x01_the_status_tells_how_a_member_is(site: Site) {
    let before = site.status().await;
    site.put("k", &"v".repeat(1_000)).await;
    let status = site.status().await;
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
    let request = pb::AlarmRequest { action: action as i32, member_id: 0, alarm: alarm as i32 };
    site.maintenance().alarm(request).await.expect("told").into_inner().alarms.len()
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

async fn x13_defragment_is_answered(site: Site) {
    site.put("k", "v").await;
    let done = site.maintenance().defragment(pb::DefragmentRequest {}).await.expect("done").into_inner();
    assert_eq!(done, pb::DefragmentResponse { header: None });
    assert!(site.get("k").await.is_some());
}
