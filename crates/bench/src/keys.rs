//! The keys and the values: which one comes next, and what is in it.

use bowline_raft::Random;
use bytes::Bytes;

use crate::plan::Distribution;

/// The keys of a measurement: a prefix, and a number with leading zeros.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: Bytes,
    digits: usize,
    count: u64,
}

impl Keys {
    /// `count` keys of `size` bytes, of which `prefix` are the first. `size` must be at least [`Keys::least_size`].
    pub(crate) fn new(prefix: &[u8], size: u64, count: u64) -> Keys {
        let digits = (size as usize).saturating_sub(prefix.len());
        Keys { prefix: Bytes::copy_from_slice(prefix), digits, count }
    }

    /// The size in bytes of the shortest keys.
    pub(crate) fn least_size(prefix: usize, count: u64) -> u64 {
        prefix as u64 + (count - 1).to_string().len() as u64
    }

    /// The number of keys.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The key with this number.
    pub(crate) fn key(&self, mut number: u64) -> Bytes {
        let mut key = Vec::with_capacity(self.prefix.len() + self.digits);
        key.extend_from_slice(&self.prefix);
        key.resize(self.prefix.len() + self.digits, b'0');
        for digit in key[self.prefix.len()..].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        key.into()
    }

    /// The first key of the range of all keys with the prefix, and the first one behind it; a zero byte if there is none
    /// behind.
    pub(crate) fn range(&self) -> (Bytes, Bytes) {
        let mut end = self.prefix.to_vec();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        match end.last_mut() {
            Some(last) => *last += 1,
            None => end.push(0),
        }
        (self.prefix.clone(), end.into())
    }
}

/// Chooses the numbers of keys.
#[derive(Clone, Debug)]
pub(crate) enum Picker {
    Sequential(u64),
    Uniform(u64),
    Zipf(Zipf),
}

impl Picker {
    pub(crate) fn new(distribution: Distribution, count: u64) -> Picker {
        match distribution {
            Distribution::Sequential => Picker::Sequential(count),
            Distribution::Uniform => Picker::Uniform(count),
            Distribution::Zipf { exponent } => Picker::Zipf(Zipf::new(count, exponent)),
        }
    }

    /// The number of the key for the request with this number.
    pub(crate) fn pick(&self, request: u64, random: &mut Random) -> u64 {
        match self {
            Picker::Sequential(count) => request % count,
            Picker::Uniform(count) => random.below(*count),
            Picker::Zipf(zipf) => zipf.pick(random),
        }
    }
}

/// Draws from a Zipf distribution by rejection-inversion (Hörmann and Derflinger, 1996), which needs no table and for
/// each number less than two draws on average.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    count: f64,
    exponent: f64,
    /// The integral of the density up to the first number, and up to behind the last one.
    first: f64,
    last: f64,
    /// Closer than this to its number, a draw is accepted at once.
    near: f64,
}

impl Zipf {
    fn new(count: u64, exponent: f64) -> Zipf {
        let mut zipf = Zipf { count: count as f64, exponent, first: 0.0, last: 0.0, near: 0.0 };
        zipf.first = zipf.integral(1.5) - 1.0;
        zipf.last = zipf.integral(zipf.count + 0.5);
        zipf.near = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    fn pick(&self, random: &mut Random) -> u64 {
        loop {
            let fraction = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
            let drawn = self.last + fraction * (self.first - self.last);
            let x = self.inverse(drawn);
            let number = (x + 0.5).floor().clamp(1.0, self.count);
            if number - x <= self.near || drawn >= self.integral(number + 0.5) - self.density(number) {
                return number as u64 - 1;
            }
        }
    }

    fn density(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// The integral of the density from 1 to `x`, also for an exponent of 1.
    fn integral(&self, x: f64) -> f64 {
        let power = (1.0 - self.exponent) * x.ln();
        let scale = if power.abs() > 1e-8 { power.exp_m1() / power } else { 1.0 + power / 2.0 };
        scale * x.ln()
    }

    fn inverse(&self, integral: f64) -> f64 {
        let power = (integral * (1.0 - self.exponent)).max(-1.0);
        let scale = if power.abs() > 1e-8 { power.ln_1p() / power } else { 1.0 - power / 2.0 };
        (scale * integral).exp()
    }
}

/// Values of one size: parts of the same random bytes, so that a value costs no copy.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    bytes: Bytes,
    size: usize,
}

/// Number of different values.
const VALUES: usize = 1_024;

impl Values {
    pub(crate) fn new(size: u64, seed: u64) -> Values {
        let (size, mut random) = (size as usize, Random::stream(seed, u64::MAX));
        let bytes: Vec<u8> = (0..(size + VALUES).div_ceil(8)).flat_map(|_| random.next_u64().to_le_bytes()).collect();
        Values { bytes: bytes.into(), size }
    }

