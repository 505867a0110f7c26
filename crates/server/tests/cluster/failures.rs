//! Members that die, stop, come back, and fall behind.

use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_server::replica::StopReason;
use tonic::Code;

use crate::harness::{Cluster, PATIENCE, get, prefix, put, values};

#[tokio::test]
async fn a_killed_leader_loses_nothing_acknowledged() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader().await;
    let survivor = cluster.follower().await;
    let mut client = cluster.client(survivor).await;
    let mut acknowledged = Vec::new();
    for number in 0..50 {
        client.put(put(&format!("k/{number:03}"), "v")).await.expect("written");
        acknowledged.push(number);
    }
    cluster.kill(leader);
    let (killed_at, mut took) = (Instant::now(), None);
    for number in 50..60 {
        // What was on its way to the dead leader may be unknown; it is not tried again by anybody but us.
        match client.put(put(&format!("k/{number:03}"), "v")).await {
            Ok(_) => {
                took.get_or_insert(killed_at.elapsed());
                acknowledged.push(number);
            }
            Err(error) => assert_eq!(error.code(), Code::Unavailable, "{error}"),
        }
    }
    let took = took.expect("writes go on");
    assert!(took < Duration::from_secs(5), "writes went on after {took:?}");
    assert!(acknowledged.len() >= 59, "at most the one that was on its way is lost");
    let all = client.range(prefix("k/")).await.expect("read").into_inner();
    for number in acknowledged {
        let key = format!("k/{number:03}");
        assert!(all.kvs.iter().any(|kv| kv.key == key.as_bytes()), "{key} was acknowledged");
    }
    cluster.restart(leader);
    let mut back = cluster.client(leader).await;
    assert_eq!(back.range(prefix("k/")).await.expect("read").into_inner().count, all.count);
}

#[tokio::test]
async fn a_cluster_that_was_killed_comes_back_with_everything() {
    let mut cluster = Cluster::start(3, &[("snapshot_bytes", "64KiB")]);
    let mut client = cluster.client(cluster.leader().await).await;
    for number in 0..100 {
        client.put(put(&format!("k/{number:03}"), &"x".repeat(2_000))).await.expect("written");
    }
    for id in 1..=3 {
        cluster.kill(id);
    }
    for id in 1..=3 {
        cluster.restart(id);
    }
    cluster.leader().await;
    for id in 1..=3 {
        let seen = cluster.client(id).await.range(prefix("k/")).await.expect("read").into_inner();
        assert_eq!((seen.count, seen.header.expect("a header").revision), (100, 101), "at member {id}");
    }
}

#[tokio::test]
async fn the_log_goes_on_from_segment_to_segment() {
    let cluster = Cluster::start(3, &[]);
    let mut client = cluster.client(cluster.follower().await).await;
    // Segments have 8 MiB, and one is in reserve.
    for number in 0..30 {
        client.put(put(&format!("k/{number:03}"), &"x".repeat(1_000_000))).await.expect("there is room");
    }
    let count_only = pb::RangeRequest { count_only: true, ..prefix("k/") };
    assert_eq!(client.range(count_only).await.expect("read").into_inner().count, 30);
}

#[tokio::test]
async fn a_member_that_fell_behind_gets_a_snapshot() {
    let mut cluster = Cluster::start(3, &[("snapshot_bytes", "64KiB")]);
    let away = cluster.follower().await;
    cluster.kill(away);
    let mut client = cluster.client(cluster.leader().await).await;
    for number in 0..200 {
        client.put(put(&format!("k/{number:03}"), &"x".repeat(2_000))).await.expect("written");
    }
    cluster.restart(away);
    let mut back = cluster.client(away).await;
    let until = Instant::now() + PATIENCE;
    let seen = loop {
        if let Ok(seen) = back.range(prefix("k/")).await {
            break seen.into_inner();
        }
        assert!(Instant::now() < until, "it never came back");
    };
    assert_eq!((seen.count, seen.header.expect("a header").revision), (200, 201));
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_first() {
    let mut cluster = Cluster::start(3, &[("election_min", "4s"), ("election_max", "8s")]);
    let leader = cluster.leader().await;
    let survivor = cluster.follower().await;
    let mut client = cluster.client(survivor).await;
    client.put(put("k", "before")).await.expect("written");
    assert_eq!(cluster.stop(leader), StopReason::Told);
    let started = Instant::now();
    client.put(put("k", "after")).await.expect("written");
    assert!(started.elapsed() < Duration::from_secs(3), "nobody waited for an election: {:?}", started.elapsed());
}

#[tokio::test]
async fn without_a_quorum_writes_end_and_local_reads_go_on() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader().await;
    let mut client = cluster.client(leader).await;
    client.put(put("k", "v")).await.expect("written");
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.kill(id);
    }
    let local = pb::RangeRequest { serializable: true, ..get("k") };
    assert_eq!(values(client.range(local).await.expect("read").get_ref()), ["v"]);
    let mut insisting = tonic::Request::new(put("k", "w"));
    insisting.metadata_mut().insert("hasleader", "true".parse().expect("plain"));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let error = client.put(insisting).await.expect_err("nobody leads");
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "etcdserver: no leader"));
    let started = Instant::now();
    let error = client.put(put("k", "w")).await.expect_err("nobody leads");
    assert_eq!(error.code(), Code::Unavailable);
    assert!(started.elapsed() < Duration::from_secs(8), "it ends after {:?}", started.elapsed());
}

#[tokio::test]
async fn two_processes_never_share_a_folder_and_a_foreign_one_is_refused() {
    use bowline_server::folder;
    let mut cluster = Cluster::start(1, &[]);
    cluster.leader().await;
    let config = cluster.configs[&1].clone();
    let error = folder::open(&config).expect_err("it is open already");
    assert!(error.to_string().contains("in use by another process"), "{error}");
    cluster.kill(1);
    let mut other = config.clone();
    other.cluster_token = "another".to_owned();
    let error = folder::open(&other).expect_err("it is another cluster's");
    assert!(error.to_string().contains("belongs to member 1 of cluster"), "{error}");
    std::fs::remove_dir_all(&config.data_dir).expect("it is ours");
    let mut known = config.clone();
    known.may_found = false;
    let error = folder::open(&known).expect_err("it is lost");
    assert!(error.to_string().contains("holds no data of member 1"), "{error}");
}
