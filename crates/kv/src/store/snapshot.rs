//! Snapshots: the whole store as a stream of bytes, and back.
//!
//! A snapshot begins with a head: a mark with the format's version, the index, the revisions, and the cluster's
//! version. Blocks follow: they hold the leases in the order of their identities, the records in the order of their
//! revisions, the checksums of the latest compactions, oldest first, the alarms, the records of the members, the
//! comparison of their states, and the users and roles. The end holds the number of all these items and a checksum over
//! all blocks. Head, blocks and end each carry a CRC32C of their own, which shows where damage is. All numbers are
//! little-endian. Records that a compaction gave up are omitted, removed or not, so that replicas with the same state
//! write the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::alarms::Alarms;
use super::auth::AuthBook;
use super::codec::{CodecError, Sink, Source};
use super::comparison::Comparison;
use super::engine::{Batch, Engine, EngineError, Records, Revision};
use super::hash::HashPass;
use super::kept_hashes::{KeptHash, KeptHashes};
use super::leases::{Lease, LeaseChange};
use super::members::Members;
use super::meta::Meta;
use super::rebuild::Rebuild;
use super::record::Record;
use super::types::Alarm;
use super::{MAX_FIELD_BYTES, Store};

/// The first bytes; the format's version follows. Version 1 had no leases, 2 no checksums of
/// compactions, 3 no version of the cluster, 4 no alarms, 5 no members, 6 no comparison of their states, 7 no users and roles.
const MARK: [u8; 9] = *b"BOWLINEKV";
const VERSION: u8 = 8;
/// The version of a snapshot without users and roles, likewise.
const WITHOUT_USERS: u8 = 7;
/// The version of a snapshot without a comparison, likewise.
const WITHOUT_COMPARISON: u8 = 6;
/// The version of a snapshot without members, likewise.
const WITHOUT_MEMBERS: u8 = 5;
/// The version of a snapshot without alarms, which the program before can read, too.
const WITHOUT_ALARMS: u8 = 4;
/// Leases, checksums of compactions, alarms, members, their comparison, and users and roles have these in place of a
/// record's revision. No record has such a revision.
const LEASES: Revision = Revision::start_of(1);
const HASHES: Revision = Revision { main: 1, sub: 1 };
const ALARMS: Revision = Revision { main: 1, sub: 2 };
const MEMBERS: Revision = Revision { main: 1, sub: 3 };
const COMPARISON: Revision = Revision { main: 1, sub: 4 };
const USERS: Revision = Revision { main: 1, sub: 5 };
/// Bytes of a head before its checksum, in versions 1 to 3; later versions have four more.
const HEAD_BYTES: usize = MARK.len() + 1 + 8 + 8 + 8;
/// Bytes of an end, after the zero in place of a block's length.
const END_BYTES: usize = 8 + 4 + 4;

/// A block is written when it has this many bytes. A reader needs little more memory.
const BLOCK_BYTES: usize = 256 << 10;
/// Longest block: a record with the longest key and value fits.
pub const MAX_BLOCK_BYTES: usize = 2 * MAX_FIELD_BYTES + BLOCK_BYTES + 256;

/// The greatest index, revision or version that is accepted. Real ones stay far below it, and counting on from it can't
/// overflow.
pub(super) const MAX_ORDINAL: i64 = 1 << 62;

/// The state at one moment, to be written elsewhere while the store is in use.
pub struct Dump<V> {
    pub(super) view: V,
    pub(super) pending: Vec<(Revision, Record)>,
    pub(super) leases: Vec<Lease>,
    pub(super) meta: Meta,
    /// The records that are still to be removed, each with the revision from which on no reader sees it.
    pub(super) leavings: BTreeMap<Revision, i64>,
}

/// Why a snapshot could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The bytes could not be read.
    #[error("the snapshot could not be read: {0}")]
    Read(#[from] io::Error),
    /// The bytes are no snapshot, or are damaged.
    #[error("not a snapshot, or a damaged one: {0}")]
    Invalid(String),
    /// The new engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<CodecError> for RestoreError {
    fn from(error: CodecError) -> RestoreError {
        RestoreError::Invalid(error.to_string())
    }
}

