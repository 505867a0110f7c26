//! Which keys are meant.

use anyhow::bail;
use bowline_kv::store::prefix_end;
use bytes::Bytes;
use clap::Args;

/// A key, or a range of them.
#[derive(Args, Clone, Debug)]
pub(crate) struct RangeArgs {
    pub(crate) key: String,
    /// All keys from KEY to before this one.
    #[arg(conflicts_with_all = ["prefix", "from_key"])]
    range_end: Option<String>,
    /// All keys that begin with KEY.
    #[arg(long, conflicts_with = "from_key")]
    prefix: bool,
    /// All keys from KEY on.
    #[arg(long)]
    from_key: bool,
}

impl RangeArgs {
    /// Whether more than one key may be meant.
    pub(crate) fn is_many(&self) -> bool {
        self.prefix || self.from_key || self.range_end.is_some()
    }

    /// First key, and the end of the range as the API has it: empty for a single key.
    pub(crate) fn bounds(&self) -> anyhow::Result<(Bytes, Bytes)> {
        let key = Bytes::from(self.key.clone());
        let everything = || (Bytes::from_static(&[0]), Bytes::from_static(&[0]));
        if self.key.is_empty() {
            return match (self.is_many(), &self.range_end) {
                (true, None) => Ok(everything()),
                (true, Some(end)) => Ok((Bytes::from_static(&[0]), Bytes::from(end.clone()))),
                (false, _) => bail!("KEY is empty; allowed: at least one byte, or --prefix for all keys"),
            };
        }
        Ok(match (&self.range_end, self.prefix, self.from_key) {
            (Some(end), ..) => (key, Bytes::from(end.clone())),
            (None, true, _) => (key, prefix_end(self.key.as_bytes())),
            (None, _, true) => (key, Bytes::from_static(&[0])),
            (None, false, false) => (key, Bytes::new()),
        })
    }

    /// What is meant, for a question.
    pub(crate) fn describe(&self) -> String {
        match (&self.range_end, self.prefix, self.from_key) {
            _ if self.key.is_empty() && self.range_end.is_none() => "all keys".to_owned(),
            (Some(end), ..) => format!("keys from {:?} to before {end:?}", self.key),
            (None, true, _) => format!("keys that begin with {:?}", self.key),
            (None, _, true) => format!("keys from {:?} on", self.key),
            (None, false, false) => format!("key {:?}", self.key),
        }
    }
}
