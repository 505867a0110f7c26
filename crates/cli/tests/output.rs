//! What becomes of a command whose output can't be written: to a full disk, or into a pipe that nobody reads.

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Folder, Member, Said, run};

/// What a shell says of a program that SIGPIPE has ended.
const NOBODY_READS: Option<i32> = Some(141);

fn bowline(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command.args(words).current_dir(folder);
    command
}

/// Runs a program whose results go to a full disk.
fn on_a_full_disk(command: &mut Command, input: &[u8]) -> Said {
    to(command, File::options().write(true).open("/dev/full").expect("every Linux has it"), input)
}

/// Runs a program whose results go into a pipe that nobody reads.
fn into_nothing(command: &mut Command, input: &[u8]) -> Said {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    to(command, writer, input)
}

fn to(command: &mut Command, stdout: impl Into<Stdio>, input: &[u8]) -> Said {
    let mut child = command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    // One that has ended already reads nothing.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    Said { code: output.status.code(), out: output.stdout, err }
}

/// All commands that print something without a cluster.
fn reports(folder: &Path) -> Vec<Vec<&'static str>> {
    std::fs::write(
        folder.join("history.jsonl"),
        "{\"client\":1,\"key\":\"x\",\"write\":\"a\",\"call\":1,\"return\":2}\n",
    )
    .expect("it is written");
    let lines = [
        "--help",
        "--version",
        "put --help",
        "help lease",
        "lan scenarios",
        "lan scenarios crash-4",
        "sim run crash-4",
        "sim run crash-4 --json",
        "sim lan --seeds 2",
        "sim lan --seeds 2 --json",
        "sim lan --seed 17",
        "sim explore --seeds 1",
        "sim explore --seeds 1 --json",
        "sim replay 3",
        "sim replay 3 --quiet",
        "sim exhaust --states 500",
        "sim exhaust --states 500 --json",
        "check history.jsonl",
        "check history.jsonl --json",
    ];
    lines.iter().map(|line| line.split(' ').collect()).collect()
}

#[test]
fn a_report_that_does_not_fit_on_the_disk_is_no_bad_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let speed = vec!["sim", "speed", "--seconds", "1", "--jobs", "1"];
    for words in reports(folder.path()).into_iter().chain([speed]) {
        let said = on_a_full_disk(&mut bowline(folder.path(), &words), b"");
        assert_eq!(said.code, Some(1), "{words:?}: {said:?}");
        let expected = "error: the result could not be printed: No space left on device";
        assert!(said.err.contains(expected) && !said.err.contains("panicked"), "{words:?}: {said:?}");
    }
    let mut kvstore = Command::new(env!("CARGO_BIN_EXE_kvstore"));
    assert_eq!(on_a_full_disk(kvstore.arg("--help"), b"").code, Some(1));
}

#[test]
fn a_run_in_real_time_whose_report_can_not_be_printed_is_no_bad_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let scenario = r#"{"lifetime":5,"replicas":3,"requests":5}"#;
    std::fs::write(folder.path().join("small.json"), scenario).expect("it is written");
    let said = on_a_full_disk(&mut bowline(folder.path(), &["lan", "run", "small.json"]), b"");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("error: the result could not be printed: No space left on device"), "{said:?}");
}

#[test]
fn a_report_that_nobody_reads_ends_in_silence() {
    let folder = tempfile::tempdir().expect("a folder");
    for words in reports(folder.path()) {
        let said = into_nothing(&mut bowline(folder.path(), &words), b"");
        assert_eq!(said.code, NOBODY_READS, "{words:?}: {said:?}");
        for word in ["error", "panicked", "pipe"] {
            assert!(!said.err.contains(word), "{words:?}: {said:?}");
        }
    }
    // A page is written though nobody reads the lines.
    let replay = &mut bowline(folder.path(), &["sim", "replay", "3", "--html", "seed-3.html"]);
    assert_eq!(into_nothing(replay, b"").code, NOBODY_READS);
    let page = std::fs::read_to_string(folder.path().join("seed-3.html")).expect("it was written");
    assert!(page.ends_with("</html>\n"));
}

