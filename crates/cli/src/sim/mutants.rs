//! `bowline sim mutants`: shows which layer of tests notices which mutant.

use std::ffi::OsString;

use anyhow::bail;
use bowline_sim::mutation::{self, ABSENT, BUILT_IN, LAYERS, Mutant};
use clap::Args;

use super::explore::silence_panics;
use crate::exit::Exit;
use crate::out::{self, tell};

mod copied;
mod report;
mod run;

#[derive(Args)]
#[command(after_help = "Examples:
  bowline sim mutants           every mutant, then a control run without one
  bowline sim mutants --quick   each only until a layer notices it
  bowline sim mutants --layer clusters --seeds 200
  bowline sim mutants --mutant CommitOldTermByCounting --seeds 2000
  bowline sim mutants --absent  known bugs that have no mutant, and why

The command copies the sources that this program was built from into the target folder, adds the \
mutants, builds the copy with cargo, and runs it with the same options. If the text that a mutant \
replaces is no longer in the sources, an error names the mutant.

Exit codes: 0 every mutant was noticed, and the control run raised no alarm; 1 a mutant survived, \
or a false alarm; 2 bad input, or the copy can't be built.")]
pub(crate) struct MutantsCommand {
    /// Test only this mutant; may be given several times.
    #[arg(long, value_name = "NAME", value_parser = mutant_named)]
    mutant: Vec<&'static Mutant>,
    /// Test only the mutants that the list marks as core.
    #[arg(long, conflicts_with = "mutant")]
    core: bool,
    /// Use only this layer: scripts, schedules, search or clusters; may be given several times.
    #[arg(long, value_name = "NAME")]
    layer: Vec<String>,
    /// Number of random schedules, and of simulated clusters, to try for each mutant.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    seeds: u64,
    /// First seed of the clusters.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=1_000_000_000_000))]
    from: u64,
    /// Number of states to search from each start for each mutant.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    states: u64,
    /// Stop at the first layer that notices; try a twentieth of each layer's budget first.
    #[arg(long)]
    quick: bool,
    /// Number of seeds or starts to run at once [default: one per processor]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    /// Budget of the control run without a mutant, as a multiple of the usual one (with --quick, of its twentieth);
    /// 0 skips it.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    control: u64,
    /// Print the bugs of the list that have no mutant, and why.
    #[arg(long)]
    absent: bool,
    /// Pass if the clusters kill at least this percentage of the core mutants, even if other mutants survive.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(0..=100))]
    require: Option<u64>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Parses the name of a mutant.
pub(crate) fn mutant_named(name: &str) -> Result<&'static Mutant, String> {
    Mutant::named(name).ok_or_else(|| {
        let names: Vec<_> = mutation::mutants().iter().map(|mutant| mutant.name).collect();
        format!("no such mutant; allowed: {}", names.join(", "))
    })
}

/// Puts a mutant into all replicas from now on. A program without mutants builds one with mutants, and executes it with
/// the same arguments.
pub(crate) fn carry(mutant: Option<&'static Mutant>) -> anyhow::Result<()> {
    if mutant.is_some() && !BUILT_IN {
        return Err(copied::become_it(std::env::args_os().skip(1).collect()));
    }
    mutation::choose(mutant);
    Ok(())
}

impl MutantsCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        if self.absent {
            for absent in ABSENT {
                tell!("{:>3}  {:<44} {}", absent.number, absent.name, absent.why)?;
            }
            return Ok(Exit::Passed);
        }
        self.check_layers()?;
        if !BUILT_IN {
            let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
            return Err(copied::become_it(arguments));
        }
        silence_panics();
        let mut mutants = mutation::mutants();
        mutants.retain(|mutant| !self.core || mutant.is_core());
        let mutants = if self.mutant.is_empty() { mutants } else { self.mutant.clone() };
        let results = self.look_for_all(&mutants)?;
        match self.json {
            true => tell!("{}", results.json())?,
            false => out::print(results.text())?,
        }
        Ok(Exit::of(match self.require {
            Some(percent) => results.quiet() && results.share_of_core("clusters") * 100.0 >= percent as f64,
            None => results.quiet() && results.killed() == mutants.len(),
        }))
    }

    fn check_layers(&self) -> anyhow::Result<()> {
        match self.layer.iter().find(|name| !LAYERS.contains(&name.as_str())) {
            Some(unknown) => bail!("--layer {unknown}: no such layer; allowed: {}", LAYERS.join(", ")),
            None => Ok(()),
        }
    }
}
