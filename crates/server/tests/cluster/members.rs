//! Members that come and go while the cluster serves.

use std::time::Duration;

use bowline_api::etcdserverpb as pb;
use bowline_server::folder;
use tonic::Code;

use crate::harness::{Cluster, PATIENCE, free_ports, get, put, values};

fn add(url: &str, is_learner: bool) -> pb::MemberAddRequest {
    pb::MemberAddRequest { peer_ur_ls: vec![url.to_owned()], is_learner }
}

/// Waits until a member's own status says so.
async fn reached(cluster: &Cluster, key: u64, state: impl Fn(&bowline_server::replica::Status) -> bool) {
    let mut status = cluster.server(key).replica().watch_status();
    let reached = tokio::time::timeout(PATIENCE, status.wait_for(state)).await;
    assert!(
        matches!(reached, Ok(Ok(_))),
        "member {key} got no further than {:?}",
        cluster.server(key).replica().status()
    );
}

/// Adds a member through member `through`, and starts it. Returns its id.
async fn grow(cluster: &mut Cluster, through: u64, key: u64, is_learner: bool) -> u64 {
    let ports = free_ports();
    let url = format!("http://{}", ports.1.1);
    let added = cluster.members(through).await.member_add(add(&url, is_learner)).await.expect("added").into_inner();
    let id = added.member.expect("it is told").id;
    cluster.join(key, ports);
    id
}

/// Waits until all members have published their names.
async fn published(cluster: &Cluster, key: u64) {
    reached(cluster, key, |status| {
        status.membership.members().iter().all(|id| status.members.get(id.0).is_some_and(|member| member.has_started()))
    })
    .await;
}

async fn remove(cluster: &Cluster, through: u64, id: u64) -> Result<Vec<pb::Member>, tonic::Status> {
    let removed = cluster.members(through).await.member_remove(pb::MemberRemoveRequest { id }).await;
    removed.map(|response| response.into_inner().members)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_member_catches_up_becomes_a_voter_by_itself_and_serves() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader().await;
    cluster.client(leader).await.put(put("k", "before")).await.expect("written");
    let follower = cluster.follower().await;
    let id = grow(&mut cluster, follower, 4, false).await;
    reached(&cluster, 4, |status| {
        status.membership.voters().len() == 4 && status.membership.is_voter(bowline_node::raft::NodeId(id))
    })
    .await;
    let mut new = cluster.client(4).await;
    assert_eq!(values(new.range(get("k")).await.expect("read").get_ref()), ["before"]);
    new.put(put("k", "after")).await.expect("it forwards to the leader");
    // With the new one, three of four are a majority.
    cluster.kill(follower);
    cluster.client(4).await.put(put("k", "again")).await.expect("a majority is left");
    let list = cluster.members(4).await.member_list(pb::MemberListRequest { linearizable: true }).await.expect("told");
    let own = list.get_ref().members.iter().find(|member| member.id == id).expect("it is listed").clone();
    assert_eq!((own.name.as_str(), own.is_learner, own.client_ur_ls.len()), ("joined-4", false, 1));
    // It knows its cluster after a restart.
    cluster.kill(4);
    cluster.restart(4);
    cluster.client(4).await.put(put("k", "restarted")).await.expect("it has found the others");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_learns_it_whether_it_runs_or_starts_later() {
    let mut cluster = Cluster::start(3, &[]);
    let (leader, _) = (cluster.leader_of_all().await, ());
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    remove(&cluster, leader, followers[0]).await.expect("removed");
    let removed = cluster.server(followers[0]);
    let until = std::time::Instant::now() + PATIENCE;
    while !removed.is_removed() {
        assert!(std::time::Instant::now() < until, "nobody tells it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.client(leader).await.put(put("k", "v")).await.expect("two are left");
    let refused = remove(&cluster, leader, followers[0]).await.expect_err("it is gone");
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "etcdserver: member not found"));
    // Down to one, which goes on alone.
    cluster.kill(followers[0]);
    remove(&cluster, leader, followers[1]).await.expect("removed");
    cluster.client(leader).await.put(put("k", "alone")).await.expect("one is left");
    cluster.kill(followers[1]);
    cluster.restart(followers[1]);
    while !cluster.server(followers[1]).is_removed() {
        assert!(std::time::Instant::now() < until, "nobody tells it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_removes_itself_and_another_one_leads() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader_of_all().await;
    cluster.client(leader).await.put(put("k", "v")).await.expect("written");
    let other = cluster.follower().await;
    remove(&cluster, leader, leader).await.expect("removed");
    reached(&cluster, other, |status| {
        status.leader.is_some_and(|known| known.0 != leader) && status.membership.members().len() == 2
    })
    .await;
    assert_eq!(values(cluster.client(other).await.range(get("k")).await.expect("read").get_ref()), ["v"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_member_is_replaced_by_a_new_one_without_a_lower_tolerance() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader_of_all().await;
    cluster.client(leader).await.put(put("k", "v")).await.expect("written");
    published(&cluster, leader).await;
    let dead = cluster.follower().await;
    cluster.kill(dead);
    let id = grow(&mut cluster, leader, 4, false).await;
    reached(&cluster, 4, |status| status.membership.is_voter(bowline_node::raft::NodeId(id))).await;
    remove(&cluster, leader, dead).await.expect("removed");
    reached(&cluster, 4, |status| status.membership.members().len() == 3).await;
    cluster.client(4).await.put(put("k", "w")).await.expect("three are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_data_does_not_come_back_and_a_stranger_is_told_what_to_do() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader_of_all().await;
    let id = grow(&mut cluster, leader, 4, false).await;
    reached(&cluster, 4, |status| status.membership.is_voter(bowline_node::raft::NodeId(id))).await;
    cluster.kill(4);
    std::fs::remove_dir_all(cluster.data_dir(4)).expect("removed");
    let config = cluster.configs[&4].clone();
    let error =
        crate::harness::blocking(|| folder::open(&config).map(|_| ()).expect_err("its data is lost")).to_string();
    assert!(
        error.contains("has started before") && error.contains(&format!("bowline join --replace {id:x}")),
        "{error}"
    );
    let mut stranger = config;
    stranger.advertise_peer = bowline_server::config::Url::parse("127.0.0.1:9").expect("an address");
    let error = crate::harness::blocking(|| folder::open(&stranger).map(|_| ()).expect_err("unknown")).to_string();
    assert!(error.contains("has no member at 127.0.0.1:9") && error.contains("bowline member add"), "{error}");
}
