//! A disk that is full, and has room again.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb::kv_client::KvClient;
use bowline_node::raft::{Group, Membership, NodeId};
use bowline_server::config::Layers;
use bowline_server::{Disk, Listeners, Server, folder};
use bowline_storage::{ClusterId, Identity, Options, SimDisk};
use tonic::Code;

use crate::harness::{PATIENCE, get, put, values};

#[tokio::test]
async fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    let bind = || TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let listeners = Listeners { client: vec![bind()], peer: bind(), metrics: Vec::new() };
    let mut layers = Layers::new();
    layers.add_flag("id", "1".to_owned());
    layers.add_flag("initial_cluster", format!("1={}", listeners.peer.local_addr().expect("bound")));
    let folder = tempfile::tempdir().expect("a folder");
    layers.add_flag("data_dir", folder.path().join("member").display().to_string());
    let config = layers.check().expect("a good configuration");
    let Disk { identity, known, state, .. } = folder::open(&config).expect("a good folder");
    // The log is on a disk of its own.
    let (narrow, options) = (SimDisk::new(), Options::new(64 << 10, 8 << 10, 1));
    let (cluster, replica) = (ClusterId(identity.cluster), identity.replica);
    let owner = Identity { cluster, replica, incarnation: identity.incarnation };
    let founders = Membership::simple(Group::of_voters([NodeId(1)]));
    bowline_storage::create(&narrow, &owner, Some(founders), &options).expect("it is empty");
    let opened = bowline_storage::open(&narrow, cluster, replica, &options).expect("it was made");
    let (recovered, log) = (opened.recovery.recovered, opened.log);
    let disk = Disk { identity, known, recovered, log, state };
    let failed = |why: String| panic!("the member failed: {why}");
    let server = Server::start(&config, disk, listeners, failed).expect("it starts");
    let mut client = KvClient::connect(format!("http://{}", server.client_address())).await.expect("it listens");
    client.put(put("k", "before")).await.expect("written");

    narrow.set_capacity(Some(narrow.used()));
    let until = Instant::now() + PATIENCE;
    let refused = loop {
        // There is room in the segments that are prepared.
        match client.put(put("k", "before")).await {
            Ok(_) => assert!(Instant::now() < until, "it is never noticed"),
            Err(status) => break status,
        }
    };
    let text = "etcdserver: mvcc: database space exceeded";
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, text));
    assert_eq!(values(client.range(get("k")).await.expect("read").get_ref()), ["before"]);

    narrow.set_capacity(None);
    let until = Instant::now() + PATIENCE;
    while client.put(put("k", "after")).await.is_err() {
        assert!(Instant::now() < until, "room is never noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(values(client.range(get("k")).await.expect("read").get_ref()), ["after"]);
    std::thread::scope(|scope| scope.spawn(|| server.kill()).join().expect("it doesn't panic"));
}
