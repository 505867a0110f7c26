//! A cluster that is upgraded and rolled back, member by member, under load: `bowline serve` beside a program of the next
//! version, which says more than this one knows. That program is this one, started with a variable in its environment.

mod support;

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_kv::store::{ClusterVersionRequest, Command as StoreCommand, Principal};
use bowline_raft::{Entry, Payload};
use bowline_server::config::Layers;
use bowline_server::peer::Protocol;
use bowline_server::{Listeners, Server, folder};
use libtest_mimic::{Arguments, Trial};
use pb::kv_client::KvClient;
use support::{Members, PATIENCE, Process};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// The program of the next version: all that it says has a field that this version does not know, number 127.
const NEXT: Protocol = Protocol {
    version: Protocol::CURRENT.version + 1,
    oldest_version: Protocol::CURRENT.version,
    extension: &[0xf8, 0x07, 1],
};

/// Says that this process is a member.
const IS_MEMBER: &str = "BOWLINE_TEST_IS_MEMBER";

const PAUSE: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    if std::env::var_os(IS_MEMBER).is_none() {
        let trial = Trial::test("members_are_upgraded_and_rolled_back_one_by_one_under_load", || {
            tokio::runtime::Runtime::new()?.block_on(upgrade_and_roll_back());
            Ok(())
        });
        return libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code();
    }
    match next_member() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A member of the next version, with its settings in its environment. Stops in good order when its input ends.
fn next_member() -> Result<(), Box<dyn Error>> {
    let mut layers = Layers::new();
    layers.add_environment(|name| std::env::var(name).ok());
    let mut config = layers.check()?;
    config.protocol = NEXT;
    let listeners = Listeners::bind(&config)?;
    let failed = move |why: String| {
        eprintln!("stopped at once: {why}");
        std::process::exit(1);
    };
    let server = Server::start(&config, folder::open(&config)?, listeners, failed)?;
    while std::io::stdin().read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
    let _ = server.stop();
    Ok(())
}

#[derive(Clone, Copy)]
enum Version {
    This,
    Next,
}

struct Cluster {
    members: Members,
    running: Vec<Option<Process>>,
}

impl Cluster {
    /// Three members of this version.
    fn start() -> Cluster {
        let mut cluster = Cluster { members: Members::new(3), running: vec![None, None, None] };
        (1..=3).for_each(|id| cluster.launch(id, Version::This));
        cluster
    }

    fn launch(&mut self, id: usize, version: Version) {
        let process = match version {
            Version::This => self.members.start(id, ":"),
            Version::Next => {
                let program = std::env::current_exe().expect("it runs");
                self.members.start_program(id, Command::new(program).env(IS_MEMBER, "1"))
            }
        };
        self.running[id - 1] = Some(process);
    }

