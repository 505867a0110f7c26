//! The commands of a client, against a cluster of real processes.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Folder, Said, run};

struct Cluster {
    folder: Folder,
}

impl Cluster {
    fn ask_with(&self, arguments: &[&str], input: &[u8]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        run(command.args(arguments).env("BOWLINE_ENDPOINTS", self.folder.endpoints()), input)
    }

    fn ask(&self, arguments: &[&str]) -> Said {
        self.ask_with(arguments, b"")
    }

    /// It does what it is asked, and says this.
    fn says(&self, arguments: &[&str], expected: &str) {
        let said = self.ask(arguments);
        assert_eq!((said.code, said.text()), (Some(0), expected), "{arguments:?}: {said:?}");
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let said = self.ask(arguments);
        serde_json::from_slice(&said.out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said:?}"))
    }
}

#[test]
fn a_cluster_is_used_from_the_command_line() {
    let cluster = Cluster { folder: Folder::with_cluster() };
    values_and_ranges(&cluster);
    history(&cluster);
    transactions(&cluster);
    the_shell_reads_a_pipe(&cluster);
    leases(&cluster);
    members_are_compared(&cluster);
    deletions(&cluster);
}

fn values_and_ranges(cluster: &Cluster) {
    for (key, value) in [("a/1", "one"), ("a/2", "two"), ("a/3", "three"), ("b", "four")] {
        let said = cluster.ask(&["put", key, value]);
        assert!(said.text().starts_with("OK  revision "), "{said:?}");
    }
    cluster.says(&["get", "a/2"], "two\n");
    cluster.says(&["get", "a/2", "--raw"], "two");
    cluster.says(&["get", "a/", "--prefix", "--limit", "2"], "a/1\none\na/2\ntwo\n");
    cluster.says(&["get", "a/2", "b", "--keys-only"], "a/2\na/3\n");
    cluster.says(&["get", "a/3", "--from-key", "--print-value-only"], "three\nfour\n");
    cluster.says(&["get", "", "--prefix", "--count-only"], "4\n");
    cluster
        .says(&["get", "a/", "--prefix", "--sort-by", "value", "--order", "DESCEND", "--keys-only"], "a/2\na/3\na/1\n");
    cluster.says(&["get", "b", "--serializable", "--endpoints", &cluster.folder.endpoints()], "four\n");
    let miss = cluster.ask(&["get", "nothing"]);
    assert_eq!((miss.code, miss.text()), (Some(1), ""));
    assert_eq!(cluster.ask(&["get", ""]).code, Some(2));

    let bytes = [0xff, 0x00, b'\n'];
    assert_eq!(cluster.ask_with(&["put", "bytes"], &bytes).code, Some(0));
    assert_eq!(cluster.ask(&["get", "bytes", "--raw"]).out, bytes);
    let json = cluster.json(&["get", "bytes", "-o", "json"]);
    assert_eq!((&json["kvs"][0]["value"], &json["kvs"][0]["encoding"]), (&"/wAK".into(), &"base64".into()));
    let json = cluster.json(&["get", "b", "-o", "json"]);
    assert_eq!(json["kvs"][0]["value"], "four");
    assert_eq!(json["kvs"][0].get("encoding"), None);
}

fn history(cluster: &Cluster) {
    let before = cluster.json(&["put", "b", "five", "-o", "json"])["revision"].as_i64().expect("a revision") - 1;
    cluster.says(&["get", "b", "--rev", &before.to_string()], "four\n");
    cluster
        .says(&["compact", &(before + 1).to_string(), "--physical"], &format!("compacted revision {}\n", before + 1));
    let said = cluster.ask(&["get", "b", "--rev", &before.to_string()]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("required revision has been compacted"), "{said:?}");
    assert!(said.err.contains("read without --rev"), "{said:?}");
}

fn transactions(cluster: &Cluster) {
    let lock = ["txn", "--if", "version(lock) = 0", "--then", "put lock me", "--else", "get lock"];
    cluster.says(&lock, "SUCCESS\n\nOK\n");
    let said = cluster.ask(&lock);
    assert_eq!((said.code, said.text()), (Some(1), "FAILURE\n\nlock\nme\n"));
    let text = b"value(\"lock\") = \"me\"\n\nput lock \"you and me\"\nget lock\ndel a/1\n\nget b\n";
    let said = cluster.ask_with(&["txn"], text);
    assert_eq!((said.code, said.text()), (Some(0), "SUCCESS\n\nOK\n\nlock\nyou and me\n\n1\n"), "{said:?}");
    let said = cluster.ask_with(&["txn"], b"size(lock) = 3\n\n\n");
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("is not a comparison; allowed: TARGET"), "{said:?}");
}

