//! `bowline watch`: what it prints and runs, and how it ends.

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;
use support::{Member, Members, PATIENCE, Running, run};

fn watch(member: &Member, arguments: &[&str]) -> Running {
    Running::start(&mut member.command(&[&["watch"], arguments].concat()))
}

#[test]
fn events_are_printed_as_etcdctl_prints_them() {
    let member = &Member::start();
    for put in [["put", "k/1", "one"], ["put", "k/2", "a\nb"], ["put", "k/1", "two"]] {
        assert_eq!(member.ask(&put).code, Some(0));
    }
    member.says(&["del", "k/1"], "1\n");
    assert_eq!(member.ask(&["put", "--hex", "ff", "fe"]).code, Some(0));
    let prints = |arguments: &[&str], text: &str| watch(member, arguments).prints(text);
    let all = "PUT\nk/1\none\nPUT\nk/2\na\nb\nPUT\nk/1\ntwo\nDELETE\nk/1\n\n";
    prints(&["k/", "--prefix", "--rev", "2"], all);
    prints(&["k/1", "k/3", "--rev", "2"], all);
    prints(&["k/2", "--rev", "2"], "PUT\nk/2\na\nb\n");
    prints(&["k/1", "--rev", "4", "--prev-kv"], "PUT\nk/1\none\nk/1\ntwo\nDELETE\nk/1\ntwo\nk/1\n\n");
    prints(&["k/", "--prefix", "--rev", "4", "--filter", "delete"], "DELETE\nk/1\n\n");
    prints(&["k/", "--prefix", "--rev", "4", "--filter", "put"], "PUT\nk/1\ntwo\n");
    prints(&["--hex", "6b2f32", "--from-key", "--rev", "3"], "PUT\n6b2f32\n610a62\nPUT\nff\nfe\n");
    prints(&["k/", "--prefix", "--rev", "2", "--raw"], "onea\nbtwo");
    let one = r#"{"kv":{"create_revision":2,"key":"k/1","mod_revision":4,"value":"two","version":2},"#;
    let before = r#""prev_kv":{"create_revision":2,"key":"k/1","mod_revision":2,"value":"one","version":1},"#;
    let first = format!("{one}{before}\"revision\":4,\"type\":\"PUT\"}}\n");
    let deleted = before.replacen(":2,\"value\":\"one\",\"version\":1", ":4,\"value\":\"two\",\"version\":2", 1);
    let second = format!("{{\"kv\":{{\"key\":\"k/1\"}},{deleted}\"revision\":5,\"type\":\"DELETE\"}}\n");
    prints(&["k/1", "--rev", "4", "--prev-kv", "--json"], &format!("{first}{second}"));
    prints(
        &["--hex", "ff", "--rev", "2", "-o", "json"],
        concat!(
            r#"{"kv":{"create_revision":6,"encoding":"hex","key":"ff","key_encoding":"hex","mod_revision":6,"#,
            r#""value":"fe","version":1},"revision":6,"type":"PUT"}"#,
            "\n"
        ),
    );

    // A watch without a revision is live as soon as it prints something.
    let live = watch(member, &["live"]);
    while live.out().is_empty() {
        assert_eq!(member.ask(&["put", "live", "v"]).code, Some(0));
    }
    live.waits_for("it prints events", |out, _| out.starts_with("PUT\nlive\nv\n"));
    live.signal(Signal::INT);
    let mut live = live;
    assert_eq!(live.wait().signal(), Some(2), "as other commands that go on");
    assert_eq!(live.err(), "");
}

