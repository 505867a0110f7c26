//! The lines about members of the checklist, as far as the state machine decides them.

use bowline_kv::store::*;
use bowline_node::StateMachine;

use crate::bench::*;

fn urls(urls: &[&str]) -> Vec<String> {
    urls.iter().map(|url| (*url).to_owned()).collect()
}

/// A member that has not started, with an address that its id gives.
fn member(id: u64) -> Member {
    Member { id, peer_urls: vec![format!("http://host-{id}:2380")], ..Member::default() }
}

fn learner(id: u64) -> Member {
    Member { is_learner: true, ..member(id) }
}

fn change(kv: &mut Kv, change: MemberChange) -> Result<Vec<u64>, KvError> {
    let response = kv.change(MemberRequest { change: Some(change) })?;
    Ok(response.members.into_iter().map(|member| member.id).collect())
}

fn publish(kv: &mut Kv, id: u64) -> Result<Vec<u64>, KvError> {
    let (name, client_urls) = (format!("name-{id}"), urls(&["http://client:2379"]));
    let started = Member { id, name, client_urls, incarnation: id + 100, ..Member::default() };
    change(kv, MemberChange::Publish(started))
}

/// A cluster of founding members, all of which have started.
fn founded(ids: &[u64]) -> Kv {
    let mut kv = Kv::new();
    for id in ids {
        change(&mut kv, MemberChange::Adopt(member(*id))).expect("it is the first");
        publish(&mut kv, *id).expect("it is a member");
    }
    kv
}

#[test]
fn m01_a_member_has_a_name_and_clients_addresses_once_it_has_started() {
    let mut kv = founded(&[1]);
    assert_eq!(change(&mut kv, MemberChange::Add(member(2))), Ok(vec![1, 2]));
    let found = |kv: &Kv| kv.store.members().get(2).cloned().expect("it was added");
    assert_eq!(found(&kv), member(2));
    publish(&mut kv, 2).expect("it is a member");
    let started = Member { incarnation: 102, name: "name-2".to_owned(), ..member(2) };
    assert_eq!(found(&kv), Member { client_urls: urls(&["http://client:2379"]), ..started });
    assert_eq!(publish(&mut kv, 3), Err(KvError::MemberNotFound));
}

#[test]
fn m02_an_address_belongs_to_one_member() {
    let mut kv = founded(&[1, 2]);
    let doubled = Member { peer_urls: urls(&["http://new:1", "http://host-2:2380"]), ..member(3) };
    assert_eq!(change(&mut kv, MemberChange::Add(doubled)), Err(KvError::PeerUrlExists));
    assert_eq!(change(&mut kv, MemberChange::Add(member(2))), Err(KvError::MemberExists));
    for bad in [vec![], urls(&[""]), vec!["x".repeat(301)], vec!["x".to_owned(); 17]] {
        let member = Member { peer_urls: bad.clone(), ..member(3) };
        assert_eq!(change(&mut kv, MemberChange::Add(member)), Err(KvError::BadMemberUrls));
        let update = MemberChange::Update(MemberUrls { id: 1, peer_urls: bad });
        assert_eq!(change(&mut kv, update), Err(KvError::BadMemberUrls));
    }
    let move_to = |id, to: &str| MemberChange::Update(MemberUrls { id, peer_urls: urls(&[to]) });
    assert_eq!(change(&mut kv, move_to(1, "http://host-2:2380")), Err(KvError::PeerUrlExists));
    assert_eq!(change(&mut kv, move_to(1, "http://host-1:2380")), Ok(vec![1, 2]), "it keeps its own");
    assert_eq!(change(&mut kv, move_to(1, "http://moved:1")), Ok(vec![1, 2]));
    assert_eq!(change(&mut kv, move_to(9, "http://moved:2")), Err(KvError::MemberNotFound));
}

#[test]
fn m03_a_voter_is_refused_while_too_few_have_started() {
    let mut kv = founded(&[1]);
    assert_eq!(change(&mut kv, MemberChange::Add(member(2))), Ok(vec![1, 2]), "one may always become two");
    assert_eq!(change(&mut kv, MemberChange::Add(member(3))), Err(KvError::TooFewStarted));
    publish(&mut kv, 2).expect("it is a member");
    assert_eq!(change(&mut kv, MemberChange::Add(member(3))), Ok(vec![1, 2, 3]));
    assert_eq!(change(&mut kv, MemberChange::Remove(1)), Err(KvError::TooFewStarted), "2 and 3 need both");
    assert_eq!(change(&mut kv, MemberChange::Remove(3)), Ok(vec![1, 2]), "one that has not started may go");
    assert_eq!(change(&mut kv, MemberChange::Remove(2)), Ok(vec![1]));
    assert_eq!(change(&mut kv, MemberChange::Remove(1)), Err(KvError::TooFewStarted), "the last one stays");
}

