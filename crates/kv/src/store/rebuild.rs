//! Rebuilds the store's memory (index and leases) from an engine or a snapshot.

use super::engine::{EngineError, Revision};
use super::index::{IndexBuilder, KeyIndex, Version};
use super::leases::{BookBuilder, Lease, LeaseBook};
use super::record::Record;

/// Takes first the leases, then the records in the order of their revisions.
#[derive(Default)]
pub(crate) struct Rebuild {
    index: IndexBuilder,
    book: BookBuilder,
}

impl Rebuild {
    pub(crate) fn lease(&mut self, lease: Lease) {
        self.book.insert(lease);
    }

    /// # Errors
    /// The record can't be read.
    pub(crate) fn record(&mut self, at: Revision, record: &Record) -> Result<Version, EngineError> {
        let (kv, version) = Version::of(at, record)?;
        self.book.name(&kv.key, kv.lease);
        self.index.push(kv.key.as_ref().into(), version);
        Ok(version)
    }

    /// # Errors
    /// A key is attached to a missing lease.
    pub(crate) fn finish(self) -> Result<(KeyIndex, LeaseBook), EngineError> {
        Ok((self.index.build(), self.book.build()?))
    }
}
