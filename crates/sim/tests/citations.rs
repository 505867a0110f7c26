//! Holds the numbers that the sources cite against the pages in `docs/` that explain them, those pages against the tables
//! in the code, and the paths that the documents name against the files.
//!
//! A citation is "law 5", or a letter with one or two digits as a word of its own, such as I12, D14 or S68:
//! - in a comment of a Rust source or of a golden script;
//! - in a string of a Rust source, within parentheses that hold citations only: titles and messages cite like that,
//!   while the N2 of a test is a replica;
//! - in a Markdown file, outside of code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bowline_sim::cluster::{Fault, Rule};

/// Fewer citations than there are: if less is found, the search is wrong.
const FOUND_AT_LEAST: usize = 300;
/// The same for names of files.
const NAMED_AT_LEAST: usize = 120;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("a crate lies two folders deep").to_path_buf()
}

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A row of a table: its cells by the names of their columns.
type Row = BTreeMap<String, String>;

fn rows(page: &str) -> Vec<Row> {
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    for line in read(page).lines() {
        let Some(line) = line.strip_prefix('|') else {
            columns.clear();
            continue;
        };
        let cells: Vec<String> = line.trim_end_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        if columns.is_empty() {
            columns = cells;
        } else if !line.starts_with("---") {
            assert_eq!(cells.len(), columns.len(), "{page}: another number of cells: {line}");
            rows.push(columns.iter().cloned().zip(cells).collect());
        }
    }
    rows
}

/// What stands between backticks.
fn names(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// The page on which a number must be.
fn page_of(citation: &str) -> &'static str {
    match &citation[..1] {
        "l" => "docs/laws.md",
        "I" | "L" => "docs/invariants.md",
        "S" => "docs/scenarios.md",
        _ => "docs/faults.md",
    }
}

/// All numbers that the pages explain.
fn explained() -> BTreeSet<String> {
    let laws = read("docs/laws.md");
    let laws = laws.lines().filter_map(|line| Some(format!("law {}", line.strip_prefix("## ")?.split_once('.')?.0)));
    let mut explained: BTreeSet<String> = laws.collect();
    for page in ["docs/invariants.md", "docs/faults.md", "docs/scenarios.md"] {
        // The scenarios' column of numbers has no name.
        let numbers = rows(page).into_iter().filter_map(|mut row| row.remove("number").or(row.remove("")));
        explained.extend(numbers.filter(|number| page_of(number) == page));
    }
    explained
}

/// The citations in a text.
fn citations(text: &str) -> Vec<String> {
    let words = text.split(|character: char| !character.is_alphanumeric() && character != '_');
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let is_number = |word: &str| (1..3).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_digit());
    let mut found = Vec::new();
    for (place, word) in words.iter().enumerate() {
        if word.starts_with(['I', 'L', 'S', 'N', 'P', 'D', 'C', 'M', 'K']) && is_number(&word[1..]) {
            found.push((*word).to_owned());
        }
        if ["law", "laws", "Law", "Laws"].contains(word) {
            found.extend(words.get(place + 1).filter(|next| is_number(next)).map(|next| format!("law {next}")));
        }
    }
    found
}

/// The citations in a string: only those in parentheses that hold nothing else.
fn citations_in_string(string: &str) -> Vec<String> {
    let groups = string.split('(').skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    let pure = groups.filter(|group| {
        let mut items = group.split([',', ';']).map(str::trim);
        items.all(|item| citations(item).first().is_some_and(|first| first == item))
    });
    pure.flat_map(citations).collect()
}

/// The citations in a line of a Rust source. `in_string` says whether it begins, and then whether it ends, in a string.
fn citations_in_rust(line: &str, in_string: &mut bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut at = 0;
    let bytes = line.as_bytes();
    while at < bytes.len() {
        match (bytes[at], *in_string) {
            (b'\\', true) => at += 1,
            (b'"', true) => {
                found.extend(citations_in_string(&line[start..at]));
                *in_string = false;
            }
            (b'"', false) if at == 0 || bytes[at - 1] != b'\'' => (start, *in_string) = (at + 1, true),
            (b'/', false) if line[at..].starts_with("//") => {
                found.extend(citations(&line[at..]));
                return found;
            }
            _ => {}
        }
        at += 1;
    }
    if *in_string {
        found.extend(citations_in_string(line.get(start..).unwrap_or_default()));
        *in_string = line.ends_with('\\');
    }
    found
}

/// The citations of a file, with their lines; nothing if it is no source and no page.
fn citations_of(path: &str) -> Vec<(usize, String)> {
    let (is_rust, is_page) = (path.ends_with(".rs"), path.ends_with(".md"));
    if !is_rust && !is_page && !path.contains("/tests/scripts/") {
        return Vec::new();
    }
    let (mut found, mut in_string, mut in_code) = (Vec::new(), false, false);
    for (number, line) in read(path).lines().enumerate() {
        in_code ^= is_page && line.starts_with("```");
        let cited = match line {
            _ if is_rust => citations_in_rust(line, &mut in_string),
            _ if is_page && !in_code => citations(&line.split('`').step_by(2).collect::<Vec<_>>().join("`")),
            comment if !is_page && comment.starts_with('#') => citations(comment),
            _ => Vec::new(),
        };
        found.extend(cited.into_iter().map(|citation| (number + 1, citation)));
    }
    found
}