impl<E: Engine> Store<E> {
    /// The present state, to be written elsewhere, possibly on another thread. Write it to a file
    /// without delay, and send the file: the engine's file may grow while the dump exists.
    ///
    /// # Errors
    /// The engine can't be read; the store then has a [`Store::fault`].
    pub fn dump(&self) -> Result<Dump<E::View>, EngineError> {
        let dump = || {
            self.check_fault()?;
            let leavings = self.leavings()?;
            let (leases, meta) = (self.leases().copied().collect(), self.meta.clone());
            Ok(Dump { view: self.engine.view()?, pending: self.pending.clone(), leases, meta, leavings })
        };
        self.watch(dump())
    }

    /// Restores a snapshot into an engine, whose content is cleared. If this fails or the
    /// process dies, the engine holds an empty store.
    ///
    /// # Errors
    /// The snapshot can't be read or is invalid, or the engine failed.
    pub fn restore_from(mut engine: E, source: &mut impl Read) -> Result<Store<E>, RestoreError> {
        let mut meta = read_head(source)?;
        engine.write(&Batch { clear: true, ..Batch::default() })?;
        let mut rebuild = Rebuild::default();
        let mut found = Found::default();
        while let Some(block) = read_block(source)? {
            let Contents { leases, records } = found.take(&block, &meta, &mut rebuild)?;
            engine.write(&Batch { puts: &records, leases: &leases, ..Batch::default() })?;
        }
        found.check_end(source)?;
        if !found.hashes.end_at(meta.compacted) {
            return Err(invalid("its checksums are not those of its compactions"));
        }
        (meta.hashes, meta.alarms, meta.members) = (found.hashes, found.alarms, Arc::new(found.members));
        (meta.comparison, meta.auth) = (found.comparison, Arc::new(found.auth));
        let mut store = Store::of(engine, rebuild, meta).map_err(|error| RestoreError::Invalid(error.to_string()))?;
        store.write_batch(&Batch::default())?;
        Ok(store)
    }
}

impl<V: Records> Dump<V> {
    /// The last log entry that the state contains.
    #[must_use]
    pub fn applied(&self) -> bowline_node::raft::Index {
        bowline_node::raft::Index(self.meta.applied)
    }

    /// Writes the state, and returns the number of bytes.
    ///
    /// # Errors
    /// The state can't be read (as an error of kind `Other`), or the bytes can't be written.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<u64> {
        let mut writer = BlockWriter::new(out);
        writer.head(&self.meta)?;
        self.leases.iter().try_for_each(|lease| writer.lease(lease))?;
        let mut failed = None;
        let mut hashes: Vec<_> = self.meta.hashes.iter().map(|kept| (*kept, HashPass::begin(kept.at))).collect();
        let mut visit = |at: Revision, record: Record| {
            let gone = self.leavings.get(&at);
            // Only checksums that are not computed yet need the records.
            for (kept, pass) in hashes.iter_mut().filter(|(kept, _)| kept.hash.is_none() && at.main <= kept.at) {
                let seen = !record.is_tombstone() && gone.is_none_or(|gone| *gone > kept.at);
                pass.take(at, &record, at.main > kept.previous || seen);
            }
            if gone.is_some() {
                return ControlFlow::Continue(());
            }
            match writer.record(at, &record) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        };
        let whole = Revision::default()..Revision::start_of(i64::MAX);
        self.view.scan(whole.start, whole.end, &mut visit).map_err(io::Error::other)?;
        // A write error is kept in `failed`: see below.
        let _ = self.pending.iter().try_for_each(|(at, record)| visit(*at, record.clone()));
        failed.map_or(Ok(()), Err)?;
        for (kept, pass) in &hashes {
            writer.hash(&KeptHash { hash: kept.hash.or(Some(pass.hash())), ..*kept })?;
        }
        self.meta.alarms.iter().try_for_each(|alarm| writer.alarm(&alarm))?;
        if !self.meta.members.is_empty() {
            writer.item(MEMBERS, &self.meta.members.encode())?;
        }
        if !self.meta.comparison.is_empty() {
            writer.item(COMPARISON, &self.meta.comparison.encode())?;
        }
        writer.users(&self.meta.auth)?;
        writer.end()
    }
}

