//! The deterministic world, and the judges of what happened in it.

pub mod exhaust;
pub mod linearizability;
#[cfg(feature = "museum")]
pub mod museum;
mod panics;
pub mod spec;
pub mod trace;
pub mod world;
