//! Holds the tables of bugs that others had (`docs/scenarios.md`) against the source tree: whatever they name must be there,
//! and whatever golden script there is must be named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bowline_sim::mutation::{Mutant, mutants};

/// Scenarios in the list that the table answers.
const SCENARIOS: usize = 78;

/// The bugs of etcd that the second table answers, by their numbers in etcd's tracker.
const BUGS_OF_ETCD: [&str; 16] = [
    "13766", "14370", "14571", "14685", "15220", "15271", "17247", "17529", "17780", "18055", "18089", "18667",
    "19179", "20221", "20271", "20418",
];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate lies among the others").to_path_buf()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A row of a table.
struct Row {
    /// Its first cell.
    name: String,
    scripts: Vec<String>,
    /// File, from the folder of all crates, and function.
    tests: Vec<(String, String)>,
    /// Why it can't happen, or where it belongs.
    reason: Option<String>,
    mutants: BTreeSet<String>,
}

impl Row {
    fn parse(line: &str) -> Row {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, what, covered, mutants] = cells[..] else { panic!("not four cells: {line}") };
        assert!(!what.is_empty(), "{name} does not say what went wrong");
        let (name, scripts, tests) = (name.to_owned(), Vec::new(), Vec::new());
        let mut row = Row { name, scripts, tests, reason: None, mutants: BTreeSet::new() };
        if mutants != "-" {
            row.mutants = mutants.split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
        }
        for item in covered.split("; ") {
            let name = item.strip_suffix('`').and_then(|item| item.split_once('`'));
            match name {
                Some(("script ", script)) => row.scripts.push(script.to_owned()),
                Some(("", test)) => {
                    let (file, function) = test.split_once("::").unwrap_or_else(|| panic!("no function: {test}"));
                    row.tests.push((file.to_owned(), function.to_owned()));
                }
                // A reason may have a `;` of its own.
                _ => {
                    let reason = row.reason.take().map_or(item.to_owned(), |before| format!("{before}; {item}"));
                    row.reason = Some(reason);
                }
            }
        }
        row
    }
}

fn table() -> Vec<Row> {
    let text = read(&crates().join("../docs/scenarios.md"));
    let lines = text.lines().filter(|line| line.starts_with("| S") || line.starts_with("| etcd#"));
    lines.inspect(|line| println!("{line}")).map(Row::parse).collect()
}

#[test]
fn every_scenario_has_its_row_in_order() {
    let names: Vec<String> = table().into_iter().map(|row| row.name).collect();
    let scenarios = (1..=SCENARIOS).map(|number| format!("S{number}"));
    let bugs = BUGS_OF_ETCD.iter().map(|number| format!("etcd#{number}"));
    assert_eq!(names, scenarios.chain(bugs).collect::<Vec<_>>());
}

#[test]
fn every_row_is_covered_or_says_why_not() {
    for Row { name, scripts, tests, reason, .. } in table() {
        assert!(!(scripts.is_empty() && tests.is_empty() && reason.is_none()), "{name} is covered by nothing");
        let apart = reason.as_ref().is_none_or(|reason| !reason.is_empty());
        assert!(apart, "{name} gives an empty reason");
    }
}

#[test]
fn every_script_is_named_by_its_row() {
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(crates().join("raft/tests/scripts")).expect("the scripts are there") {
        let name = entry.expect("a readable folder").file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix('s').and_then(|rest| rest.get(..2)).and_then(|digits| digits.parse().ok());
        if let Some(number) = number.map(|number: usize| format!("S{number}")) {
            there.insert((number, name));
        }
    }
    let rows = table();
    let named: BTreeSet<(String, String)> =
        rows.iter().flat_map(|row| row.scripts.iter().map(|script| (row.name.clone(), script.clone()))).collect();
    assert_eq!(named, there);
}

#[test]
fn every_named_test_is_there() {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for row in table() {
        for (file, function) in row.tests {
            let text = files.entry(file.clone()).or_insert_with(|| read(&crates().join(&file)));
            let found = text.find(&format!("fn {function}("));
            let at = found.unwrap_or_else(|| panic!("{}: {file} has no fn {function}", row.name));
            // Nothing but other attributes stands between `#[test]`, or `#[tokio::test]`, and its function. The lines of
            // the checklist are named in a list instead.
            let before = text[..at].rsplit("\n\n").next().unwrap_or_default();
            let is_line = file.contains("/checklist/") && text.matches(function.as_str()).count() > 1;
            let is_test = is_line || before.contains("test]") || before.contains("test(");
            assert!(is_test, "{}: {file}::{function} is no test", row.name);
        }
    }
}

#[test]
fn every_mutant_is_named_by_the_rows_of_its_numbers() {
    let (rows, mutants) = (table(), mutants());
    for row in &rows {
        for name in &row.mutants {
            assert!(mutants.iter().any(|mutant| mutant.name == name), "{}: no mutant {name}", row.name);
        }
    }
    for Mutant { name, origin, .. } in mutants {
        for number in origin.split(", ").filter_map(|number| number.strip_prefix('S')?.parse::<usize>().ok()) {
            let row = rows.iter().find(|row| row.name == format!("S{number}"));
            let named = row.is_some_and(|row| row.mutants.contains(*name));
            assert!(named, "{name} stands for S{number}, and its row does not say so");
        }
    }
}
