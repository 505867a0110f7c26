//! `bowline sim replay`: runs one simulated cluster again, and shows it line by line or as a page.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use bowline_sim::cluster::{
    Fault, Line, Plan, Reduction, Schedule, Start, Strike, parse_list, parse_seconds, record, run, shrink,
};
use bowline_sim::mutation::Mutant;
use clap::Args;

use super::explore::silence_panics;
use super::explore_report::replay_command;
use super::mutants::{carry, mutant_named};
use super::seed_thread::on_its_own;
use crate::exit::Exit;
use crate::out::tell;

#[derive(Args)]
#[command(after_help = "Examples:
  bowline sim replay 17                      print what happens with seed 17
  bowline sim replay 17 --grep LEADS
  bowline sim replay 17 --html seed-17.html  draw it as a web page
  bowline sim replay 17 --members 3 --strikes Crash.2 --operations 0.4@1.25")]
pub(crate) struct ReplayCommand {
    /// Seed of the cluster.
    seed: u64,
    #[command(flatten)]
    left: Left,
    /// Run all replicas with this mutant; see `bowline sim mutants`.
    #[arg(long, value_name = "NAME", value_parser = mutant_named)]
    mutant: Option<&'static Mutant>,
    /// Print only lines that contain this text.
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Print only what happens from this second on.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    since: f64,
    /// If a rule is violated, leave out as much as possible in at most so many runs, and print what replays the rest.
    #[arg(long, value_name = "RUNS", default_value_t = 0)]
    shrink: usize,
    /// Print only the result.
    #[arg(long, short)]
    quiet: bool,
    /// Also write a web page: the messages between members over time, up to the violation.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// The options that reduce a cluster.
#[derive(Args)]
pub(crate) struct Left {
    /// Kinds of fault to leave out.
    #[arg(long, value_delimiter = ',', value_parser = Fault::named, value_name = "KINDS")]
    without: Vec<Fault>,
    /// Maximum number of founding members.
    #[arg(long, value_name = "COUNT")]
    members: Option<usize>,
    /// Maximum number of initial learners.
    #[arg(long, value_name = "COUNT")]
    learners: Option<usize>,
    /// Maximum number of clients.
    #[arg(long, value_name = "COUNT")]
    clients: Option<usize>,
    /// Keep only these strikes, each a kind of fault and a number, such as Crash.2; or none.
    #[arg(long, value_name = "STRIKES", value_parser = parse_list::<Strike>)]
    strikes: Option<std::vec::Vec<Strike>>,
    /// Keep only these operations, each CLIENT.NUMBER@SECONDS, such as 0.4@1.25; or none.
    #[arg(long, value_name = "OPERATIONS", value_parser = parse_list::<Start>)]
    operations: Option<std::vec::Vec<Start>>,
    /// Draw other random numbers for the same cluster.
    #[arg(long, value_name = "NUMBER")]
    luck: Option<u64>,
    /// End the safety phase after this many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    seconds: Option<u64>,
    /// Run no liveness phase.
    #[arg(long)]
    safety_only: bool,
    /// What happens out of turn, instead of faults that the seed draws: bytes as hexadecimal digits, from the fuzzer.
    #[arg(long, value_name = "BYTES")]
    schedule: Option<Schedule>,
}

impl Left {
    fn reduction(self) -> anyhow::Result<Reduction> {
        let reduction = Reduction {
            without: self.without,
            members: self.members,
            learners: self.learners,
            clients: self.clients,
            strikes: self.strikes,
            operations: self.operations,
            luck: self.luck,
            end: self.seconds,
            safety_only: self.safety_only,
            schedule: self.schedule,
        };
        reduction.checked().map_err(|why| anyhow!(why))
    }
}

/// Writes the page of a cluster; `command` is the one that replays it.
pub(crate) fn write_page(plan: &Plan, command: &str, file: &Path) -> anyhow::Result<()> {
    let page = on_its_own(plan.seed, ", drawn", || record(plan).page(command));
    fs::write(file, page).with_context(|| format!("can't write {}", file.display()))
}

impl ReplayCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        carry(self.mutant)?;
        silence_panics();
        let mut plan = Plan::drawn(self.seed);
        let reduction = self.left.reduction()?;
        reduction.apply(&mut plan);
        let mut told = if self.quiet { Ok(()) } else { tell!("{}", plan.header()) };
        let mut tell = |line: Line| {
            let wanted = self.grep.as_ref().is_none_or(|text| line.text.contains(text.as_str()));
            // The run goes on even if it can't be printed, because the page is still to be written.
            if told.is_ok() && wanted && line.at as f64 >= self.since * 1e9 {
                told = tell!("{line}");
            }
        };
        let outcome = on_its_own(self.seed, "", || run(&plan, if self.quiet { None } else { Some(&mut tell) }));
        if let Some(file) = &self.html {
            write_page(&plan, &replay_command(self.seed, &reduction), file)?;
        }
        told?;
        let (begun, done) = outcome.operations;
        tell!(
            "\nseed {}: {:.1} s simulated, {} events, {begun} operations, {done} done, {} entries committed, {} elections, \
             trace hash {:016x}",
            self.seed,
            outcome.simulated as f64 / 1e9,
            outcome.events,
            outcome.committed,
            outcome.elections,
            outcome.trace_hash,
        )?;
        match &outcome.violation {
            Some(violation) => {
                tell!("VIOLATED: {violation}")?;
                if self.shrink > 0 {
                    let smaller = || shrink(&plan, &reduction, violation, self.shrink);
                    let (reduction, violation) = on_its_own(self.seed, ", made smaller", smaller);
                    tell!("made smaller: {violation}\n  {}", replay_command(self.seed, &reduction))?;
                }
            }
            None => tell!("nothing was violated")?,
        }
        if let Some(file) = &self.html {
            tell!("wrote {}", file.display())?;
        }
        Ok(Exit::of(outcome.violation.is_none()))
    }
}
