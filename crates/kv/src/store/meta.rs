//! What the store notes about itself, together with the records.

use bytes::Bytes;

use super::codec::{CodecError, Sink, Source};
use super::engine::{EngineError, Revision};
use super::kept_hashes::{KeptHash, KeptHashes};

/// First byte of the note. The first version has no checksums of compactions, and is still written where there are
/// none.
const FIRST_VERSION: u8 = 1;
const VERSION: u8 = 2;

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Index of the last log entry that was applied.
    pub(crate) applied: u64,
    /// The latest revision; 1 at first.
    pub(crate) revision: i64,
    /// The oldest readable revision; -1 at first.
    pub(crate) compacted: i64,
    /// The compaction whose leavings are all removed; -1 at first.
    pub(crate) scrubbed: i64,
    /// Where the removing goes on.
    pub(crate) cursor: Revision,
    /// The checksums of the latest compactions.
    pub(crate) hashes: KeptHashes,
}

impl Default for Meta {
    fn default() -> Meta {
        let (cursor, hashes) = (Revision::default(), KeptHashes::default());
        Meta { applied: 0, revision: 1, compacted: -1, scrubbed: -1, cursor, hashes }
    }
}

impl Meta {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![if self.hashes.is_empty() { FIRST_VERSION } else { VERSION }];
        out.u64(self.applied);
        out.i64(self.revision);
        out.i64(self.compacted);
        out.i64(self.scrubbed);
        out.i64(self.cursor.main);
        out.u32(self.cursor.sub);
        if !self.hashes.is_empty() {
            out.length(self.hashes.iter().count());
            self.hashes.iter().for_each(|kept| kept.write(&mut out));
        }
        out.into()
    }

    /// The note of an engine; `None` if it has none yet.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Meta>, EngineError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let failed = |error: &dyn std::fmt::Display| EngineError::new("read the store's note", error);
        let (mut meta, kept) = Meta::read(bytes).map_err(|error| failed(&error))?;
        kept.into_iter().try_for_each(|kept| meta.hashes.restore(kept)).map_err(|error| failed(&error))?;
        match meta.hashes.end_at(meta.compacted) {
            true => Ok(Some(meta)),
            false => Err(failed(&"its checksums are not those of its compactions")),
        }
    }

    fn read(bytes: &[u8]) -> Result<(Meta, Vec<KeptHash>), CodecError> {
        let mut source = Source::new(bytes);
        let version = source.u8("version")?;
        if version != FIRST_VERSION && version != VERSION {
            return Err(CodecError::UnknownVersion(version));
        }
        let meta = Meta {
            applied: source.u64("applied")?,
            revision: source.i64("revision")?,
            compacted: source.i64("compacted")?,
            scrubbed: source.i64("scrubbed")?,
            cursor: Revision { main: source.i64("cursor")?, sub: source.u32("cursor")? },
            hashes: KeptHashes::default(),
        };
        let kept = if version == FIRST_VERSION { Vec::new() } else { source.list("checksums", KeptHash::read)? };
        source.end()?;
        Ok((meta, kept))
    }
}
