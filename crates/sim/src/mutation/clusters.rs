//! Simulated clusters as a layer: the same seeds that `bowline sim explore` searches.

use std::ops::Range;

use crate::cluster::{Plan, Rule, run};
use crate::mutation::{Check, Kill, Layer, Look};

/// Clusters drawn from seeds.
pub(super) struct Clusters {
    /// The seeds of the usual budget; a larger budget continues after its end.
    pub(super) seeds: Range<u64>,
}

impl Layer for Clusters {
    fn name(&self) -> &'static str {
        "clusters"
    }

    fn unit(&self) -> &'static str {
        "seeds"
    }

    fn pieces(&self, times: u64) -> u64 {
        (self.seeds.end - self.seeds.start) * times
    }

    fn look_at(&self, piece: u64, _: u64) -> Look {
        let seed = self.seeds.start + piece;
        let kill = run(&Plan::drawn(seed), None).violation.map(|violation| Kill {
            by: whose(violation.rule),
            said: violation.to_string(),
            cost: 1,
            at: format!("seed {seed}"),
        });
        Look { kill, spent: 1 }
    }
}

/// The kind of check that a rule of the simulated clusters is.
fn whose(rule: Rule) -> Check {
    match rule {
        Rule::Assertion | Rule::NoReplicaHalts => Check::Assertion,
        Rule::Elects | Rule::Stays | Rule::Serves | Rule::Converges | Rule::EveryRequestEndsOnce => Check::Liveness,
        Rule::Refinement => Check::Model,
        Rule::Linearizable => Check::History,
        _ => Check::Oracle,
    }
}
