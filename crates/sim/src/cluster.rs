//! A simulated cluster: real replicas ([`bowline_node::Node`] over the production state machine) in virtual time, with
//! a simulated network, disks, clocks, clients and an operator, all of them hostile.
//!
//! One seed draws everything ([`Plan::drawn`]). A run starts with a *safety* phase, in which every fault may strike. A
//! *liveness* phase follows: a random majority is made whole, the rest stays broken, and the majority must elect a
//! leader, serve and converge within bounds. After every step the oracle checks the replica that made it. At the end
//! the clients' history is checked for linearizability.
//!
//! The same plan gives the same run, bit for bit.

mod clients;
mod clock;
mod context;
mod coverage;
mod dice;
mod disk;
mod duties;
mod event;
mod faults;
mod forwarding;
mod host;
mod hosts;
mod keepers;
mod leader_rules;
mod liveness;
mod machine;
mod mangle;
mod members;
mod model;
mod network;
mod numbered;
mod operator;
mod oracle;
mod page;
mod plan;
mod queue;
mod reduction;
mod replica;
mod run;
mod schedule;
mod shape;
mod shrink;
mod steps;
mod system;
mod trace;
mod watchers;
mod wire;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bowline_raft::probe;

pub use bowline_raft::probe::Probe;
pub use coverage::Coverage;
pub use faults::Fault;
pub use oracle::{Rule, Violation};
pub use page::{Recording, record};
pub use plan::{Plan, Sabotage};
pub use reduction::{Reduction, Start, Strike, parse_list, parse_seconds};
pub use schedule::{Schedule, scheduled};
pub use shrink::{Shrinking, shrink, shrink_while};
pub use trace::Line;

use context::Context;
use page::Recorder;
use reduction::Happened;
use run::Cluster;

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The violation, if there was one.
    pub violation: Option<Violation>,
    /// The trace hash: a number over everything that happened, in order.
    pub trace_hash: u64,
    /// Number of events.
    pub events: u64,
    /// Nanoseconds of simulated time.
    pub simulated: u64,
    /// Number of operations that clients began, and of those that were answered as done.
    pub operations: (u64, u64),
    /// Number of committed entries.
    pub committed: u64,
    /// Number of elections that were won.
    pub elections: u64,
    /// The faults that struck and the rare paths that were taken.
    pub coverage: Coverage,
}

/// Runs a simulated cluster. Each line of its trace goes to `reader`, if there is one.
#[must_use]
pub fn run(plan: &Plan, reader: Option<&mut dyn FnMut(Line)>) -> Summary {
    completed(plan, reader, None).into_outcome()
}

/// Like [`run`], but also returns the strikes and operations that happened.
fn run_scripted(plan: &Plan) -> (Summary, Happened) {
    let mut cluster = completed(plan, None, None);
    let happened = std::mem::take(&mut cluster.system.ctx.script.happened);
    (cluster.into_outcome(), happened)
}

/// Like [`run`], but records the run.
fn run_recorded(plan: &Plan, recorder: Recorder) -> Recording {
    let mut cluster = completed(plan, None, Some(recorder));
    cluster.look();
    let recorder = cluster.system.ctx.recorder.take().unwrap_or_default();
    let operations = cluster.system.clients.seen();
    recorder.finish(plan.header(), plan.seed, operations, cluster.into_outcome())
}

/// Runs a cluster to its end and returns it.
fn completed<'a>(plan: &Plan, reader: Option<&'a mut dyn FnMut(Line)>, recorder: Option<Recorder>) -> Cluster<'a> {
    probe::record(true);
    let _ = probe::take();
    let mut cluster = Cluster::new(Context::new(plan.clone(), reader, recorder));
    let ended = catch_unwind(AssertUnwindSafe(|| cluster.run()));
    if let Err(panic) = ended {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = what.unwrap_or_else(|| "a panic without a message".to_owned());
        cluster.system.ctx.judge(Err((Rule::Assertion, what)));
    }
    cluster
}
