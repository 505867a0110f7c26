//! A program that is too old for its cluster does nothing with what it does not understand.

use std::sync::mpsc::channel;
use std::time::Instant;

use bowline_node::raft::Index;
use bowline_server::Server;
use bowline_server::config::ServerConfig;
use bowline_server::folder::{self, FolderError};
use bowline_server::peer::Protocol;

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
    let mut status = cluster.server(1).replica().watch_status();
    let raised = status.wait_for(|status| status.facts.cluster_version == NEXT.version);
    drop(tokio::time::timeout(PATIENCE, raised).await.expect("in time").expect("it runs"));
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
