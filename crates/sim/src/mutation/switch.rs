//! The mutant that all replicas of this process carry, and the layers that look for it. A copy with mutants has another
//! file in place of this one: see [`super::copy`]. This program has neither mutants nor layers.

use super::{Budget, Layer};

/// Whether mutants are built in.
pub const BUILT_IN: bool = false;

/// Chooses the mutant of this number; 0 means none.
pub(super) fn choose(_: usize) {}

/// The number of the chosen mutant; 0 means none.
pub(super) fn chosen() -> usize {
    0
}

/// All layers, in the order of [`super::LAYERS`], if mutants are built in. The first argument holds the core's golden
/// scripts, each with its name.
#[must_use]
pub fn layers(_: Vec<(String, String)>, _: &Budget) -> Vec<Box<dyn Layer>> {
    Vec::new()
}
