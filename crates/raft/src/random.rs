//! The core's own random numbers. The host seeds them, so that a run can be repeated bit for bit.

use std::time::Duration;

/// A small generator (SplitMix64: Steele, Lea and Flood, 2014). It draws timeouts, and is not fit for secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator that yields the same numbers for the same `seed` on every machine.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A span drawn evenly from `shortest..=longest`, in whole nanoseconds.
    pub fn span(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let low = u64::try_from(shortest.as_nanos()).unwrap_or(u64::MAX);
        let high = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        let width = u128::from(high.saturating_sub(low)) + 1;
        // A multiplication and a shift map 64 random bits to the width. The bias is below 2^-20 for spans of hours,
        // too small to matter for elections.
        let offset = (u128::from(self.next_u64()) * width) >> 64;
        Duration::from_nanos(low + u64::try_from(offset).expect("the offset is below the width"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_draws_the_published_numbers() {
        // The first outputs for the seed 1234567, as published with the algorithm.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn the_same_seed_draws_the_same_numbers() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            [random.next_u64(), random.next_u64(), random.next_u64()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn spans_stay_within_their_bounds_and_fill_them() {
        let mut random = Random::new(1);
        let (low, high) = (Duration::from_nanos(10), Duration::from_nanos(13));
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let span = random.span(low, high);
            assert!((low..=high).contains(&span));
            seen.insert(span);
        }
        assert_eq!(seen.len(), 4);
    }
}
