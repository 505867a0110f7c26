//! A cluster in one process, on loopback, with folders that go with the test.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_server::config::{Layers, ServerConfig};
use bowline_server::peer::Protocol;
use bowline_server::{Listeners, Server, folder};
use pb::cluster_client::ClusterClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::Channel;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct Cluster {
    pub(crate) configs: BTreeMap<u64, ServerConfig>,
    servers: BTreeMap<u64, Server>,
    _folder: TempDir,
}

/// A port for clients and one for other members.
pub(crate) type Ports = ((TcpListener, SocketAddr), (TcpListener, SocketAddr));

pub(crate) fn free_ports() -> Ports {
    (free_port(), free_port())
}

fn free_port() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

impl Cluster {
    /// A cluster of so many members, with some settings changed.
    pub(crate) fn start(members: u64, settings: &[(&str, &str)]) -> Cluster {
        Cluster::start_with(members, settings, Protocol::CURRENT)
    }

    /// The same, with a program of another version.
    pub(crate) fn start_with(members: u64, settings: &[(&str, &str)], protocol: Protocol) -> Cluster {
        Cluster::start_each(members, protocol, |_| {
            settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        })
    }

    /// The same, with settings of each member.
    pub(crate) fn start_each(
        members: u64,
        protocol: Protocol,
        settings: impl Fn(u64) -> Vec<(String, String)>,
    ) -> Cluster {
        let folder = tempfile::tempdir().expect("a folder");
        let ports: Vec<_> = (1..=members).map(|id| (id, free_port(), free_port())).collect();
        let all: Vec<String> = ports.iter().map(|(id, _, (_, peer))| format!("{id}={peer}")).collect();
        let (mut configs, mut servers) = (BTreeMap::new(), BTreeMap::new());
        for (id, (client, client_address), (peer, _)) in ports {
            let mut layers = Layers::new();
            let flags = [
                ("id", id.to_string()),
                ("data_dir", folder.path().join(format!("member-{id}")).display().to_string()),
                ("listen_client", client_address.to_string()),
                ("initial_cluster", all.join(",")),
                ("election_min", "250ms".to_owned()),
                ("election_max", "500ms".to_owned()),
                ("heartbeat", "50ms".to_owned()),
            ];
            flags.into_iter().for_each(|(key, value)| layers.add_flag(key, value));
            settings(id).into_iter().for_each(|(key, value)| layers.add_flag(&key, value));
            let config = ServerConfig { protocol, ..layers.check().expect("a good configuration") };
            servers.insert(id, start(&config, Listeners { client: vec![client], peer, metrics: Vec::new() }));
            configs.insert(id, config);
        }
        Cluster { configs, servers, _folder: folder }
    }

    /// Starts a new member under this key, which the others must know already by the address of its peer port.
    pub(crate) fn join(&mut self, key: u64, ports: Ports) {
        let ((client, client_address), (peer, peer_address)) = ports;
        let name = format!("joined-{key}");
        let others = self.configs.iter().map(|(id, config)| format!("m{id}={}", config.advertise_peer));
        let mut all: Vec<String> = others.collect();
        all.push(format!("{name}=http://{peer_address}"));
        let mut layers = Layers::new();
        let flags = [
            ("name", name.clone()),
            ("data_dir", self._folder.path().join(&name).display().to_string()),
            ("listen_client", client_address.to_string()),
            ("initial_cluster", all.join(",")),
            ("initial_cluster_state", "existing".to_owned()),
            ("election_min", "250ms".to_owned()),
            ("election_max", "500ms".to_owned()),
            ("heartbeat", "50ms".to_owned()),
        ];
        flags.into_iter().for_each(|(key, value)| layers.add_flag(key, value));
        let config = layers.check().expect("a good configuration");
        self.servers.insert(key, start(&config, Listeners { client: vec![client], peer, metrics: Vec::new() }));
        self.configs.insert(key, config);
    }

