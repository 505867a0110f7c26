use std::collections::{BTreeMap, BTreeSet};

use bowline_kv::compaction::REVISIONS_PAUSE;
use bowline_kv::store::{CompactionRequest, MemoryEngine, Response as StoreResponse, Store, encode_reply};
use bowline_node::Failure;
use bowline_node::raft::{Group, Index};
use bytes::Bytes;

use super::*;
use crate::status::{AlarmFacts, ComparisonFacts};

/// The other members, with the version that each speaks.
struct Known(BTreeMap<u64, u32>);

impl Peers for Known {
    fn url(&self, id: NodeId) -> Option<String> {
        Some(format!("http://h{}:1", id.0))
    }

    fn reaches(&self, id: NodeId) -> bool {
        self.0.contains_key(&id.0)
    }

    fn speaks(&self, id: NodeId) -> Option<u32> {
        self.0.get(&id.0).copied()
    }
}

fn all() -> Known {
    Known((1..=4).map(|id| (id, versions::USERS)).collect())
}

/// What member 1 sees.
struct Scene {
    term: u64,
    is_leader: bool,
    membership: Membership,
    members: Arc<Members>,
    facts: Facts,
}

impl Scene {
    /// Member 1 of three, without records.
    fn follower() -> Scene {
        let facts = Facts { cluster_version: versions::USERS, revision: 1, ..Facts::default() };
        Scene { term: 1, is_leader: false, membership: members(&[1, 2, 3], &[]), members: Arc::default(), facts }
    }

    /// The same with records, and it leads.
    fn leader() -> Scene {
        let records = (1..=3).map(|id| MemberChange::Adopt(record(id))).collect();
        Scene { is_leader: true, members: self::records(records), ..Scene::follower() }
    }

    fn view(&self) -> View<'_> {
        let Scene { term, is_leader, membership, members, facts } = self;
        View { term: *term, is_leader: *is_leader, leader: Some(NodeId(1)), membership, members, facts }
    }
}

fn members(voters: &[u64], learners: &[u64]) -> Membership {
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
    Membership::simple(Group { voters: ids(voters), learners: ids(learners) })
}

fn record(id: u64) -> Member {
    Member { id, peer_urls: vec![format!("http://h{id}:1")], incarnation: 7, ..Member::default() }
}

fn records(changes: Vec<MemberChange>) -> Arc<Members> {
    let mut store = Store::open(MemoryEngine::default()).expect("memory does not fail");
    for (index, change) in (1..).zip(changes) {
        let command = Command::Member(MemberRequest { change: Some(change) });
        store.apply_command(Index(index), &command).expect("a good change");
    }
    Arc::clone(store.members())
}

fn settings() -> DutySettings {
    DutySettings {
        own: Some(record(1)),
        version: versions::USERS,
        comparison: None,
        quota: Quota::NONE,
        retention: None,
        revisions_pause: REVISIONS_PAUSE,
    }
}

fn at(millis: u64) -> Time {
    Time::ZERO.after(Duration::from_millis(millis))
}

fn failed() -> Response {
    Err(Failure::not_leader(None))
}

fn only(actions: Vec<(Duty, Action)>) -> Option<(Duty, Action)> {
    assert!(actions.len() < 2, "{actions:?}");
    actions.into_iter().next()
}

#[test]
fn a_member_publishes_its_record_until_its_state_has_it() {
    let own = Member { name: "one".to_owned(), ..record(1) };
    let publish = Some((Duty::Publish, change(MemberChange::Publish(own.clone()))));
    let mut duties = Duties::new(DutySettings { own: Some(own.clone()), ..settings() }, 1);
    let mut scene = Scene { is_leader: false, ..Scene::leader() };
    assert_eq!(only(duties.look(at(0), &scene.view(), &all())), publish);
    assert_eq!(only(duties.look(at(1), &scene.view(), &all())), None, "it is on its way");
    assert_eq!(duties.due(), Time::NEVER);
    duties.ended(at(2), Duty::Publish, failed());
    assert_eq!(only(duties.look(at(3), &scene.view(), &all())), None);
    assert_eq!(duties.due(), at(2).after(RETRY));
    assert_eq!(only(duties.look(duties.due(), &scene.view(), &all())), publish, "again");
    duties.ended(at(300), Duty::Publish, Ok(encode_reply(&Ok(StoreResponse::Member(Default::default())))));
    scene.members = records(vec![MemberChange::Adopt(own)]);
    assert_eq!(only(duties.look(at(900), &scene.view(), &all())), None);
    assert_eq!(duties.due(), Time::NEVER);
}

