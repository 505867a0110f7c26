//! A cluster that is upgraded and rolled back, member by member, under load: this version's program beside that of the
//! next version (`crates/server/tests/next_member.rs`), which says more than this one knows.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use pb::kv_client::KvClient;
use serde_json::Value;
use support::{Members, PATIENCE, Process};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// The version of the peer protocol that `bowline serve` speaks, and the next one.
const THIS: u64 = 4;
const NEXT: u64 = 5;

const PAUSE: Duration = Duration::from_millis(20);

/// Builds the program of the next version, with everything but our own crates as it was built for the tests.
fn next_program() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--workspace", "--no-run", "--offline", "--message-format", "json", "--test", "next_member"]);
    cargo.args(["--features", "bowline-server/next-version"]);
    cargo.args((!cfg!(debug_assertions)).then_some("--release"));
    let output = cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).stdin(Stdio::null()).output();
    let output = output.expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    let built = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = built.filter(|built| built["target"]["name"] == "next_member");
    program.rev().find_map(|built| built["executable"].as_str().map(PathBuf::from)).expect("it was built")
}

#[derive(Clone, Copy)]
enum Version {
    This,
    Next,
}

struct Cluster {
    members: Arc<Members>,
    next: PathBuf,
    running: Vec<Option<Process>>,
}

impl Cluster {
    /// Three members of this version.
    fn start(next: PathBuf) -> Cluster {
        let members = Arc::new(Members::new(3));
        let mut cluster = Cluster { members, next, running: vec![None, None, None] };
        (1..=3).for_each(|id| cluster.launch(id, Version::This));
        cluster
    }

    fn launch(&mut self, id: usize, version: Version) {
        let process = match version {
            Version::This => self.members.start(id, ":"),
            Version::Next => self.members.start_program(id, &mut Command::new(&self.next)),
        };
        self.running[id - 1] = Some(process);
    }

    /// Ends a member, and starts the program of another version on its data. Returns once it serves, and has all that
    /// was acknowledged before.
    fn replace(&mut self, id: usize, version: Version, in_good_order: bool, load: &Load) {
        self.running[id - 1].take().expect("it runs").end(in_good_order);
        load.goes_on();
        self.launch(id, version);
        let revision = load.revision.load(Ordering::SeqCst);
        self.wait_for(&format!("member {id} to catch up"), || {
            self.number(id, "etcd_debugging_mvcc_current_revision") >= Some(revision)
        });
        load.goes_on();
    }

    /// One of a member's metrics, if it serves.
    fn number(&self, id: usize, name: &str) -> Option<u64> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.members.client_ports[id - 1])).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    fn versions(&self) -> Vec<Option<u64>> {
        (1..=3).map(|id| self.number(id, "bowline_cluster_protocol_version")).collect()
    }

    fn wait_for(&self, what: &str, mut there: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !there() {
            let said: Vec<_> = self.running.iter().flatten().map(Process::said).collect();
            assert!(Instant::now() < until, "waited in vain for {what}: {}", said.join("\n"));
            std::thread::sleep(PAUSE);
        }
    }

    fn wait_for_version(&self, version: u64) {
        self.wait_for(&format!("version {version}"), || self.versions() == [Some(version); 3]);
    }
}

/// Clients that put keys of their own, each again until it is acknowledged.
struct Load {
    stop: Arc<AtomicBool>,
    /// The latest revision that was acknowledged.
    revision: Arc<AtomicU64>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<u64>>,
}

