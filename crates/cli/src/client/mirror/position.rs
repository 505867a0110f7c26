//! The position of a mirror: a JSON value in a key of the destination.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

/// The beginning of the key. The destination's prefix follows, so there is one position for each.
pub(super) const KEY: &[u8] = b"\0bowline-mirror\0";

/// How far a mirror has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The id of the source's cluster.
    source: u64,
    /// The mirrored prefix.
    prefix: Bytes,
    /// The last revision that was mirrored; `None` during the first copy.
    pub(super) revision: Option<i64>,
}

impl Position {
    pub(super) fn new(source: u64, prefix: &Bytes) -> Position {
        Position { source, prefix: prefix.clone(), revision: None }
    }

    /// Whether both are of the same source and prefix.
    pub(super) fn is_of(&self, other: &Position) -> bool {
        self.source == other.source && self.prefix == other.prefix
    }

    /// The value of the key. `write` makes it unlike any other.
    pub(super) fn encode(&self, write: (u64, u64)) -> Bytes {
        let json = json!({
            "source": format!("{:016x}", self.source), "prefix": STANDARD.encode(&self.prefix),
            "revision": self.revision, "mirror": format!("{:016x}", write.0), "write": write.1,
        });
        json.to_string().into()
    }

    /// Reads what [`Position::encode`] wrote.
    pub(super) fn decode(value: &[u8]) -> Option<Position> {
        let json: Value = serde_json::from_slice(value).ok()?;
        let source = u64::from_str_radix(json["source"].as_str()?, 16).ok()?;
        let prefix = STANDARD.decode(json["prefix"].as_str()?).ok()?.into();
        let revision = if json["revision"].is_null() { None } else { Some(json["revision"].as_i64()?) };
        Some(Position { source, prefix, revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_again() {
        for revision in [None, Some(7)] {
            let position = Position { source: u64::MAX, prefix: Bytes::from_static(b"\xff\0"), revision };
            assert_eq!(Position::decode(&position.encode((1, 2))), Some(position.clone()));
            assert_ne!(position.encode((1, 2)), position.encode((1, 3)));
        }
        assert_eq!(Position::decode(b"{}"), None);
        assert_eq!(Position::decode(b"\xff"), None);
    }
}
