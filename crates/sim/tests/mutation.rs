//! Every mutant of the catalogue fits the sources as they are. Whether each is noticed, `bowline sim mutants` tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bowline_sim::mutation::copy::{CORE_SWITCH, CopyError, SIM_SWITCH, with_mutants};
use bowline_sim::mutation::{ABSENT, Edit, Kind, Mutant, chosen, mutants};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(file: &str) -> Result<String, String> {
    fs::read_to_string(workspace().join(file)).map_err(|error| error.to_string())
}

fn all_put_in() -> BTreeMap<&'static str, String> {
    with_mutants(&mutants(), read).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_mutant_finds_the_text_that_it_replaces_exactly_once() {
    let texts = all_put_in();
    for (file, text) in &texts {
        assert_ne!(Ok(text), read(file).as_ref(), "{file}");
        assert!(!text.contains("MUTANT"), "{file}: a patch asks for no mutant");
    }
    // Each mutant is asked for wherever it changes something, but for what is the same without it.
    let all: String = texts.into_values().collect();
    for (number, mutant) in (1..).zip(mutants()) {
        let asked = all.matches(&format!("switch::on({number})")).count();
        let changes = mutant.edits.iter().filter(|edit| edit.kind == Kind::Branch || edit.mutated.contains("MUTANT"));
        assert_eq!(asked, changes.count(), "{}", mutant.name);
        assert!(asked > 0, "{}", mutant.name);
    }
}

#[test]
fn sources_with_all_mutants_are_rust() {
    for (file, text) in all_put_in()
        .iter()
        .map(|(file, text)| (*file, text.as_str()))
        .chain([("the switch of the core", CORE_SWITCH), ("the switch of the simulator", SIM_SWITCH)])
    {
        if let Err(error) = syn::parse_file(text) {
            let at = error.span().start().line;
            let lines: Vec<&str> = text.lines().skip(at.saturating_sub(3)).take(5).collect();
            panic!("{file}: {error} in line {at}\n{}", lines.join("\n"));
        }
    }
}

#[test]
fn every_mutant_has_a_name_of_its_own_and_says_what_it_breaks() {
    let mutants = mutants();
    assert!(mutants.len() >= 90, "{} mutants", mutants.len());
    assert!(mutants.iter().filter(|mutant| mutant.is_core()).count() >= 30);
    assert_eq!(mutants.iter().map(|mutant| mutant.name).collect::<BTreeSet<_>>().len(), mutants.len());
    for mutant in mutants {
        assert_eq!(Mutant::named(&mutant.name.to_lowercase()), Some(mutant));
        assert!(mutant.breaks.ends_with('.') && !mutant.origin.is_empty(), "{}", mutant.name);
    }
    assert!(ABSENT.iter().all(|absent| !absent.why.is_empty()));
}

#[test]
fn this_program_carries_no_mutant() {
    bowline_sim::mutation::choose(mutants().first().copied());
    assert_eq!(chosen(), None);
}

#[test]
fn no_production_source_mentions_mutants() {
    fn search(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                search(&path, found);
            } else if fs::read(&path).is_ok_and(|bytes| bytes.to_ascii_lowercase().windows(6).any(|w| w == b"mutant")) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for folder in ["raft", "node", "storage", "kv", "server", "lan"] {
        search(&workspace().join("crates").join(folder).join("src"), &mut found);
    }
    assert!(found.is_empty(), "{found:?}");
}

const FILE: &str = "crates/raft/src/vote.rs";

fn edit(after: &'static str, original: &'static str, mutated: &'static str) -> Edit {
    Edit { file: FILE, after, original, mutated, kind: Kind::Branch }
}

fn mutant(name: &'static str, edits: impl IntoIterator<Item = Edit>) -> &'static Mutant {
    let edits: Vec<Edit> = edits.into_iter().collect();
    Box::leak(Box::new(Mutant { name, origin: "0", breaks: "Nothing.", edits: Vec::leak(edits) }))
}

/// The text of a small file with these mutants.
fn put_in(mutants: &[&'static Mutant]) -> Result<String, CopyError> {
    let text = "let free = true;\nlet first = free;\nsay(first);\n";
    let texts = with_mutants(mutants, |file| if file == FILE { Ok(text.to_owned()) } else { Err("gone".to_owned()) })?;
    Ok(texts.into_values().collect())
}

#[test]
fn mutants_of_one_text_become_one_chain() {
    let one = mutant("One", [edit("let free = ", "true", "false")]);
    let two = mutant("Two", [edit("let free = ", "true", "!true"), edit("say(first);\n", "", "say(2);")]);
    let three = mutant("Three", [edit("", "say(first);", "")]);
    let expected = "let free = if crate::switch::on(1) { false } else if crate::switch::on(2) { !true } else { true };\n\
                    let first = free;\n\
                    if crate::switch::on(3) {  } else { say(first); }\n\
                    if crate::switch::on(2) { say(2); }\n";
    assert_eq!(put_in(&[one, two, three]).as_deref(), Ok(expected));
}

#[test]
fn a_patch_that_several_mutants_share_is_applied_once() {
    let patch = Edit { kind: Kind::Patch, ..edit("let first = ", "free", "MUTANT && free") };
    let said = put_in(&[mutant("One", [patch]), mutant("Two", [patch])]);
    let expected = "let first = (crate::switch::on(1) || crate::switch::on(2)) && free;";
    assert!(said.is_ok_and(|text| text.contains(expected)));
}

#[test]
fn a_mutant_whose_text_is_gone_or_is_there_twice_fails_by_name() {
    let gone = put_in(&[mutant("Gone", [edit("", "let third", "")])]).expect_err("it isn't there");
    assert!(gone.to_string().starts_with("Gone: crates/raft/src/vote.rs has 0 times"), "{gone}");
    let twice = put_in(&[mutant("Twice", [edit("", "first", "")])]).expect_err("it is there twice");
    assert!(twice.to_string().starts_with("Twice: crates/raft/src/vote.rs has 2 times"), "{twice}");
    let elsewhere = Edit { file: "crates/raft/src/gone.rs", ..edit("", "x", "") };
    let no_file = put_in(&[mutant("NoFile", [elsewhere])]).expect_err("there is no such file");
    assert!(no_file.to_string().starts_with("NoFile: there is no file crates/raft/src/gone.rs: gone"), "{no_file}");
}

#[test]
fn mutants_that_change_overlapping_texts_are_refused() {
    let one = mutant("One", [edit("", "let free = true;", "")]);
    for other in
        [edit("let free = ", "true", "false"), edit("let ", "free = true;\nlet first", ""), edit("let fr", "", "x")]
    {
        let refused = put_in(&[one, mutant("Other", [other])]).expect_err("they overlap");
        assert!(matches!(refused, CopyError::Overlap { one: "One", other: "Other", .. }), "{refused}");
    }
    let patch = Edit { kind: Kind::Patch, ..edit("", "let free = true;", "MUTANT") };
    let refused = put_in(&[one, mutant("Other", [patch])]).expect_err("a patch is no branch");
    assert!(matches!(refused, CopyError::Overlap { .. }), "{refused}");
}
