//! Mutation tests: every replica of a cluster carries a known bug, and each layer of tests in turn looks for it. If no
//! layer notices a mutant, the tests have a gap, or the mutant is not a bug.
//!
//! The [`catalogue`] describes the mutants, and [`copy`] puts them into a copy of the sources. Only a program built
//! from that copy has mutants, and layers to look for them. The layers: *scripts* runs the golden scripts, whose output
//! must not change; *schedules* runs random schedules with their oracles; *search* is the exhaustive search from each
//! start; *clusters* runs simulated clusters with every fault and every check. A new layer implements [`Layer`].

pub mod catalogue;
pub mod copy;
// The layers are made of the core's own tests and need their dependencies.
#[cfg(test)]
mod layers;
mod switch;

use std::collections::BTreeMap;
use std::fmt;

pub use catalogue::{ABSENT, Absent, Edit, Kind, Mutant, mutants};
pub use switch::{BUILT_IN, layers};

/// The names of all layers.
pub const LAYERS: [&str; 4] = ["scripts", "schedules", "search", "clusters"];

/// The budget of the layers.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Number of random schedules, and of clusters.
    pub seeds: u64,
    /// The first seed of the clusters.
    pub from: u64,
    /// Number of states that the search reaches from each start.
    pub states: u64,
}

/// Makes all replicas of this process carry a mutant from now on, or none. It has no effect without built-in mutants.
pub fn choose(mutant: Option<&Mutant>) {
    let place = mutant.and_then(|wanted| mutants().iter().position(|it| it.name == wanted.name));
    switch::choose(place.map_or(0, |place| place + 1));
}

/// The mutant that all replicas of this process carry, if there is one.
#[must_use]
pub fn chosen() -> Option<&'static Mutant> {
    mutants().get(switch::chosen().checked_sub(1)?).copied()
}

/// How a mutant was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The kind of check that noticed it.
    pub by: Check,
    /// What the check reported, in one line.
    pub said: String,
    /// The cost in the layer's unit: scripts, seeds or states.
    pub cost: u64,
    /// Where it was noticed: the script, the seed or the start.
    pub at: String,
}

/// The kind of check that noticed a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// An assertion or a fault of the core itself, which would stop a replica in production too.
    Assertion,
    /// A rule of the oracles.
    Oracle,
    /// A cluster that should make progress didn't.
    Liveness,
    /// The output of a script changed.
    Script,
    /// The reference model: a step of the core is not a step of the model.
    Model,
    /// The clients' history is not linearizable.
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

/// A way to look for bugs. Its work comes in independent pieces, so that threads can share it.
pub trait Layer: Sync {
    /// Its name, in a word.
    fn name(&self) -> &'static str;

    /// The unit of its costs.
    fn unit(&self) -> &'static str;

    /// Number of pieces of `times` the usual budget.
    fn pieces(&self, times: u64) -> u64;

    /// Looks for the chosen mutant in one piece; without a mutant, for any alarm.
    fn look_at(&self, piece: u64, times: u64) -> Look;
}

/// The result of a layer in one piece of its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// How the mutant was noticed, if it was, with the cost within this piece.
    pub kill: Option<Kill>,
    /// What was spent on the piece, in the layer's unit.
    pub spent: u64,
}

/// The result of a layer for a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it was noticed, if it was, with the cost of all pieces up to there.
    pub kill: Option<Kill>,
    /// What was spent, in the layer's unit.
    pub spent: u64,
}

/// Collects the looks at a layer's pieces, in any order. The finding is the same as if the pieces ran one after the
/// other until one noticed the mutant.
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

    /// The finding, once all wanted pieces were looked at.
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
