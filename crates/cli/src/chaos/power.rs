//! Losses of power: what the members have not synced is recorded by a library that is loaded into them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use bowline_emulator::Random;
use bowline_power::{Crash, Lost, Place, Record, lose};

use crate::live::Live;

/// The library; cargo puts it beside this program.
const LIBRARY: &str = "libbowline_power_shim.so";

/// Finds the library, if a loss of power may come and this system can load it.
pub(super) fn library(only: &[String], live: &Live) -> Option<PathBuf> {
    if !only.is_empty() && !only.iter().any(|word| word.starts_with("power-loss")) {
        return None;
    }
    let found = find();
    if let Err(why) = &found {
        live.say(&format!("no power will be lost: {why:#}"));
    }
    found.ok()
}

fn find() -> anyhow::Result<PathBuf> {
    let (glibc, dynamic) =
        (cfg!(all(target_os = "linux", target_env = "gnu")), cfg!(not(target_feature = "crt-static")));
    if !(glibc && dynamic && cfg!(target_pointer_width = "64")) {
        anyhow::bail!("only glibc on Linux, on a machine with 64 bits, loads the library that it takes");
    }
    let program = std::env::current_exe().context("can't find the path of this program")?;
    let library = program.with_file_name(LIBRARY);
    if !library.is_file() {
        anyhow::bail!("there is no {}; `cargo build` makes it beside the program", library.display());
    }
    Ok(library)
}

/// What a member has written and not synced.
pub(super) struct Unsynced {
    library: PathBuf,
    place: Place,
    record: PathBuf,
}

impl Unsynced {
    /// For the member with this data folder. The record is on another disk: the member's may be full.
    pub(super) fn new(library: &Path, folder: &Path, record: PathBuf) -> Unsynced {
        Unsynced { library: library.to_owned(), place: Place::new(folder, &record), record }
    }

    /// Has the process recorded that this command starts. What an earlier process has not synced stays in the record: a
    /// kill does not make it durable.
    pub(super) fn record(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library);
        command.env("BOWLINE_POWER_FOLDER", self.place.folder()).env("BOWLINE_POWER_RECORD", &self.record);
    }

    /// Whether the member's process has loaded the library.
    pub(super) fn is_recorded(&self) -> bool {
        self.place.has_record()
    }

    /// Takes everything for durable that the dead process has written.
    pub(super) fn settle(&self) -> anyhow::Result<()> {
        Ok(Record::open(&self.place)?.clear()?)
    }

    /// Loses what the dead process has not synced, or a part of that.
    pub(super) fn lose(&self, random: &mut Random) -> anyhow::Result<Lost> {
        let crash = *random.pick(&Crash::ALL).expect("there are some");
        Ok(lose(&self.place, crash, random)?)
    }
}
