//! Members.

use std::time::Duration;

use bowline_api::etcdserverpb as pb;
use pb::cluster_client::ClusterClient;
use pb::lease_client::LeaseClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::cluster::{PATIENCE, free_ports};
use crate::line::{Line, line};
use crate::requests::*;
use crate::site::{Site, bytes, refused};

const NOT_FOUND: &str = "etcdserver: member not found";
const TOO_FEW: &str = "etcdserver: re-configuration failed due to not enough started members";
const IN_SYNC: &str = "etcdserver: can only promote a learner member which is in sync with leader";
const NO_LEARNER: &str = "etcdserver: can only promote a learner member";
const FOR_LEARNERS: &str = "etcdserver: rpc not supported for learner";

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line!(Fresh, m01_members_have_names_and_addresses_once_they_have_started),
        line!(Fresh, m02_addresses_are_checked_and_belong_to_one_member),
        line!(Fresh, m03_voters_are_refused_while_too_few_have_started),
        line!(Members, m03_without_a_quorum_nothing_is_changed),
        line!(Members, m03_what_would_lose_the_quorum_is_refused),
        line!(Fresh, m04_unknown_members_and_untimely_promotions_are_refused),
        line!(Members, m04_a_learner_that_has_caught_up_is_promoted),
        line!(Members, m05_a_learner_serves_only_its_own_state),
        line!(Members, m06_an_update_moves_a_member_and_does_not_promote_it),
    ]
}

fn members(site: &Site) -> ClusterClient<Channel> {
    ClusterClient::new(site.channel())
}

async fn list(site: &Site) -> Vec<pb::Member> {
    let all = members(site).member_list(pb::MemberListRequest { linearizable: true }).await.expect("told");
    all.into_inner().members
}

async fn add(site: &Site, url: &str, is_learner: bool) -> Result<pb::Member, Status> {
    let request = pb::MemberAddRequest { peer_ur_ls: vec![url.to_owned()], is_learner };
    let added = members(site).member_add(request).await?.into_inner();
    let member = added.member.expect("it is told");
    assert!(added.members.iter().any(|other| other == &member), "it is among them");
    Ok(member)
}

async fn remove(site: &Site, id: u64) -> Result<Vec<pb::Member>, Status> {
    Ok(members(site).member_remove(pb::MemberRemoveRequest { id }).await?.into_inner().members)
}

async fn promote(site: &Site, id: u64) -> Result<Vec<pb::Member>, Status> {
    Ok(members(site).member_promote(pb::MemberPromoteRequest { id }).await?.into_inner().members)
}

async fn update(site: &Site, id: u64, url: &str) -> Result<Vec<pb::Member>, Status> {
    let request = pb::MemberUpdateRequest { id, peer_ur_ls: vec![url.to_owned()] };
    Ok(members(site).member_update(request).await?.into_inner().members)
}

