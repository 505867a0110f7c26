//! A short run of `bowline chaos`: real processes, killed and cut off; and its history checked again.

mod support;

use std::process::Command;

use serde_json::Value;
use support::run;

#[test]
fn a_cluster_keeps_its_promises_for_a_few_seconds() {
    let folder = tempfile::tempdir().expect("a folder");
    let history = folder.path().join("history.jsonl");
    let mut chaos = Command::new(env!("CARGO_BIN_EXE_bowline"));
    chaos.args(["chaos", "--minutes", "0.1", "--seed", "1", "--json", "--history"]).arg(&history);
    let said = run(&mut chaos, b"");
    let report: Value = serde_json::from_slice(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    assert_eq!((said.code, &report["passed"]), (Some(0), &true.into()), "{report:#}");
    assert!(report["operations"].as_u64().expect("a number") > 100, "{report:#}");
    assert!(report["faults"].as_object().is_some_and(|faults| faults.len() > 1), "{report:#}");
    assert!(report["hash"].is_string() && report["seed"] == 1, "{report:#}");

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
