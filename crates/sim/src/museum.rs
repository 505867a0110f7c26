//! The museum of bugs: each mutant of the core is carried by a whole cluster, and handed to every layer
//! of tests in turn. A mutant that no layer notices is a hole in the tests, or no bug.
//!
//! The layers: *stories*, the golden scripts, which must come out word by word; *schedules*, random
//! ones, seed by seed, with their oracles; *search*, exhaustive from hand-built starts; *worlds*, whole
//! clusters from a seed, with every fault and every judge. Another layer joins by implementing [`Layer`].

mod catalogue;
mod layers;
mod worlds;
// The same hosts, oracles, scripts and schedules that the core's own tests use.
#[path = "../../raft/tests/support/mod.rs"]
mod support;

pub use catalogue::{Absent, NOT_IN_THE_CORE, is_core};
pub use layers::{Schedules, Search, Stories};
pub use worlds::Worlds;

use std::collections::BTreeMap;
use std::fmt;

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
            Check::Story => "story",
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

    /// Looks for `mutant` (`None`: for anything at all, in the core as it is) in one piece.
    fn look_at(&self, piece: u64, mutant: Option<Mutant>, times: u64) -> Look;
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

/// Looks for a mutant in a layer, one piece after the other.
pub fn look_for(layer: &dyn Layer, mutant: Option<Mutant>, times: u64) -> Finding {
    let mut looks = Looks::default();
    for piece in 0..layer.pieces(times) {
        if !looks.want(piece) {
            break;
        }
        looks.add(piece, layer.look_at(piece, mutant, times));
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
