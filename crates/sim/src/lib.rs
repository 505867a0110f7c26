//! Simulated clusters, the reference model that checks their steps, the exhaustive search, and the mutation tests.

// The mutation tests compile the core's own test support, which names this crate.
extern crate self as bowline_sim;

pub mod cluster;
pub mod exhaust;
pub mod mutation;
mod panics;
pub mod spec;
