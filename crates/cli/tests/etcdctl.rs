//! Debian's etcdctl (`apt-get install etcd-client`) against a cluster of three. Skipped where it isn't installed.

#[path = "support/servers.rs"]
mod servers;
mod support;

use std::process::Command;
use std::time::Instant;

use bowline_api::etcdserverpb as pb;
use pb::maintenance_client::MaintenanceClient;
use rustix::process::Signal;
use serde_json::Value;
use servers::{Place, Server, is_installed};
use support::{Folder, PATIENCE, Running, Said, run};

struct Etcdctl {
    folder: Folder,
}

impl Etcdctl {
    /// With a new cluster, if it is installed.
    fn new() -> Option<Etcdctl> {
        if is_installed("etcdctl") {
            return Some(Etcdctl { folder: Folder::with_cluster() });
        }
        eprintln!("skipped: etcdctl is not installed (apt-get install etcd-client)");
        None
    }

    /// The address of the first member.
    fn first(&self) -> String {
        self.folder.endpoints().split(',').next().expect("there are three").to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.args(arguments).env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", self.folder.endpoints());
        command
    }

    fn ask_with(&self, arguments: &[&str], input: &[u8]) -> Said {
        run(&mut self.command(arguments), input)
    }

    fn start(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    fn says(&self, arguments: &[&str], expected: &str) {
        self.says_with(arguments, b"", expected);
    }

    fn says_with(&self, arguments: &[&str], input: &[u8], expected: &str) {
        let said = self.ask_with(arguments, input);
        assert_eq!((said.code, said.text()), (Some(0), expected), "{arguments:?}: {said:?}");
    }
}

#[test]
fn etcdctl_works_unchanged() {
    let Some(etcdctl) = Etcdctl::new() else { return };
    etcdctl.says(&["put", "a/1", "one"], "OK\n");
    etcdctl.says(&["put", "a/2", "two"], "OK\n");
    etcdctl.says(&["put", "a/2", "three", "--prev-kv"], "OK\na/2\ntwo\n");
    etcdctl.says(&["get", "a/", "--prefix"], "a/1\none\na/2\nthree\n");
    etcdctl.says(&["get", "a/1", "a/2", "--print-value-only"], "one\n");
    etcdctl.says(&["get", "a/", "--prefix", "--order", "DESCEND", "--limit", "1", "--print-value-only"], "three\n");
    etcdctl.says(&["get", "a/2", "--rev", "3"], "a/2\ntwo\n");
    etcdctl.says(&["get", "nothing"], "");
    let txn = b"value(\"a/1\") = \"one\"\nversion(\"new\") = \"0\"\n\nput new \"b c\"\nget new\n\nget a/1\n\n";
    etcdctl.says_with(&["txn"], txn, "SUCCESS\n\nOK\n\nnew\nb c\n");
    let asked = "compares:\nsuccess requests (get, put, del):\nfailure requests (get, put, del):\n";
    etcdctl.says_with(&["txn", "-i"], txn, &format!("{asked}FAILURE\n\na/1\none\n"));
    etcdctl.says(&["compaction", "4"], "compacted revision 4\n");
    let compacted = etcdctl.ask_with(&["get", "a/2", "--rev", "3"], b"");
    assert!(
        compacted.code == Some(1) && compacted.err.contains("required revision has been compacted"),
        "{compacted:?}"
    );
    etcdctl.says(&["del", "a/", "--prefix", "--prev-kv"], "2\na/1\none\na/2\nthree\n");
    etcdctl.says(&["del", "a/1"], "0\n");
    leases(&etcdctl);
    watches(&etcdctl);
    locks(&etcdctl);
    maintains(&etcdctl);
    alarms(&etcdctl);
    members(&etcdctl);
    grows(&etcdctl);

    let status = etcdctl.ask_with(&["endpoint", "status", "-w", "json"], b"");
    let status: Value = serde_json::from_slice(&status.out).expect("it is JSON");
    let leaders: Vec<&Value> = status.as_array().expect("a list").iter().map(|it| &it["Status"]["leader"]).collect();
    assert!(leaders.len() == 3 && leaders.iter().all(|leader| *leader == leaders[0]), "{status}");
    let health = etcdctl.ask_with(&["endpoint", "health"], b"");
    assert_eq!(health.code, Some(0), "{health:?}");
    let hashes = etcdctl.ask_with(&["endpoint", "hashkv"], b"");
    let hashes: Vec<&str> = hashes.text().lines().filter_map(|line| line.split(", ").nth(1)).collect();
    assert!(hashes.len() == 3 && hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    let members = etcdctl.ask_with(&["member", "list"], b"");
    assert_eq!(members.text().lines().filter(|line| line.contains(", started, member-")).count(), 3, "{members:?}");
}

fn maintains(etcdctl: &Etcdctl) {
    etcdctl.says(&["put", "m", "v"], "OK\n");
    let status: Value =
        serde_json::from_slice(&etcdctl.ask_with(&["get", "m", "-w", "json"], b"").out).expect("it is JSON");
    let revision = status["header"]["revision"].to_string();
    etcdctl.says(&["compaction", &revision, "--physical"], &format!("compacted revision {revision}\n"));
    let addresses = etcdctl.folder.endpoints();
    // With --cluster it asks at the addresses that the members have published, with an authority that is no host.
    for of in [&[][..], &["--cluster"]] {
        let defragmented = etcdctl.ask_with(&[&["defrag"], of].concat(), b"");
        assert_eq!(defragmented.text().matches("Finished defragmenting etcd member").count(), 3, "{defragmented:?}");
        for form in ["simple", "table", "json", "fields"] {
            for what in ["status", "health", "hashkv"] {
                let asked = etcdctl.ask_with(&[&["endpoint", what, "-w", form], of].concat(), b"");
                // It tells in a simple form who is healthy where others tell errors.
                let said = format!("{}{}", asked.text(), asked.err);
                let told = addresses.split(',').all(|address| said.contains(address));
                assert!(asked.code == Some(0) && told, "{what} {form} {of:?}: {asked:?}");
            }
        }
    }
    let file = etcdctl.folder.path().join("backup.db");
    let file = file.to_str().expect("it is text");
    let mut save = etcdctl.command(&["snapshot", "save", file]);
    let saved = run(save.env("ETCDCTL_ENDPOINTS", etcdctl.first()), b"");
    assert_eq!(saved.text(), format!("Snapshot saved at {file}\n"), "{saved:?}");
    let told = etcdctl.ask_with(&["snapshot", "status", file, "-w", "json"], b"");
    let told: Value = serde_json::from_slice(&told.out).expect("it is JSON");
    assert_eq!(told["revision"].to_string(), revision);
}

fn alarms(etcdctl: &Etcdctl) {
    etcdctl.says(&["alarm", "list"], "");
    etcdctl.says(&["alarm", "disarm"], "");
    let list = etcdctl.ask_with(&["member", "list"], b"");
    let member = list.text().split(',').next().and_then(|id| u64::from_str_radix(id, 16).ok()).expect("an id");
    let (action, alarm) = (pb::alarm_request::AlarmAction::Activate.into(), pb::AlarmType::Nospace.into());
    let request = pb::AlarmRequest { action, member_id: member, alarm };
    let url = format!("http://{}", etcdctl.first());
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        MaintenanceClient::connect(url).await.expect("it listens").alarm(request).await.expect("it serves");
    });
    let told = format!("memberID:{member} alarm:NOSPACE \n");
    etcdctl.says(&["alarm", "list"], &told);
    let full = etcdctl.ask_with(&["put", "m", "w"], b"");
    assert!(full.code == Some(1) && full.err.contains("etcdserver: mvcc: database space exceeded"), "{full:?}");
    etcdctl.says(&["alarm", "disarm"], &told);
    etcdctl.says(&["alarm", "list"], "");
    etcdctl.says(&["put", "m", "w"], "OK\n");
}

