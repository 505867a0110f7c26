//! The deterministic world, and the judges of what happened in it.

pub mod linearizability;
#[cfg(feature = "museum")]
pub mod museum;
pub mod trace;