    /// Ends a member, and starts the program of another version on its data. Returns once it serves, and has all that
    /// was acknowledged before.
    fn replace(&mut self, id: usize, version: Version, in_good_order: bool, load: &Load) {
        self.running[id - 1].take().expect("it runs").end(in_good_order);
        load.goes_on();
        self.launch(id, version);
        self.wait_for_revision(id, load.revision.load(Ordering::SeqCst));
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

    /// Waits until a member's own state has this revision.
    fn wait_for_revision(&self, id: usize, revision: u64) {
        let has = || self.number(id, "etcd_debugging_mvcc_current_revision").is_some_and(|own| own >= revision);
        self.wait_for(&format!("member {id} to have revision {revision}"), has);
    }

    fn wait_for_version(&self, protocol: Protocol) {
        let version = u64::from(protocol.version);
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

/// The entries in the log of a member that is stopped.
fn log(members: &Members, id: usize) -> Vec<Entry> {
    let mut layers = Layers::new();
    members.settings(id).into_iter().for_each(|(key, value)| layers.add_flag(key, value));
    let mut config = layers.check().expect("it has started with these");
    config.protocol = NEXT;
    let disk = folder::open(&config).expect("it is whole");
    disk.recovered.entries
}

async fn upgrade_and_roll_back() {
    let this = u64::from(Protocol::CURRENT.version);
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster.members);
    load.goes_on();
    cluster.wait_for_version(Protocol::CURRENT);

    // Two of three, and back: the cluster keeps the version that all members speak.
    for (id, version) in [(1, Version::Next), (2, Version::Next), (2, Version::This), (1, Version::This)] {
        cluster.replace(id, version, id == 1, &load);
        assert_eq!(cluster.versions(), [Some(this); 3]);
    }

    // All three: the cluster gets the next version, and from then on uses what it brings.
    for id in [3, 1, 2] {
        assert_eq!(cluster.versions(), [Some(this); 3]);
        cluster.replace(id, Version::Next, id != 3, &load);
    }
    cluster.wait_for_version(NEXT);
    load.goes_on();

    // Now an older program is refused. It says why, and changes nothing.
    cluster.running[1].take().expect("it runs").end(true);
    cluster.launch(2, Version::This);
    let why = format!(
        "the cluster has version {} of the peer protocol, but the program of member 2 speaks only version {this}: \
         start a newer program on that member's data",
        NEXT.version
    );
    cluster.running[1].as_mut().expect("it was started").says(&why);
    load.goes_on();
    cluster.replace(2, Version::Next, false, &load);

    let revision = Arc::clone(&load.revision);
    let counts = load.end().await;
    // A follower has what is acknowledged a little later in its own state.
    (1..=3).for_each(|id| cluster.wait_for_revision(id, revision.load(Ordering::SeqCst)));
    check_keys(&cluster, &counts).await;
    // Nobody leads any more once two are stopped: what all have by now is what they are to have.
    let running = std::mem::take(&mut cluster.running);
    running.into_iter().flatten().for_each(|process| process.end(true));
    check_logs([1, 2, 3].map(|id| log(&cluster.members, id)));
}

/// Each member has what was acknowledged, and all have the same.
async fn check_keys(cluster: &Cluster, counts: &[u64]) {
    for (writer, count) in counts.iter().enumerate() {
        let expected: Vec<_> = (0..*count).map(|number| (key(writer, number), number.to_string())).collect();
        for port in &cluster.members.client_ports {
            // One more may have been written, and not acknowledged before the end.
            let mut found = keys(*port, writer).await;
            found.truncate(expected.len());
            assert_eq!(found, expected, "of writer {writer}, at port {port}");
        }
    }
    let endpoints: Vec<_> = cluster.members.client_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut hashkv = Command::new(env!("CARGO_BIN_EXE_bowline"));
    let compared = support::run(hashkv.args(["hashkv", "--endpoints", &endpoints.join(",")]), b"");
    assert_eq!(compared.code, Some(0), "{}{}", compared.text(), compared.err);
}

/// The logs are the same, byte for byte, and commands have the field of the next version from when all knew it, but not
/// before: whoever forwarded them, led and followed.
fn check_logs(logs: [Vec<Entry>; 3]) {
    let commands = |log: &[Entry]| -> Vec<(u64, bytes::Bytes)> {
        let command = |entry: &Entry| match &entry.payload {
            Payload::Command(command) => Some((entry.index.0, command.clone())),
            _ => None,
        };
        log.iter().filter_map(command).collect()
    };
    let [first, others @ ..] = logs.map(|log| commands(&log));
    for other in others {
        let (from, to) = (first[0].0.max(other[0].0), first[first.len() - 1].0.min(other[other.len() - 1].0));
        let part = |log: &[(u64, bytes::Bytes)]| -> Vec<_> {
            log.iter().filter(|(index, _)| (from..=to).contains(index)).cloned().collect()
        };
        assert!(part(&first) == part(&other), "the logs differ between {from} and {to}");
    }
    let raise = StoreCommand::ClusterVersion(ClusterVersionRequest { version: NEXT.version });
    let raise = raise.to_bytes_by(&Principal::Member);
    let raised = first.iter().position(|(_, command)| *command == raise).expect("it was raised");
    let extended = |log: &[(u64, bytes::Bytes)]| log.iter().filter(|(_, it)| it.ends_with(NEXT.extension)).count();
    assert_eq!(extended(&first[..raised]), 0, "not every member knew the field yet");
    assert!(extended(&first[raised..]) > 30, "{} commands have the field", extended(&first[raised..]));
}