fn locks(etcdctl: &Etcdctl) {
    let waiting = |name: &str| {
        let count = etcdctl.ask_with(&["get", name, "--prefix", "--keys-only"], b"");
        count.text().lines().filter(|line| !line.is_empty()).count()
    };
    let queue = |name: &str, count: usize| {
        let until = Instant::now() + PATIENCE;
        while waiting(name) != count {
            assert!(Instant::now() < until, "{} instead of {count} at {name}", waiting(name));
        }
    };
    let mut holder = etcdctl.start(&["lock", "held"]);
    holder.waits_for("it holds the lock", |out, _| out.starts_with("held/") && out.ends_with('\n'));
    let mut next = etcdctl.start(&["lock", "held", "echo", "mine"]);
    queue("held/", 2);
    assert_eq!(next.out(), "", "it waits");
    holder.signal(Signal::INT);
    next.prints("mine\n");
    assert!(next.wait().success());
    holder.wait();
    queue("held/", 0);

    let mut first = etcdctl.start(&["elect", "chosen", "one"]);
    first.waits_for("it is elected", |out, _| out.starts_with("chosen/") && out.ends_with("\none\n"));
    let listener = etcdctl.start(&["elect", "-l", "chosen"]);
    listener.waits_for("it tells the first", |out, _| out.ends_with("\none\n"));
    let mut second = etcdctl.start(&["elect", "chosen", "two"]);
    queue("chosen/", 2);
    first.signal(Signal::INT);
    second.waits_for("it is elected", |out, _| out.ends_with("\ntwo\n"));
    listener.waits_for("it tells the second", |out, _| out.ends_with("\ntwo\n"));
    first.wait();
    second.signal(Signal::INT);
    second.wait();
    queue("chosen/", 0);
}

