//! A new cluster from the data of the members that are left.

mod support;

use std::process::Command;

use serde_json::Value;
use support::{Folder, Ports, Running, Said, run};

fn bowline(words: &[&str]) -> Said {
    run(Command::new(env!("CARGO_BIN_EXE_bowline")).args(words), b"")
}

fn refused(words: &[&str], code: i32, why: &str) {
    let said = bowline(words);
    assert!(said.code == Some(code) && said.err.contains(why), "{words:?}: {said:?}");
}

#[test]
fn the_survivors_make_a_new_cluster_and_it_is_said_what_may_be_lost() {
    let old = Folder::with_cluster();
    let endpoints = old.endpoints();
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
        assert_eq!(bowline(&["put", key, value, "--endpoints", &endpoints]).code, Some(0));
    }
    let path = |name: &str| old.path().join(name).display().to_string();
    let (one, two, new) = (path("member-1"), path("member-2"), path("new"));
    refused(&["recover", &one, "--data-dir", &new, "--dry-run"], 1, "is in use by another process");
    assert_eq!(old.bowline(&["down"]).status.code(), Some(0));
    std::fs::remove_dir_all(path("member-3")).expect("it is lost");

    let said = bowline(&["recover", &one, &two, "--data-dir", &new, "--dry-run"]);
    assert!(said.code == Some(0) && said.text().contains("Lost: acknowledged writes after entry"), "{said:?}");
    let found = said.text().to_owned();
    refused(&["recover", &one, &two, "--data-dir", &new], 2, "allowed: --yes");
    refused(&["recover", &one, "--data-dir", &two, "--yes"], 2, "is not empty");
    assert!(!old.path().join("new").exists(), "nothing was changed");

    let ports = Ports::reserve();
    let (client, peer) = (format!("127.0.0.1:{}", ports.first()), format!("127.0.0.1:{}", ports.first() + 1));
    let flags = ["--data-dir", &new, "--name", "n", "--peer", &peer];
    let said = bowline(&[&["recover", &one, &two, "--yes", "--json"], &flags[..]].concat());
    let told: Value = serde_json::from_slice(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    assert_eq!((told["keys"].as_u64(), told["found"].as_array().map(Vec::len)), (Some(2), Some(2)), "{told}");
    let token = told["cluster_token"].as_str().expect("it is told").to_owned();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_bowline"));
    let cluster = format!("n=http://{peer}");
    serve.args(["serve", "--stop-at-eof", "--name", "n", "--data-dir", &new, "--initial-cluster", &cluster]);
    serve.args(["--cluster-token", &token, "--listen-client", &client]);
    let member = Running::start(&mut serve);
    member.waits_for("it serves", |_, err| err.contains("ready to serve client requests"));
    let get = |key: &str| bowline(&["get", key, "--endpoints", &client]).text().to_owned();
    assert_eq!((get("a"), get("b")), ("3\n".to_owned(), "2\n".to_owned()));
    let members = bowline(&["member", "list", "--json", "--endpoints", &client]);
    let members: Value = serde_json::from_slice(&members.out).expect("it is JSON");
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1), "{members}");
    let again = bowline(&["recover", &one, &two, "--data-dir", &path("other"), "--dry-run"]);
    assert_eq!(again.text(), found, "the old folders are unchanged");
}

#[test]
fn folders_that_do_not_belong_together_or_hold_nothing_are_refused() {
    let (one, other) = (Folder::with_cluster(), Folder::with_cluster());
    for folder in [&one, &other] {
        assert_eq!(folder.bowline(&["down"]).status.code(), Some(0));
    }
    let path = |folder: &Folder, name: &str| folder.path().join(name).display().to_string();
    let new = path(&one, "new");
    let recover = |first: &str, second: &str| bowline(&["recover", first, second, "--data-dir", &new, "--yes"]);
    let said = recover(&path(&one, "member-1"), &path(&other, "member-1"));
    assert!(said.code == Some(2) && said.err.contains("belong to different clusters"), "{said:?}");
    let said = recover(&path(&one, "member-1"), &path(&one, "nothing"));
    assert!(said.code != Some(0) && said.err.contains("holds no data"), "{said:?}");
    assert!(!one.path().join("new").exists(), "nothing was changed");
}