/// Makes a snapshot with any bytes as its only block, and valid checksums. The bytes need not be records, so the
/// number of records is what the reader counts.
pub(super) fn seal(meta: &Meta, block: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut found = Found::default();
    // Errors in the records don't matter here: whoever restores the snapshot finds them.
    let _ = found.take(block, meta, &mut Rebuild::default());
    let mut writer = BlockWriter { out: &mut out, block: block.to_vec(), written: 0, count: found.count, checksum: 0 };
    let outcome = writer.head(meta).and_then(|()| writer.end());
    outcome.expect("memory takes whatever is written");
    out
}

pub(super) struct BlockWriter<'a, W> {
    out: &'a mut W,
    block: Vec<u8>,
    written: u64,
    count: u64,
    /// The checksum over all blocks.
    checksum: u32,
}

impl<W: Write> BlockWriter<'_, W> {
    pub(super) fn new(out: &mut W) -> BlockWriter<'_, W> {
        BlockWriter { out, block: Vec::new(), written: 0, count: 0, checksum: 0 }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn head(&mut self, meta: &Meta) -> io::Result<()> {
        let mut head = Vec::from(MARK);
        head.u8(match (meta.comparison.is_empty(), meta.members.is_empty(), meta.alarms.is_empty()) {
            _ if !meta.auth.is_new() => VERSION,
            (false, _, _) => WITHOUT_USERS,
            (true, false, _) => WITHOUT_COMPARISON,
            (true, true, false) => WITHOUT_MEMBERS,
            (true, true, true) => WITHOUT_ALARMS,
        });
        head.u64(meta.applied);
        head.i64(meta.revision);
        head.i64(meta.compacted);
        head.u32(meta.cluster_version);
        head.u32(crc32c::crc32c(&head));
        self.write(&head)
    }

    /// After everything else.
    pub(super) fn users(&mut self, auth: &AuthBook) -> io::Result<()> {
        if auth.is_new() { Ok(()) } else { self.item(USERS, &auth.encode()) }
    }

    pub(super) fn lease(&mut self, lease: &Lease) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(Lease::BYTES);
        lease.write(&mut bytes);
        self.item(LEASES, &bytes)
    }

    pub(super) fn record(&mut self, at: Revision, record: &Record) -> io::Result<()> {
        self.item(at, record.stored())
    }

    fn hash(&mut self, kept: &KeptHash) -> io::Result<()> {
        let mut bytes = Vec::new();
        kept.write(&mut bytes);
        self.item(HASHES, &bytes)
    }

    fn alarm(&mut self, alarm: &Alarm) -> io::Result<()> {
        let mut bytes = Vec::new();
        alarm.write(&mut bytes);
        self.item(ALARMS, &bytes)
    }

    fn item(&mut self, at: Revision, bytes: &[u8]) -> io::Result<()> {
        self.block.i64(at.main);
        self.block.u32(at.sub);
        self.block.bytes(bytes);
        self.count += 1;
        if self.block.len() >= BLOCK_BYTES { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        let mut head = Vec::with_capacity(8);
        head.length(block.len());
        head.u32(crc32c::crc32c(&block));
        self.checksum = crc32c::crc32c_append(self.checksum, &block);
        self.write(&head)?;
        self.write(&block)?;
        self.block = block;
        self.block.clear();
        Ok(())
    }

    pub(super) fn end(mut self) -> io::Result<u64> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let mut end = Vec::new();
        end.u64(self.count);
        end.u32(self.checksum);
        end.u32(crc32c::crc32c(&end));
        self.write(&[0; 4])?;
        self.write(&end)?;
        Ok(self.written)
    }
}

