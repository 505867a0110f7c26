//! Finds a scenario: a file, or a built-in one.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use bowline_emulator::scenario::{MAX_SCENARIO_BYTES, Scenario};

/// The main job, run when no scenario is named.
pub(crate) const MAIN_JOB: &str = "simple-2";

/// The scenario of this name.
pub(crate) fn find(name: &str) -> anyhow::Result<Scenario> {
    let path = Path::new(name);
    if !path.exists()
        && let Some(scenario) = Scenario::builtin_named(name.trim_end_matches(".json"))
    {
        return Ok(scenario);
    }
    if !path.exists() {
        let names: Vec<&str> = Scenario::builtin().iter().map(|(name, _)| *name).collect();
        bail!("{name:?} is neither a file nor a built-in scenario; built in: {}", names.join(", "));
    }
    let file = std::fs::File::open(path).with_context(|| format!("can't open {name}"))?;
    let mut bytes = Vec::new();
    let limit = MAX_SCENARIO_BYTES as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).with_context(|| format!("can't read {name}"))?;
    let stem = path.file_stem().map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned());
    Scenario::from_json(&stem, &bytes).with_context(|| name.to_owned())
}

/// Every built-in scenario, in the order of running.
pub(crate) fn all() -> Vec<Scenario> {
    Scenario::builtin().iter().filter_map(|(name, _)| Scenario::builtin_named(name)).collect()
}
