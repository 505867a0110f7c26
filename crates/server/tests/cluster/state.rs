//! The file of the state: damaged, missing, behind, or large; and what a member does about it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_server::folder;

use crate::harness::{Cluster, PATIENCE, prefix, put};

/// A value that looks like nothing else, so that nothing is saved by being equal.
fn value(number: usize, bytes: usize) -> String {
    (0..bytes).map(|at| char::from(b'a' + ((number * 31 + at * 7 + at / 26) % 26) as u8)).collect()
}

pub(crate) async fn fill(cluster: &Cluster, at: u64, keys: std::ops::Range<usize>, bytes: usize) {
    let client = cluster.client(at).await;
    let keys: Vec<usize> = keys.collect();
    for some in keys.chunks(16) {
        let puts = some.iter().map(|number| {
            let mut client = client.clone();
            let put = put(&format!("k/{number:05}"), &value(*number, bytes));
            tokio::spawn(async move { client.put(put).await })
        });
        for put in puts.collect::<Vec<_>>() {
            put.await.expect("it doesn't panic").expect("written");
        }
    }
}

/// Waits until a member's own state holds so many keys, and the same as another's.
async fn agrees(cluster: &Cluster, id: u64, other: u64, keys: i64) {
    let until = Instant::now() + PATIENCE;
    let (mut one, mut two) = (cluster.client(id).await, cluster.client(other).await);
    loop {
        if let Ok(seen) = one.range(prefix("k/")).await {
            let seen = seen.into_inner();
            assert_eq!(seen.count, keys, "at member {id}");
            let known = two.range(prefix("k/")).await.expect("read").into_inner();
            assert!(seen.kvs == known.kvs, "members {id} and {other} differ");
            return;
        }
        assert!(Instant::now() < until, "member {id} never came back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn flip(file: &Path) {
    let mut bytes = fs::read(file).expect("it is there");
    for at in (0..bytes.len()).step_by(1_000) {
        bytes[at] ^= 0x40;
    }
    fs::write(file, bytes).expect("it is ours");
}

#[tokio::test]
async fn a_member_whose_state_is_damaged_or_gone_gets_it_from_the_leader() {
    let mut cluster = Cluster::start(3, &[("snapshot_bytes", "64KiB")]);
    let leader = cluster.leader().await;
    fill(&cluster, leader, 0..200, 2_000).await;
    for damaged in [true, false] {
        let victim = cluster.follower().await;
        let state = cluster.data_dir(victim).join("state.redb");
        cluster.kill(victim);
        if damaged {
            flip(&state)
        } else {
            fs::remove_file(&state).expect("it is there")
        }
        cluster.restart(victim);
        agrees(&cluster, victim, cluster.leader().await, 200).await;
        assert!(!damaged || state.with_file_name("state.damaged").exists(), "it is kept for people");
        // What it has now it has for good.
        cluster.kill(victim);
        cluster.restart(victim);
        agrees(&cluster, victim, cluster.leader().await, 200).await;
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("it can be made");
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be read");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("it has one").is_dir() {
            true => copy_folder(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).expect("there is room")),
        }
    }
}

/// An operator brings a member back from a backup: it has forgotten what it acknowledged since (D14).
#[tokio::test]
async fn a_folder_that_comes_from_a_backup_is_noticed_and_made_good() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader().await;
    fill(&cluster, leader, 0..20, 100).await;
    let victim = cluster.follower().await;
    let (folder, backup) = (cluster.data_dir(victim), cluster.data_dir(victim).with_extension("backup"));
    cluster.kill(victim);
    copy_folder(&folder, &backup);
    cluster.restart(victim);
    let told = |cluster: &Cluster| cluster.server(victim).replica().metrics().told_losses.get();
    fill(&cluster, leader, 20..60, 100).await;
    agrees(&cluster, victim, leader, 60).await;
    assert_eq!(told(&cluster), 0, "a restart is no loss");
    cluster.kill(victim);
    fs::remove_dir_all(&folder).expect("it is there");
    fs::rename(&backup, &folder).expect("in the same place");
    cluster.restart(victim);
    agrees(&cluster, victim, leader, 60).await;
    assert!(told(&cluster) > 0, "the leader remembers, and says so");
    // What it was told is on its disk, and made good: it votes as before.
    cluster.kill(victim);
    cluster.restart(victim);
    agrees(&cluster, victim, leader, 60).await;
    assert_eq!(told(&cluster), 0);
}

