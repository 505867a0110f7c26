//! A short run of `bowline chaos`: real processes, killed and cut off; and its history checked again.

mod support;

use std::process::Command;

use serde_json::Value;
use support::run;

/// Builds the library that records what members have not synced, which `cargo build` puts beside the program and
/// `cargo test` does not.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn build_library() {
    static BUILT: std::sync::Once = std::sync::Once::new();
    BUILT.call_once(|| {
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_bowline"));
        let target = program.ancestors().nth(2).expect("the program is in target/PROFILE");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--package", "bowline-power-shim", "--target-dir"]).arg(target);
        cargo.args((!cfg!(debug_assertions)).then_some("--release")).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().expect("cargo starts").success(), "{cargo:?}");
    });
}

/// A run in which all members lose their power, again and again.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn lose_power(minutes: &str, lies: &str) -> (Option<i32>, Value) {
    build_library();
    let mut chaos = Command::new(env!("CARGO_BIN_EXE_bowline"));
    // Of this seed, the first loss takes everything from the first member that it has not synced.
    chaos.args(["chaos", "--minutes", minutes, "--only", "power-loss-of-all", "--seed", "2", "--json"]);
    let said = run(chaos.env("BOWLINE_POWER_LIES", lies), b"");
    let report: Value = serde_json::from_slice(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    assert!(report["faults"]["power loss of all"].as_u64().is_some_and(|times| times > 0), "{report:#}");
    (said.code, report)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_loss_of_power_loses_nothing_that_was_acknowledged() {
    let (code, report) = lose_power("0.08", "0");
    assert_eq!((code, &report["passed"]), (Some(0), &true.into()), "{report:#}");
}

/// The disks say that they have synced, and have not: then acknowledged writes are lost, or a member's identity is.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_run_on_disks_that_lie_fails() {
    let (code, report) = lose_power("0.5", "1");
    assert_eq!((code, &report["passed"]), (Some(1), &false.into()), "{report:#}");
    let kept = report["kept"].as_str().expect("a failed run keeps its folder");
    std::fs::remove_dir_all(kept).expect("nothing is mounted in it any more");
}

#[test]
fn a_cluster_keeps_its_promises_for_a_few_seconds() {
    let folder = tempfile::tempdir().expect("a folder");
    let history = folder.path().join("history.jsonl");
    let mut chaos = Command::new(env!("CARGO_BIN_EXE_bowline"));
    chaos.args(["chaos", "--minutes", "0.1", "--seed", "4", "--json", "--history"]).arg(&history);
    let said = run(&mut chaos, b"");
    let report: Value = serde_json::from_slice(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    assert_eq!((said.code, &report["passed"]), (Some(0), &true.into()), "{report:#}");
    assert!(report["operations"].as_u64().expect("a number") > 100, "{report:#}");
    assert!(report["faults"].as_object().is_some_and(|faults| faults.len() > 1), "{report:#}");
    assert!(report["hash"].is_string() && report["seed"] == 4, "{report:#}");

    let check = || {
        let mut check = Command::new(env!("CARGO_BIN_EXE_bowline"));
        run(check.args(["check", "--json"]).arg(&history), b"")
    };
    let said = check();
    assert_eq!(said.code, Some(0), "{said:?}");
    let verdict: Value = serde_json::from_slice(&said.out).expect("it is JSON");
    assert_eq!(verdict["operations"], report["operations"]);

    // A get that finds what nobody wrote is a violation: the checker is awake.
    let text = std::fs::read_to_string(&history).expect("it was written");
    let get =
        text.lines().find(|line| line.contains("\"get\",\"answer\":{\"found\":\"")).expect("a get found something");
    let (before, after) = get.split_once("{\"found\":\"").expect("it is in it");
    let forged = format!("{before}{{\"found\":\"forged{after}");
    std::fs::write(&history, text.replacen(get, &forged, 1)).expect("it can be written");
    let said = check();
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.text().contains("violated"), "{said:?}");
}
