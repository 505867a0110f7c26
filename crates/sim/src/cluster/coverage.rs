//! How often each fault struck and each rare path was taken.

use bowline_raft::probe::{self, Probe};

use crate::cluster::faults::Fault;

/// Counts of faults and rare paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// By fault, in the order of [`Fault::ALL`].
    pub faults: Vec<u64>,
    /// By probe, in the order of [`Probe::ALL`].
    pub probes: Vec<u64>,
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage { faults: vec![0; Fault::COUNT], probes: vec![0; Probe::COUNT] }
    }
}

impl Coverage {
    pub(crate) fn struck(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    /// Takes the counts of this thread's probes.
    pub(crate) fn take_probes(&mut self) {
        self.probes = probe::take();
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Coverage) {
        let sums = self.faults.iter_mut().zip(&other.faults).chain(self.probes.iter_mut().zip(&other.probes));
        for (sum, count) in sums {
            *sum = sum.saturating_add(*count);
        }
    }

    /// The faults with their counts.
    pub fn by_fault(&self) -> impl Iterator<Item = (Fault, u64)> {
        Fault::ALL.iter().copied().zip(self.faults.iter().copied())
    }

    /// The probes with their counts.
    pub fn by_probe(&self) -> impl Iterator<Item = (Probe, u64)> {
        Probe::ALL.iter().copied().zip(self.probes.iter().copied())
    }
}
