//! Servers with names, ours and etcd's, and all that can be seen of their state.

// Not every test uses all of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_client::Client;

pub(crate) use crate::support::is_installed;
use crate::support::{PATIENCE, Ports, Said, run};

/// Ports and folders of a test.
pub(crate) struct Place {
    ports: Ports,
    folder: tempfile::TempDir,
}

/// A running server, which is killed on drop. Its folder stays.
pub(crate) struct Server {
    pub(crate) endpoint: String,
    child: Child,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { ports: Ports::reserve(), folder: tempfile::tempdir().expect("a folder") }
    }

    /// A path in the test's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The peer addresses of members of these names, the first of which has the peer port of this number.
    pub(crate) fn cluster(&self, names: &[&str], first: u16) -> String {
        let member = |(number, name): (u16, &&str)| format!("{name}=http://127.0.0.1:{}", self.ports.first() + number);
        (first..).zip(names).map(member).collect::<Vec<_>>().join(",")
    }

    /// Starts a member of ours in a folder, with the client port of a number. It may need others to serve.
    pub(crate) fn begin(&self, name: &str, folder: &str, cluster: &str, client: u16) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        self.start_with(command.args(["serve", "--name", name, "--initial-cluster", cluster]), folder, client)
    }

    /// The same, with a command that has its other settings.
    pub(crate) fn start_with(&self, command: &mut Command, folder: &str, client: u16) -> Server {
        let endpoint = format!("127.0.0.1:{}", self.ports.first() + client);
        command.args(["--stop-at-eof", "--listen-client", &endpoint]).arg("--data-dir").arg(self.path(folder));
        Server { endpoint, child: spawn(command) }
    }

    /// Starts a member of ours, and waits until it serves.
    pub(crate) fn start(&self, name: &str, folder: &str, cluster: &str, client: u16) -> Server {
        let server = self.begin(name, folder, cluster, client);
        server.serves();
        server
    }

    /// The same with a real etcd, of one member.
    pub(crate) fn start_etcd(&self, name: &str, folder: &str, cluster: &str, client: u16) -> Server {
        let endpoint = format!("127.0.0.1:{}", self.ports.first() + client);
        let (url, peer) = (format!("http://{endpoint}"), cluster.split_once('=').expect("a name and an address").1);
        let mut command = Command::new("etcd");
        command.args(["--name", name, "--initial-cluster", cluster, "--logger", "zap", "--log-level", "fatal"]);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
        let server = Server { endpoint, child: spawn(command.arg("--data-dir").arg(self.path(folder))) };
        server.serves();
        server
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
}

impl Server {
    /// Waits until it serves.
    pub(crate) fn serves(&self) {
        let until = Instant::now() + PATIENCE;
        while self.ask(&["get", "--count-only", "x"]).code != Some(0) {
            assert!(Instant::now() < until, "it does not serve: {:?}", self.ask(&["status"]));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it ends by itself. Returns whether it ends well.
    pub(crate) fn ends_well(mut self) -> bool {
        self.child.wait().expect("it is a child").success()
    }

    /// What a command of ours says about it.
    pub(crate) fn ask(&self, words: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        run(command.args(words).env("BOWLINE_ENDPOINTS", &self.endpoint), b"")
    }

    /// The same; the command must succeed.
    #[track_caller]
    pub(crate) fn does(&self, words: &[&str]) -> String {
        let said = self.ask(words);
        assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
        said.text().to_owned()
    }

    /// What etcdctl says about it.
    pub(crate) fn etcdctl(&self, words: &[&str]) -> Said {
        run(Command::new("etcdctl").args(words).env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", &self.endpoint), b"")
    }

    pub(crate) fn save(&self, file: &Path) {
        self.does(&["snapshot", "save", file.to_str().expect("it is text")]);
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&[&self.endpoint], PATIENCE).expect("a good endpoint")
    }

    /// Everything that clients can see: each readable revision with its checksum, and the leases.
    pub(crate) async fn seen(&self) -> Vec<String> {
        let mut client = self.client();
        let all = || pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..pb::RangeRequest::default() };
        let latest = client.range(all()).await.expect("it serves");
        let revision = latest.header.expect("a header").revision;
        let hash = async |revision| client_hash(&self.client(), revision).await;
        let (checksum, compacted) = hash(0).await;
        let mut seen = vec![format!("{revision} compacted {compacted} checksum {checksum}")];
        for at in compacted.max(1)..=revision {
            let range = client.range(pb::RangeRequest { revision: at, ..all() }).await.expect("it is readable");
            // At the compacted revision itself, versions of etcd differ.
            let checksum = if at > compacted { hash(at).await.0 } else { 0 };
            seen.push(format!("{at} checksum {checksum} {:?}", range.kvs));
        }
        let mut leases = client.lease_list().await.expect("it serves");
        leases.sort_unstable();
        for id in leases {
            let told = client.lease_time_to_live(id, true).await.expect("it serves");
            let mut keys = told.keys.clone();
            keys.sort();
            seen.push(format!("lease {id} of {}: {keys:?}", told.granted_ttl));
        }
        seen
    }
}

async fn client_hash(client: &Client, revision: i64) -> (u32, i64) {
    let told = client.hash_kv(revision).await.pop().expect("one endpoint").1.expect("it serves");
    (told.hash, told.compact_revision)
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already needs no signal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
