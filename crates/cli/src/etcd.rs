//! `bowline etcd` runs a member with the flags and variables of etcd, also when the program is called `etcd`.

use std::ffi::OsString;
use std::path::Path;

use anyhow::bail;
use bowline_server::config::ServerConfig;
use bowline_server::{API_VERSION, Listeners};
use clap::Args;

use crate::exit::Exit;
use crate::out::tell;
use crate::serve::run_member;
use given::Given;

mod flags;
mod given;
mod settings;
#[cfg(test)]
mod tests;

const USAGE: &str = "Usage:

  etcd [flags]
    Runs a member of a Bowline cluster with the flags of etcd 3.4 to 3.6.

  etcd --version
    Prints the version.

  etcd -h | --help
    Prints this help.

Each flag is also an environment variable: --data-dir is ETCD_DATA_DIR. As in etcd, giving both is an error.
What Bowline does not have is refused, with the reason, unless the flag has its default.
`bowline serve` has Bowline's own settings; `bowline etcd` runs the same member.
";

/// Runs a member with the flags and variables of etcd.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct EtcdCommand {
    /// Flags of etcd; --help lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    words: Vec<OsString>,
}

impl EtcdCommand {
    /// The command if the program was started under the name `etcd`.
    pub(crate) fn by_name() -> Option<EtcdCommand> {
        let mut words = std::env::args_os();
        let program = words.next()?;
        (Path::new(&program).file_name()? == "etcd").then(|| EtcdCommand { words: words.collect() })
    }

    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let text = |word: OsString| match word.into_string() {
            Ok(word) => Ok(word),
            Err(word) => bail!("{word:?} is not UTF-8 text"),
        };
        let words: Vec<String> = self.words.into_iter().map(text).collect::<Result<_, _>>()?;
        let mut given = Given::flags(&words)?;
        if given.help {
            tell!("{}", help())?;
            return Ok(Exit::Passed);
        }
        let version = flags::find("version").and_then(|flag| given.get(flag));
        if version.is_some_and(|value| value.text == "true") {
            tell!("{}", version_text())?;
            return Ok(Exit::Passed);
        }
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let variables = variables.map(|(name, value)| (name, value.to_string_lossy().into_owned()));
        given.add_variables(variables)?;
        let plan = settings::plan(&given)?;
        let listen = |config: &ServerConfig| Ok(Listeners::bind(config)?);
        run_member(&plan.config, false, &plan.notes, listen, |_| {})
    }
}

/// The lines of etcd's `--version`: the version of its API that is spoken, and in place of the commit our own version.
fn version_text() -> String {
    let (own, system, machine) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    format!(
        "etcd Version: {API_VERSION}\nGit SHA: none (Bowline {own})\nGo Version: none (Rust)\n\
         Go OS/Arch: {system}/{machine}"
    )
}

fn help() -> String {
    let mut text = USAGE.to_owned();
    for (title, flags) in flags::SECTIONS {
        text.push_str(&format!("\n{title}:\n"));
        for flag in flags.iter().filter(|flag| flag.kind != flags::Kind::Obsolete) {
            text.push_str(&format!("  --{} '{}'\n    {}\n", flag.name, flag.default, flag.help()));
        }
    }
    let gates = flags::GATES.iter().map(|gate| format!("  {}={}\n    {}\n", gate.name, gate.default, gate.help()));
    text.push_str(&format!("\nNames for --feature-gates:\n{}", gates.collect::<String>()));
    text.push_str("\nExit codes: 0 stopped; 1 failed; 2 bad input.");
    text
}
