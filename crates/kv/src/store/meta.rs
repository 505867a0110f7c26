//! What the store notes about itself, together with the records.

use bytes::Bytes;

use super::codec::{CodecError, Sink, Source};
use super::engine::{EngineError, Revision};

/// First byte of the note.
const VERSION: u8 = 1;

/// Where the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

impl Default for Meta {
    fn default() -> Meta {
        Meta { applied: 0, revision: 1, compacted: -1, scrubbed: -1, cursor: Revision::default() }
    }
}

impl Meta {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        self.write(&mut out);
        out.into()
    }

    /// The note of an engine; `None` if it has none yet.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Meta>, EngineError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let read = || {
            let mut source = Source::versioned(bytes, VERSION)?;
            let meta = Meta::read(&mut source)?;
            source.end()?;
            Ok(meta)
        };
        read().map(Some).map_err(|error: CodecError| EngineError::new("read the store's note", error))
    }

    pub(crate) fn write(&self, out: &mut impl Sink) {
        out.u64(self.applied);
        out.i64(self.revision);
        out.i64(self.compacted);
        out.i64(self.scrubbed);
        out.i64(self.cursor.main);
        out.u32(self.cursor.sub);
    }

    pub(crate) fn read(source: &mut Source<'_>) -> Result<Meta, CodecError> {
        Ok(Meta {
            applied: source.u64("applied")?,
            revision: source.i64("revision")?,
            compacted: source.i64("compacted")?,
            scrubbed: source.i64("scrubbed")?,
            cursor: Revision { main: source.i64("cursor")?, sub: source.u32("cursor")? },
        })
    }
}
