//! The leader's answer about a lease's time, as a protobuf message.

use std::time::Duration;

use bytes::Bytes;
use prost::{DecodeError, Message};

/// The time of an existing lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    /// The granted time to live, in seconds.
    pub granted: i64,
    /// The remaining time, to the millisecond; zero if the lease is about to end.
    pub left: Duration,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseTimeMessage {
    /// `None` if there is no such lease.
    #[prost(int64, optional, tag = "1")]
    granted: Option<i64>,
    /// In milliseconds.
    #[prost(uint64, tag = "2")]
    left: u64,
}

impl LeaseTime {
    /// Encodes an answer; `None` if there is no such lease.
    #[must_use]
    pub fn encode(found: Option<LeaseTime>) -> Bytes {
        let left = found.map_or(Duration::ZERO, |found| found.left);
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        LeaseTimeMessage { granted: found.map(|found| found.granted), left }.encode_to_vec().into()
    }

    /// Decodes what [`LeaseTime::encode`] made.
    ///
    /// # Errors
    /// The bytes can't be decoded.
    pub fn decode(bytes: Bytes) -> Result<Option<LeaseTime>, DecodeError> {
        let LeaseTimeMessage { granted, left } = LeaseTimeMessage::decode(bytes)?;
        Ok(granted.map(|granted| LeaseTime { granted, left: Duration::from_millis(left) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each with its bytes, which members of other versions send and read: they never change.
    #[test]
    fn times_come_back_as_they_were() {
        let found = LeaseTime { granted: 300, left: Duration::from_millis(1_234) };
        for (found, expected) in [(None, &b""[..]), (Some(found), b"\x08\xac\x02\x10\xd2\x09")] {
            let bytes = LeaseTime::encode(found);
            assert_eq!(bytes, expected);
            assert_eq!(LeaseTime::decode(bytes), Ok(found));
        }
        assert!(LeaseTime::decode(Bytes::from_static(&[8])).is_err(), "it is cut off");
    }
}
