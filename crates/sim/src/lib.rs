//! The deterministic world, and the judges of what happened in it.

pub mod linearizability;
pub mod spec;
pub mod trace;
pub mod world;
