//! `bowline lock` and `bowline elect`: what they print and run, how they end, and that they wait for etcdctl's.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use support::{Member, PATIENCE, Running, run};

fn start(member: &Member, arguments: &[&str]) -> Running {
    Running::start(&mut member.command(arguments))
}

/// Waits until so many keys are in the queue.
fn has_queued(member: &Member, name: &str, count: usize) {
    let expected = format!("{count}\n");
    let until = Instant::now() + PATIENCE;
    loop {
        let said = member.ask(&["get", "--prefix", "--count-only", &format!("{name}/")]);
        if said.text() == expected {
            return;
        }
        assert!(Instant::now() < until, "{said:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Waits until it has printed the key of the lock that it holds, and returns the key.
fn key(running: &Running, name: &str) -> String {
    running.waits_for("it holds it", |out, _| out.starts_with(&format!("{name}/")) && out.ends_with('\n'));
    running.out().lines().next().expect("a line").to_owned()
}

#[test]
fn a_lock_is_held_until_ctrl_c() {
    let member = &Member::start();
    let mut first = start(member, &["lock", "l"]);
    let holder = key(&first, "l");
    let found = member.json(&["get", &holder, "--json"]);
    assert_eq!(found["kvs"][0]["value"], "");
    let told = member.ask(&["lease", "timetolive", found["kvs"][0]["lease"].as_str().expect("a lease")]);
    assert!(told.text().contains("granted with TTL(10s)"), "{told:?}");
    let mut second = start(member, &["lock", "l", "--ttl", "600", "--json"]);
    has_queued(member, "l", 2);
    let mut third = start(member, &["lock", "l"]);
    has_queued(member, "l", 3);
    assert_eq!((second.out().as_str(), third.out().as_str()), ("", ""), "they wait");
    // One that gives up leaves the queue.
    third.signal(Signal::INT);
    assert_eq!((third.wait().code(), third.err().as_str()), (Some(130), ""));
    has_queued(member, "l", 2);
    first.signal(Signal::INT);
    assert_eq!((first.wait().code(), first.err().as_str()), (Some(0), ""));
    second.waits_for("it is next", |out, _| out.ends_with('\n'));
    let told: Value = serde_json::from_str(&second.out()).expect("it is JSON");
    let found = member.json(&["get", told["key"].as_str().expect("a key"), "--json"]);
    assert_eq!((&told["revision"], &told["lease"]), (&found["kvs"][0]["create_revision"], &found["kvs"][0]["lease"]));
    second.signal(Signal::TERM);
    assert_eq!(second.wait().code(), Some(0));
    has_queued(member, "l", 0);
    assert_eq!(member.json(&["lease", "list", "--json"])["leases"], serde_json::json!([]));
}

#[test]
fn a_command_runs_while_the_lock_is_held() {
    let member = &Member::start();
    let bowline = env!("CARGO_BIN_EXE_bowline");
    let fenced = format!(
        "echo $ETCD_LOCK_KEY; cat; {bowline} txn --if \"create($ETCD_LOCK_KEY) = $ETCD_LOCK_REV\" --then 'put done 1'"
    );
    let said = member.ask_with(&["lock", "l", "--", "sh", "-c", &fenced], b"input\n");
    assert!(said.code == Some(0) && said.text().ends_with("\ninput\nSUCCESS\n\nOK\n"), "{said:?}");
    has_queued(member, "l", 0);
    // As etcdctl, without --, too. Options of the command are the command's.
    for (arguments, code) in [(&["sh", "-c", "exit 7"][..], 7), (&["sh", "-c", "kill -9 $$"], 137)] {
        let said = member.ask(&[&["lock", "l"], arguments].concat());
        assert_eq!((said.code, said.text()), (Some(code), ""), "{said:?}");
    }
    let said = member.ask(&["lock", "l", "--", "/nosuch"]);
    assert!(said.code == Some(2) && said.err.contains("can't run COMMAND \"/nosuch\""), "{said:?}");
    has_queued(member, "l", 0);
    // Signals are passed on, and the lock is released after the end of the command.
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP")] {
        let script = format!("trap 'echo told; exit 5' {name}; echo ready; while :; do sleep 0.05; done");
        let mut running = start(member, &["lock", "l", "sh", "-c", &script]);
        running.prints("ready\n");
        running.signal(signal);
        assert_eq!((running.wait().code(), running.out().as_str()), (Some(5), "ready\ntold\n"));
        has_queued(member, "l", 0);
    }
}

#[test]
fn the_loss_of_the_lease_is_told() {
    let member = &Member::start();
    let revoke = |name: &str| {
        let found = member.json(&["get", "--prefix", &format!("{name}/"), "--json"]);
        let id = found["kvs"][0]["lease"].as_str().expect("a lease").to_owned();
        assert_eq!(member.ask(&["lease", "revoke", &id]).code, Some(0));
    };
    let script = "trap 'echo told; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut running = start(member, &["lock", "l", "--ttl", "3", "--", "sh", "-c", script]);
    running.prints("ready\n");
    revoke("l");
    assert_eq!((running.wait().code(), running.out().as_str()), (Some(75), "ready\ntold\n"));
    let told = "error: the lease is lost, and what was held with it: it has expired or was revoked\n";
    assert_eq!(running.err(), told);
    for (arguments, name) in [(&["lock", "m"][..], "m"), (&["elect", "e", "v"], "e")] {
        let mut running = start(member, &[arguments, &["--ttl", "3"]].concat());
        key(&running, name);
        revoke(name);
        assert_eq!((running.wait().code(), running.err().as_str()), (Some(75), told), "{arguments:?}");
    }
}

#[test]
fn a_holder_that_is_killed_makes_way_when_its_lease_ends() {
    let member = &Member::start();
    let mut first = start(member, &["lock", "l", "--ttl", "2"]);
    key(&first, "l");
    first.signal(Signal::KILL);
    assert_eq!(first.wait().signal(), Some(9));
    let said = member.ask(&["lock", "l", "echo", "next"]);
    assert_eq!((said.code, said.text()), (Some(0), "next\n"), "{said:?}");
}

#[test]
fn candidates_lead_one_after_the_other() {
    let member = &Member::start();
    let listener = start(member, &["elect", "-l", "e"]);
    let lines = start(member, &["elect", "--listen", "e", "--json"]);
    let mut first = start(member, &["elect", "e", "one"]);
    let leader = key(&first, "e");
    first.prints(&format!("{leader}\none\n"));
    let bad = member.ask(&["elect", "e", "--hex", "v"]);
    assert!(bad.code == Some(2) && bad.err.contains("NAME is \"e\""), "{bad:?}");
    let mut second = start(member, &["elect", "--hex", "65", "74776f", "--json"]);
    has_queued(member, "e", 2);
    first.signal(Signal::INT);
    assert_eq!(first.wait().code(), Some(0));
    second.waits_for("it is next", |out, _| out.ends_with('\n'));
    let told: Value = serde_json::from_str(&second.out()).expect("it is JSON");
    assert_eq!(told["value"], "74776f");
    listener.waits_for("it prints both", |out, _| {
        out.starts_with(&format!("{leader}\none\ne/")) && out.ends_with("\ntwo\n")
    });
    lines.waits_for("it prints both", |out, _| out.lines().count() == 2);
    second.signal(Signal::INT);
    assert_eq!(second.wait().code(), Some(0));
}

#[test]
fn bad_input_says_what_to_do() {
    let member = &Member::start();
    let cases: [(&[&str], &[&str]); 8] = [
        (&["lock"], &["<NAME>"]),
        (&["lock", ""], &["NAME is empty"]),
        (&["lock", "--hex", "x"], &["NAME is \"x\"", "--hex"]),
        (&["lock", "l", "--ttl", "0"], &["--ttl", "0"]),
        (&["elect", "e"], &["<VALUE>"]),
        (&["elect", "", "v"], &["NAME is empty"]),
        (&["elect", "e", "v", "--listen"], &["--listen", "cannot be used with"]),
        (&["elect", "e", "--listen", "--ttl", "5"], &["--listen", "--ttl"]),
    ];
    for (arguments, words) in cases {
        let said = member.ask(arguments);
        assert_eq!((said.code, said.text()), (Some(2), ""), "{arguments:?}: {said:?}");
        assert!(words.iter().all(|word| said.err.contains(word)), "{arguments:?}: {said:?}");
    }
}

#[test]
fn the_shell_has_them_too() {
    let member = &Member::start();
    let said = member.shell(b"lock l echo held\nlock l -- cat\nput k v\nlock l false\n");
    assert!(said.code == Some(1) && said.text().starts_with("held\nOK  revision "), "{said:?}");
    let said = member.shell(b"help elect\nelect e\n");
    assert!(said.code == Some(2) && said.text().contains("--listen"), "{said:?}");
    has_queued(member, "l", 0);
}

#[test]
fn etcdctl_and_bowline_wait_for_each_other() {
    let member = &Member::start();
    if Command::new("etcdctl").arg("version").output().is_err() {
        eprintln!("skipped: etcdctl is not installed (Debian: apt-get install etcd-client)");
        return;
    }
    let etcdctl = |arguments: &[&str]| {
        let mut command = Command::new("etcdctl");
        command.args(arguments).env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", member.endpoint());
        command
    };
    for name in ["ours first", "theirs first"] {
        let ours = || start(member, &["lock", name]);
        let theirs = || Running::start(&mut etcdctl(&["lock", name]));
        let mut first = if name == "ours first" { ours() } else { theirs() };
        let holder = key(&first, name);
        let mut second = if name == "ours first" { theirs() } else { ours() };
        has_queued(member, name, 2);
        assert_eq!(second.out(), "", "it waits");
        first.signal(Signal::INT);
        first.wait();
        assert_ne!(key(&second, name), holder);
        second.signal(Signal::INT);
        second.wait();
        has_queued(member, name, 0);
    }
    let theirs = run(&mut etcdctl(&["lock", "l", "--", "sh", "-c", "echo $ETCD_LOCK_KEY"]), b"");
    assert!(theirs.code == Some(0) && theirs.text().starts_with("l/"), "{theirs:?}");

    let listener = Running::start(&mut etcdctl(&["elect", "-l", "e"]));
    let ours_listens = start(member, &["elect", "-l", "e"]);
    let mut first = Running::start(&mut etcdctl(&["elect", "e", "theirs"]));
    key(&first, "e");
    let mut second = start(member, &["elect", "e", "ours"]);
    has_queued(member, "e", 2);
    let mut third = Running::start(&mut etcdctl(&["elect", "e", "theirs again"]));
    has_queued(member, "e", 3);
    first.signal(Signal::INT);
    first.wait();
    key(&second, "e");
    second.signal(Signal::INT);
    second.wait();
    key(&third, "e");
    for listens in [&listener, &ours_listens] {
        listens.waits_for("it prints all three", |out, _| {
            let values: Vec<&str> = out.lines().filter(|line| !line.is_empty() && !line.contains('/')).collect();
            values == ["theirs", "ours", "theirs again"]
        });
    }
    third.signal(Signal::INT);
    third.wait();
}
