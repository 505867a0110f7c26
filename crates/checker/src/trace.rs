//! A hash of everything that happened in a run. The same seed must give the same hash on every machine, in debug and in
//! release builds.

/// A running hash (FNV-1a, 64 bits: Fowler, Noll and Vo). It is not cryptographic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceHash {
    state: u64,
}

impl TraceHash {
    /// The hash of nothing.
    #[must_use]
    pub fn new() -> TraceHash {
        TraceHash { state: 0xcbf2_9ce4_8422_2325 }
    }

    /// Adds bytes and their length, so that the same bytes split differently give a different hash.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for byte in bytes {
            self.state = (self.state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        for byte in number.to_le_bytes() {
            self.state = (self.state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The hash so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.state
    }
}

impl Default for TraceHash {
    fn default() -> TraceHash {
        TraceHash::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_boundaries_count() {
        let hash = |pieces: &[&[u8]]| {
            let mut hash = TraceHash::new();
            pieces.iter().for_each(|piece| hash.bytes(piece));
            hash.value()
        };
        assert_eq!(hash(&[b"ab", b"c"]), hash(&[b"ab", b"c"]));
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"a", b"b"]), hash(&[b"b", b"a"]));
    }
}