/// It has done this to a member. It pads short ids with spaces.
#[track_caller]
fn says_of_member(said: &Said, id: &str, done: &str) {
    let words: Vec<&str> = said.text().split_whitespace().take(3).collect();
    assert!(said.code == Some(0) && words == ["Member", id, done], "{said:?}");
}

fn members(etcdctl: &Etcdctl) {
    let list = || etcdctl.ask_with(&["member", "list"], b"").text().to_owned();
    let before = list();
    let added = etcdctl.ask_with(&["member", "add", "new", "--peer-urls=http://127.0.0.1:1", "--learner"], b"");
    let words: Vec<&str> = added.text().split_whitespace().collect();
    let ["Member", id, "added", "to", "cluster", ..] = words[..] else { panic!("{added:?}") };
    assert!(list().contains(&format!("{id}, unstarted, , http://127.0.0.1:1, , true")), "{}", list());
    let promoted = etcdctl.ask_with(&["member", "promote", id], b"");
    assert!(promoted.err.contains("can only promote a learner member which is in sync with leader"), "{promoted:?}");
    let updated = etcdctl.ask_with(&["member", "update", id, "--peer-urls=http://127.0.0.1:2"], b"");
    says_of_member(&updated, id, "updated");
    let removed = etcdctl.ask_with(&["member", "remove", id], b"");
    says_of_member(&removed, id, "removed");
    assert_eq!(list(), before);
    let follower = |line: &&str| {
        let id = line.split(',').next().expect("it begins with its id").to_owned();
        let moved = etcdctl.ask_with(&["move-leader", &id], b"");
        moved.code == Some(0) && moved.text().contains("Leadership transferred")
    };
    assert!(before.lines().any(|line| follower(&line)), "the leadership goes to one of them");
}

