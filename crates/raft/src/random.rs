//! The random numbers of all pure code. The host chooses the seed, so that a run can be repeated bit for bit.

use std::time::Duration;

/// A small generator (SplitMix64: Steele, Lea and Flood, 2014). It is not fit for secrets.
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

    /// A generator for one purpose: draws for one purpose change nothing for another.
    #[must_use]
    pub fn stream(seed: u64, purpose: u64) -> Random {
        Random::new(seed ^ Random::new(purpose).next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 if `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The high half of the product. Its bias is below `limit` / 2^64.
        let product = u128::from(self.next_u64()) * u128::from(limit);
        u64::try_from(product >> 64).expect("the high half of a product is below its factor")
    }

    /// True with probability `p`: never for 0 and below, always for 1 and above.
    pub fn chance(&mut self, p: f64) -> bool {
        // 53 bits, because a double represents every such fraction exactly.
        let fraction = (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        fraction < p
    }

    /// One of `items`; `None` if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }

    /// Shuffles `items`. Every order is equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
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
    fn below_stays_below_and_reaches_everything() {
        let mut random = Random::new(1);
        let mut seen = [0_u32; 7];
        for _ in 0..7_000 {
            seen[random.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1200).contains(&count)), "{seen:?}");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.below(1), 0);
    }

    #[test]
    fn chance_keeps_its_share_and_its_ends() {
        let mut random = Random::new(2);
        let hits = (0..10_000).filter(|_| random.chance(0.3)).count();
        assert!((2_800..3_200).contains(&hits), "{hits}");
        assert!((0..1_000).all(|_| !random.chance(0.0)));
        assert!((0..1_000).all(|_| random.chance(1.0)));
    }

    #[test]
    fn shuffle_keeps_every_item() {
        let mut random = Random::new(3);
        let mut items: Vec<u32> = (0..50).collect();
        random.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
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
