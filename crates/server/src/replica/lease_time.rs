//! What a leader says of a lease's time, on its way to whoever asked: a version, whether there is such a lease, and
//! its two times.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::peer::{Reader, WireError};

/// First byte of it.
const VERSION: u8 = 1;

/// The time of a lease that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    /// For how long it was granted, in seconds.
    pub granted: i64,
    /// For how long it still lives if nobody renews it, to the millisecond. Nothing if it is about to end.
    pub left: Duration,
}

impl LeaseTime {
    pub(crate) fn encode(found: Option<LeaseTime>) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        out.put_u8(found.is_some().into());
        if let Some(LeaseTime { granted, left }) = found {
            out.put_i64_le(granted);
            out.put_u64_le(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        }
        out.freeze()
    }

    /// # Errors
    /// The bytes are something else; says what.
    pub(crate) fn decode(bytes: Bytes) -> Result<Option<LeaseTime>, WireError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("version")?;
        if version != VERSION {
            return Err(WireError::Value { field: "version", value: version.into(), allowed: "1" });
        }
        let found = match reader.flag("found")? {
            true => {
                let granted = reader.u64("granted")?.cast_signed();
                Some(LeaseTime { granted, left: Duration::from_millis(reader.u64("left")?) })
            }
            false => None,
        };
        reader.end()?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_as_they_were() {
        for found in [None, Some(LeaseTime { granted: 9_000_000_000, left: Duration::from_millis(1_234) })] {
            let bytes = LeaseTime::encode(found);
            assert_eq!(LeaseTime::decode(bytes.clone()), Ok(found));
            for length in 0..bytes.len() {
                assert!(LeaseTime::decode(bytes.slice(..length)).is_err());
            }
        }
        assert!(LeaseTime::decode(Bytes::from_static(&[2, 0])).is_err(), "another version");
        assert!(LeaseTime::decode(Bytes::from_static(&[1, 0, 0])).is_err(), "more than that");
    }
}
