//! The arguments that select keys.

use std::ffi::OsString;

use anyhow::{Context, bail};
use bowline_kv::store::prefix_end;
use bytes::Bytes;
use clap::Args;

use super::{Notation, words};

/// A key or a range of keys.
#[derive(Args, Clone, Debug)]
pub(crate) struct RangeArgs {
    /// The key, or the first key of a range.
    #[arg(index = 1, required = true)]
    key: Option<OsString>,
    /// End of the range: select the keys from KEY up to, but not including, this one.
    #[arg(index = 2, conflicts_with_all = ["prefix", "from_key"])]
    range_end: Option<OsString>,
    /// Select all keys that begin with KEY.
    #[arg(long, conflicts_with = "from_key")]
    prefix: bool,
    /// Select KEY and all keys after it.
    #[arg(long)]
    from_key: bool,
    #[command(flatten)]
    pub(crate) notation: Notation,
}

impl RangeArgs {
    /// Whether a range is selected.
    pub(crate) fn is_many(&self) -> bool {
        self.prefix || self.from_key || self.range_end.is_some()
    }

    /// The first key and the end of the range, as in the API: empty for a single key.
    ///
    /// # Errors
    /// They are not in their notation, which is `default` if none was chosen; or the key is empty.
    pub(crate) fn bounds(&self, default: Notation) -> anyhow::Result<(Bytes, Bytes)> {
        let (key, end) = self.given(default)?;
        let first = Bytes::from_static(&[0]);
        Ok(match (key.is_empty(), end) {
            (true, None) if !self.is_many() => {
                bail!("KEY is empty; allowed: at least one byte, or --prefix for all keys")
            }
            (true, None) => (first.clone(), first),
            (true, Some(end)) => (first, end),
            (false, Some(end)) => (key, end),
            (false, None) if self.prefix => {
                let end = prefix_end(&key);
                (key, end)
            }
            (false, None) if self.from_key => (key, first),
            (false, None) => (key, Bytes::new()),
        })
    }

    /// The selected keys, for a question to the user.
    pub(crate) fn describe(&self) -> anyhow::Result<String> {
        let (key, end) = self.given(Notation::default())?;
        let name = words::quoted(&key);
        Ok(match end {
            None if key.is_empty() => "keys (all)".to_owned(),
            Some(end) => format!("keys from {name} up to, but not including, {}", words::quoted(&end)),
            None if self.prefix => format!("keys that begin with {name}"),
            None if self.from_key => format!("keys from {name} on"),
            None => format!("key {name}"),
        })
    }

    /// The key and the end of the range as given.
    fn given(&self, default: Notation) -> anyhow::Result<(Bytes, Option<Bytes>)> {
        let notation = self.notation.or(default);
        let end = self.range_end.as_ref().map(|end| notation.read("RANGE_END", end)).transpose()?;
        let key = self.key.as_deref().context("KEY is missing")?;
        Ok((notation.read("KEY", key)?, end))
    }
}
