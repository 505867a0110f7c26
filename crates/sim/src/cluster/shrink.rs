//! Makes a failing run smaller: the same rule must still be violated with fewer kinds of fault,
//! members, clients, strikes and operations, and in less time.

use crate::cluster::faults::Fault;
use crate::cluster::oracle::{Rule, Violation};
use crate::cluster::plan::{MICRO, MILLI, Plan};
use crate::cluster::reduction::{Happened, Reduction, Start};
use crate::cluster::run_scripted;
use crate::cluster::schedule::Schedule;

/// Shortest safety phase that is tried, in nanoseconds.
const SHORTEST: u64 = 50 * MILLI;
/// How many other random choices are tried to get the violation in half the time.
const LUCKS: u64 = 16;
/// Up to this many strikes are named, rather than the kinds that don't strike.
const FEW_STRIKES: usize = 20;
/// A run with at most this many operations and strikes is small enough.
const FEW: usize = 12;
/// Maximum number of rounds that try to leave out everything again.
const MOST_ROUNDS: usize = 4;

/// One of the counts in a reduction.
type CountOf = fn(&mut Reduction) -> &mut Option<usize>;

/// The progress of the search for a smaller run, after each run.
#[derive(Clone, Copy, Debug)]
pub struct Shrinking {
    /// Runs so far.
    pub runs: usize,
    /// Maximum number of runs.
    pub budget: usize,
    /// What is being left out.
    pub leaving_out: &'static str,
    /// The numbers of strikes and operations that are left.
    pub left: (usize, usize),
}

/// Leaves out as much as possible of a plan that is reduced already, in at most `tries` runs. Returns the reduction and
/// its violation.
#[must_use]
pub fn shrink(plan: &Plan, reduction: &Reduction, violation: &Violation, tries: usize) -> (Reduction, Violation) {
    shrink_while(plan, reduction, violation, tries, &mut |_| true)
}

/// Like [`shrink`], but stops when `go_on` returns false after a run.
#[must_use]
pub fn shrink_while(
    plan: &Plan,
    reduction: &Reduction,
    violation: &Violation,
    tries: usize,
    go_on: &mut dyn FnMut(Shrinking) -> bool,
) -> (Reduction, Violation) {
    let mut search = Search {
        plan,
        rule: violation.rule,
        best: reduction.clone(),
        found: violation.clone(),
        happened: Happened::default(),
        runs: 0,
        budget: tries,
        stopped: false,
        leaving_out: "nothing",
        go_on,
    };
    // Run it unchanged first, to know its strikes and operations.
    if !search.fails(reduction.clone()) {
        return (reduction.clone(), violation.clone());
    }
    for _ in 0..MOST_ROUNDS {
        let before = search.best.clone();
        search.come_earlier();
        search.shorten_schedule();
        search.shorten();
        search.leave_out_kinds();
        search.leave_out_members();
        search.leave_out_strikes();
        search.leave_out_operations();
        if search.best == before || search.is_over() {
            break;
        }
    }
    search.shorten();
    search.tidy();
    (search.best, search.found)
}