#[test]
fn a_command_runs_for_each_event() {
    let member = &Member::start();
    assert_eq!(member.ask_with(&["put", "c/\"1\""], b"a\nb\xff").code, Some(0));
    member.says(&["del", "c/\"1\""], "1\n");
    let script = "printf '%s ' $ETCD_WATCH_REVISION \"$ETCD_WATCH_EVENT_TYPE\" \"$ETCD_WATCH_KEY\" \
                  \"$ETCD_WATCH_VALUE\" >&2; echo >&2; cat; test $ETCD_WATCH_EVENT_TYPE = '\"DELETE\"'";
    let running = watch(member, &["c/", "--prefix", "--rev", "2", "--raw", "--", "sh", "-c", script]);
    let failed = "the command \"sh\" failed for key \"c/\\\"1\\\"\" at revision 2: exit status: 1\n";
    let said = [r#"2 "PUT" "c/\"1\"" "a\nb\xff" "#, "\n", failed, r#"3 "DELETE" "c/\"1\"" "" "#, "\n"].concat();
    running.waits_for("both have run", |_, err| err == said);
    let running = watch(member, &["c/", "--prefix", "--rev", "2", "--json", "--", "/nosuch"]);
    running.waits_for("both were tried", |out, err| {
        out.lines().count() == 2 && err.matches("the command \"/nosuch\" failed").count() == 2
    });
}

#[test]
fn watches_are_read_from_standard_input() {
    let member = &Member::start();
    for put in [["put", "i/1", "one"], ["put", "i/2", "two"]] {
        assert_eq!(member.ask(&put).code, Some(0));
    }
    let mut running = watch(member, &["-i"]);
    running.types("watch i/1 --rev 2\n");
    running.prints("PUT\ni/1\none\n");
    running.types("# a remark\n\nwatch i/2 \"i/\\x33\" --rev 2\n");
    running.prints("PUT\ni/1\none\nPUT\ni/2\ntwo\n");
    running.types("progress\n");
    running.prints("PUT\ni/1\none\nPUT\ni/2\ntwo\nprogress notify: 3\nprogress notify: 3\n");
    running.ends_input();
    assert_eq!((running.wait().code(), running.err().as_str()), (Some(0), ""));

    let mut running = watch(member, &["-i", "--hex"]);
    for (line, told) in [
        ("fetch", "error: line 1: unrecognized subcommand 'fetch'"),
        ("watch", "error: line 2: "),
        ("watch x", "error: line 3: KEY is \"x\"; allowed with --hex: "),
        ("watch -i", "error: line 4: --interactive can't be used on a line"),
        ("watch 62 61", "mvcc: watcher range is empty"),
    ] {
        running.types(&format!("{line}\n"));
        running.waits_for(line, |_, err| err.contains(told));
    }
    running.types("watch 692f32 --rev 2 -- sh -c 'echo $ETCD_WATCH_VALUE'\n");
    running.prints("PUT\n692f32\n74776f\n\"two\"\n");
    running.ends_input();
    assert_eq!(running.wait().code(), Some(2));
}

#[test]
fn bad_input_and_refusals_say_what_to_do() {
    let member = &Member::start();
    for value in ["1", "2", "3"] {
        assert_eq!(member.ask(&["put", "k", value]).code, Some(0));
    }
    member.says(&["compact", "4"], "compacted revision 4\n");
    let cases: [(&[&str], i32, &[&str]); 7] = [
        (
            &["k", "--rev", "2"],
            1,
            &["can't watch from revision 2 on", "before revision 4", "watch from that revision on"],
        ),
        (&["b", "a"], 2, &["watcher range is empty"]),
        (&[], 2, &["<KEY>"]),
        (&[""], 2, &["KEY is empty"]),
        (&["k", "--rev=-1"], 2, &["--rev", "-1"]),
        (&["k", "--filter", "all"], 2, &["--filter", "all", "put, delete"]),
        (&["-i", "k"], 2, &["--interactive", "cannot be used with"]),
    ];
    for (arguments, code, words) in cases {
        let said = member.ask(&[&["watch"], arguments].concat());
        assert_eq!((said.code, said.text()), (Some(code), ""), "{arguments:?}: {said:?}");
        assert!(words.iter().all(|word| said.err.contains(word)), "{arguments:?}: {said:?}");
    }
    let said = member.shell(b"watch -i\n");
    assert!(said.code == Some(2) && said.err.contains("--interactive can't be used on a line"), "{said:?}");
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let said = run(member.command(&["watch", "k"]).env("BOWLINE_ENDPOINTS", format!("127.0.0.1:{port}")), b"");
    assert!(said.code == Some(1) && said.err.contains("can't reach any endpoint"), "{said:?}");
}

#[test]
fn a_watch_that_nobody_reads_ends_in_silence() {
    let member = &Member::start();
    assert_eq!(member.ask(&["put", "k", "v"]).code, Some(0));
    let mut command = member.command(&["watch", "k", "--rev", "2"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    out.read_line(&mut line).expect("it prints");
    assert_eq!(line, "PUT\n");
    // It is quiet from now on, and ends nevertheless.
    drop(out);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(141), ""));
}

#[test]
fn a_member_that_is_killed_costs_no_event() {
    let members = Members::new(3);
    let mut processes: Vec<_> = (1..=3).map(|id| Some(members.start(id, ":"))).collect();
    let endpoints: Vec<String> = members.client_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let bowline = |arguments: &[&str], endpoints: &[String]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        command.args(arguments).env("BOWLINE_ENDPOINTS", endpoints.join(","));
        command
    };
    // The number of writes that have certainly been done; others may have been done, too.
    let put = |value: usize, endpoints: &[String]| {
        let until = Instant::now() + PATIENCE;
        while run(&mut bowline(&["put", "k", &value.to_string()], endpoints), b"").code != Some(0) {
            assert!(Instant::now() < until, "no write");
        }
    };
    put(0, &endpoints);
    let watch = Running::start(&mut bowline(&["watch", "k", "--rev", "2", "--json"], &endpoints));
    let has = |value: usize| move |out: &str, _: &str| out.contains(&format!("\"value\":\"{value}\""));
    watch.waits_for("the first event", has(0));
    processes[0].take().expect("it runs").end(false);
    for value in 1..20 {
        put(value, &endpoints[1..]);
    }
    watch.waits_for("the last event", has(19));
    assert!(watch.err().starts_with(&format!("the connection was lost: http://{}: ", endpoints[0])), "{}", watch.err());
    watch.waits_for("it has resumed", |_, err| err.contains("the watch has resumed at http://127.0.0.1:"));
    let revision = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
        line["revision"].as_i64().expect("a revision")
    };
    let revisions: Vec<i64> = watch.out().lines().map(revision).collect();
    assert!(revisions.iter().copied().eq(2..2 + revisions.len() as i64), "each once: {revisions:?}");
}