fn read_head(source: &mut impl Read) -> Result<Meta, RestoreError> {
    let mut head = vec![0; HEAD_BYTES];
    source.read_exact(&mut head)?;
    let version = head[MARK.len()];
    if head[..MARK.len()] != MARK || !(1..=VERSION).contains(&version) {
        return Err(invalid("it does not begin with the mark of format 1 to 7"));
    }
    let rest = if version < 4 { 4 } else { 4 + 4 };
    source.take(rest).read_to_end(&mut head)?;
    let Some((body, checksum)) = head.split_last_chunk::<4>() else { return Err(invalid("its head is cut off")) };
    if crc32c::crc32c(body).to_le_bytes() != *checksum {
        return Err(invalid("the checksum of its head is wrong"));
    }
    let mut numbers = Source::new(&body[MARK.len() + 1..]);
    let (applied, revision) = (numbers.u64("applied")?, numbers.i64("revision")?);
    let compacted = numbers.i64("compacted")?;
    let cluster_version = if version < 4 { 0 } else { numbers.u32("cluster version")? };
    if revision < 1 || compacted < -1 || compacted > revision {
        return Err(invalid("its revisions contradict each other"));
    }
    if revision > MAX_ORDINAL || applied > MAX_ORDINAL.unsigned_abs() {
        return Err(invalid("its revision or its index is beyond 2^62"));
    }
    let cursor = Revision::start_of(compacted);
    Ok(Meta { applied, revision, compacted, scrubbed: compacted, cursor, cluster_version, ..Meta::default() })
}

