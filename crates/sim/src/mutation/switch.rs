//! Which mutant all replicas of this process carry, and what looks for it. In a copy with mutants another file takes
//! the place of this one: see [`super::copy`]. This program has neither.

use super::{Budget, Layer};

/// Whether mutants are built in.
pub const BUILT_IN: bool = false;

/// Chooses the mutant of this number; 0: none.
pub(super) fn choose(_: usize) {}

/// The number of the chosen mutant; 0: none.
pub(super) fn chosen() -> usize {
    0
}

/// All layers, in the order of [`super::LAYERS`], if mutants are built in. The golden scripts of the core are given
/// with their names.
#[must_use]
pub fn layers(_: Vec<(String, String)>, _: &Budget) -> Vec<Box<dyn Layer>> {
    Vec::new()
}
