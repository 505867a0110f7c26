//! `bowline sim museum`: which layer of tests notices which historic bug.

use clap::Args;

#[cfg(not(feature = "museum"))]
use crate::exit::Verdict;

#[cfg(feature = "museum")]
mod report;
#[cfg(feature = "museum")]
mod visit;

#[cfg(feature = "museum")]
pub(crate) use visit::mutant_named;

#[derive(Args)]
#[command(after_help = "Examples (of a build with `--features museum`):
  bowline sim museum                      every mutant, then a control run of ten times the budget
  bowline sim museum --layer worlds --seeds 200
  bowline sim museum --mutant CommitOldTermByCounting --seeds 2000
  bowline sim museum --absent             the bugs of the catalogue that are no mutants, and why")]
pub(crate) struct MuseumCommand {
    /// Only this mutant; may be given several times.
    #[arg(long, value_name = "NAME")]
    mutant: Vec<String>,
    /// Only the mutants that their catalogue marks as core.
    #[arg(long, conflicts_with = "mutant")]
    core: bool,
    /// Only this layer: stories, schedules, search or worlds; may be given several times.
    #[arg(long, value_name = "NAME")]
    layer: Vec<String>,
    /// How many random schedules, and how many worlds, to try for each mutant.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    seeds: u64,
    /// The first seed of the worlds.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=1_000_000_000_000))]
    from: u64,
    /// How many states to search from each start for each mutant.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    states: u64,
    /// How many seeds or starts at once; as many as there are processors if not given.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    /// How many times the usual budget the control run gets, of the core as it is; 0 for none.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    control: u64,
    /// Print the bugs of the catalogue that are no mutants, and why.
    #[arg(long)]
    absent: bool,
    /// Pass only if the worlds kill at least so many percent of the core mutants that they look at.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(0..=100))]
    require: Option<u64>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[cfg(not(feature = "museum"))]
impl MuseumCommand {
    pub(crate) fn run(self) -> anyhow::Result<Verdict> {
        anyhow::bail!("this build has no museum, as no production build may have; build it with `--features museum`");
    }
}