    pub(crate) fn value(&self, random: &mut Random) -> Bytes {
        let from = random.below(VALUES as u64) as usize;
        self.bytes.slice(from..from + self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_size_and_their_order() {
        let keys = Keys::new(b"bench/", 10, 10_000);
        assert_eq!(
            (keys.key(0), keys.key(42), keys.key(9_999)),
            ("bench/0000".into(), "bench/0042".into(), "bench/9999".into())
        );
        assert_eq!(keys.range(), (Bytes::from("bench/"), Bytes::from("bench0")));
        assert_eq!(Keys::new(b"a\xff", 4, 10).range().1, Bytes::from("b"));
        assert_eq!(Keys::new(b"\xff", 4, 10).range().1, Bytes::from("\0"));
        assert_eq!((Keys::least_size(6, 1), Keys::least_size(6, 10), Keys::least_size(6, 11)), (7, 7, 8));
    }

    #[test]
    fn values_have_their_size_and_depend_on_the_seed() {
        let draw = |size, seed| Values::new(size, seed).value(&mut Random::new(1));
        for size in [0, 1, 7, 256, 100_000] {
            assert_eq!(draw(size, 1).len() as u64, size);
        }
        assert_eq!(draw(256, 1), draw(256, 1));
        assert_ne!(draw(256, 1), draw(256, 2));
    }

    #[test]
    fn sequential_and_uniform_reach_every_key() {
        let (sequential, uniform) = (Picker::new(Distribution::Sequential, 7), Picker::new(Distribution::Uniform, 7));
        let mut random = Random::new(1);
        let (mut first, mut second) = ([0; 7], [0; 7]);
        for request in 0..7_000 {
            first[sequential.pick(request, &mut random) as usize] += 1;
            second[uniform.pick(request, &mut random) as usize] += 1;
        }
        assert_eq!(first, [1_000; 7]);
        assert!(second.iter().all(|count| (800..1_200).contains(count)), "{second:?}");
    }

    #[test]
    fn zipf_has_the_shape_of_its_exponent() {
        const DRAWS: usize = 200_000;
        for exponent in [0.5, 0.99, 1.0, 1.5, 5.0] {
            for keys in [1_u64, 2, 10, 1_000] {
                let weights: Vec<f64> = (1..=keys).map(|n| (n as f64).powf(-exponent)).collect();
                let total: f64 = weights.iter().sum();
                let (zipf, mut random) = (Zipf::new(keys, exponent), Random::new(1));
                let mut seen = vec![0_f64; weights.len()];
                for _ in 0..DRAWS {
                    seen[zipf.pick(&mut random) as usize] += 1.0;
                }
                for (number, (seen, weight)) in seen.iter().zip(&weights).enumerate() {
                    let expected = DRAWS as f64 * weight / total;
                    // Six standard deviations, so that one of 4,000 checks is not out of its bounds by chance.
                    let apart = (seen - expected).abs();
                    assert!(
                        apart <= 6.0 * expected.sqrt() + 1.0,
                        "{exponent}, {keys} keys: {number} came {seen}, not {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn zipf_draws_from_many_keys_at_once() {
        let (zipf, mut random) = (Zipf::new(100_000_000, 0.99), Random::new(1));
        let largest = (0..10_000).map(|_| zipf.pick(&mut random)).max();
        assert!(largest > Some(50_000_000) && largest < Some(100_000_000), "{largest:?}");
    }
}
