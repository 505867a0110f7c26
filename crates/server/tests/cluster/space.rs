//! The space of the state's file: given back while the member serves.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_server::replica::StopReason;
use tokio::task::JoinHandle;

use crate::harness::{Cluster, PATIENCE, get, prefix, put};
use crate::state::fill;

const MIB: u64 = 1 << 20;

/// What the state's file takes.
fn taken(folder: &Path) -> u64 {
    fs::metadata(folder.join("state.redb")).expect("it is there").blocks() * 512
}

fn leftovers(folder: &Path) -> Vec<String> {
    let names = folder.read_dir().expect("it is there").flatten().map(|entry| entry.file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.ends_with(".new")).collect()
}

/// Deletes almost all keys that `fill` made, and gives up their history; says at which revision.
async fn empty(cluster: &Cluster, at: u64) -> i64 {
    let mut client = cluster.client(at).await;
    let all = prefix("k/");
    let delete = pb::DeleteRangeRequest { key: "k/00010".into(), range_end: all.range_end, prev_kv: false };
    let deleted = client.delete_range(delete).await.expect("deleted").into_inner();
    let revision = deleted.header.expect("a header").revision;
    client.compact(pb::CompactionRequest { revision, physical: true }).await.expect("compacted");
    revision
}

/// Writes at a member until told to stop; then says how many were written.
async fn writes(cluster: &Cluster, at: u64, stop: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let (mut client, stop) = (cluster.client(at).await, Arc::clone(stop));
    tokio::spawn(async move {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            client.put(put(&format!("w/{}", number % 50), &number.to_string())).await.expect("it serves");
        }
        number
    })
}

/// Has a member's file written anew. A member that is behind may get the leader's snapshot meanwhile: then once more.
async fn defragment(cluster: &Cluster, at: u64) {
    let until = Instant::now() + PATIENCE;
    while let Err(status) = cluster.maintenance(at).await.defragment(pb::DefragmentRequest {}).await {
        let superseded = status.message().ends_with("the state was replaced meanwhile");
        assert!(superseded && Instant::now() < until, "{status}");
    }
}

async fn hash(cluster: &Cluster, at: u64, revision: i64) -> Option<(i64, u32)> {
    let mut maintenance = cluster.maintenance(at).await;
    let told = maintenance.hash_kv(pb::HashKvRequest { revision }).await.ok()?.into_inner();
    Some((told.hash_revision, told.hash))
}

/// Waits until a member's state has this checksum.
async fn has_hash(cluster: &Cluster, at: u64, wanted: (i64, u32)) {
    let until = Instant::now() + PATIENCE;
    while hash(cluster, at, wanted.0).await != Some(wanted) {
        assert!(Instant::now() < until, "member {at} never got there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_file_that_is_mostly_free_gets_small_by_itself_while_the_member_serves() {
    let mut cluster = Cluster::start(1, &[("snapshot_bytes", "256KiB"), ("shrink_bytes", "1MiB")]);
    cluster.leader().await;
    fill(&cluster, 1, 0..400, 20_000).await;
    let folder = cluster.data_dir(1);
    let before = taken(&folder);
    assert!(before > 6 * MIB, "{before}");
    let stop = Arc::new(AtomicBool::new(false));
    let writer = writes(&cluster, 1, &stop).await;
    empty(&cluster, 1).await;
    let until = Instant::now() + PATIENCE;
    while cluster.server(1).replica().status().facts.db_size > 2 * MIB {
        assert!(Instant::now() < until, "it stays at {} bytes", taken(&folder));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(taken(&folder) <= 2 * MIB, "{} bytes", taken(&folder));
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.expect("it doesn't panic");
    let last = cluster.client(1).await.range(get(&format!("w/{}", written % 50))).await.expect("read").into_inner();
    assert_eq!(last.kvs[0].value, written.to_string().as_bytes());

    let known = hash(&cluster, 1, 0).await.expect("told");
    let status = cluster.maintenance(1).await.status(pb::StatusRequest {}).await.expect("told").into_inner();
    assert!(status.db_size as u64 <= 2 * MIB && status.db_size_in_use <= status.db_size, "{status:?}");
    for graceful in [false, true] {
        if graceful {
            assert_eq!(cluster.stop(1), StopReason::Told);
        } else {
            cluster.kill(1);
        }
        assert_eq!(leftovers(&folder), [""; 0]);
        cluster.restart(1);
        cluster.leader().await;
        has_hash(&cluster, 1, known).await;
    }
}

#[tokio::test]
async fn members_that_are_told_to_defragment_keep_the_same_state() {
    // Nothing happens by itself.
    let mut cluster = Cluster::start(3, &[("snapshot_bytes", "256KiB"), ("shrink_bytes", "1GiB")]);
    let leader = cluster.leader().await;
    fill(&cluster, leader, 0..300, 20_000).await;
    assert!(taken(&cluster.data_dir(leader)) > 4 * MIB);
    let compacted = empty(&cluster, leader).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = writes(&cluster, leader, &stop).await;
    for id in 1..=3 {
        let replica = cluster.server(id).replica();
        assert!(replica.reaches(|facts| facts.compact_revision >= compacted).await, "member {id} stays behind");
        defragment(&cluster, id).await;
        let (size, facts) = (taken(&cluster.data_dir(id)), replica.status().facts);
        assert!(size <= 2 * MIB, "member {id}: {size} bytes");
        assert!(facts.db_size <= 2 * MIB, "member {id} says it at once: {facts:?}");
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("it doesn't panic");
    let known = hash(&cluster, leader, 0).await.expect("told");
    for id in 1..=3 {
        has_hash(&cluster, id, known).await;
    }
    for id in 1..=3 {
        cluster.kill(id);
        cluster.restart(id);
    }
    for id in 1..=3 {
        has_hash(&cluster, id, known).await;
    }
}

#[tokio::test]
async fn a_member_that_ends_during_a_rewrite_leaves_nothing_of_it_and_starts_with_all() {
    let mut cluster = Cluster::start(1, &[("snapshot_bytes", "256KiB"), ("shrink_bytes", "1GiB")]);
    cluster.leader().await;
    fill(&cluster, 1, 0..300, 20_000).await;
    let known = hash(&cluster, 1, 0).await.expect("told");
    let folder = cluster.data_dir(1);
    let mut ends = BTreeSet::new();
    for round in 0..4 {
        let mut maintenance = cluster.maintenance(1).await;
        let asked = tokio::spawn(async move { maintenance.defragment(pb::DefragmentRequest {}).await.is_ok() });
        let until = Instant::now() + PATIENCE;
        while leftovers(&folder).is_empty() {
            assert!(Instant::now() < until, "it never begins");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(round * 10)).await;
        if round % 2 == 0 {
            cluster.kill(1);
        } else {
            assert_eq!(cluster.stop(1), StopReason::Told);
        }
        ends.insert(asked.await.expect("it doesn't panic"));
        assert_eq!(leftovers(&folder), [""; 0], "round {round}");
        cluster.restart(1);
        cluster.leader().await;
        has_hash(&cluster, 1, known).await;
    }
    assert!(ends.contains(&false), "none was interrupted");
}
