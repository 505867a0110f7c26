//! Mutation tests: a bug is carried by every replica of a cluster, and each layer of tests in turn looks for it. A
//! mutant that no layer notices is a hole in the tests, or no bug.
//!
//! The [`catalogue`] describes the mutants, [`copy`] puts them into a copy of the sources. Only a program that is
//! built of that copy has mutants, and layers to look for them. *Scripts* are the golden scripts,
//! which must come out word by word; *schedules*, random ones, seed by seed, with their oracles; *search*,
//! exhaustive from hand-built starts; *clusters*, simulated ones drawn from a seed, with every fault and every judge.
//! Another layer joins by implementing [`Layer`].

pub mod catalogue;
pub mod copy;
// What looks for mutants is made of the core's own tests, and needs what they need.
#[cfg(test)]
mod layers;
mod switch;

use std::collections::BTreeMap;
use std::fmt;

pub use catalogue::{ABSENT, Absent, Edit, Kind, Mutant, mutants};
pub use switch::{BUILT_IN, layers};

/// The names of all layers.
pub const LAYERS: [&str; 4] = ["scripts", "schedules", "search", "clusters"];

/// How much the layers may do.
#[derive(Clone, Debug)]
pub struct Budget {
    /// How many random schedules, and how many clusters.
    pub seeds: u64,
    /// The first seed of the clusters.
    pub from: u64,
    /// How many states the search reaches from each start.
    pub states: u64,
}

/// Lets all replicas of this process carry a mutant from now on, or none. Without built-in mutants there are none to
/// carry.
pub fn choose(mutant: Option<&Mutant>) {
    let place = mutant.and_then(|wanted| mutants().iter().position(|it| it.name == wanted.name));
    switch::choose(place.map_or(0, |place| place + 1));
}

/// The mutant that all replicas of this process carry.
#[must_use]
pub fn chosen() -> Option<&'static Mutant> {
    mutants().get(switch::chosen().checked_sub(1)?).copied()
}

/// How a mutant was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// By what kind of check.
    pub by: Check,
    /// What the check said, in a line.
    pub said: String,
    /// What it cost, in the layer's own unit: scripts, seeds, states.
    pub cost: u64,
    /// Where to look again: the script, the seed, the start.
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
    /// A script came out otherwise.
    Script,
    /// The reference model: a step that is none of its own.
    Model,
    /// What the clients were told has no order that explains it.
    History,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Check::Assertion => "assertion",
            Check::Oracle => "oracle",
            Check::Liveness => "liveness",
            Check::Script => "script",
            Check::Model => "model",
            Check::History => "history",
        })
    }
}

/// A way to look for bugs. Its work comes in pieces that don't depend on each other, so that whoever
/// has the threads may look at several at once.
pub trait Layer: Sync {
    /// Its name, in a word.
    fn name(&self) -> &'static str;

    /// What its costs are counted in.
    fn unit(&self) -> &'static str;

    /// How many pieces `times` the usual budget comes in.
    fn pieces(&self, times: u64) -> u64;

    /// Looks for the chosen mutant in one piece; for anything at all, if there is none.
    fn look_at(&self, piece: u64, times: u64) -> Look;
}

/// What a layer saw in one piece of its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// How the mutant was noticed, if it was; with the cost within this piece.
    pub kill: Option<Kill>,
    /// What was spent on the piece, in the layer's unit.
    pub spent: u64,
}

/// What a layer has to say of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it was noticed, if it was; with the cost of all pieces up to there.
    pub kill: Option<Kill>,
    /// What was spent, in the layer's unit.
    pub spent: u64,
}

/// The looks at a layer's pieces, in whatever order they end: the finding is the same as if they had
/// been made one after the other, up to the first that noticed.
#[derive(Debug, Default)]
pub struct Looks {
    spent: BTreeMap<u64, u64>,
    first: Option<(u64, Kill)>,
}

impl Looks {
    /// Whether a piece can still change the finding.
    #[must_use]
    pub fn want(&self, piece: u64) -> bool {
        self.first.as_ref().is_none_or(|(first, _)| piece < *first)
    }

    /// Adds what was seen in a piece.
    pub fn add(&mut self, piece: u64, look: Look) {
        self.spent.insert(piece, look.spent);
        if let Some(kill) = look.kill.filter(|_| self.want(piece)) {
            self.first = Some((piece, kill));
        }
    }

    /// What the layer has to say, all pieces that are wanted having been looked at.
    #[must_use]
    pub fn finding(self) -> Finding {
        match self.first {
            Some((piece, mut kill)) => {
                kill.cost += self.spent.range(..piece).map(|(_, spent)| spent).sum::<u64>();
                Finding { spent: kill.cost, kill: Some(kill) }
            }
            None => Finding { kill: None, spent: self.spent.values().sum() },
        }
    }
}

/// Looks for the chosen mutant in a layer, one piece after the other.
pub fn look_for(layer: &dyn Layer, times: u64) -> Finding {
    let mut looks = Looks::default();
    for piece in 0..layer.pieces(times) {
        if !looks.want(piece) {
            break;
        }
        looks.add(piece, layer.look_at(piece, times));
    }
    looks.finding()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(cost: Option<u64>, spent: u64) -> Look {
        let kill = cost.map(|cost| Kill { by: Check::Oracle, said: String::new(), cost, at: format!("{cost}") });
        Look { kill, spent }
    }

    #[test]
    fn the_order_in_which_pieces_end_changes_nothing() {
        let mut looks = Looks::default();
        looks.add(3, look(Some(7), 7));
        assert!(!looks.want(4) && looks.want(2));
        looks.add(1, look(None, 10));
        looks.add(2, look(Some(4), 4));
        looks.add(0, look(None, 10));
        let finding = looks.finding();
        assert_eq!((finding.spent, finding.kill.map(|kill| (kill.cost, kill.at))), (24, Some((24, "4".to_owned()))));
    }
}