#[test]
fn remarks_that_do_not_fit_on_the_disk_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    for (words, code) in [
        (&["sim", "run", "crash-4", "--verbose"][..], 0),
        (&["sim", "lan", "--seed", "17", "--verbose"], 0),
        (&["lan", "scenarios", "nosuch"], 2),
        (&["check", "nosuch"], 2),
        (&["fly"], 2),
        (&["get", "k", "--endpoints", "127.0.0.1:1"], 1),
    ] {
        let full = File::options().write(true).open("/dev/full").expect("every Linux has it");
        let output = bowline(folder.path(), words).stderr(full).output().expect("it starts");
        assert_eq!(output.status.code(), Some(code), "{words:?}");
    }
}

#[test]
fn what_was_done_but_could_not_be_printed_is_said_to_be_done() {
    let member = &Member::start();
    let lease =
        member.json(&["lease", "grant", "600", "-o", "json"])["lease"].as_str().expect("an identity").to_owned();
    let txn = ["txn", "--then", "put done/txn 1"];
    let writes: [&[&str]; 7] = [
        &["put", "done/put", "1"],
        &["put", "done/put", "2", "-o", "json", "--prev-kv"],
        &txn,
        &["del", "done/txn"],
        &["compact", "2"],
        &["lease", "grant", "60"],
        &["lease", "revoke", &lease],
    ];
    for words in writes {
        let said = on_a_full_disk(&mut member.command(words), b"");
        let expected = "error: done, but could not be printed: No space left on device (os error 28)\n";
        assert_eq!((said.code, said.err.as_str()), (Some(1), expected), "{words:?}");
    }
    member.says(&["get", "done/put"], "2\n");
    assert_eq!(member.ask(&["get", "done/txn"]).code, Some(1), "it was put and deleted");
    let said = into_nothing(&mut member.command(&["put", "done/put", "3"]), b"");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("done, but could not be printed: Broken pipe"), "{said:?}");
    member.says(&["get", "done/put"], "3\n");
    // What has changed nothing is not said to be done.
    for words in [&["txn", "--then", "get done/put"][..], &["txn", "--then", "del done/nothing"]] {
        assert_eq!(into_nothing(&mut member.command(words), b"").code, NOBODY_READS, "{words:?}");
    }
}

#[test]
fn an_answer_that_nobody_reads_ends_in_silence() {
    let member = &Member::start();
    let lease =
        member.json(&["lease", "grant", "600", "-o", "json"])["lease"].as_str().expect("an identity").to_owned();
    member.ask(&["put", "silent", "1"]);
    let reads: [&[&str]; 11] = [
        &["get", "silent"],
        &["get", "silent", "-o", "json"],
        &["get", "silent", "-o", "table"],
        &["get", "silent", "--raw"],
        &["del", "silent", "--dry-run"],
        &["lease", "list"],
        &["lease", "timetolive", &lease],
        &["lease", "keep-alive", &lease],
        // There is none, but JSON says so.
        &["alarm", "list", "-o", "json"],
        &["hashkv"],
        &["status"],
    ];
    for words in reads {
        let said = into_nothing(&mut member.command(words), b"");
        assert_eq!((said.code, said.err.as_str()), (NOBODY_READS, ""), "{words:?}");
        let said = on_a_full_disk(&mut member.command(words), b"");
        assert_eq!(said.code, Some(1), "{words:?}: {said:?}");
        assert!(said.err.starts_with("error: the result could not be printed: No space left"), "{words:?}: {said:?}");
    }
}

