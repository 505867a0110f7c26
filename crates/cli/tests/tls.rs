//! TLS on the command line: certificates, members, clients and etcdctl, with real processes.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bowline_tls::issue::{Ca, Span, write};
use serde_json::Value;
use support::{Folder, PATIENCE, Ports, Said, run};

/// Valid whenever the test runs.
const ALWAYS: Span = Span { begin: 0, end: 4_102_444_800 };

fn bowline(words: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    run(command.args(words), b"")
}

#[track_caller]
fn does(words: &[&str]) -> String {
    let said = bowline(words);
    assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
    said.text().to_owned()
}

#[track_caller]
fn refuses(words: &[&str], code: i32, text: &str) {
    let said = bowline(words);
    assert_eq!(said.code, Some(code), "{words:?}: {said:?}");
    assert!(said.err.contains(text), "{words:?}: {said:?}");
}

/// A folder with certificates that `bowline cert` has made.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn make(more: &[&str]) -> Certificates {
        let folder = Certificates(tempfile::tempdir().expect("a folder"));
        does(&[&["cert", "--dir", &folder.text("")], more].concat());
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("certs").join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string().trim_end_matches('/').to_owned()
    }

    /// The flags of a client with the certificate of this name.
    fn client(&self, name: &str) -> Vec<String> {
        let file = |flag: &str, file: &str| format!("{flag}={}", self.text(file));
        vec![file("--cacert", "ca.crt"), file("--cert", &format!("{name}.crt")), file("--key", &format!("{name}.key"))]
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn certificates_are_made_shown_renewed_and_not_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let folder =
        Certificates::make(&["--members", "a=10.0.0.1,b=10.0.0.2", "--client", "app,ops", "--hosts", "::1,localhost"]);
    for file in ["ca.key", "a.key", "b.key", "app.key", "ops.crt"] {
        let mode = folder.path(file).metadata().expect("it is made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let show = |file: &str| json(&does(&["cert", "show", "--json", &folder.text(file)]))[0].clone();
    let (a, app) = (show("a.crt"), show("app.crt"));
    assert_eq!((&a["name"], &a["hosts"]), (&"a".into(), &serde_json::json!(["10.0.0.1", "::1", "localhost"])));
    assert_eq!(
        (&a["for_members"], &app["for_members"], &app["hosts"]),
        (&true.into(), &false.into(), &serde_json::json!([]))
    );
    let text = does(&["cert", "show", &folder.text("ca.crt")]);
    assert!(text.contains("kind     CA\n") && text.contains(": valid\n"), "{text}");

    let again = ["cert", "--dir", &folder.text(""), "--members", "a", "--client", "new"];
    refuses(&again, 2, "a.key is there already; --force replaces it, and `bowline cert renew`");
    assert!(!folder.path("new.crt").exists(), "all or nothing");
    let ca = std::fs::read(folder.path("ca.crt")).expect("readable");
    does(&[&again[..], &["--force"]].concat());
    assert_ne!(show("a.crt")["serial"], a["serial"]);
    assert_eq!((&show("a.crt")["issuer"], show("new.crt")["valid"].clone()), (&a["issuer"], true.into()));
    let b = show("b.crt");
    let renewed = json(&does(&["cert", "renew", "--dir", &folder.text(""), "--days", "30", "--json"]));
    assert_eq!(renewed["members"].as_array().map(Vec::len), Some(2), "{renewed}");
    assert_eq!(renewed["clients"].as_array().map(Vec::len), Some(3), "{renewed}");
    assert_eq!((&show("b.crt")["hosts"], &show("b.crt")["name"]), (&b["hosts"], &b["name"]));
    assert_ne!(show("b.crt")["serial"], b["serial"]);
    assert_eq!(std::fs::read(folder.path("ca.crt")).expect("readable"), ca, "the CA is kept");

    for (members, text) in [
        ("../a", "is no name of a certificate"),
        ("ca", "is given twice, or is the CA's"),
        ("x,x", "is given twice, or is the CA's"),
        ("x=a:b:", "is no host; allowed: a host name or an IP address"),
    ] {
        refuses(&["cert", "--dir", &folder.text(""), "--members", members], 2, text);
    }
    refuses(&["cert", "show", &folder.text("none.crt")], 2, "none.crt: there is no such file");
    refuses(&["cert", "show", &folder.text("a.key")], 2, "a.key: has no certificate in PEM");
    std::fs::remove_file(folder.path("ca.key")).expect("it is there");
    refuses(&["cert", "--dir", &folder.text(""), "--members", "y"], 2, "only with both can it sign");
}

/// Runs a cluster as `bowline up --tls` tells, with all that it prints.
#[test]
fn one_command_starts_a_cluster_with_tls() {
    let folder = Folder::new();
    let up = folder.bowline(&["up", "--tls", "--detach"]);
    let said = String::from_utf8_lossy(&up.stdout).into_owned();
    assert!(up.status.success(), "{said}{}", String::from_utf8_lossy(&up.stderr));
    let certs = folder.path().join("certs");
    let file = |name: &str| certs.join(name).display().to_string();
    let exports = said.lines().find_map(|line| line.trim().strip_prefix("try        export ")).expect("it is told");
    let variables: Vec<(&str, &str)> = exports.split(' ').filter_map(|pair| pair.split_once('=')).collect();
    assert_eq!(
        variables[1..],
        [
            ("BOWLINE_CACERT", file("ca.crt").as_str()),
            ("BOWLINE_CERT", file("client.crt").as_str()),
            ("BOWLINE_KEY", file("client.key").as_str()),
        ]
    );
    let with = |words: &[&str]| {
        run(Command::new(env!("CARGO_BIN_EXE_bowline")).args(words).envs(variables.iter().copied()), b"")
    };
    for words in [
        &["put", "hello", "world"][..],
        &["status"],
        &["member", "list"],
        &["hashkv"],
        &["top", "--once", "--json", "--interval", "100ms"],
        &["lock", "l", "--", "true"],
        &["snapshot", "save", folder.path().join("backup.db").to_str().expect("text")],
    ] {
        let said = with(words);
        assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
    }
    let top = json(with(&["top", "--once", "--json", "--interval", "100ms"]).text());
    // The figures of its load are from the page /metrics.
    assert!(top.pointer("/members/2/load/connections").is_some_and(Value::is_u64), "{top}");
    let list = with(&["member", "list"]);
    assert!(list.text().contains("https://") && !list.text().contains("unreachable"), "{list:?}");
    let endpoints = folder.endpoints();
    refuses(
        &["get", "hello", "--endpoints", &endpoints, "--cacert", &file("ca.crt")],
        1,
        "it wants a certificate, and none",
    );
    refuses(&["get", "hello", "--endpoints", &endpoints], 1, "this port speaks TLS: use https://");
    refuses(
        &["get", "hello", "--endpoints", &endpoints, "--cert", &file("client.crt")],
        2,
        "--cert is given without --key",
    );
    // Others do the same.
    if support::is_installed("etcdctl") {
        let etcdctl = |more: &[&str]| {
            let mut command = Command::new("etcdctl");
            command.args(["--endpoints", &endpoints, "--dial-timeout=5s", "--cacert", &file("ca.crt")]).args(more);
            run(command.env("ETCDCTL_API", "3"), b"")
        };
        let own = ["--cert", &file("client.crt"), "--key", &file("client.key")];
        let got = etcdctl(&[&own[..], &["get", "hello"]].concat());
        assert_eq!((got.code, got.text()), (Some(0), "hello\nworld\n"), "{got:?}");
        let watched = etcdctl(&[&own[..], &["endpoint", "health", "--cluster"]].concat());
        assert_eq!(watched.code, Some(0), "{watched:?}");
        assert_ne!(etcdctl(&["--command-timeout=2s", "get", "hello"]).code, Some(0), "it has no certificate");
    } else {
        eprintln!("skipped: etcdctl is not installed");
    }
}

/// A member of a cluster of three, with its log in a file.
struct Member {
    process: std::process::Child,
    log: PathBuf,
}

impl Member {
    fn start(words: &[String], log: PathBuf) -> Member {
        let file = std::fs::File::create(&log).expect("created");
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        command.arg("serve").args(words).args(["--stop-at-eof", "--election-min=250ms", "--election-max=500ms"]);
        let process = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(file).spawn().expect("it starts");
        Member { process, log }
    }

    /// Waits until its log has this text.
    #[track_caller]
    fn says(&self, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let said = std::fs::read_to_string(&self.log).expect("readable");
            if said.contains(text) {
                return;
            }
            assert!(Instant::now() < until, "{text:?} is not in {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill().and_then(|()| self.process.wait().map(drop));
    }
}

fn settings(certs: &Certificates, ports: &Ports, place: u16, folder: &Path) -> Vec<String> {
    let address = |number: u16| format!("127.0.0.1:{}", ports.first() + number);
    let names = ["a", "b", "c"];
    let all: Vec<String> =
        (0..3).map(|place| format!("{}={}", names[usize::from(place)], address(10 + place))).collect();
    let name = names[usize::from(place)];
    let file = |flag: &str, file: &str| format!("--{flag}={}", certs.text(file));
    vec![
        format!("--name={name}"),
        format!("--initial-cluster={}", all.join(",")),
        format!("--listen-client={}", address(place)),
        format!("--data-dir={}", folder.join(name).display()),
        file("cert-file", &format!("{name}.crt")),
        file("key-file", &format!("{name}.key")),
        file("trusted-ca-file", "ca.crt"),
        file("peer-cert-file", &format!("{name}.crt")),
        file("peer-key-file", &format!("{name}.key")),
        file("peer-trusted-ca-file", "ca.crt"),
    ]
}

/// The log of both ends says why a member is refused; files are read again; a new member joins with one command.
#[test]
fn logs_say_who_is_refused_and_files_are_read_again() {
    let certs = Certificates::make(&["--members", "a,b,c,d"]);
    let (ports, folder) = (Ports::reserve(), tempfile::tempdir().expect("a folder"));
    let ca = Ca::load(&certs.path("ca.crt"), &certs.path("ca.key")).expect("good files");
    let revoke = |texts: &[&str]| {
        let text = ca.revoke(texts, ALWAYS).expect("signed");
        write(&certs.path("ca.crl"), &text).expect("written");
    };
    let cert = |name: &str| std::fs::read_to_string(certs.path(&format!("{name}.crt"))).expect("readable");
    revoke(&[&cert("c")]);
    let list =
        [format!("--peer-crl-file={}", certs.text("ca.crl")), format!("--client-crl-file={}", certs.text("ca.crl"))];
    let log = |name: &str| folder.path().join(format!("{name}.log"));
    let strict = |place| [settings(&certs, &ports, place, folder.path()), list.to_vec()].concat();
    let members = [0, 1].map(|place| Member::start(&strict(place), log(["a", "b"][usize::from(place)])));
    let refused = Member::start(&settings(&certs, &ports, 2, folder.path()), log("c"));
    members[0].says("ready to serve client requests at https://127.0.0.1:");
    members[0].says("the certificate of the member is revoked");
    refused.says("the member refused the connection: it says that this certificate is revoked");

    let endpoint = format!("127.0.0.1:{}", ports.first());
    let client = certs.client("client");
    let ask = |words: &[&str]| {
        let flags: Vec<&str> = client.iter().map(String::as_str).collect();
        bowline(&[words, &["--endpoints", &endpoint], &flags].concat())
    };
    assert_eq!(ask(&["put", "k", "v"]).code, Some(0));
    // A client without TLS.
    refuses(&["get", "k", "--endpoints", &format!("http://{endpoint}")], 1, "this port speaks TLS");
    members[0].says("the client speaks plain text, but this port speaks TLS");
    // A list that changes is used without a restart, for clients and members.
    revoke(&[]);
    members[0].says("the TLS files for members have changed: new connections use them");
    refused.says("ready to serve client requests");
    revoke(&[&cert("client")]);
    let until = Instant::now() + PATIENCE;
    let said = loop {
        let said = ask(&["get", "k"]);
        if said.code != Some(0) {
            break said;
        }
        assert!(Instant::now() < until, "the client is still welcome");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(
        said.err.contains("the server refused the connection: it says that this certificate is revoked"),
        "{said:?}"
    );
    members[0].says("closed a connection of a client: the certificate of the client is revoked");
    revoke(&[]);
    // A bad pair is told, and the earlier one stays in use.
    std::fs::write(certs.path("a.key"), "half of a k").expect("written");
    members[0].says("the TLS files for clients can't be used; what was used before stays in use");
    let until = Instant::now() + PATIENCE;
    while ask(&["get", "k"]).code != Some(0) {
        assert!(Instant::now() < until, "{:?}", ask(&["get", "k"]));
        std::thread::sleep(Duration::from_millis(50));
    }
    joins(&certs, &ports, folder.path());
}

fn joins(certs: &Certificates, ports: &Ports, folder: &Path) {
    let address = |number: u16| format!("127.0.0.1:{}", ports.first() + number);
    let file = |flag: &str, file: &str| format!("--{flag}={}", certs.text(file));
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command.args(["join", &address(0), "--name=d", "--peer", &address(13), "--listen-client", &address(3)]);
    command.args(certs.client("client")).arg("--data-dir").arg(folder.join("d")).arg("--stop-at-eof");
    command.args([file("cert-file", "d.crt"), file("key-file", "d.key"), file("trusted-ca-file", "ca.crt")]);
    command.args([
        file("peer-cert-file", "d.crt"),
        file("peer-key-file", "d.key"),
        file("peer-trusted-ca-file", "ca.crt"),
    ]);
    let log = folder.join("d.log");
    let output = std::fs::File::create(&log).expect("created");
    let process = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(output).spawn().expect("it starts");
    Member { process, log }.says("caught up: this member votes from now on");
}

#[test]
fn a_member_does_not_start_with_bad_files() {
    let certs = Certificates::make(&["--members", "a,b"]);
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let refuses = |more: &[String], text: &str| {
        let data = data.to_str().expect("text");
        let words = [&["serve", "--data-dir", data][..], &more.iter().map(String::as_str).collect::<Vec<_>>()].concat();
        refuses(&words, 2, text);
        assert!(!folder.path().join("data").exists(), "nothing was made");
    };
    let file = |flag: &str, file: &str| format!("--{flag}={}", certs.text(file));
    let mixed = [file("cert-file", "a.crt"), file("key-file", "b.key")];
    refuses(&mixed, &format!("b.key: the private key does not belong to the certificate in {}", certs.text("a.crt")));
    refuses(&[file("cert-file", "a.crt"), file("key-file", "none")], "none: there is no such file");
    refuses(&mixed[..1], "--key-file is missing: a certificate is used with its private key");
    refuses(
        &["--listen-client=https://127.0.0.1:1".to_owned()],
        "--cert-file and --key-file are needed, or --auto-tls",
    );
}