/// Waits until all members have published their names.
async fn all_started(site: &Site) {
    for _ in 0..500 {
        if list(site).await.iter().all(|member| !member.name.is_empty()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not all members have started: {:?}", list(site).await);
}

async fn m01_members_have_names_and_addresses_once_they_have_started(site: Site) {
    all_started(&site).await;
    let [own] = &list(&site).await[..] else { panic!("it is alone") };
    assert!(!own.name.is_empty() && own.peer_ur_ls.len() == 1 && own.client_ur_ls.len() == 1 && !own.is_learner);
    let learner = add(&site, "http://127.0.0.1:1", true).await.expect("there is none");
    assert_eq!(learner, pb::Member { id: learner.id, ..unstarted("http://127.0.0.1:1", true) });
    let mut expected = vec![own.clone(), learner];
    let mut found = list(&site).await;
    expected.sort_by_key(|member| member.id);
    found.sort_by_key(|member| member.id);
    assert_eq!(found, expected);
}

/// Waits until every member has the records of all, published by themselves.
async fn all_recorded(site: &mut Site) {
    for id in 1..=3 {
        let recorded = |status: &bowline_server::replica::Status| {
            status.members.iter().filter(|member| member.has_started()).count() == 3
        };
        let mut status = site.members().server(id).replica().watch_status();
        let waited = tokio::time::timeout(PATIENCE, status.wait_for(recorded)).await;
        assert!(matches!(waited, Ok(Ok(_))), "member {id} lacks records");
    }
}

fn unstarted(url: &str, is_learner: bool) -> pb::Member {
    pb::Member { peer_ur_ls: vec![url.to_owned()], is_learner, ..pb::Member::default() }
}

async fn m02_addresses_are_checked_and_belong_to_one_member(site: Site) {
    all_started(&site).await;
    let invalid = "etcdserver: given member URLs are invalid";
    for bad in ["", "127.0.0.1:1", "127.0.0.1", "http://127.0.0.1", "http://127.0.0.1:1/path", "ftp://127.0.0.1:1"] {
        refused(add(&site, bad, false).await, Code::InvalidArgument, invalid);
        refused(add(&site, bad, true).await, Code::InvalidArgument, invalid);
    }
    if !site.is_3_4() {
        // 3.4.23 panics.
        let none = pb::MemberAddRequest::default();
        refused(members(&site).member_add(none).await, Code::InvalidArgument, invalid);
    }
    let own = list(&site).await[0].clone();
    let doubled = "etcdserver: Peer URLs already exists";
    refused(add(&site, &own.peer_ur_ls[0], false).await, Code::FailedPrecondition, doubled);
    let learner = add(&site, "http://127.0.0.1:1", true).await.expect("there is none");
    refused(update(&site, learner.id, &own.peer_ur_ls[0]).await, Code::FailedPrecondition, doubled);
    if !site.is_3_4() {
        // 3.4.23 panics here, too.
        refused(update(&site, learner.id, "nowhere").await, Code::InvalidArgument, invalid);
    }
}

async fn m03_voters_are_refused_while_too_few_have_started(site: Site) {
    all_started(&site).await;
    let second = add(&site, "http://127.0.0.1:1", false).await.expect("one may become two");
    assert_eq!(second, pb::Member { id: second.id, ..unstarted("http://127.0.0.1:1", false) });
    // Its code is a quirk of etcd's: line E1.
    refused(add(&site, "http://127.0.0.1:3", false).await, Code::Unknown, TOO_FEW);
    if !site.is_etcd() {
        // Until the new member has caught up, it does not count.
        site.put("k", "v").await;
        let alone = remove(&site, second.id).await.expect("removed");
        assert_eq!(alone.len(), 1);
        let last = remove(&site, alone[0].id).await;
        refused(last, Code::Unknown, TOO_FEW);
    }
}

async fn m03_without_a_quorum_nothing_is_changed(mut site: Site) {
    all_recorded(&mut site).await;
    for id in [2, 3] {
        site.members().kill(id);
    }
    for _ in 0..500 {
        let added = add(&site, "http://127.0.0.1:1", false).await.expect_err("there is no quorum");
        assert_eq!(added.code(), Code::Unavailable, "{added:?}");
        if added.message() == "etcdserver: unhealthy cluster" {
            return;
        }
    }
    panic!("it never notices that it is alone");
}

async fn m03_what_would_lose_the_quorum_is_refused(mut site: Site) {
    all_recorded(&mut site).await;
    let leader = site.members().leader().await;
    let (alive, dead) = {
        let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
        (followers[0], followers[1])
    };
    site.members().kill(dead);
    let channel = site.members().channel(leader).await;
    let remove = |id| {
        let mut client = ClusterClient::new(channel.clone());
        async move { client.member_remove(pb::MemberRemoveRequest { id }).await }
    };
    let until = std::time::Instant::now() + PATIENCE;
    // The leader notices the lost connection in its own time, and until then nobody is dead.
    while site.members().server(leader).replica().status().membership.members().len() == 3 {
        assert!(std::time::Instant::now() < until, "it is never refused");
        let reachable = http_peers(&mut site, leader).await;
        if reachable == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    refused(remove(alive).await, Code::Unavailable, "etcdserver: unhealthy cluster");
    remove(dead).await.expect("the dead one may go");
    let mut kv = site.members().client(leader).await;
    kv.put(put("k", "v")).await.expect("two are a quorum of two");
}

/// How many other members a member is connected to.
async fn http_peers(site: &mut Site, member: u64) -> usize {
    let address = site.members().server(member).client_address();
    let metrics = crate::cluster::http(address, "GET /metrics").await;
    metrics.lines().filter(|line| line.starts_with("etcd_network_active_peers{") && line.ends_with(" 1")).count()
}

async fn m04_unknown_members_and_untimely_promotions_are_refused(site: Site) {
    all_started(&site).await;
    let own = list(&site).await[0].clone();
    refused(remove(&site, 7).await, Code::NotFound, NOT_FOUND);
    refused(promote(&site, 7).await, Code::NotFound, NOT_FOUND);
    refused(update(&site, 7, "http://127.0.0.1:1").await, Code::NotFound, NOT_FOUND);
    refused(promote(&site, own.id).await, Code::FailedPrecondition, NO_LEARNER);
    let learner = add(&site, "http://127.0.0.1:1", true).await.expect("there is none");
    refused(promote(&site, learner.id).await, Code::FailedPrecondition, IN_SYNC);
    let second = add(&site, "http://127.0.0.1:3", true).await;
    refused(second, Code::FailedPrecondition, "etcdserver: too many learner members in cluster");
    site.put("k", "v").await;
    assert_eq!(remove(&site, learner.id).await.expect("removed"), [own]);
    refused(remove(&site, learner.id).await, Code::NotFound, NOT_FOUND);
}

/// Adds a learner and starts it. Returns its id.
async fn start_learner(site: &mut Site) -> u64 {
    all_recorded(site).await;
    let ports = free_ports();
    let learner = add(site, &format!("http://{}", ports.1.1), true).await.expect("there is none");
    site.members().join(4, ports);
    all_started(site).await;
    learner.id
}

async fn m04_a_learner_that_has_caught_up_is_promoted(mut site: Site) {
    let id = start_learner(&mut site).await;
    let until = std::time::Instant::now() + PATIENCE;
    let promoted = loop {
        match promote(&site, id).await {
            Ok(members) => break members,
            Err(status) => assert_eq!(status.message(), IN_SYNC),
        }
        assert!(std::time::Instant::now() < until, "it never catches up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(promoted.iter().all(|member| !member.is_learner) && promoted.len() == 4);
    refused(promote(&site, id).await, Code::FailedPrecondition, NO_LEARNER);
    let mut kv = site.members().client(4).await;
    for _ in 0..500 {
        // It learns of its promotion a little later.
        if kv.put(put("k", "v")).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the new voter serves nobody");
}

async fn m05_a_learner_serves_only_its_own_state(mut site: Site) {
    site.put("k", "v").await;
    start_learner(&mut site).await;
    let key = site.key("k");
    let channel = site.members().channel(4).await;
    let mut kv = site.members().client(4).await;
    let own = |serializable| pb::RangeRequest { serializable, ..get(&key) };
    let until = std::time::Instant::now() + PATIENCE;
    while kv.range(own(true)).await.expect("it reads its own state").get_ref().count == 0 {
        assert!(std::time::Instant::now() < until, "it never catches up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    refused(kv.range(own(false)).await, Code::FailedPrecondition, FOR_LEARNERS);
    refused(kv.put(put("k", "v")).await, Code::FailedPrecondition, FOR_LEARNERS);
    refused(kv.delete_range(delete("k")).await, Code::FailedPrecondition, FOR_LEARNERS);
    refused(kv.txn(all(vec![op_get("k")])).await, Code::FailedPrecondition, FOR_LEARNERS);
    let grant = pb::LeaseGrantRequest { ttl: 10, id: 0 };
    refused(LeaseClient::new(channel.clone()).lease_grant(grant).await, Code::FailedPrecondition, FOR_LEARNERS);
    let list = ClusterClient::new(channel).member_list(pb::MemberListRequest { linearizable: false }).await;
    refused(list, Code::FailedPrecondition, FOR_LEARNERS);
    let status = site.members().maintenance(4).await.status(pb::StatusRequest {}).await.expect("told");
    assert!(status.get_ref().is_learner);
    assert_eq!(bytes("v"), kv.range(own(true)).await.expect("read").into_inner().kvs[0].value);
}

async fn m06_an_update_moves_a_member_and_does_not_promote_it(mut site: Site) {
    let id = start_learner(&mut site).await;
    let before = list(&site).await.into_iter().find(|member| member.id == id).expect("it is one");
    let updated = update(&site, id, "http://127.0.0.1:7").await.expect("updated");
    let after = updated.into_iter().find(|member| member.id == id).expect("it is one");
    assert_eq!(after, pb::Member { peer_ur_ls: vec!["http://127.0.0.1:7".to_owned()], ..before.clone() });
    update(&site, id, &before.peer_ur_ls[0]).await.expect("updated");
    assert_eq!(list(&site).await.into_iter().find(|member| member.id == id), Some(before));
}
