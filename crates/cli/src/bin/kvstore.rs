//! The program `kvstore`: the LAN replica for harnesses that start a program of this name, in their own folder, with
//! positional arguments only. `bowline lan replica` is the same with options.

use std::process::ExitCode;

#[path = "../complaint.rs"]
mod complaint;
// Only the commands of `bowline` use all of these two modules.
#[allow(dead_code)]
#[path = "../exit.rs"]
mod exit;
#[allow(dead_code)]
#[path = "../out.rs"]
mod out;

use bowline_lan::profile::Profile;
use bowline_lan::replica_program::{ReplicaOptions, run_replica};
use bowline_lan::socket::arguments::Arguments;
use exit::Exit;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    exit::code_of(start(&words))
}

fn start(words: &[String]) -> anyhow::Result<Exit> {
    if words.iter().any(|word| word == "--help" || word == "-h") {
        out::tell!("usage: kvstore [<port>] <own id> <peer id>...\nids are four hexadecimal digits")?;
        return Ok(Exit::Passed);
    }
    let arguments = Arguments::parse(words, None)?;
    let summary = run_replica(&ReplicaOptions { arguments, socket: None, profile: Profile::Frugal, seed: None })?;
    if summary.is_notable() {
        out::remark!("{summary}");
    }
    Ok(Exit::Passed)
}
