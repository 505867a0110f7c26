//! Random numbers, computed with whole numbers only, because the last bit of a logarithm may differ between machines.

use bowline_raft::Random;

/// A source of random numbers for one purpose. Draws for one purpose change nothing for another.
#[derive(Clone, Debug)]
pub(crate) struct Dice(Random);

impl Dice {
    pub(crate) fn new(seed: u64, purpose: u64) -> Dice {
        Dice(Random::stream(seed, purpose))
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `limit`; 0 if `limit` is 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0.below(limit)
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True in `parts` of a million cases.
    pub(crate) fn chance(&mut self, parts: u32) -> bool {
        parts > 0 && self.below(1_000_000) < u64::from(parts)
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u32) -> bool {
        self.chance(percent * 10_000)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// A waiting time, roughly exponential: mostly small, sometimes many times the mean.
    pub(crate) fn waiting(&mut self, mean: u64) -> u64 {
        let halvings = u64::from(self.word().trailing_zeros().min(20));
        let step = mean.saturating_mul(2) / 3;
        step.saturating_mul(halvings) + self.below(step + 1)
    }

    /// A number from `low` to `high` whose magnitude is drawn evenly: small ones as often as large ones.
    pub(crate) fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let (low, high) = (low.max(1), high.max(1));
        let doublings = u64::from(high.ilog2().saturating_sub(low.ilog2()));
        let base = low << self.below(doublings + 1);
        self.between(base, (base * 2).min(high).max(base)).clamp(low, high)
    }

    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        // An empty list draws nothing.
        if items.is_empty() { None } else { self.0.pick(items).copied() }
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }
}
