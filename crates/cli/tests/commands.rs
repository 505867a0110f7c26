//! The built programs, as a user meets them: bad input gets one line that helps, and no panic.

// Helpers are tests too, which the lint does not see.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bowline_emulator::switch::{Incoming, Switch};
use bowline_lan::LanId;
use bowline_lan::socket::SocketKind;
use serde_json::Value;
use tempfile::TempDir;

const BOWLINE: &str = env!("CARGO_BIN_EXE_bowline");
const KVSTORE: &str = env!("CARGO_BIN_EXE_kvstore");

/// How a program ended, and what it said.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    /// It refused its input, with one line that has all these `words`.
    fn refuses(&self, words: &[&str]) {
        assert_eq!(self.code, 2, "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
        // The command line's own errors are followed by a hint how to get help.
        let mut lines = self.err.lines().take_while(|line| !line.is_empty());
        let line = lines.next().unwrap();
        let values: Vec<&str> = lines.collect();
        assert!(values.iter().all(|line| line.trim_start().starts_with('[')), "one line: {self:?}");
        assert!(line.starts_with("error: "), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing in {self:?}");
        }
    }
}

impl Said {
    /// It did its work, and could not write down what came of it.
    fn refuses_at_the_end(&self, words: &[&str]) {
        assert_eq!(self.code, 2, "{self:?}");
        assert!(self.err.starts_with("error: ") && words.iter().all(|word| self.err.contains(word)), "{self:?}");
    }
}

fn start(program: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .env_remove("NO_COLOR")
        .env_remove("RUST_BACKTRACE");
    command
}

fn end(mut command: Command) -> Said {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().expect("it ended by itself");
    Said { code, out: text(output.stdout), err: text(output.stderr) }
}

fn bowline(folder: &TempDir, arguments: &[&str]) -> Said {
    end(start(BOWLINE, folder.path(), arguments))
}

