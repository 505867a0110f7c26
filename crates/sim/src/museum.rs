//! The museum of bugs: each mutant of the core is carried by a whole cluster, and handed to every layer
//! of tests in turn. A mutant that no layer notices is a hole in the tests, or no bug.
//!
//! The layers: *stories*, the golden scripts, which must come out word by word; *schedules*, random
//! ones, seed by seed, with their oracles; *search*, exhaustive from hand-built starts. Another layer
//! joins by implementing [`Layer`].

mod catalogue;
mod layers;
// The same hosts, oracles, scripts and schedules that the core's own tests use.
#[path = "../../raft/tests/support/mod.rs"]
mod support;

pub use catalogue::{Absent, NOT_IN_THE_CORE};
pub use layers::{Schedules, Search, Stories};

use std::fmt;
use std::time::{Duration, Instant};

pub use bowline_raft::Mutant;

/// How a mutant was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// By what kind of check.
    pub by: Check,
    /// What the check said, in a line.
    pub said: String,
    /// What it cost, in the layer's own unit: stories, seeds, states.
    pub cost: u64,
    /// Where to look again: the story, the seed, the start.
    pub at: String,
}

/// What kind of check noticed a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// An assertion or a fault of the core itself: it would stop in production too.
    Assertion,
    /// A rule of the oracles.
    Oracle,
    /// A cluster that should serve does not.
    Liveness,
    /// A story came out otherwise.
    Story,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Check::Assertion => "assertion",
            Check::Oracle => "oracle",
            Check::Liveness => "liveness",
            Check::Story => "story",
        })
    }
}

/// A way to look for bugs.
pub trait Layer {
    /// Its name, in a word.
    fn name(&self) -> &'static str;

    /// What its costs are counted in.
    fn unit(&self) -> &'static str;

    /// Looks for `mutant` (`None`: for anything at all, in the core as it is), with `times` the
    /// usual budget.
    fn look_for(&self, mutant: Option<Mutant>, times: u64) -> Finding;
}

/// What a layer has to say of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it was noticed, if it was.
    pub kill: Option<Kill>,
    /// What was spent, in the layer's unit.
    pub spent: u64,
}

/// A layer's finding, and how long it took.
#[derive(Clone, Debug)]
pub struct Timed {
    /// The layer.
    pub layer: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What it found.
    pub finding: Finding,
    /// How long it looked.
    pub took: Duration,
}

/// What all layers have to say of a mutant.
#[derive(Clone, Debug)]
pub struct Exhibit {
    /// The mutant; `None` for the control.
    pub mutant: Option<Mutant>,
    /// The layers' findings, in their order.
    pub findings: Vec<Timed>,
}

impl Exhibit {
    /// Whether any layer noticed it.
    #[must_use]
    pub fn killed(&self) -> bool {
        self.findings.iter().any(|timed| timed.finding.kill.is_some())
    }
}

/// Hands one mutant to every layer.
pub fn exhibit(mutant: Option<Mutant>, layers: &[&dyn Layer], times: u64) -> Exhibit {
    let look = |layer: &&dyn Layer| {
        let started = Instant::now();
        let finding = layer.look_for(mutant, times);
        Timed { layer: layer.name(), unit: layer.unit(), finding, took: started.elapsed() }
    };
    Exhibit { mutant, findings: layers.iter().map(look).collect() }
}