#[test]
fn a_member_of_another_folder_publishes_nothing_more() {
    let own = Member { incarnation: 8, ..record(1) };
    let mut duties = Duties::new(DutySettings { own: Some(own), ..settings() }, 1);
    let scene = Scene { is_leader: false, ..Scene::leader() };
    assert!(only(duties.look(at(0), &scene.view(), &all())).is_some());
    duties.ended(at(1), Duty::Publish, Ok(encode_reply(&Err(KvError::OtherFolder))));
    assert_eq!(only(duties.look(at(9_000), &scene.view(), &all())), None);
}

#[test]
fn the_leader_looks_again_for_a_connection_that_a_step_waits_for() {
    let mut changes: Vec<MemberChange> = (1..=3).map(|id| MemberChange::Adopt(record(id))).collect();
    changes.extend([MemberChange::Add(record(4)), MemberChange::Publish(record(4))]);
    let scene = Scene { membership: members(&[1, 2, 3], &[4]), members: records(changes), ..Scene::leader() };
    let mut peers = all();
    peers.0.remove(&4);
    let mut duties = Duties::new(settings(), 1);
    assert_eq!(only(duties.look(at(0), &scene.view(), &peers)), None);
    assert_eq!(duties.due(), at(0).after(RETRY));
    let promote = Some((Duty::Configure, Action::Change(MembershipChange::Promote(NodeId(4)))));
    assert_eq!(only(duties.look(at(100), &scene.view(), &all())), None, "not before");
    assert_eq!(only(duties.look(at(200), &scene.view(), &all())), promote);
    duties.ended(at(210), Duty::Configure, failed());
    assert_eq!(only(duties.look(at(210), &scene.view(), &all())), None);
    assert_eq!(only(duties.look(at(410), &scene.view(), &all())), promote, "again");
    duties.ended(at(420), Duty::Configure, Ok(Bytes::new()));
    let done = Scene { membership: members(&[1, 2, 3, 4], &[]), ..scene };
    assert_eq!(only(duties.look(at(420), &done.view(), &all())), None);
    assert_eq!(duties.due(), Time::NEVER, "nothing is left");
}

#[test]
fn the_version_of_the_cluster_becomes_what_all_members_speak() {
    for (cluster, spoken, expected) in [
        (4, [Some(5), Some(4), Some(5)], None),
        (4, [Some(5), None, Some(5)], None),
        (4, [Some(6), Some(5), Some(5)], Some(5)),
        (5, [Some(5), Some(5), Some(5)], None),
        (5, [Some(4), Some(5), Some(5)], None),
    ] {
        let peers = Known((1..).zip(spoken).filter_map(|(id, version)| Some((id, version?))).collect());
        let mut scene = Scene { is_leader: true, ..Scene::follower() };
        scene.facts.cluster_version = cluster;
        let mut duties = Duties::new(settings(), 1);
        let raise =
            |version| (Duty::Version, Action::Write(Command::ClusterVersion(ClusterVersionRequest { version })));
        assert_eq!(only(duties.look(at(0), &scene.view(), &peers)), expected.map(raise), "{cluster} {spoken:?}");
        assert_eq!(duties.due(), at(0).after(VERSION_PAUSE), "a member may be replaced by a later program");
        scene.is_leader = false;
        assert_eq!(only(Duties::new(settings(), 1).look(at(0), &scene.view(), &peers)), None, "it does not lead");
    }
}