/// A learner is added, started with the variables that etcdctl prints, promoted and removed.
fn grows(etcdctl: &Etcdctl) {
    let [client, peer] = [18, 19].map(|port| format!("http://127.0.0.1:{}", etcdctl.folder.ports.first + port));
    let added = etcdctl.ask_with(&["member", "add", "fourth", "--learner", "--peer-urls", &peer], b"");
    let words: Vec<&str> = added.text().split_whitespace().collect();
    let ["Member", id, "added", "to", "cluster", ..] = words[..] else { panic!("{added:?}") };
    let variables: Vec<(&str, &str)> = added.text().lines().filter_map(|line| line.split_once('=')).collect();
    assert_eq!(variables[0], ("ETCD_NAME", "\"fourth\""), "{added:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command.arg("etcd").envs(variables.iter().map(|(name, value)| (name, value.trim_matches('"'))));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client, "--listen-peer-urls", &peer]);
    let mut member = Running::start(command.arg("--data-dir").arg(etcdctl.folder.path().join("fourth")));
    let until = Instant::now() + PATIENCE;
    loop {
        let promoted = etcdctl.ask_with(&["member", "promote", id], b"");
        if promoted.code == Some(0) {
            says_of_member(&promoted, id, "promoted");
            break;
        }
        let why = "can only promote a learner member which is in sync with leader";
        assert!(promoted.err.contains(why) && Instant::now() < until, "{promoted:?}, {}", member.err());
    }
    let list = etcdctl.ask_with(&["member", "list"], b"");
    assert!(list.text().contains(&format!("{id}, started, fourth, {peer}, {client}, false")), "{list:?}");
    let hashes = etcdctl.ask_with(&["endpoint", "hashkv", "--cluster"], b"");
    assert_eq!(hashes.text().lines().count(), 4, "{hashes:?}");
    let removed = etcdctl.ask_with(&["member", "remove", id], b"");
    says_of_member(&removed, id, "removed");
    member.wait();
}

fn leases(etcdctl: &Etcdctl) {
    let granted = etcdctl.ask_with(&["lease", "grant", "600"], b"");
    let words: Vec<&str> = granted.text().split_whitespace().collect();
    let [_, id, "granted", "with", "TTL(600s)"] = words[..] else { panic!("{granted:?}") };
    etcdctl.says(&["put", "l", "v", "--lease", id], "OK\n");
    etcdctl.says(&["lease", "keep-alive", "--once", id], &format!("lease {id} keepalived with TTL(600)\n"));
    etcdctl.says(&["lease", "list"], &format!("found 1 leases\n{id}\n"));
    let told = etcdctl.ask_with(&["lease", "timetolive", id, "--keys"], b"");
    let start = format!("lease {id} granted with TTL(600s), remaining(5");
    assert!(told.text().starts_with(&start) && told.text().ends_with("attached keys([l])\n"), "{told:?}");
    etcdctl.says(&["lease", "revoke", id], &format!("lease {id} revoked\n"));
    etcdctl.says(&["get", "l"], "");
    etcdctl.says(&["lease", "timetolive", id], &format!("lease {id} already expired\n"));
    let gone = etcdctl.ask_with(&["lease", "revoke", id], b"");
    assert!(gone.code == Some(1) && gone.err.contains("requested lease not found"), "{gone:?}");
}

fn watches(etcdctl: &Etcdctl) {
    etcdctl.says(&["put", "w/1", "one"], "OK\n");
    let found: Value = serde_json::from_slice(&etcdctl.ask_with(&["get", "w/1", "-w", "json"], b"").out).expect("JSON");
    let revision = found["kvs"][0]["mod_revision"].as_i64().expect("a revision");
    let (first, second) = (revision.to_string(), (revision + 1).to_string());
    etcdctl.says(&["put", "w/2", "a \"b\""], "OK\n");
    etcdctl.says(&["del", "w/1"], "1\n");
    etcdctl.start(&["watch", "w/1", "--rev", &first]).prints("PUT\nw/1\none\nDELETE\nw/1\n\n");
    let all = "PUT\nw/1\none\nPUT\nw/2\na \"b\"\nDELETE\nw/1\n\n";
    etcdctl.start(&["watch", "--prefix", "w/", "--rev", &first]).prints(all);
    etcdctl.start(&["watch", "w/1", "w/3", "--rev", &first]).prints(all);
    let before = etcdctl.start(&["watch", "w/1", "--prev-kv", "--rev", &first]);
    before.prints("PUT\nw/1\none\nDELETE\nw/1\none\nw/1\n\n");

    // Of a watch without a revision, nobody knows when it begins.
    let live = etcdctl.start(&["watch", "w/live"]);
    while live.out().is_empty() {
        etcdctl.says(&["put", "w/live", "v"], "OK\n");
    }
    live.waits_for("it prints events", |out, _| out.starts_with("PUT\nw/live\nv\n"));

    let mut interactive = etcdctl.start(&["watch", "-i"]);
    interactive.types(&format!("watch w/2 --rev {first}\n"));
    interactive.prints("PUT\nw/2\na \"b\"\n");
    interactive.types("progress\n");
    interactive.waits_for("it tells progress", |out, _| out.contains("\nprogress notify: "));

    let echo = "echo $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE";
    let command = etcdctl.start(&["watch", "w/2", "--rev", &first, "--", "sh", "-c", echo]);
    command.prints("PUT\nw/2\na \"b\"\n\"PUT\" \"w/2\" \"a \\\"b\\\"\"\n");

    etcdctl.says(&["compaction", &second], &format!("compacted revision {second}\n"));
    let compacted = etcdctl.ask_with(&["watch", "w/1", "--rev", &first], b"");
    assert!(compacted.err.contains("required revision has been compacted"), "{compacted:?}");
}

/// Waits until two servers have the same revisions, with the same keys, values and checksums.
async fn become_equal(one: &Server, other: &Server, mirror: &Running) {
    let until = Instant::now() + PATIENCE;
    loop {
        let (wanted, found) = (one.seen().await, other.seen().await);
        if wanted == found {
            return;
        }
        assert!(Instant::now() < until, "{found:#?} instead of {wanted:#?}: {}", mirror.err());
    }
}

#[tokio::test]
async fn make_mirror_copies_from_etcd_and_to_etcd() {
    if !is_installed("etcd") || !is_installed("etcdctl") {
        eprintln!("skipped: etcd or etcdctl is not installed (apt-get install etcd-server etcd-client)");
        return;
    }
    let place = Place::new();
    let etcd = place.start_etcd("from", "from", &place.cluster(&["from"], 0), 1);
    let cluster = place.cluster(&["a", "b", "c"], 2);
    let ours: Vec<Server> =
        (5..).zip(["a", "b", "c"]).map(|(port, name)| place.begin(name, name, &cluster, port)).collect();
    ours.iter().for_each(Server::serves);
    let last = place.start_etcd("to", "to", &place.cluster(&["to"], 8), 9);
    let mirror = |from: &Server, to: &Server, options: &[&str]| {
        let mut command = Command::new("etcdctl");
        command.args(["make-mirror", &to.endpoint]).args(options);
        Running::start(command.env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", &from.endpoint))
    };
    let does = |words: &[&str]| {
        let said = etcd.etcdctl(words);
        assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
    };
    // In the order of the keys, in which a mirror copies what is there when it begins.
    for number in 0..12 {
        does(&["put", &format!("k/{number:02}"), &format!("value {number}")]);
    }
    let first = mirror(&etcd, &ours[0], &[]);
    become_equal(&etcd, &ours[1], &first).await;
    let second = mirror(&ours[2], &last, &[]);
    become_equal(&etcd, &last, &second).await;
    does(&["put", "k/03", "again"]);
    does(&["del", "k/05", "k/08"]);
    let txn = b"\nput k/06 new\nput k/13 new\ndel k/01\n\n\n";
    let mut command = Command::new("etcdctl");
    let said = run(command.arg("txn").env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", &etcd.endpoint), txn);
    assert_eq!(said.code, Some(0), "{said:?}");
    for member in &ours {
        become_equal(&etcd, member, &first).await;
    }
    become_equal(&etcd, &last, &second).await;

    // With another prefix, and what was deleted left out, only keys and values are the same.
    let back = mirror(&last, &ours[0], &["--prefix", "k/", "--dest-prefix", "copy/"]);
    let pairs = |server: &Server, prefix| server.etcdctl(&["get", prefix, "--prefix"]).text().replace("copy/", "k/");
    let wanted = pairs(&last, "k/");
    assert!(wanted.starts_with("k/00\nvalue 0\nk/02\n") && wanted.ends_with("k/13\nnew\n"), "{wanted}");
    let until = Instant::now() + PATIENCE;
    while pairs(&ours[1], "copy/") != wanted {
        assert!(Instant::now() < until, "{}: {}", pairs(&ours[1], "copy/"), back.err());
    }
}

#[test]
#[ignore = "it takes more than a minute"]
fn etcdctl_checks_the_performance() {
    let Some(etcdctl) = Etcdctl::new() else { return };
    let passes = |words: &[&str], lines: usize| {
        let said = etcdctl.ask_with(words, b"");
        let passed: Vec<&str> = said.text().lines().filter(|line| line.starts_with("PASS")).collect();
        assert!(said.code == Some(0) && passed.len() == lines, "{said:?}");
        println!("{}", passed.join("\n"));
    };
    passes(&["check", "datascale", "--load=s", "--auto-compact", "--auto-defrag"], 1);
    passes(&["check", "perf", "--load=s", "--auto-compact", "--auto-defrag"], 4);
}
