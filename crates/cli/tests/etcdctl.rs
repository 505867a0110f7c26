//! Debian's etcdctl (`apt-get install etcd-client`) against a cluster. Skipped where it isn't installed.

mod support;

use std::process::Command;

use serde_json::Value;
use support::{Folder, Running, Said, run};

struct Etcdctl {
    folder: Folder,
}

impl Etcdctl {
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
    if Command::new("etcdctl").arg("version").output().is_err() {
        eprintln!("skipped: etcdctl is not installed (apt-get install etcd-client)");
        return;
    }
    let etcdctl = Etcdctl { folder: Folder::with_cluster() };
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
    maintains(&etcdctl);
    members(&etcdctl);

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
    let defragmented = etcdctl.ask_with(&["defrag"], b"");
    assert_eq!(defragmented.text().matches("Finished defragmenting etcd member").count(), 3, "{defragmented:?}");
    etcdctl.says(&["alarm", "list"], "");
    etcdctl.says(&["alarm", "disarm"], "");
    for form in ["table", "json"].map(|form| ["-w", form]) {
        for what in ["status", "health", "hashkv"] {
            let asked = etcdctl.ask_with(&[&["endpoint", what][..], &form].concat(), b"");
            assert_eq!(asked.code, Some(0), "{what} {form:?}: {asked:?}");
        }
    }
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
    assert!(updated.text().starts_with(&format!("Member {id} updated in cluster")), "{updated:?}");
    let removed = etcdctl.ask_with(&["member", "remove", id], b"");
    assert!(removed.text().starts_with(&format!("Member {id} removed from cluster")), "{removed:?}");
    assert_eq!(list(), before);
    let follower = |line: &&str| {
        let id = line.split(',').next().expect("it begins with its id").to_owned();
        let moved = etcdctl.ask_with(&["move-leader", &id], b"");
        moved.code == Some(0) && moved.text().contains("Leadership transferred")
    };
    assert!(before.lines().any(|line| follower(&line)), "the leadership goes to one of them");
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