    pub(crate) async fn members(&self, id: u64) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel(id).await)
    }

    pub(crate) fn server(&self, id: u64) -> &Server {
        &self.servers[&id]
    }

    pub(crate) fn data_dir(&self, id: u64) -> PathBuf {
        self.configs[&id].data_dir.clone()
    }

    /// Waits for a leader that a majority follows.
    pub(crate) async fn leader(&self) -> u64 {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            for (id, server) in &self.servers {
                let status = server.replica().status();
                let followers = self.servers.values().filter(|other| {
                    let other = other.replica().status();
                    other.term == status.term && other.leader.is_some_and(|leader| leader.0 == *id)
                });
                if status.is_leader && followers.count() * 2 > self.configs.len() {
                    return *id;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no leader within {PATIENCE:?}");
    }

    /// Waits for a leader that every member follows, and that has heard of every member.
    pub(crate) async fn leader_of_all(&self) -> u64 {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let leader = self.leader().await;
            let follows = |server: &Server| server.replica().status().leader.is_some_and(|known| known.0 == leader);
            let mut members = ClusterClient::new(self.channel(leader).await);
            let list = members.member_list(pb::MemberListRequest { linearizable: false }).await.expect("told");
            let heard = |member: &pb::Member| !member.client_ur_ls.is_empty();
            if self.servers.values().all(follows) && list.get_ref().members.iter().all(heard) {
                return leader;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no leader that all follow within {PATIENCE:?}");
    }

    /// Waits until a member knows no leader.
    pub(crate) async fn without_leader(&self, id: u64) {
        let mut status = self.servers[&id].replica().watch_status();
        let lost = status.wait_for(|status| status.leader.is_none());
        let lost = tokio::time::timeout(PATIENCE, lost).await;
        assert!(matches!(lost, Ok(Ok(_))), "member {id} still believes in a leader");
    }

    /// Waits until a member knows that the cluster has the version of this program.
    pub(crate) async fn raised(&self, id: u64, program: Protocol) {
        let mut status = self.server(id).replica().watch_status();
        let raised = status.wait_for(|status| status.facts.cluster_version == program.version);
        drop(tokio::time::timeout(PATIENCE, raised).await.expect("in time").expect("it runs"));
    }

    /// A member that follows.
    pub(crate) async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.servers.keys().find(|id| **id != leader).expect("there are others")
    }

    pub(crate) async fn channel(&self, id: u64) -> Channel {
        let url = format!("http://{}", self.servers[&id].client_address());
        Channel::from_shared(url).expect("a good address").connect().await.expect("it listens")
    }

    pub(crate) async fn maintenance(&self, id: u64) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel(id).await)
    }

    pub(crate) async fn leases(&self, id: u64) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel(id).await)
    }

    pub(crate) async fn client(&self, id: u64) -> KvClient<Channel> {
        KvClient::new(self.channel(id).await).max_decoding_message_size(64 << 20).max_encoding_message_size(64 << 20)
    }

    /// As kill -9 would.
    pub(crate) fn kill(&mut self, id: u64) {
        let server = self.servers.remove(&id).expect("it runs");
        blocking(|| server.kill());
    }

    pub(crate) fn stop(&mut self, id: u64) -> bowline_server::replica::StopReason {
        let server = self.servers.remove(&id).expect("it runs");
        blocking(|| server.stop())
    }

    pub(crate) fn restart(&mut self, id: u64) {
        let config = &self.configs[&id];
        self.servers.insert(id, start(config, bind_again(config)));
    }
}

/// The ports that a member has given up. What was listening goes with its runtime, in its own time.
pub(crate) fn bind_again(config: &ServerConfig) -> Listeners {
    let until = Instant::now() + PATIENCE;
    loop {
        match Listeners::bind(config) {
            Ok(listeners) => return listeners,
            Err(error) => assert!(Instant::now() < until, "its ports are not free again: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, server) in std::mem::take(&mut self.servers) {
            blocking(|| server.kill());
        }
    }
}

/// What a request over HTTP/1.1 is answered, head and body.
pub(crate) async fn http(address: SocketAddr, request: &str) -> String {
    http_with(address, request, "").await
}

/// The same with more headers, each with its line's end.
pub(crate) async fn http_with(address: SocketAddr, request: &str, headers: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).await.expect("answered");
    response
}

/// A server owns a runtime, which must not be dropped where another one waits.
pub(crate) fn blocking<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().expect("it doesn't panic"))
}

fn start(config: &ServerConfig, listeners: Listeners) -> Server {
    let disk = folder::open(config).expect("a good folder");
    let failed = |why: String| panic!("a member failed: {why}");
    Server::start(config, disk, listeners, failed).expect("it starts")
}

pub(crate) fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..pb::PutRequest::default() }
}

pub(crate) fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..pb::RangeRequest::default() }
}

pub(crate) fn prefix(prefix: &str) -> pb::RangeRequest {
    let range_end = bowline_kv::store::prefix_end(prefix.as_bytes());
    pb::RangeRequest { range_end, ..get(prefix) }
}

/// The values of a response.
pub(crate) fn values(response: &pb::RangeResponse) -> Vec<String> {
    response.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()).collect()
}
