//! `bowline lan`: the emulated LAN, and the replica for it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bowline_checker::history::write_history;
use bowline_emulator::emulation::Record;
use bowline_emulator::harness::run_null_replica;
use bowline_emulator::history;
use bowline_emulator::scenario::Scenario;
use bowline_lan::profile::Profile;
use bowline_lan::replica_program::{ReplicaOptions, run_replica};
use bowline_lan::socket::SocketKind;
use bowline_lan::socket::arguments::{Arguments, Form};
use clap::{Args, Subcommand};

use crate::exit::Exit;
use crate::out::{self, remark, tell};
use run::RunCommand;

mod run;

#[derive(Subcommand)]
pub(crate) enum LanCommand {
    /// Runs replicas on an emulated, hostile LAN and judges the run.
    Run(RunCommand),
    /// Runs one replica, as a harness starts it.
    Replica(ReplicaCommand),
    /// Lists the built-in scenarios or prints one.
    Scenarios {
        /// Scenario to print, as a scenario file.
        name: Option<String>,
    },
    /// A replica that does no work, to measure what the machine costs.
    #[command(hide = true)]
    NullReplica {
        #[arg(required = true)]
        arguments: Vec<String>,
    },
}

#[derive(Args)]
#[command(after_help = "Examples:
  bowline lan replica 5000 0000 0001 0002  UDP, to and from port 5000
  bowline lan replica 0000 0001 0002       the local socket in the file 0000

The program kvstore is the same without options. A replica keeps its state in memory. It ends \
on SIGTERM, or when its socket is closed.")]
pub(crate) struct ReplicaCommand {
    /// [port] own-id peer-id...: UDP if a port is given, else the local socket in the file own-id.
    #[arg(required = true)]
    arguments: Vec<String>,
    /// Type of the socket: udp, packets, stream, or auto, which follows the arguments and tries what works.
    #[arg(long, default_value = "auto", value_parser = parse_replica_socket)]
    socket: ReplicaSocketChoice,
    /// Tuning: frugal (few messages) or paper (the paper's timeouts).
    #[arg(long, default_value = "frugal", value_parser = parse_profile)]
    profile: Profile,
    /// Seed of the timeouts [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Print ignored messages to standard error at the end, even if all of them could be read.
    #[arg(long, short)]
    verbose: bool,
}

/// The type of socket that the user chose; `None`: the arguments decide.
type ReplicaSocketChoice = Option<SocketKind>;

fn parse_replica_socket(name: &str) -> Result<ReplicaSocketChoice, String> {
    match name {
        "auto" => Ok(None),
        name => match SocketKind::ALL.into_iter().find(|kind| kind.name() == name) {
            Some(kind) => Ok(Some(kind)),
            None => Err("allowed: auto, udp, packets, stream".to_owned()),
        },
    }
}

pub(crate) fn parse_profile(name: &str) -> Result<Profile, String> {
    Profile::named(name).ok_or_else(|| "allowed: frugal, paper".to_owned())
}

impl LanCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            LanCommand::Run(command) => command.run(),
            LanCommand::Replica(command) => command.run(),
            LanCommand::Scenarios { name } => list_scenarios(name.as_deref()),
            LanCommand::NullReplica { arguments } => {
                run_null_replica(&Arguments::parse(&arguments, None)?)?;
                Ok(Exit::Passed)
            }
        }
    }
}

impl ReplicaCommand {
    fn run(self) -> anyhow::Result<Exit> {
        let form = self.socket.map(|kind| if kind == SocketKind::Udp { Form::Udp } else { Form::Local });
        let arguments = Arguments::parse(&self.arguments, form)?;
        let (socket, profile, seed) = (self.socket, self.profile, self.seed);
        let summary = run_replica(&ReplicaOptions { arguments, socket, profile, seed })?;
        if self.verbose || summary.is_notable() {
            remark!("{summary}");
        }
        Ok(Exit::Passed)
    }
}

fn list_scenarios(name: Option<&str>) -> anyhow::Result<Exit> {
    let builtin = Scenario::builtin();
    let Some(name) = name else {
        for (name, _) in builtin {
            if let Some(scenario) = Scenario::builtin_named(name) {
                let Scenario { replicas, requests, mix, drops, events, .. } = scenario;
                let gets = (mix * 100.0).round();
                let drops = drops * 100.0;
                let events = events.len();
                tell!(
                    "{name:<14} {replicas} replicas, {requests} requests, {gets} % gets, {drops:.0} % lost, {events} events"
                )?;
            }
        }
        return Ok(Exit::Passed);
    };
    match builtin.iter().find(|(known, _)| *known == name) {
        Some((_, json)) => out::print(json)?,
        None => {
            let names: Vec<&str> = builtin.iter().map(|(name, _)| *name).collect();
            bail!("no built-in scenario {name:?}; allowed: {}", names.join(", "));
        }
    }
    Ok(Exit::Passed)
}

/// Writes the history of a run in the format of `bowline check`.
pub(crate) fn write_history_file(path: &Path, record: &Record) -> anyhow::Result<()> {
    let say = || format!("can't write {}", path.display());
    let mut out = std::io::BufWriter::new(fs::File::create(path).with_context(say)?);
    write_history(&mut out, &history::operations(record)).with_context(say)?;
    out.flush().with_context(say)
}

/// Writes a page if `path` is given.
pub(crate) fn write_page(path: Option<&PathBuf>, page: impl FnOnce() -> String) -> anyhow::Result<()> {
    match path {
        Some(path) => fs::write(path, page()).with_context(|| format!("can't write {}", path.display())),
        None => Ok(()),
    }
}
