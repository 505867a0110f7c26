//! The deterministic world, and the judges of what happened in it.

// The mutation tests compile the core's own test support, which names this crate.
extern crate self as bowline_sim;

pub mod exhaust;
pub mod keys;
pub mod linearizability;
pub mod mutation;
mod panics;
pub mod spec;
pub mod trace;
pub mod world;
