//! A disk that is full, and has room again.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb::kv_client::KvClient;
use bowline_node::raft::{SnapshotHeader, Write};
use bowline_server::config::Layers;
use bowline_server::replica::{LogStore, MemoryStore, StoreError};
use bowline_server::{Disk, Listeners, Server, folder};
use tonic::Code;

use crate::harness::{PATIENCE, get, put, values};

/// A log that is told when it is full.
#[derive(Debug)]
struct Narrow {
    memory: MemoryStore,
    full: Arc<AtomicBool>,
}

impl LogStore for Narrow {
    fn append(&mut self, write: &Write) -> Result<(), StoreError> {
        self.memory.append(write)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.memory.sync()
    }

    fn compact(&mut self, snapshot: &SnapshotHeader) -> Result<(), StoreError> {
        self.memory.compact(snapshot)
    }

    fn tend(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn admits(&self, _bytes: u64) -> bool {
        !self.full.load(Ordering::Relaxed)
    }

    fn bytes_written(&self) -> u64 {
        0
    }
}

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
    let full = Arc::new(AtomicBool::new(false));
    let Disk { identity, known, recovered, state, .. } = folder::open(&config).expect("a good folder");
    let log = Narrow { memory: MemoryStore::default(), full: Arc::clone(&full) };
    let disk = Disk { identity, known, recovered, log, state };
    let failed = |why: String| panic!("the member failed: {why}");
    let server = Server::start(&config, disk, listeners, failed).expect("it starts");
    let mut client = KvClient::connect(format!("http://{}", server.client_address())).await.expect("it listens");
    client.put(put("k", "before")).await.expect("written");

    full.store(true, Ordering::Relaxed);
    let until = Instant::now() + PATIENCE;
    let refused = loop {
        // It is noticed with the next write, at the latest.
        match client.put(put("k", "before")).await {
            Ok(_) => assert!(Instant::now() < until, "it is never noticed"),
            Err(status) => break status,
        }
    };
    let text = "etcdserver: mvcc: database space exceeded";
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, text));
    assert_eq!(values(client.range(get("k")).await.expect("read").get_ref()), ["before"]);

    full.store(false, Ordering::Relaxed);
    let until = Instant::now() + PATIENCE;
    while client.put(put("k", "after")).await.is_err() {
        assert!(Instant::now() < until, "room is never noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(values(client.range(get("k")).await.expect("read").get_ref()), ["after"]);
    std::thread::scope(|scope| scope.spawn(|| server.kill()).join().expect("it doesn't panic"));
}