/// The next block; `None` at the zero that announces the end.
fn read_block(source: &mut impl Read) -> Result<Option<Vec<u8>>, RestoreError> {
    let mut word = [0; 4];
    source.read_exact(&mut word)?;
    let length = u32::from_le_bytes(word);
    if length == 0 {
        return Ok(None);
    }
    if length as usize > MAX_BLOCK_BYTES {
        return Err(RestoreError::Invalid(format!("a block of {length} bytes; {MAX_BLOCK_BYTES} are allowed")));
    }
    source.read_exact(&mut word)?;
    // The vector grows with the bytes that are really there: the length may be wrong.
    let mut block = Vec::new();
    source.take(length.into()).read_to_end(&mut block)?;
    if block.len() != length as usize {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    if crc32c::crc32c(&block).to_le_bytes() != word {
        return Err(invalid("the checksum of a block is wrong"));
    }
    Ok(Some(block))
}

/// The results from the blocks so far.
#[derive(Default)]
pub(super) struct Found {
    count: u64,
    checksum: u32,
    last: Revision,
    last_lease: Option<i64>,
    hashes: KeptHashes,
    alarms: Alarms,
    members: Members,
    comparison: Comparison,
    auth: AuthBook,
}

/// The content of a block.
#[derive(Default)]
struct Contents {
    leases: Vec<LeaseChange>,
    records: Vec<(Revision, Record)>,
}

impl Found {
    fn take(&mut self, block: &[u8], meta: &Meta, rebuild: &mut Rebuild) -> Result<Contents, RestoreError> {
        self.checksum = crc32c::crc32c_append(self.checksum, block);
        let mut source = Source::new(block);
        let mut contents = Contents::default();
        while source.end().is_err() {
            let at = Revision { main: source.i64("revision")?, sub: source.u32("sub-revision")? };
            let length = source.u32("record")? as usize;
            let bytes = source.raw(length, "record")?;
            self.count += 1;
            if !self.auth.is_new() {
                return Err(invalid("something follows its users and roles"));
            }
            if at == USERS {
                self.auth = AuthBook::decode(bytes).map_err(RestoreError::Invalid)?;
                continue;
            }
            if !self.comparison.is_empty() {
                return Err(invalid("something follows the comparison of its members"));
            }
            if at == COMPARISON {
                self.comparison = Comparison::decode(bytes).map_err(RestoreError::Invalid)?;
                continue;
            }
            if !self.members.is_empty() {
                return Err(invalid("something follows its members"));
            }
            if at == MEMBERS {
                self.members = Members::decode(bytes).map_err(RestoreError::Invalid)?;
                continue;
            }
            if at == ALARMS {
                self.alarm(bytes)?;
                continue;
            }
            if !self.alarms.is_empty() {
                return Err(invalid("something follows its alarms"));
            }
            if at == HASHES {
                self.hash(bytes)?;
                continue;
            }
            if !self.hashes.is_empty() {
                return Err(invalid("something follows its checksums"));
            }
            if at == LEASES {
                let lease = self.lease(bytes, meta)?;
                rebuild.lease(lease);
                contents.leases.push(LeaseChange::Granted(lease));
                continue;
            }
            let record = Record::from_stored(Bytes::copy_from_slice(bytes));
            self.admit(at, &record, meta, rebuild)?;
            contents.records.push((at, record));
        }
        Ok(contents)
    }

    /// Checks the next record, and takes it.
    pub(super) fn admit(
        &mut self,
        at: Revision,
        record: &Record,
        meta: &Meta,
        rebuild: &mut Rebuild,
    ) -> Result<(), RestoreError> {
        let version = rebuild.record(at, record).map_err(|error| RestoreError::Invalid(error.to_string()))?;
        if at <= self.last || at.main < 2 || at.main > meta.revision {
            return Err(invalid("its revisions are not in order"));
        }
        if version.version < 0 || version.version == 0 && !record.is_tombstone() {
            return Err(invalid("a version is not positive"));
        }
        // Each write has a place of its own, and each revision has 2^32 places.
        if version.version > at.main.saturating_mul(1 << 32).min(MAX_ORDINAL) {
            return Err(invalid("a key has more versions than there were writes"));
        }
        self.last = at;
        Ok(())
    }

    fn lease(&mut self, bytes: &[u8], meta: &Meta) -> Result<Lease, RestoreError> {
        let mut source = Source::new(bytes);
        let lease = Lease::read(&mut source)?;
        source.end()?;
        self.admit_lease(lease, meta)?;
        Ok(lease)
    }

    /// Checks the next lease, and takes it.
    pub(super) fn admit_lease(&mut self, lease: Lease, meta: &Meta) -> Result<(), RestoreError> {
        if self.last != Revision::default() || self.last_lease.is_some_and(|last| last >= lease.id) {
            return Err(invalid("its leases are not in order"));
        }
        if !lease.is_valid() || lease.granted_at.0 > meta.applied {
            return Err(invalid("it holds an invalid lease"));
        }
        self.last_lease = Some(lease.id);
        Ok(())
    }

    fn hash(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let mut source = Source::new(bytes);
        let kept = KeptHash::read(&mut source)?;
        source.end()?;
        if kept.hash.is_none() {
            return Err(invalid("it lacks a checksum of a compaction"));
        }
        self.hashes.restore(kept).map_err(invalid)
    }

    fn alarm(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let mut source = Source::new(bytes);
        let alarm = Alarm::read(&mut source)?;
        source.end()?;
        self.alarms.restore(alarm).map_err(invalid)
    }

    fn check_end(&self, source: &mut impl Read) -> Result<(), RestoreError> {
        let mut end = [0; END_BYTES];
        source.read_exact(&mut end)?;
        let (body, checksum) = end.split_at(END_BYTES - 4);
        let mut expected = Vec::new();
        expected.u64(self.count);
        expected.u32(self.checksum);
        if crc32c::crc32c(body).to_le_bytes() != checksum || body != expected {
            return Err(invalid("its end does not fit its blocks"));
        }
        Ok(())
    }
}

fn invalid(what: &str) -> RestoreError {
    RestoreError::Invalid(what.to_owned())
}
