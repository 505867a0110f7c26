//! Makes a failing world smaller: the same rule must still be violated with fewer kinds of fault,
//! fewer clients, and less time.

use std::fmt;

use crate::world::coverage::Fault;
use crate::world::oracle::Violation;
use crate::world::plan::{Plan, SECOND};
use crate::world::run;

/// What a world is made without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reduction {
    /// Kinds of fault that don't strike.
    pub without: Vec<Fault>,
    /// At most so many clients.
    pub clients: Option<usize>,
    /// The safety phase ends after so many seconds.
    pub seconds: Option<u64>,
}

impl Reduction {
    /// Takes it out of a plan.
    pub fn apply(&self, plan: &mut Plan) {
        self.without.iter().for_each(|fault| plan.without(*fault));
        if let Some(clients) = self.clients {
            plan.limit_clients(clients);
        }
        if let Some(seconds) = self.seconds {
            plan.safety = plan.safety.min(seconds * SECOND);
        }
    }

    /// Whether it leaves everything as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Reduction::default()
    }
}

impl fmt::Display for Reduction {
    /// As options of the command that replays.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.without.is_empty() {
            let names: Vec<String> = self.without.iter().map(|fault| format!("{fault:?}")).collect();
            write!(f, " --without {}", names.join(","))?;
        }
        if let Some(clients) = self.clients {
            write!(f, " --clients {clients}")?;
        }
        if let Some(seconds) = self.seconds {
            write!(f, " --seconds {seconds}")?;
        }
        Ok(())
    }
}

/// Tries to take away as much as possible, at most `tries` runs of it. Returns what can be left out,
/// and what is violated then.
#[must_use]
pub fn shrink(plan: &Plan, violation: &Violation, tries: usize) -> (Reduction, Violation) {
    let mut best = (Reduction::default(), violation.clone());
    let mut left = tries;
    let mut still_fails = |reduction: &Reduction| {
        if left == 0 {
            return None;
        }
        left -= 1;
        let mut smaller = plan.clone();
        reduction.apply(&mut smaller);
        run(&smaller, None).violation.filter(|found| found.rule == violation.rule)
    };
    for fault in plan.kinds() {
        let mut reduction = best.0.clone();
        reduction.without.push(fault);
        if let Some(found) = still_fails(&reduction) {
            best = (reduction, found);
        }
    }
    for clients in [1, 2, 3] {
        let reduction = Reduction { clients: Some(clients), ..best.0.clone() };
        if clients < plan.clients()
            && let Some(found) = still_fails(&reduction)
        {
            best = (reduction, found);
            break;
        }
    }
    let seconds = (best.1.at / SECOND + 1).min(plan.safety / SECOND + 1);
    let reduction = Reduction { seconds: Some(seconds), ..best.0.clone() };
    if seconds * SECOND < plan.safety
        && let Some(found) = still_fails(&reduction)
    {
        best = (reduction, found);
    }
    best
}
