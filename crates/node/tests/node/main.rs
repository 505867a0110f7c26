//! Nodes in a small simulated cluster: a network, disks that forget what was not yet written,
//! and clients that remember everything.

// Helpers are tests too, which the lint does not see.
#![allow(clippy::unwrap_used)]

mod cluster;
mod late;
mod ledger;
mod operations;
mod random_schedules;
mod requests;
#[path = "../../../raft/tests/support/simulation.rs"]
mod simulation;
mod snapshots;