impl Load {
    fn start(members: &Members) -> Load {
        let (stop, revision, acknowledged) = (Arc::default(), Arc::default(), Arc::default());
        let mut load = Load { stop, revision, acknowledged, writers: Vec::new() };
        for writer in 0..3_usize {
            let mut endpoints: Vec<_> = members.client_ports.iter().map(|port| endpoint(*port)).collect();
            endpoints.rotate_left(writer);
            let (stop, revision) = (Arc::clone(&load.stop), Arc::clone(&load.revision));
            let acknowledged = Arc::clone(&load.acknowledged);
            load.writers.push(tokio::spawn(async move {
                let (mut number, mut last) = (0, 0);
                let mut turn = endpoints.iter().cycle();
                let mut client = turn.next().expect("it never ends").clone();
                while !stop.load(Ordering::SeqCst) {
                    let put = pb::PutRequest {
                        key: key(writer, number).into(),
                        value: number.to_string().into(),
                        ..pb::PutRequest::default()
                    };
                    match client.put(put).await {
                        Ok(done) => {
                            let at =
                                done.into_inner().header.expect("every answer has a header").revision.unsigned_abs();
                            assert!(at > last, "writer {writer} was told of revision {at} after {last}");
                            (number, last) = (number + 1, at);
                            revision.fetch_max(at, Ordering::SeqCst);
                            acknowledged.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(_) => {
                            client = turn.next().expect("it never ends").clone();
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                }
                number
            }));
        }
        load
    }

    /// Waits until more was acknowledged.
    fn goes_on(&self) {
        let (until, before) = (Instant::now() + PATIENCE, self.acknowledged.load(Ordering::SeqCst));
        while self.acknowledged.load(Ordering::SeqCst) < before + 30 {
            assert!(Instant::now() < until, "nothing is acknowledged any more");
            std::thread::sleep(PAUSE);
        }
    }

    /// How many keys each writer has put.
    async fn end(self) -> Vec<u64> {
        self.stop.store(true, Ordering::SeqCst);
        let mut counts = Vec::new();
        for writer in self.writers {
            counts.push(writer.await.expect("it saw nothing wrong"));
        }
        counts
    }
}

fn key(writer: usize, number: u64) -> String {
    format!("w/{writer}/{number:08}")
}

fn endpoint(port: u16) -> KvClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("an address");
    KvClient::new(endpoint.connect_timeout(Duration::from_secs(1)).timeout(Duration::from_secs(5)).connect_lazy())
}

/// What a member's own state has of a writer's keys.
async fn keys(port: u16, writer: usize) -> Vec<(String, String)> {
    let (from, to) = (key(writer, 0), format!("w/{writer}0"));
    let range =
        pb::RangeRequest { key: from.into(), range_end: to.into(), serializable: true, ..pb::RangeRequest::default() };
    let found = endpoint(port).max_decoding_message_size(64 << 20).range(range).await.expect("it serves").into_inner();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    found.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_upgraded_and_rolled_back_one_by_one_under_load() {
    let mut cluster = Cluster::start(next_program());
    let load = Load::start(&cluster.members);
    load.goes_on();
    cluster.wait_for_version(THIS);

    // Two of three, and back: the cluster keeps the version that all members speak.
    for id in [1, 2] {
        cluster.replace(id, Version::Next, id == 1, &load);
        assert_eq!(cluster.versions(), [Some(THIS); 3]);
    }
    for id in [2, 1] {
        cluster.replace(id, Version::This, id == 1, &load);
        assert_eq!(cluster.versions(), [Some(THIS); 3]);
    }

    // All three: the cluster gets the next version, and from then on uses what it brings.
    for id in [3, 1, 2] {
        assert_eq!(cluster.versions(), [Some(THIS); 3]);
        cluster.replace(id, Version::Next, id != 3, &load);
    }
    cluster.wait_for_version(NEXT);
    load.goes_on();

    // Now an older program is refused. It says why, and changes nothing.
    cluster.running[1].take().expect("it runs").end(true);
    cluster.launch(2, Version::This);
    let why = "the cluster has version 5 of the peer protocol, and the program of member 2 speaks version 4: start a \
               newer program on that member's data";
    cluster.running[1].as_mut().expect("it was started").says(why);
    load.goes_on();
    cluster.replace(2, Version::Next, false, &load);

    let counts = load.end().await;
    for (writer, count) in counts.into_iter().enumerate() {
        let expected: Vec<_> = (0..count).map(|number| (key(writer, number), number.to_string())).collect();
        for port in &cluster.members.client_ports {
            // One more may have been written, and not acknowledged before the end.
            let mut found = keys(*port, writer).await;
            found.truncate(expected.len());
            assert_eq!(found, expected, "of writer {writer}, at port {port}");
        }
    }
    let endpoints: Vec<_> = cluster.members.client_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let compared = support::run(
        Command::new(env!("CARGO_BIN_EXE_bowline")).args(["hashkv", "--endpoints", &endpoints.join(",")]),
        b"",
    );
    assert_eq!(compared.code, Some(0), "{}{}", compared.text(), compared.err);

    // What only the next version knows has come to each of its members, whoever asked and whoever led.
    let fields = |id| cluster.number(id, "bowline_next_fields");
    cluster.wait_for("the field of the next version", || {
        fields(1).is_some_and(|count| count > 30) && fields(1) == fields(3)
    });
}
