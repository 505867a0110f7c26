//! What `bowline serve` says when, and what others may see of its data.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use support::{Folder, Members, run};

#[test]
fn a_member_says_that_it_is_ready_once_a_leader_is_known() {
    let members = Members::new(3);
    let mut first = members.start(1, ":");
    first.says("listening for clients at http://127.0.0.1:");
    // It is alone: there can't be a leader.
    assert!(!first.said().contains("ready to serve"), "{}", first.said());
    let _others = (members.start(2, ":"), members.start(3, ":"));
    first.says("ready to serve client requests at http://127.0.0.1:");
    let endpoint = format!("127.0.0.1:{}", members.client_ports[0]);
    let mut put = Command::new(env!("CARGO_BIN_EXE_bowline"));
    let said = run(put.args(["put", "k", "v", "--endpoints", &endpoint]), b"");
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// One JSON object a line, and only what is important enough.
#[test]
fn the_log_is_text_or_json_down_to_a_level() {
    let members = Members::new(1);
    let logged = |format: &str, level: &str, awaited: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        command.args(["serve", "--stop-at-eof", "--log-format", format, "--log-level", level]);
        let mut member = members.start_program(1, &mut command);
        member.says(awaited);
        let said = member.said();
        member.end(true);
        said
    };
    let json = logged("json", "info", "ready to serve client requests");
    for line in json.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(event["timestamp"].is_string() && event["level"] == "INFO" && event["message"].is_string(), "{line}");
    }
    let first = json.lines().find(|line| line.contains("listening for clients")).expect("it listens");
    let first: serde_json::Value = serde_json::from_str(first).expect("it is an object");
    assert_eq!(first["member"], "1", "{first}");
    let text = logged("text", "debug", "ready to serve client requests");
    assert!(text.contains(" INFO ready to serve client requests at http://127.0.0.1:"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours where no terminal is: {text}");

    fs::set_permissions(members.folder().join("member-1"), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let warned = logged("text", "warn", "other users of this machine");
    assert!(warned.contains(" WARN other users") && !warned.contains("INFO"), "{warned}");
}

#[test]
fn debug_logs_what_the_default_level_does_not() {
    let members = Members::new(2);
    let mut one = members.start(1, "export BOWLINE_LOG_LEVEL=debug");
    let mut two = members.start(2, ":");
    one.says("DEBUG a member connected member=2");
    two.says("ready to serve client requests");
    assert!(!two.said().contains("DEBUG"), "{}", two.said());
}

/// Everything in a folder that other users could read or list, and it itself.
fn open_to_others(path: &Path, found: &mut Vec<String>) {
    let mode = fs::symlink_metadata(path).expect("it is there").permissions().mode();
    if mode & 0o077 != 0 {
        found.push(format!("{:o} {}", mode & 0o777, path.display()));
    }
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("it is a folder") {
            open_to_others(&entry.expect("it is readable").path(), found);
        }
    }
}

#[test]
fn other_users_see_nothing_of_a_clusters_data_whatever_the_umask() {
    let folder = Folder::new();
    let data = folder.path().join("data");
    let up = |command: &str| {
        let mut shell = Command::new("sh");
        let line = format!("umask 000; exec \"$0\" {command} --data-dir \"$1\"");
        run(shell.args(["-c", &line, env!("CARGO_BIN_EXE_bowline")]).arg(&data), b"")
    };
    let started = up(&format!("up --detach {}", folder.ports.option()));
    let mut found = Vec::new();
    open_to_others(&data, &mut found);
    let stopped = up("down");
    assert_eq!((started.code, stopped.code), (Some(0), Some(0)), "{started:?} {stopped:?}");
    assert!(found.is_empty(), "others may see: {found:#?}");
    open_to_others(&data, &mut found);
    assert!(found.is_empty(), "others may see: {found:#?}");
    let names = fs::read_dir(data.join("member-1")).expect("there is one").count();
    assert!(names >= 4, "the test has looked at {names} names");
}

#[test]
fn a_data_folder_that_others_may_look_into_is_told_with_the_way_out() {
    let members = Members::new(1);
    let folder = members.folder().join("member-1");
    let mut member = members.start(1, ":");
    member.says("listening for clients");
    assert!(!member.said().contains("other users"), "{}", member.said());
    drop(member);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut member = members.start(1, ":");
    member.says("other users of this machine can read the data folder (mode 755); to fix it: chmod -R go= /");
}
