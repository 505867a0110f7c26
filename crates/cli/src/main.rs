//! `bowline`: the one binary.

use std::process::ExitCode;

mod chaos;
mod client;
mod complaint;
mod exit;
mod history;
mod lan;
mod live;
mod out;
mod scenarios;
mod serve;
mod sim;
mod up;

use clap::{Parser, Subcommand};
use client::Once;

/// A strongly consistent, replicated key-value store, and the tools that prove it.
#[derive(Parser)]
#[command(name = "bowline", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  bowline up                          three members on this machine, serving the etcd v3 API
  bowline up --detach                 the same in the background; bowline down stops it
  bowline put hello world; bowline get hello
  bowline shell                       the same, one a line, with completion
  bowline serve --config member.toml  one member of a cluster
  bowline chaos --minutes 2           real members, killed, cut off and damaged; a verdict
  bowline lan run                     five replicas, a main job of 30 s, a verdict
  bowline lan run --all               every scenario, one table
  bowline lan run crash-4 --program ./their-kvstore
  bowline sim run crash-4 --seed 7    the same in virtual time, in milliseconds
  bowline sim lan --seeds 1000        random mixtures of everything that can go wrong

Exit codes: 0 passed, done or found; 1 failed, not found, not known, or done but not printed;
2 bad input; 141 nobody reads the output any more, as if SIGPIPE had ended it.";

#[derive(Subcommand)]
enum Command {
    /// A cluster on this machine, its members looked after.
    Up(up::UpCommand),
    /// Stops a cluster that `up` has started.
    Down(up::DownCommand),
    /// One member of a cluster, serving the etcd v3 API.
    Serve(serve::ServeCommand),
    /// Sets a key.
    Put(Once<client::PutArgs>),
    /// Prints the value of a key, or keys and values of a range.
    Get(Once<client::GetArgs>),
    /// Deletes a key, or a range.
    Del(Once<client::DelArgs>),
    /// Compares, and then does one thing or another, all at once.
    Txn(Once<client::TxnArgs>),
    /// Keys that live as long as somebody keeps them alive.
    #[command(subcommand)]
    Lease(client::LeaseCommand),
    /// Gives up what was overwritten or deleted before a revision.
    #[command(alias = "compaction")]
    Compact(Once<client::CompactArgs>),
    /// Compares the members' states by their checksums.
    #[command(name = "hashkv")]
    HashKv(Once<client::HashKvArgs>),
    /// Shows how each member is.
    Status(Once<client::StatusArgs>),
    /// The commands of a client, one a line: with history and completion, or from a pipe.
    Shell(client::ShellCommand),
    /// The LAN protocol: replicas that speak JSON, and an emulated hostile network for any of them.
    #[command(subcommand)]
    Lan(lan::LanCommand),
    /// The same in virtual time: repeatable from a seed, more than a thousand times as fast.
    #[command(subcommand)]
    Sim(sim::SimCommand),
    /// A real cluster under real faults, and whether it keeps its promises.
    Chaos(chaos::ChaosCommand),
    /// Checks a recorded history for linearizability.
    Check(history::CheckCommand),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => error.exit(),
        // Help and version are results like others.
        Err(error) => {
            let printed = out::print(error.render().ansi());
            return exit::code_of(printed.map(|()| exit::Exit::Passed).map_err(Into::into));
        }
    };
    let outcome = match cli.command {
        Command::Up(command) => command.run(),
        Command::Down(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::Put(command) => command.run(),
        Command::Get(command) => command.run(),
        Command::Del(command) => command.run(),
        Command::Txn(command) => command.run(),
        Command::Lease(command) => command.run(),
        Command::Compact(command) => command.run(),
        Command::HashKv(command) => command.run(),
        Command::Shell(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Lan(command) => command.run(),
        Command::Sim(command) => command.run(),
        Command::Chaos(command) => command.run(),
        Command::Check(command) => command.run(),
    };
    exit::code_of(outcome)
}
