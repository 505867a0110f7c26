//! A program that is too old for its cluster does nothing with what it does not understand.

use std::sync::mpsc::channel;
use std::time::Instant;

use bowline_kv::versions;
use bowline_node::raft::Index;
use bowline_server::Server;
use bowline_server::config::ServerConfig;
use bowline_server::folder::{self, FolderError};
use bowline_server::peer::Protocol;

use bowline_api::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use tonic::Code;

use crate::harness::{Cluster, PATIENCE, bind_again, blocking, put};

/// The program after this one.
const NEXT: Protocol = Protocol { version: Protocol::CURRENT.version + 1, ..Protocol::CURRENT };

/// A cluster of one, which runs the program of the next version, and has that version.
async fn of_the_next_version() -> Cluster {
    let mut cluster = Cluster::start(1, &[("snapshot_bytes", "64KiB")]);
    cluster.client(1).await.put(put("k", "v")).await.expect("written");
    cluster.kill(1);
    config(&mut cluster).protocol = NEXT;
    cluster.restart(1);
    cluster.raised(1, NEXT).await;
    cluster
}

fn config(cluster: &mut Cluster) -> &mut ServerConfig {
    cluster.configs.get_mut(&1).expect("it is there")
}

fn told() -> String {
    let version = Protocol::CURRENT.version;
    format!(
        "the cluster has version {} of the peer protocol, but the program of member 1 speaks only version {version}: \
         start a newer program on that member's data",
        NEXT.version
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_program_refuses_a_state_of_a_later_version() {
    let mut cluster = of_the_next_version().await;
    let until = Instant::now() + PATIENCE;
    loop {
        cluster.client(1).await.put(put("k", &"v".repeat(100 << 10))).await.expect("written");
        cluster.kill(1);
        let disk = folder::open(&cluster.configs[&1]).expect("it knows the version");
        // A state that was never made durable begins anew.
        if disk.state.machine.applied() > Index(0) {
            break;
        }
        drop(disk);
        assert!(Instant::now() < until, "the state is not made durable");
        cluster.restart(1);
    }
    config(&mut cluster).protocol = Protocol::CURRENT;
    match folder::open(&cluster.configs[&1]) {
        Err(FolderError::TooOld { why, .. }) => assert_eq!(why, told()),
        other => panic!("{:?}", other.map(drop)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_program_stops_where_its_log_raises_the_version() {
    let mut cluster = of_the_next_version().await;
    cluster.kill(1);
    config(&mut cluster).protocol = Protocol::CURRENT;
    let config = &cluster.configs[&1];
    let disk = folder::open(config).expect("the state knows nothing of it yet");
    let (failures, failed) = channel();
    let on_failure = move |why| drop(failures.send(why));
    let server = Server::start(config, disk, bind_again(config), on_failure).expect("it starts");
    let why = failed.recv_timeout(PATIENCE).expect("it stops");
    assert!(why.contains(&told()), "{why}");
    blocking(|| server.kill());
}

#[tokio::test(flavor = "multi_thread")]
async fn alarms_wait_until_every_member_knows_them() {
    let old = Protocol { version: versions::ALARMS - 1, oldest_version: versions::ALARMS - 1, ..Protocol::CURRENT };
    let mut cluster = Cluster::start_with(1, &[("quota_backend_bytes", "1")], old);
    cluster.leader().await;
    let activate =
        pb::AlarmRequest { action: AlarmAction::Activate.into(), member_id: 7, alarm: pb::AlarmType::Nospace.into() };
    let refused = cluster.maintenance(1).await.alarm(activate).await.expect_err("nobody knows it");
    let told = format!(
        "bowline: alarms need version {} of the peer protocol, but the cluster has version {}: start a newer program on \
         every member",
        versions::ALARMS,
        old.version
    );
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, told.as_str()));
    let full = cluster.client(1).await.put(put("k", "v")).await.expect_err("it is over its quota");
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert_eq!(alarms(&cluster).await, [0_u64; 0]);

    cluster.kill(1);
    config(&mut cluster).protocol = Protocol::CURRENT;
    cluster.restart(1);
    cluster.raised(1, Protocol::CURRENT).await;
    cluster.client(1).await.put(put("k", "v")).await.expect_err("it is over its quota");
    assert_eq!(alarms(&cluster).await, [1], "the first refused write raises the alarm");
    cluster.maintenance(1).await.alarm(activate).await.expect("known by now");
    assert_eq!(alarms(&cluster).await, [1, 7]);
}

/// The members that have an alarm.
async fn alarms(cluster: &Cluster) -> Vec<u64> {
    let told = cluster.maintenance(1).await.alarm(pb::AlarmRequest::default()).await.expect("told").into_inner();
    told.alarms.iter().map(|alarm| alarm.member_id).collect()
}
