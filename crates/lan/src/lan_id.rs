//! The id of a participant of the LAN: four hexadecimal digits.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The id of a replica or a client: four hexadecimal digits, such as `00A1`.
///
/// It is printed as it was spelled, but compared, ordered and hashed by its numeric value: `00a1`
/// and `00A1` are the same participant.
#[derive(Clone, Copy)]
pub struct LanId {
    digits: [u8; 4],
}

impl LanId {
    /// `FFFF`: as a destination, every other replica; as a leader, "I know no leader".
    pub const BROADCAST: LanId = LanId { digits: *b"FFFF" };

    /// The id with this value, in capital letters.
    pub fn from_value(value: u16) -> LanId {
        let mut digits = [0; 4];
        for (place, digit) in digits.iter_mut().enumerate() {
            let nibble = (value >> (12 - 4 * place)) & 0xF;
            *digit = b"0123456789ABCDEF"[usize::from(nibble)];
        }
        LanId { digits }
    }

    /// The numeric value of the digits.
    pub fn value(self) -> u16 {
        self.digits.iter().fold(0, |value, &digit| {
            let nibble = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                // The constructors accept no other digits than A to F here.
                _ => digit - b'A' + 10,
            };
            (value << 4) | u16::from(nibble)
        })
    }

    /// The id as it was spelled.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.digits).expect("an id holds ASCII digits only")
    }

    /// Whether this is `FFFF`, which names no single participant.
    pub fn is_broadcast(self) -> bool {
        self.value() == u16::MAX
    }
}

/// Text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not an id: an id is exactly four hexadecimal digits, such as 00A1")]
pub struct LanIdError {
    /// What was given, shortened.
    pub value: String,
}

impl FromStr for LanId {
    type Err = LanIdError;

    fn from_str(text: &str) -> Result<LanId, LanIdError> {
        match <[u8; 4]>::try_from(text.as_bytes()) {
            Ok(digits) if digits.iter().all(u8::is_ascii_hexdigit) => Ok(LanId { digits }),
            _ => Err(LanIdError { value: crate::message::shorten(text) }),
        }
    }
}

impl PartialEq for LanId {
    fn eq(&self, other: &LanId) -> bool {
        self.value() == other.value()
    }
}

impl Eq for LanId {}

impl PartialOrd for LanId {
    fn partial_cmp(&self, other: &LanId) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LanId {
    fn cmp(&self, other: &LanId) -> Ordering {
        self.value().cmp(&other.value())
    }
}

impl Hash for LanId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value().hash(state);
    }
}

impl fmt::Display for LanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for LanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for LanId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_round_trips() {
        for value in 0..=u16::MAX {
            let id = LanId::from_value(value);
            assert_eq!(id.value(), value);
            assert_eq!(id.as_str(), format!("{value:04X}"));
            assert_eq!(id.as_str().parse::<LanId>(), Ok(id));
        }
    }

    #[test]
    fn the_spelling_is_kept_but_the_value_compares() {
        let small: LanId = "00a1".parse().unwrap();
        let big: LanId = "00A1".parse().unwrap();
        assert_eq!(small, big);
        assert_eq!(small.to_string(), "00a1");
        assert_eq!(big.to_string(), "00A1");
        assert!("ffff".parse::<LanId>().unwrap().is_broadcast());
        assert!("0009".parse::<LanId>().unwrap() < small);
    }

    #[test]
    fn anything_but_four_hexadecimal_digits_is_refused() {
        for text in ["", "000", "00000", "00G1", "0x01", "00 1", "é00", "+001"] {
            let error = text.parse::<LanId>().unwrap_err();
            assert_eq!(error.value, text);
            assert!(error.to_string().contains("four hexadecimal digits"));
        }
    }
}