#[test]
fn a_mark_is_written_a_while_after_a_change_and_a_report_once() {
    let interval = Duration::from_secs(5);
    let mut duties = Duties::new(DutySettings { comparison: Some(interval), ..settings() }, 1);
    let mut scene = Scene::leader();
    let compare = |duty, step| Some((duty, Action::Write(Command::Compare(CompareRequest { step: Some(step) }))));
    assert_eq!(only(duties.look(at(0), &scene.view(), &all())), None);
    scene.facts.comparison.mark_due = true;
    assert_eq!(only(duties.look(at(10), &scene.view(), &all())), None);
    assert_eq!(duties.due(), at(5_010));
    assert_eq!(only(duties.look(at(5_010), &scene.view(), &all())), compare(Duty::Mark, CompareStep::Mark(())));
    duties.ended(at(5_020), Duty::Mark, Ok(Bytes::new()));
    let report = CompareStep::Mark(());
    scene.facts.comparison = ComparisonFacts { report: Some(report), ..ComparisonFacts::default() };
    assert_eq!(only(duties.look(at(5_021), &scene.view(), &all())), compare(Duty::Report, report));
    duties.ended(at(5_030), Duty::Report, failed());
    assert_eq!(only(duties.look(at(5_040), &scene.view(), &all())), None);
    assert_eq!(only(duties.look(at(6_030), &scene.view(), &all())), compare(Duty::Report, report), "again");
    duties.ended(at(6_040), Duty::Report, Ok(Bytes::new()));
    assert_eq!(only(duties.look(at(60_000), &scene.view(), &all())), None, "its own state has it later");
}

#[test]
fn an_alarm_is_raised_after_a_write_and_taken_back_when_there_is_room() {
    let mut duties = Duties::new(DutySettings { quota: Quota(1_000), ..settings() }, 1);
    let mut scene = Scene::leader();
    let alarm = |active| Some((Duty::Alarm, Action::Write(own_alarm(1, active))));
    scene.facts.db_size = 2_000;
    assert_eq!(only(duties.look(at(0), &scene.view(), &all())), None, "nothing was written");
    scene.facts.revision = 2;
    assert_eq!(only(duties.look(at(1), &scene.view(), &all())), alarm(true));
    duties.ended(at(2), Duty::Alarm, failed());
    assert_eq!(only(duties.look(at(3), &scene.view(), &all())), None);
    assert_eq!(only(duties.look(at(2).after(PAUSE), &scene.view(), &all())), alarm(true), "again");
    duties.ended(at(1_100), Duty::Alarm, Ok(encode_reply(&Ok(StoreResponse::Alarm(Default::default())))));
    scene.facts.alarms = AlarmFacts { own: Some(true), ..AlarmFacts::default() };
    assert_eq!(only(duties.look(at(1_101), &scene.view(), &all())), None);
    scene.facts.db_size = 500;
    assert_eq!(only(duties.look(at(1_102), &scene.view(), &all())), alarm(false));
}

#[test]
fn each_leader_begins_the_intervals_of_compaction_anew() {
    let retention = Some(Retention::Revisions(10));
    let mut duties = Duties::new(DutySettings { retention, ..settings() }, 1);
    let mut scene = Scene::leader();
    scene.facts.revision = 50;
    let minute = |minutes: u64| at(minutes * 60_000);
    let compact = |revision| {
        Some((Duty::Compact, Action::Write(Command::Compact(CompactionRequest { revision, physical: false }))))
    };
    assert_eq!(only(duties.look(minute(0), &scene.view(), &all())), None);
    assert_eq!(duties.due(), minute(5));
    scene.term = 2;
    assert_eq!(only(duties.look(minute(4), &scene.view(), &all())), None);
    assert_eq!(duties.due(), minute(9));
    assert_eq!(only(duties.look(minute(9), &scene.view(), &all())), compact(40));
    assert_eq!(only(duties.look(minute(20), &scene.view(), &all())), None, "it is on its way");
    duties.ended(minute(20), Duty::Compact, failed());
    assert_eq!(only(duties.look(minute(25), &scene.view(), &all())), compact(40), "again");
    duties.ended(minute(25), Duty::Compact, Ok(encode_reply(&Err(KvError::Compacted))));
    assert_eq!(only(duties.look(minute(30), &scene.view(), &all())), None, "it was compacted");
    scene.is_leader = false;
    assert_eq!(only(duties.look(minute(40), &scene.view(), &all())), None);
    assert_eq!(duties.due(), Time::NEVER);
}
