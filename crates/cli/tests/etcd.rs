//! Members that are started as etcd is started: only with its flags, or only with its variables.

mod support;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use support::{Ports, Running, run};

const BOWLINE: &str = env!("CARGO_BIN_EXE_bowline");

const READY: &str = "ready to serve client requests";

/// A folder with a link to the program whose name is `etcd`, and ports for members.
struct Place {
    folder: tempfile::TempDir,
    ports: Ports,
}

/// What a member is told: flags without their dashes.
type Told = Vec<(&'static str, String)>;

impl Place {
    fn new() -> Place {
        let place = Place { folder: tempfile::tempdir().expect("a folder"), ports: Ports::reserve() };
        symlink(BOWLINE, place.etcd()).expect("a link");
        place
    }

    fn etcd(&self) -> PathBuf {
        self.folder.path().join("etcd")
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn url(&self, port: u16) -> String {
        format!("http://127.0.0.1:{}", self.ports.first + port)
    }

    /// A command called `etcd`, in this folder.
    fn command(&self) -> Command {
        let mut command = Command::new(self.etcd());
        command.current_dir(self.path());
        command
    }

    /// What members of a cluster of three are told.
    fn three(&self) -> [Told; 3] {
        let names = ["a", "b", "c"];
        let cluster: Vec<String> = (0..).zip(names).map(|(at, name)| format!("{name}={}", self.url(3 + at))).collect();
        [0, 1, 2].map(|at: u16| {
            let (client, peer) = (self.url(at), self.url(3 + at));
            vec![
                ("name", names[usize::from(at)].to_owned()),
                ("listen-client-urls", client.clone()),
                ("advertise-client-urls", client),
                ("listen-peer-urls", peer.clone()),
                ("initial-advertise-peer-urls", peer),
                ("initial-cluster", cluster.join(",")),
                ("initial-cluster-state", "new".to_owned()),
                ("initial-cluster-token", "tok".to_owned()),
                ("heartbeat-interval", "50".to_owned()),
                ("election-timeout", "250".to_owned()),
            ]
        })
    }

    fn endpoints(&self) -> String {
        [0, 1, 2].map(|at| self.url(at)).join(",")
    }

    /// Starts members, and waits until they serve.
    fn serve(&self, all: [Told; 3], start: fn(&mut Command, Told)) -> Vec<Running> {
        let start = |told| {
            let mut command = self.command();
            start(&mut command, told);
            Running::start(&mut command)
        };
        let members: Vec<Running> = all.into_iter().map(start).collect();
        for member in &members {
            member.waits_for("it serves", |_, err| err.contains(READY));
        }
        members
    }
}

fn by_flags(command: &mut Command, told: Told) {
    // As people write them: with one dash or two, and with or without an equals sign.
    for (place, (name, value)) in told.into_iter().enumerate() {
        match place % 3 {
            0 => command.args([format!("--{name}"), value]),
            1 => command.arg(format!("--{name}={value}")),
            _ => command.arg(format!("-{name}={value}")),
        };
    }
}

fn by_variables(command: &mut Command, told: Told) {
    command.envs(told.into_iter().map(|(name, value)| (variable(name), value)));
}

fn variable(flag: &str) -> String {
    format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

fn etcdctl_is_there() -> bool {
    let found = Command::new("etcdctl").arg("version").output().is_ok();
    if !found {
        eprintln!("etcdctl is not asked: it is not installed (apt-get install etcd-client)");
    }
    found
}

/// Asks the cluster with our own client, and with etcdctl where that is installed.
fn is_a_cluster(place: &Place, members: Vec<Running>) {
    let endpoints = place.endpoints();
    let ask = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words).env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", &endpoints);
        let said = run(&mut command, b"");
        assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
        said.text().to_owned()
    };
    ask(BOWLINE, &["put", "k", "v"]);
    assert_eq!(ask(BOWLINE, &["get", "k"]), "v\n");
    let status: Value = serde_json::from_str(&ask(BOWLINE, &["status", "--json"])).expect("it is JSON");
    assert_eq!(status["members"].as_array().map(Vec::len), Some(3), "{status}");
    if etcdctl_is_there() {
        assert_eq!(ask("etcdctl", &["put", "k", "w"]), "OK\n");
        assert_eq!(ask("etcdctl", &["get", "k"]), "k\nw\n");
        let list = ask("etcdctl", &["member", "list"]);
        for (at, name) in (0..).zip(["a", "b", "c"]) {
            let line = format!(", started, {name}, {}, {}, false\n", place.url(3 + at), place.url(at));
            assert!(list.contains(&line), "{line} is not in {list}");
        }
        ask("etcdctl", &["endpoint", "health"]);
    }
    for name in ["a", "b", "c"] {
        assert!(place.path().join(format!("{name}.etcd")).is_dir(), "the data folder of {name}");
    }
    for mut member in members {
        member.signal(Signal::TERM);
        assert_eq!(member.wait().code(), Some(0), "{}", member.err());
    }
}

#[test]
fn s02_a_cluster_is_started_with_etcds_flags() {
    let place = Place::new();
    let members = place.serve(place.three(), by_flags);
    is_a_cluster(&place, members);
}

#[test]
fn s02_a_cluster_is_started_with_etcds_variables() {
    let place = Place::new();
    let members = place.serve(place.three(), by_variables);
    is_a_cluster(&place, members);
}

/// As etcd's documentation says: the member is added first, and then started with the names and addresses of all.
#[test]
fn s02_a_member_joins_with_etcds_flags() {
    let place = Place::new();
    let members = place.serve(place.three(), by_flags);
    let [client, peer] = [6, 7].map(|port| place.url(port));
    let added = run(Command::new(BOWLINE).args(["member", "add", &peer, "--endpoints", &place.endpoints()]), b"");
    assert_eq!(added.code, Some(0), "{added:?}");
    let [mut told, ..] = place.three();
    for (flag, value) in &mut told {
        match *flag {
            "name" => *value = "d".to_owned(),
            "listen-client-urls" | "advertise-client-urls" => value.clone_from(&client),
            "listen-peer-urls" | "initial-advertise-peer-urls" => value.clone_from(&peer),
            "initial-cluster" => value.push_str(&format!(",d={peer}")),
            "initial-cluster-state" => *value = "existing".to_owned(),
            _ => {}
        }
    }
    let mut command = place.command();
    by_variables(&mut command, told);
    let joined = Running::start(&mut command);
    joined.waits_for("it serves", |_, err| err.contains(READY));
    let put = run(Command::new(BOWLINE).args(["put", "k", "joined", "--endpoints", &client]), b"");
    assert_eq!(put.code, Some(0), "{put:?}");
    let first = &place.url(0);
    assert_eq!(run(Command::new(BOWLINE).args(["get", "k", "--endpoints", first]), b"").text(), "joined\n");
    drop((members, joined));
}

/// Like a static pod of Kubernetes: two addresses for clients, one of them for its own probes, and one for metrics.
#[test]
fn s02_all_addresses_are_served_and_the_log_is_json() {
    let place = Place::new();
    let [first, second, metrics, peer] = [0, 1, 2, 3].map(|port| place.url(port));
    let mut command = Command::new(BOWLINE);
    command.arg("etcd").current_dir(place.path()).args([
        "--name=node",
        &format!("--advertise-client-urls={second}"),
        "--data-dir=var/lib/etcd",
        "--experimental-initial-corrupt-check=true",
        "--experimental-watch-progress-notify-interval=5s",
        &format!("--initial-advertise-peer-urls={peer}"),
        &format!("--initial-cluster=node={peer}"),
        &format!("--listen-client-urls={first},{second},{first}"),
        &format!("--listen-metrics-urls={metrics}"),
        &format!("--listen-peer-urls={peer}"),
        "--snapshot-count=10000",
        "--max-txn-ops=2",
    ]);
    let member = Running::start(&mut command);
    member.waits_for("it serves", |_, err| err.contains(READY));
    for url in [&first, &second] {
        let put = run(Command::new(BOWLINE).args(["put", "k", url, "--endpoints", url]), b"");
        assert_eq!(put.code, Some(0), "{put:?}");
    }
    let ask = |url: &str| run(Command::new(BOWLINE).args(["get", "k", "--endpoints", url]), b"");
    assert_eq!(ask(&first).text(), format!("{second}\n"));
    assert_eq!(ask(&metrics).code, Some(1), "the API is not served there");
    for page in ["metrics", "health", "readyz"] {
        let page = get(&metrics, page);
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    }
    let txn = b"\n\nput a 1\nput b 2\nput c 3\n\n\n";
    let txn = run(Command::new(BOWLINE).args(["txn", "--endpoints", &first]), txn);
    assert!(txn.err.contains("too many operations in txn request"), "{txn:?}");
    let lines: Vec<Value> = member.err().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(lines.len(), member.err().lines().count(), "{}", member.err());
    let warned =
        |name: &str| lines.iter().any(|line| line["message"].as_str().is_some_and(|text| text.starts_with(name)));
    assert!(warned("--experimental-initial-corrupt-check has no effect: "), "{lines:?}");
    assert!(!warned("--snapshot-count"), "the default needs no remark: {lines:?}");
}

/// The answer to a request over HTTP.
fn get(url: &str, page: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(url.trim_start_matches("http://")).expect("it listens");
    write!(stream, "GET /{page} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

#[test]
fn s02_the_version_and_the_help_are_told_as_etcd_tells_them() {
    let place = Place::new();
    let version = run(place.command().arg("--version"), b"");
    assert_eq!(version.code, Some(0), "{version:?}");
    assert!(version.text().starts_with("etcd Version: 3.6.0\nGit SHA: none (Bowline "), "{version:?}");
    for word in ["--help", "-h", "-help"] {
        let help = run(place.command().arg(word), b"");
        assert_eq!((help.code, help.err.as_str()), (Some(0), ""), "{help:?}");
        assert!(help.text().contains("\n  --initial-cluster-token 'etcd-cluster'\n"), "{help:?}");
    }
    let same = run(Command::new(BOWLINE).args(["etcd", "--version"]), b"");
    assert_eq!((same.code, same.out), (Some(0), version.out));
}

#[test]
fn s02_what_is_wrong_is_told_before_anything_is_done() {
    let place = Place::new();
    for (words, text) in [
        (&["--nme", "x"][..], "error: flag provided but not defined: -nme"),
        (&["--cert-file=c.pem"], "error: --key-file is missing: a certificate is used with its private key"),
        (&["--force-new-cluster"], "error: --force-new-cluster is \"true\"; allowed: \"false\"; "),
        (&["serve"], "error: \"serve\" is not a valid flag"),
    ] {
        let said = run(place.command().args(words), b"");
        assert!(said.code == Some(2) && said.err.starts_with(text), "{words:?}: {said:?}");
    }
    let said = run(place.command().arg("--name=a").env("ETCD_NAME", "a"), b"");
    assert!(said.code == Some(2) && said.err.starts_with("error: conflicting environment variable \"ETCD_NAME\""));
    assert!(!place.path().join("default.etcd").exists());
}

/// The flags of a real etcd, where one is installed: all of them are known.
#[test]
fn s02_every_flag_that_a_real_etcd_lists_is_known() {
    let Some(etcd) = std::env::var_os("BOWLINE_CHECKLIST_ETCD").filter(|path| !path.is_empty()) else {
        eprintln!("skipped: BOWLINE_CHECKLIST_ETCD names no etcd");
        return;
    };
    let flags = |program: &mut Command| -> Vec<String> {
        let said = run(program.arg("--help"), b"");
        let all = format!("{}{}", said.text(), said.err);
        let flags = all.lines().filter_map(|line| line.strip_prefix("  --")?.split(' ').next().map(str::to_owned));
        flags.collect()
    };
    let (theirs, ours) = (flags(&mut Command::new(etcd)), flags(&mut Place::new().command()));
    let missing: Vec<_> = theirs.iter().filter(|flag| !ours.contains(flag)).collect();
    assert!(theirs.len() > 50 && missing.is_empty(), "{missing:?} are missing of {theirs:?}");
}