#[test]
fn m04_a_learner_is_promoted_once_and_there_is_only_one() {
    let mut kv = founded(&[1, 2, 3]);
    assert_eq!(change(&mut kv, MemberChange::Add(learner(4))), Ok(vec![1, 2, 3, 4]));
    assert_eq!(change(&mut kv, MemberChange::Add(learner(5))), Err(KvError::TooManyLearners));
    assert_eq!(change(&mut kv, MemberChange::Promote(1)), Err(KvError::NotLearner));
    assert_eq!(change(&mut kv, MemberChange::Promote(9)), Err(KvError::MemberNotFound));
    assert_eq!(change(&mut kv, MemberChange::Promote(4)), Ok(vec![1, 2, 3, 4]));
    assert_eq!(change(&mut kv, MemberChange::Promote(4)), Err(KvError::NotLearner));
    assert_eq!(change(&mut kv, MemberChange::Add(learner(5))), Ok(vec![1, 2, 3, 4, 5]));
    assert_eq!(change(&mut kv, MemberChange::Remove(9)), Err(KvError::MemberNotFound));
}

#[test]
fn m06_an_update_does_not_promote_a_learner() {
    let mut kv = founded(&[1]);
    change(&mut kv, MemberChange::Add(learner(2))).expect("there is none");
    let update = MemberUrls { id: 2, peer_urls: urls(&["http://moved:1"]) };
    change(&mut kv, MemberChange::Update(update)).expect("it is a member");
    assert!(kv.store.members().get(2).expect("it is a member").is_learner);
    publish(&mut kv, 2).expect("it is a member");
    assert!(kv.store.members().get(2).expect("it is a member").is_learner);
}

#[test]
fn a_removed_member_never_comes_back_nor_one_with_another_folder() {
    let mut kv = founded(&[1, 2, 3]);
    kv.change(AlarmRequest { member: 3, kind: AlarmKind::Corrupt.into(), automatic: true, active: true })
        .expect("alarms can always be changed");
    assert_eq!(change(&mut kv, MemberChange::Remove(3)), Ok(vec![1, 2]));
    assert_eq!(kv.store.alarms().count(), 0, "its alarms went with it");
    assert!(kv.store.members().is_removed(3) && !kv.store.members().is_removed(2));
    assert_eq!(change(&mut kv, MemberChange::Add(member(3))), Err(KvError::MemberExists));
    assert_eq!(change(&mut kv, MemberChange::Adopt(member(3))), Ok(vec![1, 2]));
    assert_eq!(change(&mut kv, MemberChange::Remove(3)), Err(KvError::MemberNotFound));
    let other = Member { incarnation: 7, ..member(2) };
    assert_eq!(change(&mut kv, MemberChange::Publish(other)), Err(KvError::OtherFolder));
}

#[test]
fn there_are_bounds() {
    let mut kv = founded(&(1..=64).collect::<Vec<_>>());
    assert_eq!(change(&mut kv, MemberChange::Add(member(65))), Err(KvError::TooManyMembers));
    assert_eq!(change(&mut kv, MemberChange::Adopt(member(65))).map(|ids| ids.len()), Ok(64));
    for id in 64..264 {
        change(&mut kv, MemberChange::Remove(id)).expect("it is a member");
        change(&mut kv, MemberChange::Add(member(id + 1))).expect("there is room");
        publish(&mut kv, id + 1).expect("it is a member");
    }
    assert!(!kv.store.members().is_removed(64) && kv.store.members().is_removed(263), "the latest are remembered");
    let text = Member { name: "x".repeat(301), incarnation: 1, ..member(1) };
    assert_eq!(change(&mut kv, MemberChange::Publish(text)), Err(KvError::Unreadable));
    assert_eq!(kv.change(MemberRequest::default()), Err(KvError::Unreadable));
}

#[test]
fn records_outlast_a_restart_and_a_snapshot() {
    let mut kv = founded(&[1, 2]);
    change(&mut kv, MemberChange::Add(learner(3))).expect("there is none");
    change(&mut kv, MemberChange::Remove(2)).expect("one remains");
    let with = kv.store.snapshot();
    let mut store = Store::restore_from(MemoryEngine::default(), &mut &with[..]).expect("it is one");
    assert_eq!(store.members(), kv.store.members());
    assert_eq!(store.snapshot(), with);
    store.checkpoint().expect("there is room");
    let reopened = Store::open(store.engine().clone()).expect("it is whole");
    assert_eq!(reopened.members(), kv.store.members());
    let note = reopened.engine().meta().expect("memory does not fail")[0];
    assert_eq!((with[9], note), (6, 5), "earlier programs don't know them");
}
