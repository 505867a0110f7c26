//! The golden scripts: scenarios of a few replicas, with every message, write and answer that follows.
//!
//! Each file in `scripts/` is run against a fresh cluster, and must come out exactly as it stands
//! there. `UPDATE_GOLDENFILES=1` writes them anew: read what changed before you believe it.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use support::script::Script;

#[test]
fn every_story_ends_as_it_is_told() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the scripts are there")
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    let only = std::env::var("BOWLINE_SCRIPT").unwrap_or_default();
    let mut failed = Vec::new();
    for path in paths.iter().filter(|path| path.to_string_lossy().contains(&only)) {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        match catch_unwind(AssertUnwindSafe(|| goldenscript::run(&mut Script::default(), path))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed.push(format!("{name}: {error}")),
            Err(_) => failed.push(format!("{name}: see above")),
        }
    }
    assert!(failed.is_empty(), "scripts that end otherwise:\n{}", failed.join("\n"));
}
