//! The world: a cluster of real replicas ([`bowline_node::Node`] over the production state machine)
//! in virtual time, with a network, disks, clocks, clients and an operator, all of them hostile.
//!
//! One seed draws everything ([`Plan::drawn`]). First comes a *safety* phase in which every fault
//! may strike; then a *liveness* phase: a random majority is made whole, the rest stays broken, and
//! the majority must elect, serve and converge within bounds. After every step the oracle looks at
//! the replica that made it; at the end the clients' history is checked for linearizability.
//!
//! The same plan gives the same run, bit for bit.

mod clients;
mod clock;
mod context;
mod coverage;
mod dice;
mod disk;
mod event;
mod faults;
mod host;
mod hosts;
mod keepers;
mod leader_rules;
mod liveness;
mod machine;
mod mangle;
mod model;
mod network;
mod operator;
mod oracle;
mod page;
mod plan;
mod queue;
mod reduction;
mod replica;
mod run;
mod shape;
mod shrink;
mod steps;
mod story;
mod system;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bowline_raft::probe;

pub use bowline_raft::probe::Probe;
pub use coverage::Coverage;
pub use faults::Fault;
pub use oracle::{Rule, Violation};
pub use page::{Film, film};
pub use plan::{Plan, Sabotage};
pub use reduction::{Reduction, Start, Strike, parse_list, parse_seconds};
pub use shrink::{Shrinking, shrink, shrink_while};
pub use story::Line;

use context::Context;
use page::Camera;
use reduction::Happened;
use run::World;

/// What came of a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was violated, if anything was.
    pub violation: Option<Violation>,
    /// Fingerprint of everything that happened, in order.
    pub trace_hash: u64,
    /// How many things happened.
    pub events: u64,
    /// Nanoseconds of simulated time.
    pub simulated: u64,
    /// Operations that clients began, and those that they were told are done.
    pub operations: (u64, u64),
    /// Entries that were committed.
    pub committed: u64,
    /// Elections that were won.
    pub elections: u64,
    /// What was exercised.
    pub coverage: Coverage,
}

/// Lets a world happen. Each line of its story goes to `teller`, if there is one.
#[must_use]
pub fn run(plan: &Plan, teller: Option<&mut dyn FnMut(Line)>) -> Outcome {
    performed(plan, teller, None).into_outcome()
}

/// The same, with the strikes and operations that happened.
fn run_scripted(plan: &Plan) -> (Outcome, Happened) {
    let mut world = performed(plan, None, None);
    let happened = std::mem::take(&mut world.system.ctx.script.happened);
    (world.into_outcome(), happened)
}

/// The same, before a camera.
fn performed_before(plan: &Plan, camera: Camera) -> Film {
    let mut world = performed(plan, None, Some(camera));
    world.look();
    let camera = world.system.ctx.camera.take().unwrap_or_default();
    let operations = world.system.clients.seen();
    camera.develop(plan.header(), plan.seed, operations, world.into_outcome())
}

/// A world in which everything has happened.
fn performed<'a>(plan: &Plan, teller: Option<&'a mut dyn FnMut(Line)>, camera: Option<Camera>) -> World<'a> {
    probe::record(true);
    let _ = probe::take();
    let mut world = World::new(Context::new(plan.clone(), teller, camera));
    let ended = catch_unwind(AssertUnwindSafe(|| world.live()));
    if let Err(panic) = ended {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = what.unwrap_or_else(|| "a panic without words".to_owned());
        world.system.ctx.judge(Err((Rule::Assertion, what)));
    }
    world
}