/// A search under way.
struct Search<'a> {
    plan: &'a Plan,
    rule: Rule,
    /// The smallest run so far: what is left out, what it violates, and its strikes and operations.
    best: Reduction,
    found: Violation,
    happened: Happened,
    runs: usize,
    budget: usize,
    stopped: bool,
    leaving_out: &'static str,
    go_on: &'a mut dyn FnMut(Shrinking) -> bool,
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        self.stopped || self.runs >= self.budget
    }

    /// Runs a reduction. Returns whether the same rule is still violated; if so, this is the best run so far.
    fn fails(&mut self, reduction: Reduction) -> bool {
        if self.is_over() {
            return false;
        }
        self.runs += 1;
        let mut smaller = self.plan.clone();
        reduction.apply(&mut smaller);
        let (outcome, happened) = run_scripted(&smaller);
        let found = outcome.violation.filter(|found| found.rule == self.rule);
        let fails = found.is_some();
        if let Some(found) = found {
            (self.best, self.found, self.happened) = (reduction, found, happened);
        }
        let left = (self.happened.strikes.len(), self.happened.operations.len());
        let (runs, budget, leaving_out) = (self.runs, self.budget, self.leaving_out);
        self.stopped = !(self.go_on)(Shrinking { runs, budget, leaving_out, left });
        fails
    }

    /// The plan as reduced so far.
    fn reduced(&self) -> Plan {
        let mut plan = self.plan.clone();
        self.best.apply(&mut plan);
        plan
    }

    /// Whether the violation shows in a step of the safety phase, rather than later or in the check of the history.
    fn seen_at_once(&self) -> bool {
        self.found.at < self.reduced().safety && self.rule != Rule::Linearizable
    }

    /// Ends the run soon after the violation. A violation that shows in a step ends the run by itself; one that shows
    /// only in the history of a whole run needs an end.
    fn shorten(&mut self) {
        self.leaving_out = "time";
        let plan = self.reduced();
        if self.seen_at_once() || self.is_over() {
            return;
        }
        if self.rule == Rule::Linearizable && plan.liveness {
            let _ = self.fails(Reduction { safety_only: true, ..self.best.clone() });
        }
        // Try a short beginning first, then longer ones.
        let (mut low, mut high) = (SHORTEST.min(plan.safety), plan.safety);
        let mut end = low;
        while end < high && !self.is_over() {
            match self.fails(Reduction { end: Some(end), ..self.best.clone() }) {
                true => high = end,
                false => (low, end) = (end, end * 3),
            }
        }
        while high - low > 5 * MILLI && !self.is_over() {
            let middle = low + (high - low) / 2;
            match self.fails(Reduction { end: Some(middle), ..self.best.clone() }) {
                true => high = middle,
                false => low = middle,
            }
        }
    }

    /// Looks for the same violation in half the time, repeatedly, with other random numbers. In a long run, leaving out
    /// one thing would change everything that follows.
    fn come_earlier(&mut self) {
        self.leaving_out = "time";
        let mut luck = self.best.luck.unwrap_or(0);
        let most = self.runs + self.budget / 3;
        let is_large = |happened: &Happened| happened.operations.len().max(happened.strikes.len()) > FEW;
        while is_large(&self.happened) && self.runs < most {
            let safety_only = !self.rule.is_of_liveness();
            let end = Some((self.found.at / 2).max(SHORTEST));
            let found = (luck + 1..=luck + LUCKS)
                .any(|luck| self.fails(Reduction { luck: Some(luck), end, safety_only, ..self.best.clone() }));
            luck += LUCKS;
            if !found || self.is_over() {
                break;
            }
        }
    }

    fn leave_out_kinds(&mut self) {
        self.leaving_out = "kinds of fault";
        let kinds = self.reduced().kinds();
        let without = self.best.without.clone();
        minimal(self, &kinds, &mut |search, kept| {
            let gone = kinds.iter().filter(|kind| !kept.contains(kind)).copied();
            let without = without.iter().copied().chain(gone).collect();
            search.fails(Reduction { without, ..search.best.clone() })
        });
    }

    fn leave_out_members(&mut self) {
        self.leaving_out = "members";
        let plan = self.reduced();
        let counts: [(_, CountOf); 3] = [
            (0..plan.learners, |reduction| &mut reduction.learners),
            (1..plan.voters, |reduction| &mut reduction.members),
            (1..plan.clients(), |reduction| &mut reduction.clients),
        ];
        for (mut fewer, of) in counts {
            // The fewest first.
            let _ = fewer.any(|count| {
                let mut tried = self.best.clone();
                *of(&mut tried) = Some(count);
                self.fails(tried)
            });
        }
    }

    fn shorten_schedule(&mut self) {
        self.leaving_out = "parts of the schedule";
        let bytes = self.best.schedule.as_ref().map_or(Vec::new(), |schedule| schedule.bytes().to_vec());
        minimal(self, &bytes, &mut |search, kept| {
            search.fails(Reduction { schedule: Some(Schedule::new(kept)), ..search.best.clone() })
        });
    }

    fn leave_out_strikes(&mut self) {
        self.leaving_out = "strikes";
        let strikes = self.happened.strikes.clone();
        minimal(self, &strikes, &mut |search, kept| {
            search.fails(Reduction { strikes: Some(kept.to_vec()), ..search.best.clone() })
        });
    }

    fn leave_out_operations(&mut self) {
        self.leaving_out = "operations";
        // First name all of them with their start times, so that leaving one out moves no other.
        if self.best.operations.is_none() {
            // Round to microseconds, which are easier to read.
            let rounded = |start: &Start| Start { at: start.at / MICRO * MICRO, ..*start };
            let all = Some(self.happened.operations.iter().map(rounded).collect());
            if !self.fails(Reduction { operations: all, ..self.best.clone() }) {
                return;
            }
        }
        let operations = self.best.operations.clone().unwrap_or_default();
        minimal(self, &operations, &mut |search, kept| {
            search.fails(Reduction { operations: Some(kept.to_vec()), ..search.best.clone() })
        });
    }

    /// Leaves out of the reduction what makes no difference.
    fn tidy(&mut self) {
        if self.seen_at_once() {
            // The run ends there anyway.
            self.best.end = None;
            self.best.safety_only = false;
        }
        // Naming the strikes that happened changes nothing.
        let strikes = &self.happened.strikes;
        if self.best.strikes.is_some() || strikes.len() <= FEW_STRIKES {
            // A kind that only strikes needs no mention if none of its strikes is wanted.
            let wanted = |fault: &Fault| strikes.iter().any(|strike| strike.fault == *fault);
            self.best.without.retain(|fault| fault.shapes_plans() || wanted(fault));
            self.best.strikes = Some(strikes.clone());
        }
        if let Some(operations) = &mut self.best.operations {
            operations.sort_unstable();
        }
    }
}

/// Looks in one pass for the fewest of `items` with which `fails` still holds: it tries none of them, then leaves out
/// large parts, then smaller ones.
fn minimal<T: Copy>(search: &mut Search<'_>, items: &[T], fails: &mut dyn FnMut(&mut Search<'_>, &[T]) -> bool) {
    if items.is_empty() || fails(search, &[]) {
        return;
    }
    let mut kept = items.to_vec();
    let mut size = kept.len().div_ceil(2);
    while size > 0 && !search.is_over() {
        let mut start = 0;
        // Late items come last, because they are close to the violation.
        while start < kept.len() && kept.len() > 1 {
            let end = kept.len().min(start + size);
            let fewer: Vec<T> = kept[..start].iter().chain(&kept[end..]).copied().collect();
            match fails(search, &fewer) {
                true => kept = fewer,
                false => start = end,
            }
        }
        size /= 2;
    }
}