fn the_shell_reads_a_pipe(cluster: &Cluster) {
    let lines =
        b"put s 'a b'\nget s\n# a remark\nmode json\nget s --count-only\ntxn\nver(s) = 1\n\ndel s\n\n\nexit\nput s 1\n";
    let said = cluster.ask_with(&["shell"], lines);
    assert_eq!(said.code, Some(0), "{said:?}");
    let lines: Vec<&str> = said.text().lines().collect();
    assert!(lines[0].starts_with("OK") && lines[1] == "a b", "{lines:?}");
    assert!(lines[2].contains("\"count\":1") && lines[3].contains("\"deleted\":1"), "{lines:?}");
    assert_eq!(cluster.ask(&["get", "s"]).code, Some(1), "what comes after exit is not done");
    let said = cluster.ask_with(&["shell", "--keep-going"], b"fetch s\nget b\n");
    assert_eq!((said.code, said.text()), (Some(2), "five\n"), "it goes on after an error: {said:?}");
    assert!(said.err.contains("unrecognized subcommand 'fetch'"), "{said:?}");
}

fn leases(cluster: &Cluster) {
    cluster.says(&["lease", "list"], "found 0 leases\n");
    let granted = cluster.json(&["lease", "grant", "600", "-o", "json"]);
    let id = granted["lease"].as_str().expect("an identity");
    assert_eq!((&granted["ttl"], id.len()), (&600.into(), 16));
    assert_eq!(cluster.ask(&["put", "l/1", "v", "--lease", id]).code, Some(0));
    cluster.says(&["txn", "--then", &format!("put l/2 v --lease {id}")], "SUCCESS\n\nOK\n");
    assert_eq!(cluster.json(&["get", "l/2", "-o", "json"])["kvs"][0]["lease"], id);
    let kept = format!("lease {id} keepalived with TTL(600)\n");
    cluster.says(&["lease", "keep-alive", id, "--once"], &kept);
    let said = cluster.ask_with(&["shell"], format!("lease keep-alive {id} --once\nlease list\n").as_bytes());
    assert_eq!((said.code, said.text()), (Some(0), format!("{kept}found 1 leases\n{id}\n").as_str()), "{said:?}");
    let said = cluster.ask(&["lease", "timetolive", id, "--keys"]);
    assert!(said.text().starts_with(&format!("lease {id} granted with TTL(600s), remaining(5")), "{said:?}");
    assert!(said.text().ends_with("s), attached keys([l/1 l/2])\n"), "{said:?}");
    let told = cluster.json(&["lease", "timetolive", id, "--keys", "-o", "json"]);
    assert_eq!((&told["granted_ttl"], &told["keys"][1]["key"]), (&600.into(), &"l/2".into()));
    cluster.says(&["lease", "revoke", id], &format!("lease {id} revoked\n"));
    assert_eq!(cluster.ask(&["get", "l/", "--prefix"]).code, Some(1), "the keys are gone");

    for (arguments, words) in [
        (&["lease", "timetolive", id][..], format!("lease {id} already expired\n")),
        (&["lease", "keep-alive", id], format!("lease {id} expired or revoked.\n")),
    ] {
        let said = cluster.ask(arguments);
        assert_eq!((said.code, said.text()), (Some(1), words.as_str()));
    }
    for arguments in [&["lease", "revoke", id][..], &["put", "k", "v", "--lease", id]] {
        let said = cluster.ask(arguments);
        assert!(said.code == Some(1) && said.err.contains("requested lease not found"), "{said:?}");
    }
    for arguments in [&["lease", "revoke", "x"][..], &["lease", "grant", "0"], &["put", "k", "v", "--lease", "0"]] {
        let said = cluster.ask(arguments);
        assert!(said.code == Some(2) && said.err.contains("invalid value"), "{said:?}");
    }
}

fn members_are_compared(cluster: &Cluster) {
    let same = cluster.json(&["hashkv", "-o", "json"]);
    let members = same["members"].as_array().expect("a list");
    assert_eq!((&same["same"], members.len()), (&true.into(), 3));
    assert!(members.iter().all(|member| member["hash"] == members[0]["hash"]), "{same}");
    let status = cluster.json(&["status", "-o", "json"]);
    let roles = status["members"].as_array().expect("a list").iter().map(|member| member["role"].as_str());
    assert_eq!(roles.filter(|role| *role == Some("leader")).count(), 1, "{status}");
    assert_eq!(cluster.ask(&["status"]).text().lines().count(), 4);
}

fn deletions(cluster: &Cluster) {
    cluster.says(&["del", "a/", "--prefix", "--dry-run"], "2\n");
    cluster.says(&["del", "a/", "--prefix", "--prev-kv", "--yes"], "2\na/2\ntwo\na/3\nthree\n");
    cluster.says(&["del", "a/2"], "0\n");
}

#[test]
fn nobody_there_is_told_at_once_with_what_to_do() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let endpoint = format!("127.0.0.1:{port}");
    let started = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    let said = run(command.args(["get", "k"]).env_remove("BOWLINE_ENDPOINTS").env("ETCDCTL_ENDPOINTS", &endpoint), b"");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!((said.code, said.text()), (Some(1), ""));
    for part in [&*endpoint, "refused", "`bowline up` starts one"] {
        assert!(said.err.contains(part), "{part:?} is not in {}", said.err);
    }
}
