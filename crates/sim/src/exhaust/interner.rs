//! Interning: what many states share is stored once, under a number.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::rc::Rc;

/// A fast hash for small trusted keys, the same on every machine.
#[derive(Clone, Copy, Default)]
pub(super) struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = mix(self.0.rotate_left(5) ^ word);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

/// The final mixing of SplitMix64 (Steele, Lea and Flood, 2014).
pub(super) fn mix(word: u64) -> u64 {
    let mut mixed = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A map with this hash.
pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mixer>>;

/// A collection that stores equal things once.
pub(super) struct Interner<T> {
    numbers: Map<Rc<T>, u32>,
    things: Vec<Rc<T>>,
}

impl<T> Default for Interner<T> {
    fn default() -> Interner<T> {
        Interner { numbers: Map::default(), things: Vec::new() }
    }
}

impl<T: Eq + Hash> Interner<T> {
    /// The number of a thing, known or new.
    pub(super) fn number(&mut self, thing: T) -> u32 {
        if let Some(number) = self.numbers.get(&thing) {
            return *number;
        }
        let number = u32::try_from(self.things.len()).expect("four billion things don't fit in memory");
        let thing = Rc::new(thing);
        self.things.push(Rc::clone(&thing));
        self.numbers.insert(thing, number);
        number
    }

    /// The thing with this number.
    pub(super) fn get(&self, number: u32) -> &T {
        &self.things[number as usize]
    }

    /// The thing of that number, shared, so that others can be added meanwhile.
    pub(super) fn share(&self, number: u32) -> Rc<T> {
        Rc::clone(&self.things[number as usize])
    }

    pub(super) fn len(&self) -> usize {
        self.things.len()
    }
}

/// A set of 64-bit fingerprints: open addressing, at most seven eighths full.
pub(super) struct Fingerprints {
    slots: Vec<u64>,
    count: usize,
}

impl Fingerprints {
    pub(super) fn new() -> Fingerprints {
        Fingerprints { slots: vec![0; 1 << 12], count: 0 }
    }

    /// Adds a fingerprint; returns whether it is new.
    pub(super) fn insert(&mut self, fingerprint: u64) -> bool {
        // Zero marks an empty slot.
        let fingerprint = fingerprint.max(1);
        if (self.count + 1) * 8 > self.slots.len() * 7 {
            self.grow();
        }
        let new = place(&mut self.slots, fingerprint);
        self.count += usize::from(new);
        new
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![0; old.len() * 2];
        for fingerprint in old.into_iter().filter(|slot| *slot != 0) {
            place(&mut self.slots, fingerprint);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<u64>()
    }
}

fn place(slots: &mut [u64], fingerprint: u64) -> bool {
    let mask = slots.len() - 1;
    let mut at = (fingerprint as usize) & mask;
    loop {
        match slots[at] {
            0 => {
                slots[at] = fingerprint;
                return true;
            }
            known if known == fingerprint => return false,
            _ => at = (at + 1) & mask,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_has_one_number() {
        let mut interner = Interner::default();
        let (a, b) = (interner.number("a".to_owned()), interner.number("b".to_owned()));
        assert_ne!(a, b);
        assert_eq!(interner.number("a".to_owned()), a);
        assert_eq!((interner.get(b).as_str(), interner.len()), ("b", 2));
    }

    #[test]
    fn a_fingerprint_is_new_once() {
        let mut set = Fingerprints::new();
        assert!((0..20_000).all(|n| set.insert(mix(n))));
        assert!((0..20_000).all(|n| !set.insert(mix(n))));
    }
}
