//! The comparison of the members' states: it runs by itself, and names a member whose data was damaged.

use std::ops::ControlFlow;
use std::time::Instant;

use bowline_api::etcdserverpb as pb;
use bowline_kv::store::{Batch, Engine, Record, Records, RedbEngine, Revision};
use bowline_server::replica::ComparisonFacts;
use tonic::Code;

use crate::harness::{Cluster, PATIENCE, put};
use crate::state::fill;

const SETTINGS: [(&str, &str); 2] = [("compare_interval", "100ms"), ("snapshot_bytes", "64KiB")];

/// Waits until the state of a member shows that all members agree about everything that it has applied.
async fn agreed(cluster: &Cluster, id: u64) {
    let mut status = cluster.server(id).replica().watch_status();
    let agreed = status.wait_for(|status| {
        let ComparisonFacts { mark_due, marked_index, agreed_index, .. } = status.facts.comparison;
        !mark_due && agreed_index == marked_index
    });
    let agreed = tokio::time::timeout(PATIENCE, agreed).await;
    let facts = cluster.server(id).replica().status().facts;
    assert!(matches!(agreed, Ok(Ok(_))), "member {id} does not see that all agree: {facts:?}");
}

/// Changes a byte of the first record in the file of a member that does not run, as bad memory might when the file is
/// written. Returns whether there is a record.
fn damage(cluster: &Cluster, id: u64) -> bool {
    let path = cluster.data_dir(id).join("state.redb");
    let mut engine = RedbEngine::open(&path, 1 << 20).expect("nobody uses it");
    let (label, meta) = (engine.label().expect("read"), engine.meta().expect("read"));
    let mut first = None;
    let mut visit = |at, record: Record| {
        first = Some((at, record));
        ControlFlow::Break(())
    };
    let whole = Revision::default()..Revision::start_of(i64::MAX);
    engine.reader().expect("read").scan(whole.start, whole.end, &mut visit).expect("read");
    let Some((at, record)) = first else { return false };
    let mut bytes = record.stored().to_vec();
    // The values of `fill` end with a letter.
    let value = bytes.iter().rposition(u8::is_ascii_lowercase).expect("its value");
    bytes[value] ^= 0x20;
    engine
        .write(&Batch { puts: &[(at, Record::from_stored(bytes.into()))], meta, ..Batch::default() })
        .expect("written");
    engine.checkpoint(Some(&label)).expect("written");
    true
}

/// Which members have the alarm CORRUPT, as a member tells it.
async fn corrupt(cluster: &Cluster, id: u64) -> Vec<u64> {
    let told = cluster.maintenance(id).await.alarm(pb::AlarmRequest::default()).await.expect("told").into_inner();
    let corrupt = told.alarms.iter().filter(|alarm| alarm.alarm == i32::from(pb::AlarmType::Corrupt));
    corrupt.map(|alarm| alarm.member_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_compared_after_each_write_also_after_restarts() {
    let mut cluster = Cluster::start(3, &SETTINGS);
    let leader = cluster.leader().await;
    cluster.client(leader).await.put(put("k", "v")).await.expect("written");
    for id in 1..=3 {
        agreed(&cluster, id).await;
    }
    for id in 1..=3 {
        cluster.kill(id);
        cluster.restart(id);
    }
    let leader = cluster.leader().await;
    let written = cluster.client(leader).await.put(put("k", "v")).await.expect("written").into_inner();
    for id in 1..=3 {
        agreed(&cluster, id).await;
    }
    let revision = written.header.expect("a header").revision;
    let compaction = pb::CompactionRequest { revision, physical: true };
    cluster.client(leader).await.compact(compaction).await.expect("compacted");
    agreed(&cluster, leader).await;
    assert_eq!(corrupt(&cluster, leader).await, [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_a_damaged_record_is_named_at_the_next_compaction_and_can_be_replaced() {
    let mut cluster = Cluster::start(3, &SETTINGS);
    cluster.leader_of_all().await;
    let victim = cluster.follower().await;
    let until = Instant::now() + PATIENCE;
    for round in 0.. {
        fill(&cluster, cluster.leader().await, round * 50..(round + 1) * 50, 2_000).await;
        cluster.kill(victim);
        let damaged = damage(&cluster, victim);
        cluster.restart(victim);
        if damaged {
            break;
        }
        assert!(Instant::now() < until, "the state is not made durable");
    }
    let leader = cluster.leader().await;
    agreed(&cluster, leader).await;
    assert_eq!(corrupt(&cluster, leader).await, [0; 0], "nothing that was written depends on the record");

    let revision = cluster.server(leader).replica().status().facts.revision;
    let compaction = pb::CompactionRequest { revision, physical: true };
    cluster.client(leader).await.compact(compaction).await.expect("compacted");
    for id in 1..=3 {
        let mut status = cluster.server(id).replica().watch_status();
        let raised = status.wait_for(|status| status.facts.alarms.corrupt);
        drop(tokio::time::timeout(PATIENCE, raised).await.expect("in time").expect("it runs"));
        assert_eq!(corrupt(&cluster, id).await, [victim]);
    }
    let refused = cluster.client(leader).await.put(put("k", "v")).await.expect_err("the states differ");
    assert_eq!((refused.code(), refused.message()), (Code::DataLoss, "etcdserver: corrupt cluster"));

    let removed = cluster.members(leader).await.member_remove(pb::MemberRemoveRequest { id: victim }).await;
    removed.expect("the others are a majority");
    assert_eq!(corrupt(&cluster, leader).await, [0; 0]);
    cluster.client(leader).await.put(put("k", "v")).await.expect("the rest agrees");
}