#[tokio::test]
async fn a_state_that_is_gone_is_made_again_of_the_log_while_that_has_everything() {
    let mut cluster = Cluster::start(1, &[]);
    cluster.leader().await;
    fill(&cluster, 1, 0..50, 100).await;
    cluster.kill(1);
    fs::remove_file(cluster.data_dir(1).join("state.redb")).expect("it is there");
    cluster.restart(1);
    cluster.leader().await;
    let seen = cluster.client(1).await.range(prefix("k/")).await.expect("read").into_inner();
    assert_eq!((seen.count, seen.header.expect("a header").revision), (50, 51));
}

#[tokio::test]
async fn a_lone_member_without_its_state_says_what_is_missing() {
    let mut cluster = Cluster::start(1, &[("snapshot_bytes", "64KiB")]);
    cluster.leader().await;
    fill(&cluster, 1, 0..200, 2_000).await;
    cluster.kill(1);
    fs::remove_file(cluster.data_dir(1).join("state.redb")).expect("it is there");
    let error = folder::open(&cluster.configs[&1]).expect_err("nobody has the state");
    assert!(error.to_string().contains("no other member has them; restore the folder from a copy"), "{error}");
}

#[tokio::test]
async fn a_large_snapshot_arrives_though_its_receiver_dies_on_the_way() {
    let mut cluster = Cluster::start(3, &[("snapshot_bytes", "64KiB")]);
    let away = cluster.follower().await;
    cluster.kill(away);
    let leader = cluster.leader().await;
    // A hundred pieces and more.
    fill(&cluster, leader, 0..400, 80_000).await;
    let arriving = cluster.data_dir(away).join("snap").join("arriving");
    for bytes in [1 << 20, 8 << 20] {
        cluster.restart(away);
        let until = Instant::now() + PATIENCE;
        while fs::metadata(&arriving).map_or(0, |file| file.len()) < bytes {
            assert!(Instant::now() < until, "nothing arrives");
            if cluster.server(away).replica().status().facts.keys == 400 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cluster.kill(away);
    }
    cluster.restart(away);
    agrees(&cluster, away, leader, 400).await;
    assert!(!arriving.exists(), "what has arrived is in the state now");
}

#[tokio::test]
async fn log_and_state_stay_small_where_the_same_keys_are_written_again_and_again() {
    let mut cluster = Cluster::start(1, &[("snapshot_bytes", "1MiB")]);
    cluster.leader().await;
    let mut client = cluster.client(1).await;
    for _ in 0..12 {
        fill(&cluster, 1, 0..64, 64_000).await;
        let revision = client.range(prefix("k/00000")).await.expect("read").into_inner().header.expect("one").revision;
        let compaction = pb::CompactionRequest { revision, physical: true };
        client.compact(compaction).await.expect("compacted");
    }
    // Almost 50 MB were written, of which 4 MB count.
    let bytes = |folder: &Path| -> u64 {
        let files = fs::read_dir(folder).expect("it is there").flatten();
        files.map(|file| file.metadata().map_or(0, |file| file.len())).sum()
    };
    let (log, state) = (bytes(&cluster.data_dir(1).join("log")), bytes(&cluster.data_dir(1)));
    assert!(log <= 4 * (8 << 20), "the log has {log} bytes");
    assert!(state <= 40 << 20, "the state has {state} bytes");
    cluster.kill(1);
    cluster.restart(1);
    cluster.leader().await;
    let seen = cluster.client(1).await.range(prefix("k/")).await.expect("read").into_inner();
    assert_eq!(seen.count, 64);
}
