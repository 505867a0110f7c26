//! The store's note about itself, kept together with the records.

use std::sync::Arc;

use bytes::Bytes;

use super::alarms::Alarms;
use super::auth::AuthBook;
use super::codec::{CodecError, Sink, Source};
use super::comparison::Comparison;
use super::engine::{EngineError, Revision};
use super::kept_hashes::{KeptHash, KeptHashes};
use super::members::Members;
use super::types::Alarm;

/// First byte of the note. Version 1 had no checksums of compactions, 2 no version of the cluster, 3 no alarms,
/// 4 no members, 5 no comparison of the members' states, 6 no users and roles.
const VERSION: u8 = 7;
/// The version of a note without users and roles, so that the program before can be started again while there are none.
const WITHOUT_USERS: u8 = 6;
/// The version of a note without a comparison, so that the program before can be started again while there is none.
const WITHOUT_COMPARISON: u8 = 5;
/// The version of a note without members, so that the program before can be started again while there are none.
const WITHOUT_MEMBERS: u8 = 4;
/// The version of a note without alarms, so that the program before can be started again while there are none.
const WITHOUT_ALARMS: u8 = 3;

/// The content of the note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Index of the last log entry that was applied.
    pub(crate) applied: u64,
    /// The latest revision; 1 at first.
    pub(crate) revision: i64,
    /// The oldest readable revision; -1 at first.
    pub(crate) compacted: i64,
    /// The latest compaction whose removal is complete; -1 at first.
    pub(crate) scrubbed: i64,
    /// The record at which the removal continues.
    pub(crate) cursor: Revision,
    /// The checksums of the latest compactions.
    pub(crate) hashes: KeptHashes,
    /// The version that every member speaks; 0 before the first agreement.
    pub(crate) cluster_version: u32,
    /// The active alarms.
    pub(crate) alarms: Alarms,
    /// The records of the members.
    pub(crate) members: Arc<Members>,
    /// The comparison of the members' states.
    pub(crate) comparison: Comparison,
    /// The users and roles.
    pub(crate) auth: Arc<AuthBook>,
}

/// The parts of a note that is not checked yet.
struct Noted {
    meta: Meta,
    kept: Vec<KeptHash>,
    alarms: Vec<Alarm>,
    members: Bytes,
    comparison: Option<Bytes>,
    auth: Option<Bytes>,
}

impl Default for Meta {
    fn default() -> Meta {
        let (cursor, hashes, alarms) = (Revision::default(), KeptHashes::default(), Alarms::default());
        let (members, comparison) = (Arc::default(), Comparison::default());
        Meta {
            applied: 0,
            revision: 1,
            compacted: -1,
            scrubbed: -1,
            cursor,
            hashes,
            cluster_version: 0,
            alarms,
            members,
            comparison,
            auth: Arc::default(),
        }
    }
}

impl Meta {
    pub(crate) fn encode(&self) -> Bytes {
        let version = match (self.comparison.is_empty(), self.members.is_empty(), self.alarms.is_empty()) {
            _ if !self.auth.is_new() => VERSION,
            (false, _, _) => WITHOUT_USERS,
            (true, false, _) => WITHOUT_COMPARISON,
            (true, true, false) => WITHOUT_MEMBERS,
            (true, true, true) => WITHOUT_ALARMS,
        };
        let mut out = vec![version];
        out.u64(self.applied);
        out.i64(self.revision);
        out.i64(self.compacted);
        out.i64(self.scrubbed);
        out.i64(self.cursor.main);
        out.u32(self.cursor.sub);
        out.u32(self.cluster_version);
        out.length(self.hashes.iter().count());
        self.hashes.iter().for_each(|kept| kept.write(&mut out));
        if version > WITHOUT_ALARMS {
            out.length(self.alarms.len());
            self.alarms.iter().for_each(|alarm| alarm.write(&mut out));
        }
        if version > WITHOUT_MEMBERS {
            out.bytes(&self.members.encode());
        }
        if version > WITHOUT_COMPARISON {
            out.bytes(&self.comparison.encode());
        }
        if version > WITHOUT_USERS {
            out.bytes(&self.auth.encode());
        }
        out.into()
    }

    /// Decodes the note of an engine; `None` if it has none yet.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Meta>, EngineError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let failed = |error: &dyn std::fmt::Display| EngineError::new("read the store's note", error);
        let Noted { mut meta, kept, alarms, members, comparison, auth } =
            Meta::read(bytes).map_err(|error| failed(&error))?;
        meta.members = Arc::new(Members::decode(&members).map_err(|error| failed(&error))?);
        if let Some(comparison) = comparison {
            meta.comparison = Comparison::decode(&comparison).map_err(|error| failed(&error))?;
        }
        if let Some(auth) = auth {
            meta.auth = Arc::new(AuthBook::decode(&auth).map_err(|error| failed(&error))?);
        }
        alarms.into_iter().try_for_each(|alarm| meta.alarms.restore(alarm)).map_err(|error| failed(&error))?;
        kept.into_iter().try_for_each(|kept| meta.hashes.restore(kept)).map_err(|error| failed(&error))?;
        match meta.hashes.end_at(meta.compacted) {
            true => Ok(Some(meta)),
            false => Err(failed(&"its checksums are not those of its compactions")),
        }
    }

    fn read(bytes: &[u8]) -> Result<Noted, CodecError> {
        let mut source = Source::new(bytes);
        let version = source.u8("version")?;
        if !(1..=VERSION).contains(&version) {
            return Err(CodecError::UnknownVersion(version));
        }
        let meta = Meta {
            applied: source.u64("applied")?,
            revision: source.i64("revision")?,
            compacted: source.i64("compacted")?,
            scrubbed: source.i64("scrubbed")?,
            cursor: Revision { main: source.i64("cursor")?, sub: source.u32("cursor")? },
            cluster_version: if version < 3 { 0 } else { source.u32("cluster version")? },
            ..Meta::default()
        };
        let kept = if version < 2 { Vec::new() } else { source.list("checksums", KeptHash::read)? };
        let alarms = if version < 4 { Vec::new() } else { source.list("alarms", Alarm::read)? };
        let members = if version < 5 { Bytes::new() } else { source.bytes("members")? };
        let comparison = if version < 6 { None } else { Some(source.bytes("comparison")?) };
        let auth = if version < 7 { None } else { Some(source.bytes("users and roles")?) };
        source.end()?;
        Ok(Noted { meta, kept, alarms, members, comparison, auth })
    }
}
