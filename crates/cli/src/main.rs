//! The program `bowline`: its command line.

use std::process::ExitCode;

mod bench;
mod cert;
mod chaos;
mod client;
mod complaint;
mod etcd;
mod exit;
mod history;
mod join;
mod lan;
mod live;
mod out;
mod page;
mod recover;
mod scenarios;
mod serve;
mod sim;
mod top;
mod up;

use clap::{Parser, Subcommand};
use client::Once;

/// A strongly consistent, replicated key-value store, and the tools that test it.
#[derive(Parser)]
#[command(name = "bowline", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  bowline up                          three members on this machine
  bowline up --detach                 in the background; bowline down stops them
  bowline put hello world             set a key
  bowline get hello                   print its value
  bowline watch --prefix ''           print all writes as they happen
  bowline top                         watch the members at work
  bowline bench mixed --reads 90      measure them under load
  bowline lock backup -- ./backup.sh  run a command while a lock is held
  bowline shell                       enter commands line by line
  bowline user add root               users and roles; then bowline auth enable
  bowline snapshot save backup.db     save the state in a file
  bowline serve --config member.toml  one member of a cluster
  bowline cert --hosts 10.0.0.1       certificates for a cluster with TLS
  bowline join 10.0.0.1:2379          one more member of that cluster
  bowline chaos --minutes 2           test a real cluster under real faults
  bowline lan run                     five replicas on an emulated network, 30 s
  bowline lan run --all               every scenario, and one table
  bowline lan run crash-4 --program ./their-kvstore
  bowline sim run crash-4 --seed 7    a scenario in virtual time
  bowline sim lan --seeds 1000        random mixtures of faults

Exit codes: 0 success; 1 failed, not found, outcome unknown, or done but the result could \
not be printed; 2 bad input; 141 standard output was closed, as after SIGPIPE.";

#[derive(Subcommand)]
enum Command {
    /// Runs a cluster on this machine and restarts members that fail.
    Up(up::UpCommand),
    /// Stops a cluster that `up` started.
    Down(up::DownCommand),
    /// Runs one member of a cluster, which serves the etcd v3 API.
    Serve(serve::ServeCommand),
    /// Adds this machine to a running cluster as a new member, and runs it.
    Join(join::JoinCommand),
    /// Makes a new cluster of one member from the data of members whose cluster has lost its majority.
    Recover(recover::RecoverCommand),
    /// Makes certificates for the members and clients of a cluster, and shows what is in one.
    Cert(cert::CertCommand),
    /// Runs one member with the flags and variables of etcd, also if the program is called etcd.
    Etcd(etcd::EtcdCommand),
    /// Sets a key.
    Put(Once<client::PutArgs>),
    /// Prints the value of a key, or the keys and values of a range.
    Get(Once<client::GetArgs>),
    /// Deletes a key or a range.
    Del(Once<client::DelArgs>),
    /// Compares keys and runs one of two lists of operations, atomically.
    Txn(Once<client::TxnArgs>),
    /// Prints the writes of a key or a range as they happen.
    Watch(Once<client::WatchArgs>),
    /// Manages leases, which delete their keys when they expire.
    #[command(subcommand)]
    Lease(client::LeaseCommand),
    /// Holds a lock, and runs a command meanwhile.
    Lock(Once<client::LockArgs>),
    /// Takes part in an election, or prints its leaders.
    Elect(Once<client::ElectArgs>),
    /// Removes the history before a revision.
    #[command(alias = "compaction")]
    Compact(Once<client::CompactArgs>),
    /// Lists alarms, which make members refuse requests, and deactivates them.
    #[command(subcommand)]
    Alarm(client::AlarmCommand),
    /// Lists the members, and changes them.
    #[command(subcommand)]
    Member(client::MemberCommand),
    /// Hands the leadership to another member.
    MoveLeader(Once<client::MoveLeaderArgs>),
    /// Compares the states of the members by checksum.
    #[command(name = "hashkv")]
    HashKv(Once<client::HashKvArgs>),
    /// Shows the state of each member.
    Status(Once<client::StatusArgs>),
    /// Saves the state of a cluster in a file, and makes a new cluster from one.
    #[command(subcommand)]
    Snapshot(client::SnapshotCommand),
    /// Keeps a part of another cluster equal to a part of this one.
    Mirror(client::MirrorCommand),
    /// Manages users.
    #[command(subcommand)]
    User(client::UserCommand),
    /// Manages roles: what users may do.
    #[command(subcommand)]
    Role(client::RoleCommand),
    /// Enables and disables the users of a cluster.
    #[command(subcommand)]
    Auth(client::AuthCommand),
    /// Shows a cluster live: load, latencies, sizes and lag of each member.
    Top(top::TopCommand),
    /// Measures how fast a cluster, of Bowline or etcd, is under load, or compares two.
    #[command(subcommand, after_help = bench::EXAMPLES)]
    Bench(Box<bench::BenchCommand>),
    /// Runs client commands line by line, from a terminal or a pipe.
    Shell(client::ShellCommand),
    /// Runs replicas of the LAN protocol, and emulates a hostile network for them.
    #[command(subcommand)]
    Lan(lan::LanCommand),
    /// Runs scenarios and simulated clusters in virtual time, repeatable from a seed.
    #[command(subcommand)]
    Sim(sim::SimCommand),
    /// Tests a real cluster under real faults.
    Chaos(chaos::ChaosCommand),
    /// Checks a recorded history for linearizability.
    Check(history::CheckCommand),
}

fn main() -> ExitCode {
    if let Some(command) = etcd::EtcdCommand::by_name() {
        return exit::code_of(command.run());
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => error.exit(),
        // Help and version are results, so they go the way of results.
        Err(error) => {
            let printed = out::print(error.render().ansi());
            return exit::code_of(printed.map(|()| exit::Exit::Passed).map_err(Into::into));
        }
    };
    let outcome = match cli.command {
        Command::Up(command) => command.run(),
        Command::Down(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::Join(command) => command.run(),
        Command::Recover(command) => command.run(),
        Command::Cert(command) => command.run(),
        Command::Etcd(command) => command.run(),
        Command::Put(command) => command.run(),
        Command::Get(command) => command.run(),
        Command::Del(command) => command.run(),
        Command::Txn(command) => command.run(),
        Command::Watch(command) => command.run(),
        Command::Lease(command) => command.run(),
        Command::Lock(command) => command.run(),
        Command::Elect(command) => command.run(),
        Command::Compact(command) => command.run(),
        Command::Alarm(command) => command.run(),
        Command::Member(command) => command.run(),
        Command::MoveLeader(command) => command.run(),
        Command::HashKv(command) => command.run(),
        Command::Snapshot(command) => command.run(),
        Command::Mirror(command) => command.run(),
        Command::User(command) => command.run(),
        Command::Role(command) => command.run(),
        Command::Auth(command) => command.run(),
        Command::Shell(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Top(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Lan(command) => command.run(),
        Command::Sim(command) => command.run(),
        Command::Chaos(command) => command.run(),
        Command::Check(command) => command.run(),
    };
    exit::code_of(outcome)
}
