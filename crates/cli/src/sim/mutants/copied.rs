//! Writes a copy of the sources with all mutants, builds it, and executes it in this process's place.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow, bail};
use bowline_sim::mutation::copy::{CORE_SWITCH, SIM_SWITCH, with_mutants};
use bowline_sim::mutation::mutants;

use crate::out::remark;

/// The workspace that this program was built from.
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// The files and folders that a build needs.
const COPIED: [&str; 6] = ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", ".cargo", "crates", "scenarios"];
/// The copy's program. It has another name, so that it can be built into the same folder, where its dependencies are
/// built already.
const PROGRAM: &str = "bowline-mutants";

/// Builds the program with mutants and executes it in this process's place. Returns only if that fails.
pub(super) fn become_it(arguments: Vec<OsString>) -> anyhow::Error {
    match build() {
        Ok(program) => {
            let error = Command::new(&program).args(arguments).exec();
            anyhow!("can't execute {}: {error}", program.display())
        }
        Err(error) => error,
    }
}

/// Writes the changes to the copy, and builds it. Returns the program's path.
fn build() -> anyhow::Result<PathBuf> {
    let workspace = fs::canonicalize(WORKSPACE).ok().filter(|folder| folder.join("crates").is_dir());
    let workspace = workspace.with_context(|| {
        format!("the sources to put mutants into are no longer at {WORKSPACE}; build this program again")
    })?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let target = std::path::absolute(&target).with_context(|| format!("CARGO_TARGET_DIR {}", target.display()))?;
    let copy = target.join("mutants");
    write_copy(&workspace, &copy)?;
    // The profile of this program, so that the dependencies are built already.
    let release = !cfg!(debug_assertions);
    remark!("building {PROGRAM} from a copy of the sources in {}", copy.display());
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked", "--package", "bowline", "--bin", PROGRAM, "--target-dir"]).arg(&target);
    cargo.args(release.then_some("--release")).current_dir(&copy);
    let status = cargo.status().context("can't start cargo, which builds the program with mutants")?;
    if !status.success() {
        bail!("can't build the copy of the sources with mutants in {}", copy.display());
    }
    Ok(target.join(if release { "release" } else { "debug" }).join(PROGRAM))
}

/// Writes the copy. Unchanged files are not written again, so that cargo builds only what has changed.
fn write_copy(workspace: &Path, copy: &Path) -> anyhow::Result<()> {
    let mut files = BTreeMap::new();
    for name in COPIED {
        read_all(workspace, Path::new(name), &mut files)?;
    }
    for (file, text) in changed(&files)? {
        files.insert(file, text.into_bytes());
    }
    for (file, bytes) in &files {
        let path = copy.join(file);
        if fs::read(&path).is_ok_and(|there| there == *bytes) {
            continue;
        }
        let folder = path.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("can't create the folder {}", folder.display()))?;
        fs::write(&path, bytes).with_context(|| format!("can't write {}", path.display()))?;
    }
    let mut there = BTreeMap::new();
    for name in COPIED {
        read_all(copy, Path::new(name), &mut there)?;
    }
    let gone: BTreeSet<&PathBuf> = there.keys().filter(|file| !files.contains_key(*file)).collect();
    for file in gone {
        fs::remove_file(copy.join(file)).with_context(|| format!("can't remove {}", copy.join(file).display()))?;
    }
    Ok(())
}

/// Reads a file or all files of a folder, if it exists.
fn read_all(root: &Path, name: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) -> anyhow::Result<()> {
    let path = root.join(name);
    let reading = || format!("can't read {}", path.display());
    if path.is_dir() {
        for entry in fs::read_dir(&path).with_context(reading)? {
            read_all(root, &name.join(entry.with_context(reading)?.file_name()), into)?;
        }
    } else if path.is_file() {
        into.insert(name.to_path_buf(), fs::read(&path).with_context(reading)?);
    }
    Ok(())
}

/// The files that differ in the copy: those with mutants, the switches, and the manifests.
fn changed(files: &BTreeMap<PathBuf, Vec<u8>>) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let read = |file: &str| {
        let bytes = files.get(Path::new(file)).ok_or_else(|| "the file is gone".to_owned())?;
        String::from_utf8(bytes.clone()).map_err(|error| error.to_string())
    };
    let mutated = with_mutants(&mutants(), read)?;
    let mut changed: BTreeMap<PathBuf, String> = mutated.into_iter().map(|(file, text)| (file.into(), text)).collect();
    let mut change = |file: &str, what: &[(&str, &str)]| -> anyhow::Result<()> {
        let text = match changed.get(Path::new(file)) {
            Some(text) => text.clone(),
            None => read(file).map_err(|why| anyhow!("{file}: {why}"))?,
        };
        let text = what.iter().try_fold(text, |text, (from, to)| match text.matches(from).count() {
            1 => Ok(text.replace(from, to)),
            times => Err(anyhow!("{file} contains {from:?} {times} times, not once")),
        })?;
        changed.insert(file.into(), text);
        Ok(())
    };
    change("crates/raft/src/lib.rs", &[("mod snapshot;\n", "mod snapshot;\npub mod switch;\n")])?;
    change(
        "crates/cli/Cargo.toml",
        &[
            ("default-run = \"bowline\"", "default-run = \"bowline-mutants\""),
            ("[[bin]]\nname = \"bowline\"", "[[bin]]\nname = \"bowline-mutants\""),
        ],
    )?;
    change("crates/sim/Cargo.toml", &[("[dependencies]\n", "[dependencies]\ngoldenscript.workspace = true\n")])?;
    let profiles = ["bowline", "bowline-bench", "bowline-client", "bowline-server"]
        .map(|package| format!("[profile.release.package.{package}]\nopt-level = 0\n"))
        .concat();
    change(
        "Cargo.toml",
        &[
            // Code that a mutant makes unreachable is no error in the copy.
            ("[workspace.lints.rust]\n", "[workspace.lints.rust]\nwarnings = \"allow\"\n"),
            // What takes no part in a simulation need not be fast.
            ("[profile.dist]\n", &format!("{profiles}[profile.dist]\n")),
        ],
    )?;
    changed.insert("crates/raft/src/switch.rs".into(), CORE_SWITCH.to_owned());
    changed.insert("crates/sim/src/mutation/switch.rs".into(), SIM_SWITCH.to_owned());
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_has_the_mutants_and_is_not_written_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = fs::canonicalize(WORKSPACE).expect("the workspace");
        write_copy(&workspace, folder.path()).expect("it is written");
        let read = |file: &str| fs::read_to_string(folder.path().join(file)).expect("it is there");
        assert!(read("crates/raft/src/election.rs").contains("if crate::switch::on("));
        assert!(read("crates/cli/Cargo.toml").contains("name = \"bowline-mutants\""));
        assert_eq!(read("crates/sim/src/mutation/switch.rs"), SIM_SWITCH);
        let election = folder.path().join("crates/raft/src/election.rs");
        let written = |path: &Path| fs::metadata(path).and_then(|it| it.modified()).expect("it is there");
        let (before, stray) = (written(&election), folder.path().join("crates/raft/src/stray.rs"));
        fs::write(&stray, "no longer in the sources").expect("written");
        write_copy(&workspace, folder.path()).expect("it is written again");
        assert_eq!(written(&election), before);
        assert!(!stray.exists());
    }
}
