//! One program for all targets, because the compiler needs minutes for each program. `BOWLINE_FUZZ_TARGET` names the
//! target; with `BOWLINE_FUZZ_SEEDS` its seeds are written into that folder first.
#![no_main]

mod source;
mod targets;

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use targets::Target;

static CHOSEN: OnceLock<&Target> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var("BOWLINE_FUZZ_TARGET").unwrap_or_default();
        let target = targets::ALL.iter().find(|target| target.name == name).unwrap_or_else(|| {
            let names: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
            eprintln!("BOWLINE_FUZZ_TARGET={name:?} is no target; there are {}", names.join(", "));
            std::process::exit(2);
        });
        if let Some(folder) = std::env::var_os("BOWLINE_FUZZ_SEEDS").map(PathBuf::from) {
            std::fs::create_dir_all(&folder).expect("the folder for seeds can be made");
            for (number, input) in (target.seeds)().into_iter().enumerate() {
                std::fs::write(folder.join(format!("seed-{number:03}")), input).expect("a seed can be written");
            }
        }
        CHOSEN.get_or_init(|| target);
    },
    |data: &[u8]| (CHOSEN.get().expect("it is chosen at the start").run)(data)
);
