//! The deterministic world, and the judges of what happened in it.

// The museum compiles the core's own test support, which names this crate.
#[cfg(feature = "museum")]
extern crate self as bowline_sim;

pub mod exhaust;
pub mod keys;
pub mod linearizability;
#[cfg(feature = "museum")]
pub mod museum;
mod panics;
pub mod spec;
pub mod trace;
pub mod world;