/// All files below a folder, but for what was built and what is hidden.
fn files(folder: &str, found: &mut Vec<String>) {
    let entries = fs::read_dir(workspace().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    for entry in entries {
        let entry = entry.expect("a readable folder");
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && name != "target" && !name.starts_with('.') {
            files(&path, found);
        } else if !is_folder {
            found.push(path);
        }
    }
}

/// Panics, and says which pairs of a number and a name only one side has.
fn assert_same(page: &str, documented: &BTreeSet<(String, String)>, coded: &BTreeSet<(String, String)>) {
    let lacking: Vec<_> = coded.difference(documented).collect();
    let beyond: Vec<_> = documented.difference(coded).collect();
    assert!(lacking.is_empty() && beyond.is_empty(), "{page} lacks {lacking:?}, and has beyond the code {beyond:?}");
}

/// The pairs of a number and a name in a column.
fn documented(page: &str, column: &str) -> BTreeSet<(String, String)> {
    let rows = rows(page);
    let rows = rows.iter().filter_map(|row| Some((row.get("number")?, row.get(column)?)));
    rows.flat_map(|(number, cell)| names(cell).map(|name| (number.clone(), name))).collect()
}

#[test]
fn every_number_that_is_cited_is_explained() {
    let explained = explained();
    let mut paths = Vec::new();
    files("", &mut paths);
    paths.sort();
    let (mut count, mut wrong) = (0, Vec::new());
    for path in paths {
        for (line, citation) in citations_of(&path) {
            count += 1;
            if !explained.contains(&citation) {
                wrong.push(format!("{path}:{line}: {citation} is not in {}", page_of(&citation)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(count >= FOUND_AT_LEAST, "only {count} citations were found");
}

#[test]
fn every_file_that_the_pages_name_is_there() {
    let pages = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "DIFFERENCES.md"].map(str::to_owned);
    let mut paths = Vec::new();
    files("docs", &mut paths);
    let mut count = 0;
    for page in pages.iter().chain(&paths) {
        for name in
            names(&read(page)).filter(|name| ["crates/", "docs/", "fuzz/"].iter().any(|it| name.starts_with(it)))
        {
            // Of a pattern, what precedes its file.
            let path = name.split_once('*').map_or(&name[..], |(start, _)| start.rsplit_once('/').expect("a folder").0);
            assert!(workspace().join(path).exists(), "{page}: there is no {name}");
            count += 1;
        }
    }
    assert!(count >= NAMED_AT_LEAST, "only {count} names of files were found");
}

#[test]
fn rules_and_invariants_name_each_other() {
    let mut coded = BTreeSet::new();
    for rule in Rule::ALL {
        let mut numbers = citations_in_string(rule.title());
        if numbers.is_empty() {
            numbers.push("-".to_owned());
        }
        coded.extend(numbers.into_iter().map(|number| (number, format!("{rule:?}"))));
    }
    assert_same("docs/invariants.md", &documented("docs/invariants.md", "rule"), &coded);
}

#[test]
fn faults_and_their_page_name_each_other() {
    let mut drawn = BTreeSet::new();
    for fault in Fault::ALL {
        drawn.extend(fault.code().split('/').map(|number| (number.to_owned(), format!("{fault:?}"))));
    }
    assert_same("docs/faults.md", &documented("docs/faults.md", "simulator"), &drawn);
    // The other table is in the program, which this crate can't use.
    let plan = read("crates/cli/src/chaos/plan.rs");
    let strings = |after: &str, end: &str| {
        let text = plan.split(after).nth(1).and_then(|rest| rest.split(end).next());
        let text = text.unwrap_or_else(|| panic!("the names of chaos are no longer after {after:?}"));
        text.split('"').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let done = &strings("const KINDS:", "];") | &strings("const MOVE:", ";");
    let told: BTreeSet<String> = documented("docs/faults.md", "chaos").into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(told, done, "what docs/faults.md and chaos name");
}

#[test]
fn what_is_a_citation() {
    let rust = |line: &str| citations_in_rust(line, &mut false);
    assert_eq!(rust("bench.receive(N2, 3); // as I12 and law 5 say (S68)"), ["I12", "law 5", "S68"]);
    assert_eq!(rust(r#"assert!(it, "{} {N9} \" (I16, law 9)", f(N3));"#), ["I16", "law 9"]);
    assert_eq!(rust(r#""M1" + "(the N2)" + "(D3" + "I123 (C_new)""#), [] as [&str; 0]);
}