fn kvstore(arguments: &[&str]) -> Said {
    let folder = folder();
    end(start(KVSTORE, folder.path(), arguments))
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn file(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_bad_scenario_is_refused_with_what_is_wrong_and_what_is_allowed() {
    let cases = [
        (r#"{"lifetime":5,"replicas":3,"requests":9,"speed":1}"#, vec!["speed", "lifetime", "drops"]),
        (r#"{"lifetime":5,"replicas":3}"#, vec!["requests"]),
        (r#"{"lifetime":5,"replicas":3,"requests":9,"drops":1.5}"#, vec!["drops", "1.5", "from 0 to 1"]),
        (r#"{"lifetime":5,"replicas":3,"requests":9,"mix":-1}"#, vec!["mix", "-1", "from 0 to 1"]),
        (r#"{"lifetime":5,"replicas":99,"requests":9}"#, vec!["replicas", "99", "3", "21"]),
        (r#"{"lifetime":1e400,"replicas":3,"requests":9}"#, vec!["number"]),
        (
            r#"{"lifetime":5,"replicas":3,"requests":9,"events":[{"type":"boom","time":1}]}"#,
            vec!["events[0].type", "boom", "kill_leader", "part_end"],
        ),
        (r#"{"lifetime":5,"#, vec!["JSON"]),
        ("[]", vec!["JSON object", "[]"]),
        ("", vec!["JSON"]),
    ];
    for (text, words) in cases {
        let folder = folder();
        file(&folder, "mine.json", text);
        for command in ["sim", "lan"] {
            let said = bowline(&folder, &[command, "run", "mine.json"]);
            said.refuses(&words);
            said.refuses(&["mine.json"]);
        }
    }
}

#[test]
fn what_is_no_scenario_file_is_refused() {
    let folder = folder();
    fs::create_dir(folder.path().join("inside")).unwrap();
    file(&folder, "large.json", &" ".repeat(2 << 20));
    for command in ["sim", "lan"] {
        let run = |name| bowline(&folder, &[command, "run", name]);
        run("nosuch").refuses(&["\"nosuch\"", "neither a file nor a built-in scenario", "simple-2", "storm-4"]);
        run("nosuch.json").refuses(&["nosuch.json"]);
        run("").refuses(&["simple-2"]);
        run("inside").refuses(&["inside", "directory"]);
        run("large.json").refuses(&["large.json", "at most 1048576"]);
    }
    bowline(&folder, &["lan", "scenarios", "nosuch"]).refuses(&["nosuch", "simple-2"]);
}

#[test]
fn bad_options_are_refused_with_what_is_allowed() {
    let folder = folder();
    let cases: [(&[&str], &[&str]); 24] = [
        (&["sim", "run", "--profile", "fast"], &["--profile", "fast", "frugal", "paper"]),
        (&["lan", "run", "--profile", "fast"], &["--profile", "fast", "frugal", "paper"]),
        (&["lan", "replica", "--profile", "fast", "0001", "0002"], &["--profile", "fast", "frugal", "paper"]),
        (&["lan", "run", "--socket", "tcp"], &["--socket", "tcp", "auto, udp, packets, stream"]),
        (&["lan", "replica", "--socket", "tcp", "0001", "0002"], &["--socket", "tcp", "auto, udp, packets, stream"]),
        (&["lan", "run", "--all", "--jobs", "0"], &["--jobs", "0", "1..=64"]),
        (&["sim", "lan", "--jobs", "5000"], &["--jobs", "5000", "1..=1024"]),
        (&["sim", "lan", "--seeds", "0"], &["--seeds", "0", "1..="]),
        (&["sim", "run", "--seed", "-1"], &["-1"]),
        (&["sim", "run", "--seed", "18446744073709551616"], &["--seed", "18446744073709551616"]),
        (&["lan", "run", "--seed", "x"], &["--seed", "x"]),
        (&["sim", "lan", "--html", "x.html"], &["--seed"]),
        (&["lan", "run", "--all", "crash-1"], &["--all"]),
        (&["check", "--max-steps", "many", "x"], &["--max-steps", "many"]),
        (&["fly"], &["fly"]),
        (&["sim", "run", "--fly"], &["--fly"]),
        (&["sim", "replay", "1", "--without", "Rain"], &["--without", "Rain", "Crash, "]),
        (&["sim", "replay", "1", "--strikes", "Crash.0"], &["--strikes", "Crash.0", "number from 1"]),
        (&["sim", "replay", "1", "--operations", "0.1@-3"], &["--operations", "0.1@-3", "like 0.3@1.25"]),
        (&["sim", "replay", "1", "--seconds", "1e3"], &["--seconds", "1e3", "nine decimals"]),
        (&["sim", "replay", "1", "--members", "0"], &["--members 0", "at least 1"]),
        (
            &["sim", "replay", "1", "--mutant", "NoSuch"],
            &["--mutant", "NoSuch", "no such mutant", "VoteNotPersisted, "],
        ),
        (&["sim", "mutants", "--layer", "luck"], &["--layer luck", "scripts, schedules, search, clusters"]),
        (&["sim", "explore", "--shrink", "many"], &["--shrink", "many"]),
    ];
    for (arguments, words) in cases {
        let said = bowline(&folder, arguments);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{arguments:?}: {said:?}");
        assert!(said.err.starts_with("error: "), "{said:?}");
        assert!(words.iter().all(|word| said.err.contains(word)), "{arguments:?}: {said:?}");
    }
}

#[test]
fn a_replica_refuses_arguments_that_make_no_sense() {
    let folder = folder();
    let replica = |arguments: &[&str]| bowline(&folder, &[&["lan", "replica"], arguments].concat());
    for said in [replica(&["5000", "0001", "0002", "0001"]), kvstore(&["5000", "0001", "0002", "0001"])] {
        said.refuses(&["0001", "ids must differ"]);
    }
    for said in [replica(&["0001", "0002", "0002"]), kvstore(&["0001", "0002", "0002"])] {
        said.refuses(&["0002", "ids must differ"]);
    }
    for said in [replica(&["70000", "0001", "0002"]), kvstore(&["70000", "0001", "0002"])] {
        said.refuses(&["70000", "65535"]);
    }
    for said in [replica(&["0001", "0002"]), kvstore(&["0001", "0002"])] {
        said.refuses(&["can't use the socket file 0001", "No such file"]);
        assert_eq!(said.err.matches("No such file").count(), 1, "said once: {said:?}");
    }
    replica(&["0001", "FFFF"]).refuses(&["FFFF"]);
}

#[test]
fn a_replica_answers_odd_requests_and_says_at_the_end_what_it_could_not_read() {
    let ids = [1, 2].map(LanId::from_value);
    for (program, words) in [(KVSTORE, &[][..]), (BOWLINE, &["lan", "replica"])] {
        let folder = folder();
        let mut switch = Switch::local(folder.path(), &ids, SocketKind::Packets).unwrap();
        let mut command = start(program, folder.path(), &[words, &["0001", "0002"]].concat());
        let running = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut buffer = Vec::new();
        let mut wait_for = |switch: &mut Switch, what: &str| {
            let until = Instant::now() + Duration::from_secs(20);
            loop {
                match switch.receive(&mut buffer) {
                    Some(Incoming::Message { from: 0, length }) => {
                        let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
                        if said.contains(what) {
                            return said;
                        }
                    }
                    None if switch.is_connected(0) && what.is_empty() => return String::new(),
                    _ => std::thread::sleep(Duration::from_millis(1)),
                }
                assert!(Instant::now() < until, "no {what:?} from {program}");
            }
        };
        wait_for(&mut switch, "");
        let odd = |rest: &str| format!(r#"{{"src":"0101","dst":"0001","leader":"FFFF","type":"put",{rest}}}"#);
        switch.send(0, odd(r#""key":"k","value":"\ud800""#).as_bytes());
        switch.send(0, odd(r#""key":"k","value":"\ud800","MID":"m""#).as_bytes());
        let answer = wait_for(&mut switch, r#""MID":"m""#);
        assert!(answer.contains(r#""type":"fail""#) && answer.contains("not Unicode"), "{answer}");
        drop(switch);
        let said = running.wait_with_output().unwrap();
        assert!(said.status.success(), "{said:?}");
        let told = String::from_utf8(said.stderr).unwrap();
        let first = "the first: the field `MID` is missing; it must be a string of at most 1024 bytes";
        assert_eq!(told, format!("messages ignored or lost: 1 unreadable ({first})\n"));
    }
}

#[test]
fn the_replicas_program_says_how_to_use_it() {
    kvstore(&[]).refuses(&["own id is missing", "<own id> <peer id>"]);
    kvstore(&["0001"]).refuses(&["no peer ids", "1 to 20"]);
    let said = kvstore(&["x", "y", "z"]);
    said.refuses(&["argument 1", "\"x\"", "four hexadecimal digits"]);
    assert_eq!(said.err.matches("is not an id").count(), 1, "said once: {said:?}");
    kvstore(&["\u{1b}[31m", "é", "\n"]).refuses(&["argument 1"]);
    let long = "9".repeat(100_000);
    let said = kvstore(&[&long, "0001", "0002"]);
    said.refuses(&["999"]);
    assert!(said.err.len() < 400, "{}", said.err.len());
    let help = kvstore(&["--help"]);
    assert_eq!(help.code, 0);
    assert!(help.out.contains("kvstore [<port>] <own id> <peer id>"), "{help:?}");
}

#[test]
fn a_program_that_is_no_replica_is_refused() {
    let folder = folder();
    file(&folder, "mine.json", r#"{"lifetime":5,"replicas":3,"requests":10}"#);
    let run = |program: &str| bowline(&folder, &["lan", "run", "mine.json", "--program", program]);
    let said = run("./nosuch");
    said.refuses(&["can't start ./nosuch", "No such file"]);
    assert_eq!(said.err.matches("No such file").count(), 1, "said once: {said:?}");
    run("./mine.json").refuses(&["can't start ./mine.json"]);
    run(".").refuses(&["can't start ."]);
    let said = run("true");
    assert_eq!((said.code, said.out.as_str()), (2, ""), "{said:?}");
    assert!(said.err.contains("error: true works with no form of socket"), "{said:?}");
}

#[test]
fn a_run_is_told_as_json_as_a_page_and_as_a_history() {
    let folder = folder();
    let run = ["sim", "run", "crash-4", "--seed", "7", "--json", "--html", "run.html", "--history", "run.jsonl"];
    let [first, second] = [(); 2].map(|()| {
        let said = bowline(&folder, &run);
        assert_eq!(said.code, 0, "{said:?}");
        serde_json::from_str::<Value>(&said.out).unwrap()
    });
    assert_eq!(
        (&first["passed"], &first["seed"], &first["scenario"]["name"]),
        (&Value::from(true), &Value::from(7), &Value::from("crash-4"))
    );
    let hash = first["trace_hash"].as_str().unwrap();
    assert!(hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    assert_eq!(first["trace_hash"], second["trace_hash"]);
    assert_eq!(first["statistics"], second["statistics"]);
    let page = fs::read_to_string(folder.path().join("run.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") || page.starts_with("<!DOCTYPE html>"), "{}", &page[..60]);
    assert!(page.contains("crash-4") && page.trim_end().ends_with("</html>"));
    let said = bowline(&folder, &["check", "run.jsonl"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out.starts_with("linearizable: "), "{said:?}");
    assert_ne!(said.out, "linearizable: 0 operations\n");
}

#[test]
fn the_same_seed_prints_the_same_trace_hash() {
    let folder = folder();
    let hash = |seed: &str| {
        let said = bowline(&folder, &["sim", "run", "simple-1", "--seed", seed]);
        assert_eq!(said.code, 0, "{said:?}");
        said.out.lines().find_map(|line| line.strip_prefix("trace hash ")).unwrap().to_owned()
    };
    assert_eq!(hash("1"), hash("1"));
    assert_ne!(hash("1"), hash("2"));
}

#[test]
fn a_page_that_can_not_be_written_is_an_error() {
    let folder = folder();
    for option in ["--html", "--history"] {
        let said = bowline(&folder, &["sim", "run", "simple-1", option, "no/such/folder"]);
        said.refuses(&["can't write no/such/folder", "No such file"]);
    }
}

#[test]
fn mixtures_are_run_and_told() {
    let folder = folder();
    let said = bowline(&folder, &["sim", "lan", "--seeds", "3", "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&told["seeds"], &told["failed"]), (&Value::from(3), &Value::from(Vec::<Value>::new())));
    let said = bowline(&folder, &["sim", "lan", "--seed", "17", "--verbose", "--html", "mixture.html"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("trace hash ") && said.err.contains("is the first leader"), "{said:?}");
    assert!(fs::read_to_string(folder.path().join("mixture.html")).unwrap().contains("</html>"));
}

#[test]
fn a_history_is_checked() {
    let folder = folder();
    let write = r#"{"client":1,"key":"x","write":"a","call":1000,"return":2000}"#;
    let good = format!("{write}\n{}\n", r#"{"client":2,"key":"x","read":"a","call":3000,"return":4000}"#);
    let bad = format!("{write}\n{}\n", r#"{"client":2,"key":"x","read":"","call":3000,"return":4000}"#);
    file(&folder, "good.jsonl", &good);
    file(&folder, "bad.jsonl", &bad);
    let said = bowline(&folder, &["check", "good.jsonl"]);
    assert_eq!((said.code, said.out.as_str()), (0, "linearizable: 2 operations\n"));
    let said = bowline(&folder, &["check", "bad.jsonl"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.starts_with("violated: 2 operations\n") && said.out.contains('x'), "{said:?}");
    let said = bowline(&folder, &["check", "bad.jsonl", "--json"]);
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &told["verdict"], &told["operations"]), (1, &"violated".into(), &2.into()));
    let piped = {
        let mut command = start(BOWLINE, folder.path(), &["check", "-"]);
        command.stdin(fs::File::open(folder.path().join("good.jsonl")).unwrap());
        end(command)
    };
    assert_eq!((piped.code, piped.out.as_str()), (0, "linearizable: 2 operations\n"));
    for (text, words) in [
        ("{\"client\":1}\n", ["line 1", "missing"]),
        ("no JSON\n", ["line 1", "JSON"]),
        (&format!("{good}[]\n"), ["line 3", "JSON object"]),
        (&good.replace("4000", "1"), ["line 2", "return"]),
    ] {
        file(&folder, "malformed.jsonl", text);
        let said = bowline(&folder, &["check", "malformed.jsonl"]);
        said.refuses(&words);
        said.refuses(&["malformed.jsonl"]);
    }
    bowline(&folder, &["check", "nosuch"]).refuses(&["nosuch", "No such file"]);
    let said = bowline(&folder, &["check", "."]);
    said.refuses(&["directory"]);
    assert_eq!(said.err.matches("directory").count(), 1, "said once: {said:?}");
    fs::write(folder.path().join("binary"), [0xff, 0xfe, 0x00]).unwrap();
    bowline(&folder, &["check", "binary"]).refuses(&["binary", "line 1"]);
}

#[test]
fn a_world_is_told_and_drawn_and_can_be_made_smaller() {
    let folder = folder();
    let whole = bowline(&folder, &["sim", "replay", "3", "--html", "seed-3.html"]);
    assert_eq!((whole.code, whole.err.as_str()), (0, ""), "{whole:?}");
    for part in ["seed 3: ", "\nfaults ", "\nnetwork ", "starts in t0", "LEADS in t1", "nothing was violated"] {
        assert!(whole.out.contains(part), "{part:?} is missing in {}", &whole.out[..2_000]);
    }
    let page = fs::read_to_string(folder.path().join("seed-3.html")).unwrap();
    assert!(page.contains("bowline sim replay 3<") && page.ends_with("</html>\n"));
    let options =
        ["--members", "3", "--clients", "1", "--strikes", "none", "--operations", "0.1@0.5", "--seconds", "2.5"];
    let smaller = bowline(&folder, &[&["sim", "replay", "3", "-q", "--html", "small.html"], &options[..]].concat());
    assert_eq!(smaller.code, 0, "{smaller:?}");
    assert!(smaller.out.contains(" 1 operations, "), "{smaller:?}");
    let page = fs::read_to_string(folder.path().join("small.html")).unwrap();
    assert!(page.contains(&format!("bowline sim replay 3 {}<", options.join(" "))), "{}", &page[..9_000]);
    bowline(&folder, &["sim", "replay", "3", "-q", "--html", "no/such/folder"]).refuses_at_the_end(&["no/such/folder"]);
}

#[test]
fn what_is_piped_has_no_escapes() {
    let folder = folder();
    for no_color in [None, Some("1")] {
        for arguments in [
            &["sim", "run", "crash-4", "--verbose"][..],
            &["sim", "lan", "--seeds", "2"],
            &["lan", "scenarios"],
            &["--help"],
            &["sim", "run", "nosuch"],
            &["sim", "run", "--nosuch"],
        ] {
            let mut command = start(BOWLINE, folder.path(), arguments);
            no_color.map(|value| command.env("NO_COLOR", value));
            let said = end(command);
            assert!(!said.out.contains('\u{1b}') && !said.err.contains('\u{1b}'), "{arguments:?}: {said:?}");
        }
    }
}

#[test]
fn help_has_examples() {
    let folder = folder();
    for arguments in [
        &["--help"][..],
        &["lan", "run", "--help"],
        &["lan", "replica", "--help"],
        &["sim", "run", "--help"],
        &["sim", "lan", "--help"],
        &["sim", "explore", "--help"],
        &["sim", "replay", "--help"],
        &["check", "--help"],
        &["lease", "--help"],
        &["alarm", "--help"],
    ] {
        let said = bowline(&folder, arguments);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{arguments:?}");
        assert!(said.out.contains("Examples:\n  bowline "), "{arguments:?}: {said:?}");
    }
    let version = bowline(&folder, &["--version"]);
    assert_eq!((version.code, version.out), (0, format!("bowline {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn every_listed_scenario_can_be_printed_and_run() {
    let folder = folder();
    let list = bowline(&folder, &["lan", "scenarios"]);
    assert_eq!(list.code, 0);
    let names: Vec<&str> = list.out.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(names.len() >= 26, "{names:?}");
    for name in names {
        let said = bowline(&folder, &["lan", "scenarios", name]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(serde_json::from_str::<Value>(&said.out).unwrap()["lifetime"].is_number(), "{name}");
    }
}
