//! Sets of keys: the union of ranges.

use bytes::Bytes;

use crate::watch::{End, KeyRange};

/// A set of keys, as ranges that neither overlap nor touch, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeySet(Vec<Span>);

/// The keys from `start` on and before `end`; `None` if there is no end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    start: Bytes,
    end: Option<Bytes>,
}

impl Span {
    fn of(range: KeyRange) -> Span {
        let KeyRange { start, end } = range;
        let end = match end {
            // No key is between a key and the same key with a zero byte behind it.
            End::Single => Some([&start[..], &[0]].concat().into()),
            End::Before(end) => Some(end),
            End::Unbounded => None,
        };
        Span { start, end }
    }

    /// Whether it reaches a key, or ends right before it.
    fn meets(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| &end[..] >= key)
    }

    /// Whether it ends no earlier than another.
    fn outlasts(&self, other: &Span) -> bool {
        match (&self.end, &other.end) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => own >= other,
        }
    }
}

impl KeySet {
    /// The union of ranges.
    pub(crate) fn of(ranges: impl IntoIterator<Item = KeyRange>) -> KeySet {
        let mut spans: Vec<Span> = ranges.into_iter().map(Span::of).collect();
        spans.sort_by(|one, other| one.start.cmp(&other.start));
        let mut union: Vec<Span> = Vec::new();
        for span in spans {
            match union.last_mut() {
                Some(last) if last.meets(&span.start) => {
                    if !last.outlasts(&span) {
                        last.end = span.end;
                    }
                }
                _ => union.push(span),
            }
        }
        KeySet(union)
    }

    /// Whether it holds every key of a range.
    pub(crate) fn covers(&self, range: &KeyRange) -> bool {
        let after = self.0.partition_point(|span| span.start <= range.start);
        let Some(span) = after.checked_sub(1).and_then(|before| self.0.get(before)) else { return false };
        match &range.end {
            // Without a copy of the key: this is the check of most requests.
            End::Single => span.end.as_ref().is_none_or(|end| *end > range.start),
            End::Before(end) => span.end.as_ref().is_none_or(|own| own >= end),
            End::Unbounded => span.end.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bowline_node::raft::Random;

    use super::*;

    /// Keys of up to three letters of a small alphabet, so that ranges meet.
    fn key(random: &mut Random) -> Bytes {
        let length = 1 + random.below(3);
        (0..length).map(|_| [0, 1, b'a', b'b', 0xff][random.below(5) as usize]).collect::<Vec<u8>>().into()
    }

    fn range(random: &mut Random) -> Option<KeyRange> {
        let start = key(random);
        let end = match random.below(5) {
            0 => Bytes::from_static(&[0]),
            1 | 2 => Bytes::new(),
            _ => key(random),
        };
        KeyRange::of(&start, &end)
    }

    /// All keys that can tell two ranges apart: those of the alphabet, and their successors.
    fn keys() -> Vec<Bytes> {
        let letters = [0, 1, b'a', b'b', 0xff];
        let mut all: Vec<Vec<u8>> = vec![Vec::new()];
        for length in 0..4 {
            let longer: Vec<Vec<u8>> = all.iter().filter(|key| key.len() == length).cloned().collect();
            all.extend(longer.iter().flat_map(|key| letters.map(|letter| [&key[..], &[letter]].concat())));
        }
        all.into_iter().filter(|key| !key.is_empty()).map(Bytes::from).collect()
    }

    #[test]
    fn a_range_is_covered_if_each_of_its_keys_is() {
        let (mut random, keys) = (Random::new(7), keys());
        let (mut covered, mut not) = (0, 0);
        for _ in 0..3_000 {
            let granted: Vec<KeyRange> = (0..random.below(5)).filter_map(|_| range(&mut random)).collect();
            let set = KeySet::of(granted.clone());
            let Some(asked) = range(&mut random) else { continue };
            let is_granted = |key: &Bytes| granted.iter().any(|range| range.contains(key));
            let expected = keys.iter().filter(|key| asked.contains(key)).all(is_granted);
            // An end that is longer than all keys here can only make the real answer stricter.
            if set.covers(&asked) {
                assert!(expected, "{asked:?} is not covered by {granted:?}");
                covered += 1;
            } else {
                assert!(!expected, "{asked:?} is covered by {granted:?}");
                not += 1;
            }
        }
        assert!(covered > 300 && not > 300, "{covered} and {not}");
    }

    #[test]
    fn nothing_covers_what_has_no_end_but_a_range_without_one() {
        let whole = KeyRange::of(&Bytes::new(), &Bytes::from_static(&[0])).expect("it has keys");
        let most = KeyRange::of(&Bytes::from_static(&[0]), &Bytes::from_static(&[0xff; 40])).expect("it has keys");
        assert!(!KeySet::of([most]).covers(&whole));
        assert!(KeySet::of([whole.clone()]).covers(&whole));
    }
}