#[test]
fn a_shell_whose_output_is_gone_does_nothing_more() {
    let member = &Member::start();
    let mut shell = member.command(&["shell"]);
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let mut stdin = shell.stdin.take().expect("it is piped");
    stdin.write_all(b"put gone/1 1\n").expect("it is read");
    let mut answer = String::new();
    let mut stdout = BufReader::new(shell.stdout.take().expect("it is piped"));
    stdout.read_line(&mut answer).expect("it answers");
    assert!(answer.starts_with("OK"), "{answer}");
    drop(stdout);
    stdin.write_all(b"put gone/2 2\nput gone/3 3\n").expect("it is read");
    drop(stdin);
    let output = shell.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (NOBODY_READS, &b""[..]));
    member.says(&["get", "gone/", "--prefix", "--keys-only"], "gone/1\n");

    let said = on_a_full_disk(&mut member.command(&["shell"]), b"put gone/4 4\nput gone/5 5\n");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("done, but could not be printed: No space left"), "{said:?}");
    member.says(&["get", "gone/", "--prefix", "--keys-only"], "gone/1\ngone/4\n");
    let said = on_a_full_disk(&mut member.command(&["shell"]), b"help get\nput gone/6 6\n");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(member.ask(&["get", "gone/6"]).code, Some(1), "it has stopped before");
}

#[test]
fn a_cluster_that_could_not_be_told_of_runs() {
    let folder = Folder::new();
    let mut up = Command::new(env!("CARGO_BIN_EXE_bowline"));
    up.args(["up", "--nodes", "1", "--detach", &folder.ports.option(), "--data-dir"]).arg(folder.path());
    let said = on_a_full_disk(&mut up, b"");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("error: done, but could not be printed: No space left"), "{said:?}");
    let mut get = Command::new(env!("CARGO_BIN_EXE_bowline"));
    get.args(["get", "x", "--count-only", "--endpoints", &folder.endpoints()]);
    assert_eq!(run(&mut get, b"").text(), "0\n");
    let mut down = Command::new(env!("CARGO_BIN_EXE_bowline"));
    let said = on_a_full_disk(down.arg("down").arg("--data-dir").arg(folder.path()), b"");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(said.err, "error: done, but could not be printed: No space left on device (os error 28)\n");
}

#[test]
fn a_verdict_of_chaos_that_could_not_be_printed_is_no_bad_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let chaos = ["chaos", "--minutes", "0.001", "--seed", "1"];
    let said = on_a_full_disk(bowline(folder.path(), &chaos).env("TMPDIR", folder.path()), b"");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("error: the result could not be printed: No space left"), "{said:?}");
    // What could not be run has no verdict.
    let said = run(bowline(folder.path(), &chaos).env("TMPDIR", "/dev/null"), b"");
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.starts_with("error: the run was not completed: can't create /dev/null/"), "{said:?}");
}

#[test]
fn what_the_system_refuses_is_no_bad_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let serve = |more: &[&str]| {
        let mut command = bowline(folder.path(), &["serve", "--id", "1", "--initial-cluster", "1=http://127.0.0.1:1"]);
        run(command.args(more), b"")
    };
    let started = Instant::now();
    let said = serve(&["--listen-client", &format!("127.0.0.1:{port}")]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("Address already in use"), "{said:?}");
    // Nobody may make a folder there: not even root.
    let said = serve(&["--listen-client", "127.0.0.1:0", "--data-dir", "/sys/bowline"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("/sys/bowline"), "{said:?}");
    assert_eq!(serve(&["--listen-client", "nowhere"]).code, Some(2));
    let cluster = format!(
        r#"{{"token":"t","founded":true,"members":[{{"id":1,"client_port":{port},"peer_port":{port}}}],"pids":[]}}"#
    );
    std::fs::write(folder.path().join("cluster.json"), cluster).expect("it is written");
    let said = run(&mut bowline(folder.path(), &["up", "--nodes", "1", "--data-dir", "."]), b"");
    assert!(
        said.code == Some(1) && said.err.contains(&format!("port {port} of member 1 is not available")),
        "{said:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(20), "it ends by itself");
}
