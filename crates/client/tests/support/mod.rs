//! A cluster in this process.

// Not every test uses all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use bowline_client::Client;
use bowline_server::config::{Layers, ServerConfig};
use bowline_server::{Listeners, Server, folder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Its members' threads and folders end with it.
pub(crate) struct Cluster {
    configs: BTreeMap<u64, ServerConfig>,
    servers: BTreeMap<u64, Server>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    pub(crate) fn start(members: u64) -> Cluster {
        let folder = tempfile::tempdir().expect("a folder");
        let port = || TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = |listener: &TcpListener| listener.local_addr().expect("it is bound").to_string();
        let ports: Vec<_> = (1..=members).map(|id| (id, port(), port())).collect();
        let all: Vec<String> = ports.iter().map(|(id, _, peer)| format!("{id}=http://{}", address(peer))).collect();
        let mut cluster = Cluster { configs: BTreeMap::new(), servers: BTreeMap::new(), _folder: folder };
        for (id, client, peer) in ports {
            let mut layers = Layers::new();
            let settings = [
                ("id", id.to_string()),
                ("data_dir", cluster._folder.path().join(format!("member-{id}")).display().to_string()),
                ("listen_client", address(&client)),
                ("initial_cluster", all.join(",")),
                ("election_min", "250ms".to_owned()),
                ("election_max", "500ms".to_owned()),
                ("heartbeat", "50ms".to_owned()),
                ("watch_progress_interval", "100ms".to_owned()),
            ];
            settings.into_iter().for_each(|(key, value)| layers.add_flag(key, value));
            let config = layers.check().expect("good settings");
            cluster.servers.insert(id, serve(&config, Listeners { client: vec![client], peer, metrics: Vec::new() }));
            cluster.configs.insert(id, config);
        }
        cluster
    }

    pub(crate) fn endpoint(&self, id: u64) -> String {
        self.configs[&id].listen_client[0].to_string()
    }

    /// A client of these members, in this order.
    pub(crate) fn client(&self, ids: &[u64]) -> Client {
        let endpoints: Vec<String> = ids.iter().map(|id| self.endpoint(*id)).collect();
        Client::new(&endpoints, PATIENCE).expect("good endpoints")
    }

    /// The member with this endpoint.
    pub(crate) fn id_of(&self, endpoint: &str) -> u64 {
        *self.configs.keys().find(|id| endpoint.contains(&self.endpoint(**id))).expect("it is a member's")
    }

    /// Stops a member as kill -9 would.
    pub(crate) fn kill(&mut self, id: u64) {
        let server = self.servers.remove(&id).expect("it runs");
        blocking(|| server.kill());
    }

    pub(crate) fn restart(&mut self, id: u64) {
        let config = &self.configs[&id];
        let until = Instant::now() + PATIENCE;
        let listeners = loop {
            match Listeners::bind(config) {
                Ok(listeners) => break listeners,
                Err(error) => assert!(Instant::now() < until, "its ports are not free again: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.servers.insert(id, serve(config, listeners));
    }

    /// Waits until a member counts so many watchers.
    pub(crate) async fn has_watchers(&self, id: u64, count: usize) {
        let line = format!("\netcd_debugging_mvcc_watcher_total {count}\n");
        let until = Instant::now() + PATIENCE;
        loop {
            let mut stream = tokio::net::TcpStream::connect(self.configs[&id].listen_client[0].authority())
                .await
                .expect("it listens");
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").await.expect("sent");
            let mut page = String::new();
            stream.read_to_string(&mut page).await.expect("answered");
            if page.contains(&line) {
                return;
            }
            assert!(Instant::now() < until, "not {count} watchers: {page}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, server) in std::mem::take(&mut self.servers) {
            blocking(|| server.kill());
        }
    }
}

fn serve(config: &ServerConfig, listeners: Listeners) -> Server {
    let disk = folder::open(config).expect("a good folder");
    Server::start(config, disk, listeners, |why| panic!("a member failed: {why}")).expect("it starts")
}

/// A server owns a runtime, which must not be dropped on a thread of another one.
fn blocking<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().expect("it doesn't panic"))
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let comes = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, comes).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// An endpoint that accepts connections and never answers.
pub(crate) fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    (listener, address)
}
