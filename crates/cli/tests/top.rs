//! `bowline top` against a live cluster.

mod support;

use std::process::Command;
use std::time::Instant;

use serde_json::Value;
use support::terminal::Terminal;
use support::{Folder, Member, PATIENCE, run};

const BOWLINE: &str = env!("CARGO_BIN_EXE_bowline");

fn top(endpoints: &str, words: &[&str]) -> Command {
    let mut command = Command::new(BOWLINE);
    command.arg("top").args(words).env("BOWLINE_ENDPOINTS", endpoints).env_remove("NO_COLOR");
    command
}

fn sample(endpoints: &str) -> Value {
    let said = run(&mut top(endpoints, &["--once", "--json", "--interval", "200ms"]), b"");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    serde_json::from_slice(&said.out).expect("it is JSON")
}

#[test]
fn one_sample_tells_the_state_and_the_load_of_all_members() {
    let folder = Folder::with_cluster();
    let endpoints = folder.endpoints();
    let first = endpoints.split(',').next().expect("there are three");
    // Writes while it measures, so that there is something to measure. It finds the other members by itself.
    let mut put = Command::new(BOWLINE);
    put.args(["shell"]).env("BOWLINE_ENDPOINTS", &endpoints);
    let mut writer = support::Running::start(&mut put);
    let measured = std::thread::scope(|scope| {
        let measured = scope.spawn(|| {
            loop {
                let sample = sample(first);
                let busy = sample["totals"]["requests_per_second"].as_f64().is_some_and(|rate| rate > 0.0);
                if busy && sample["totals"]["fsync_p99_seconds"].is_f64() {
                    return sample;
                }
            }
        });
        while !measured.is_finished() {
            writer.types("put k v\n");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        measured.join().expect("it measures")
    });
    let members = measured["members"].as_array().expect("they are listed");
    assert_eq!(members.len(), 3, "{measured}");
    assert_eq!(members.iter().filter(|member| member["role"] == "leader").count(), 1, "{measured}");
    for member in members {
        assert_eq!((&member["version"], &member["term"]), (&"3.6.0".into(), &measured["term"]), "{member}");
        assert_eq!(member["quota_bytes"], 2_u64 << 30);
        assert!(
            member["size_bytes"].as_u64() > Some(0) && member["load"]["connections"].as_u64() > Some(0),
            "{member}"
        );
        assert_eq!((&member["load"]["slow_watchers"], &member["load"]["leases"]), (&0.into(), &0.into()));
    }
    let leader = members.iter().find(|member| member["role"] == "leader").expect("one leads");
    assert_eq!(leader["name"], measured["leader"]);
    assert!(measured["totals"]["p99_seconds"].as_f64() > Some(0.0), "{measured}");
    assert_eq!(measured["alarms"], Value::Array(Vec::new()));

    // A member that is gone is told, and so is a cluster that is.
    let text = run(&mut top(&endpoints, &["--once", "--interval=100ms"]), b"");
    assert!(text.text().contains(" leads in term ") && text.text().contains("3 of 3 members answer"), "{text:?}");
    assert!(!text.text().contains('\u{1b}'), "no colours in a pipe");
    let gone = folder.number("/pids/2");
    let pid = rustix::process::Pid::from_raw(i32::try_from(gone).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    loop {
        let sample = sample(first);
        let silent =
            sample["members"].as_array().expect("they are listed").iter().filter(|one| one["error"].is_string());
        if silent.count() == 1 {
            break;
        }
    }
}

#[test]
fn without_a_member_it_says_so() {
    let said = run(&mut top("127.0.0.1:1", &["--once"]), b"");
    assert_eq!((said.code, said.text()), (Some(1), ""));
    assert!(said.err.starts_with("error: can't reach any endpoint (http://127.0.0.1:1): "), "{said:?}");
    assert!(said.err.contains("`bowline up` starts one"), "{said:?}");
    let said = run(&mut top("127.0.0.1:1", &["--interval", "1ms"]), b"");
    assert!(said.code == Some(2) && said.err.contains("allowed: a time from 100ms to 1h"), "{said:?}");
}

#[test]
fn on_a_terminal_it_refreshes_until_a_key_ends_it() {
    let member = Member::start();
    for (key, plain) in [("q", false), ("\u{3}", true)] {
        let mut command = member.command(&["top", "--interval", "1s"]);
        if plain {
            command.env("NO_COLOR", "1");
        } else {
            command.env_remove("NO_COLOR");
        }
        let mut terminal = Terminal::open(&mut command);
        // Its name comes a moment later, with the record that it writes about itself.
        terminal.wait_for(" leads in term ");
        terminal.wait_for("NAME");
        terminal.wait_for("quit");
        // Latencies come with a later sample.
        let until = Instant::now() + PATIENCE;
        while !terminal.shows("ms") {
            assert!(Instant::now() < until, "no latency is shown");
            member.ask(&["put", "k", "v"]);
        }
        terminal.types("s");
        terminal.wait_for("p99");
        terminal.types(key);
        // It leaves the alternate screen.
        terminal.wait_for("\u{1b}[?1049l");
        assert_eq!(terminal.ends(), Some(0));
    }
}
