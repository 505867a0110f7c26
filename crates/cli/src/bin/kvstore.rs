//! `kvstore`: the LAN replica as a program of its own, for harnesses that start a fixed name in their
//! own folder with positional arguments only. `bowline lan replica` is the same with options.

use std::process::ExitCode;

#[path = "../complaint.rs"]
mod complaint;

use bowline_lan::profile::Profile;
use bowline_lan::replica_program::{ReplicaOptions, run_replica};
use bowline_lan::socket::arguments::Arguments;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        anstream::println!("usage: kvstore [<port>] <own id> <peer id>...\nids are four hexadecimal digits");
        return ExitCode::SUCCESS;
    }
    match start(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("error: {}", complaint::tell(&error));
            ExitCode::from(2)
        }
    }
}

fn start(words: &[String]) -> anyhow::Result<()> {
    let arguments = Arguments::parse(words, None)?;
    let summary = run_replica(&ReplicaOptions { arguments, socket: None, profile: Profile::Frugal, seed: None })?;
    if summary.is_notable() {
        anstream::eprintln!("{summary}");
    }
    Ok(())
}
