//! An engine in a redb file, over any storage backend.
//!
//! The Raft log serves as write-ahead log, so batches are not durable; only [`Engine::checkpoint`] makes them
//! durable. After a crash the file holds exactly the state of the last checkpoint.

use std::fs::File;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bowline_node::raft::Index;
use bowline_storage::{private_options, wait_out};
use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{
    BackendError, Builder, CursorError, Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable,
    StorageBackend, Table, TableDefinition, WriteTransaction,
};

use super::engine::{Batch, Engine, EngineError, EngineSize, Records, Revision};
use super::leases::{Lease, LeaseChange};
use super::record::Record;
use super::reserve::Reserve;

const RECORDS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("records");
/// For each lease id: the time to live, and the index of the entry that granted it.
const LEASES: TableDefinition<'_, i64, (i64, u64)> = TableDefinition::new("leases");
const META: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("meta");
/// Keys in the table of notes.
const NOTE: u8 = 0;
const LABEL: u8 = 1;
const IN_USE: u8 = 2;
/// Bytes in use in a file without records: its header, and a page for each of its tables.
const EMPTY_BYTES: u64 = 5 * 4096;

/// Bytes that a batch or a checkpoint may take beyond its records: pages of the trees, notes.
const ROOM_BYTES: u64 = 2 << 20;

type FreeBytes = Box<dyn Fn() -> Option<u64> + Send + Sync>;

/// Records in a redb file.
pub struct RedbEngine {
    /// Shared with the views: it must not be closed before the last view is dropped.
    database: Arc<Database>,
    length: Arc<AtomicU64>,
    /// The file, if there is one, to see how many blocks it takes: redb doubles its length, which leaves holes.
    file: Option<File>,
    /// Tells how many bytes are free on its disk, if that is known.
    free: FreeBytes,
    /// Reserved space on that disk, to finish a batch when the disk fills up.
    reserve: Option<Arc<Reserve>>,
    cache_bytes: u64,
    /// Bytes of records written or removed since the last checkpoint. For them, up to half of the cache may still
    /// have to be written.
    unsynced: u64,
    /// Bytes of the records and leases; stored in the file as well.
    in_use: u64,
    /// Batches and checkpoints committed since it was opened.
    commits: u64,
}

impl std::fmt::Debug for RedbEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbEngine").field("size", &self.size()).finish_non_exhaustive()
    }
}

/// The records of a [`RedbEngine`], as of one moment. While it exists, the file can't reuse the space of its records.
pub struct RedbRecords {
    table: ReadOnlyTable<u128, &'static [u8]>,
    leases: ReadOnlyTable<i64, (i64, u64)>,
    _database: Arc<Database>,
}

impl RedbEngine {
    /// Opens a file, or makes a new one. At most `cache_bytes` of it are kept in memory.
    ///
    /// # Errors
    /// The file can't be read or written, is in use, or is damaged.
    pub fn open(path: &Path, cache_bytes: usize) -> Result<RedbEngine, EngineError> {
        let mut options = private_options();
        options.read(true).write(true).create(true).truncate(false);
        let refused = |error| EngineError::refused("open its file", format!("{}: {error}", path.display()));
        let file = wait_out(|| options.open(path)).map_err(refused)?;
        let same = wait_out(|| file.try_clone()).map_err(refused)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let reserve = Arc::new(Reserve::new(folder.to_owned()));
        let backend = FileBackend::new(file).map_err(failed("open its file"))?;
        let engine = RedbEngine::on(backend, cache_bytes, Some(reserve))?;
        // Of the folder, because the file itself may be renamed.
        let folder = folder.to_owned();
        let free = move || {
            let disk = rustix::fs::statvfs(&folder).ok()?;
            Some(disk.f_bavail.saturating_mul(disk.f_frsize))
        };
        Ok(RedbEngine { file: Some(same), ..engine }.with_free_bytes(free))
    }

    /// The same engine; `free` tells how many bytes are free on its disk, or `None` if it can't tell.
    #[must_use]
    pub fn with_free_bytes(self, free: impl Fn() -> Option<u64> + Send + Sync + 'static) -> RedbEngine {
        RedbEngine { free: Box::new(free), ..self }
    }

    /// Opens the engine in a backend, for example on a simulated disk.
    ///
    /// # Errors
    /// The backend fails, or its content is damaged.
    pub fn with_backend(backend: impl StorageBackend, cache_bytes: usize) -> Result<RedbEngine, EngineError> {
        RedbEngine::on(backend, cache_bytes, None)
    }

    /// How many batches and checkpoints were committed since it was opened: for measurements of their duration.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits
    }

    fn on(
        backend: impl StorageBackend,
        cache_bytes: usize,
        reserve: Option<Arc<Reserve>>,
    ) -> Result<RedbEngine, EngineError> {
        let length = Arc::new(AtomicU64::new(backend.len().map_err(failed("open its file"))?));
        let backend = Measured { backend, length: Arc::clone(&length), reserve: reserve.clone() };
        let database = Builder::new()
            .set_cache_size(cache_bytes)
            // Reads the whole file once; otherwise redb would accept a flipped bit, or panic because of it.
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .map_err(failed("open its file"))?;
        let cache_bytes = cache_bytes as u64;
        let database = Arc::new(database);
        let (file, free): (_, FreeBytes) = (None, Box::new(|| None));
        let (unsynced, in_use, commits) = (0, 0, 0);
        let mut engine = RedbEngine { database, length, file, free, reserve, cache_bytes, unsynced, in_use, commits };
        // So that a reader always finds the tables.
        engine.transact(Durability::Immediate, |txn| {
            txn.open_table(RECORDS).map_err(failed("make its tables"))?;
            txn.open_table(LEASES).map_err(failed("make its tables"))?;
            txn.open_table(META).map_err(failed("make its tables"))?;
            Ok(())
        })?;
        let in_use = engine.note(IN_USE)?;
        engine.in_use = in_use[..].try_into().map_or(0, u64::from_le_bytes);
        Ok(engine)
    }

    fn note(&self, place: u8) -> Result<Bytes, EngineError> {
        let txn = self.database.begin_read().map_err(failed("begin to read"))?;
        let table = txn.open_table(META).map_err(failed("read its note"))?;
        let note = table.get(place).map_err(failed("read its note"))?;
        Ok(note.map_or_else(Bytes::new, |note| Bytes::copy_from_slice(note.value())))
    }

    fn transact(
        &self,
        durability: Durability,
        run: impl FnOnce(&WriteTransaction) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let mut txn = self.database.begin_write().map_err(failed("begin a batch"))?;
        // A checkpoint saves data that a start after a crash would otherwise compute by reading the whole file.
        txn.set_quick_repair(matches!(durability, Durability::Immediate));
        txn.set_durability(durability).map_err(failed("begin a batch"))?;
        run(&txn)?;
        txn.commit().map_err(failed("commit a batch"))
    }
}

impl Engine for RedbEngine {
    type Reader<'a> = RedbRecords;
    type View = RedbRecords;

    fn meta(&self) -> Result<Bytes, EngineError> {
        self.note(NOTE)
    }

    fn label(&self) -> Result<Bytes, EngineError> {
        self.note(LABEL)
    }

    fn reader(&self) -> Result<RedbRecords, EngineError> {
        self.view()
    }

    fn view(&self) -> Result<RedbRecords, EngineError> {
        let txn = self.database.begin_read().map_err(failed("begin to read"))?;
        let table = txn.open_table(RECORDS).map_err(failed("begin to read"))?;
        let leases = txn.open_table(LEASES).map_err(failed("begin to read"))?;
        Ok(RedbRecords { table, leases, _database: Arc::clone(&self.database) })
    }

    fn write(&mut self, batch: &Batch<'_>) -> Result<(), EngineError> {
        let mut in_use = if batch.clear { 0 } else { self.in_use };
        let mut changed = 0;
        self.transact(Durability::None, |txn| {
            if batch.clear {
                txn.delete_table(RECORDS).map_err(failed("drop its records"))?;
                txn.delete_table(LEASES).map_err(failed("drop its leases"))?;
            }
            let mut records = txn.open_table(RECORDS).map_err(failed("write a record"))?;
            let appended = append(&mut records, batch.puts)?;
            for (_, record) in &batch.puts[..appended] {
                in_use += record.stored().len() as u64;
                changed += record.stored().len() as u64;
            }
            for (at, record) in &batch.puts[appended..] {
                let stored = record.stored();
                let before = records.insert(place_of(*at), stored).map_err(failed("write a record"))?;
                in_use = in_use.saturating_sub(before.map_or(0, |before| before.value().len() as u64));
                in_use += stored.len() as u64;
                changed += stored.len() as u64;
            }
            for at in batch.deletes {
                let before = records.remove(place_of(*at)).map_err(failed("remove a record"))?;
                let removed = before.map_or(0, |before| before.value().len() as u64);
                in_use = in_use.saturating_sub(removed);
                changed += removed;
            }
            let (granted, gone) = change_leases(txn, batch.leases)?;
            in_use = (in_use + granted).saturating_sub(gone);
            changed += granted + gone;
            let mut meta = txn.open_table(META).map_err(failed("write its note"))?;
            meta.insert(NOTE, &batch.meta[..]).map_err(failed("write its note"))?;
            meta.insert(IN_USE, &in_use.to_le_bytes()[..]).map_err(failed("write its size"))?;
            Ok(())
        })?;
        self.in_use = in_use;
        self.unsynced += changed;
        self.commits += 1;
        Ok(())
    }

    fn checkpoint(&mut self, label: Option<&[u8]>) -> Result<(), EngineError> {
        self.transact(Durability::Immediate, |txn| {
            let Some(label) = label else { return Ok(()) };
            let mut meta = txn.open_table(META).map_err(failed("write its label"))?;
            meta.insert(LABEL, label).map_err(failed("write its label"))?;
            Ok(())
        })?;
        self.unsynced = 0;
        self.commits += 1;
        Ok(())
    }

    fn size(&self) -> EngineSize {
        let in_use = EMPTY_BYTES + self.in_use;
        let metadata = self.file.as_ref().and_then(|file| file.metadata().ok());
        let total = metadata.map_or_else(|| self.length.load(Ordering::Relaxed), |metadata| metadata.blocks() * 512);
        // Data that is still in the cache counts already.
        EngineSize { total: total.max(in_use), in_use }
    }

    fn has_room(&self, bytes: u64) -> bool {
        // If the free space is unknown, the write itself will find out.
        let Some(free) = (self.free)() else { return true };
        // At most half of the cache waits to be written.
        let waiting = self.unsynced.saturating_mul(2).min(self.cache_bytes / 2);
        let reserve = self.reserve.as_ref();
        let missing = reserve.map_or(0, |reserve| reserve.missing());
        let needed = bytes.saturating_mul(2).saturating_add(waiting).saturating_add(ROOM_BYTES + missing);
        free >= needed && reserve.is_none_or(|reserve| reserve.hold())
    }
}

impl Records for RedbRecords {
    fn get(&self, at: Revision) -> Result<Option<Record>, EngineError> {
        let found = ReadableTable::get(&self.table, place_of(at)).map_err(failed("read a record"))?;
        Ok(found.map(|found| Record::from_stored(Bytes::copy_from_slice(found.value()))))
    }

    fn scan(
        &self,
        from: Revision,
        until: Revision,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        if from >= until {
            return Ok(());
        }
        let range =
            ReadableTable::range(&self.table, place_of(from)..place_of(until)).map_err(failed("read its records"))?;
        for item in range {
            let (place, record) = item.map_err(failed("read its records"))?;
            let record = Record::from_stored(Bytes::copy_from_slice(record.value()));
            if visit(revision_at(place.value()), record).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn leases(&self) -> Result<Vec<Lease>, EngineError> {
        let all = ReadableTable::iter(&self.leases).map_err(failed("read its leases"))?;
        all.map(|item| {
            let (id, held) = item.map_err(failed("read its leases"))?;
            let (ttl, granted_at) = held.value();
            Ok(Lease { id: id.value(), ttl, granted_at: Index(granted_at) })
        })
        .collect()
    }
}

/// Applies changes of the leases. Returns how many bytes were added, and how many were removed.
fn change_leases(txn: &WriteTransaction, changes: &[LeaseChange]) -> Result<(u64, u64), EngineError> {
    let mut leases = txn.open_table(LEASES).map_err(failed("write a lease"))?;
    let (mut granted, mut gone) = (0, 0);
    for change in changes {
        let before = match change {
            LeaseChange::Granted(Lease { id, ttl, granted_at }) => {
                granted += Lease::BYTES as u64;
                leases.insert(id, (*ttl, granted_at.0)).map_err(failed("write a lease"))?
            }
            LeaseChange::Gone(id) => leases.remove(id).map_err(failed("remove a lease"))?,
        };
        gone += before.map_or(0, |_| Lease::BYTES as u64);
    }
    Ok((granted, gone))
}

/// Inserts records in order at one place, up to the next existing record. So they fill their pages; inserted one by
/// one, they would leave half of every page free. Returns how many records it inserted, from the first on.
fn append(table: &mut Table<'_, u128, &'static [u8]>, puts: &[(Revision, Record)]) -> Result<usize, EngineError> {
    let Some((first, _)) = puts.first() else { return Ok(0) };
    let mut cursor = table.upper_bound_mut(Bound::Excluded(place_of(*first))).map_err(failed("write a record"))?;
    let mut count = 0;
    for (at, record) in puts {
        match cursor.insert_before(place_of(*at), record.stored()) {
            Ok(()) => count += 1,
            Err(CursorError::UnorderedKey) => break,
            Err(error) => return Err(failed("write a record")(error)),
        }
    }
    cursor.close().map_err(failed("write a record"))?;
    Ok(count)
}

/// Maps revisions to numbers of the same order. No record has a negative revision.
fn place_of(at: Revision) -> u128 {
    u128::from(at.main.max(0).cast_unsigned()) << 32 | u128::from(at.sub)
}

fn revision_at(place: u128) -> Revision {
    Revision { main: (place >> 32) as i64, sub: place as u32 }
}

fn failed<X: Into<redb::Error>>(action: &'static str) -> impl FnOnce(X) -> EngineError {
    move |error| {
        let error = error.into();
        if is_refusal(&error) { EngineError::refused(action, error) } else { EngineError::new(action, error) }
    }
}

/// Whether the system refused to read or write, so that the error says nothing about the stored data.
fn is_refusal(error: &redb::Error) -> bool {
    match error {
        // These kinds mean that the file ends too early, or holds something invalid.
        redb::Error::Io(error) => !matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
        ),
        redb::Error::PreviousIo | redb::Error::DatabaseAlreadyOpen => true,
        _ => false,
    }
}

/// A backend that publishes its length, and uses the reserve if there is one.
#[derive(Debug)]
struct Measured<B> {
    backend: B,
    length: Arc<AtomicU64>,
    reserve: Option<Arc<Reserve>>,
}

impl<B: StorageBackend> Measured<B> {
    /// Runs an operation that may find the disk full.
    fn with_reserve(&self, run: impl Fn() -> io::Result<()>) -> io::Result<()> {
        match &self.reserve {
            Some(reserve) => reserve.with(run),
            None => run(),
        }
    }
}

impl<B: StorageBackend> StorageBackend for Measured<B> {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        wait_out(|| self.backend.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with_reserve(|| self.backend.set_len(len))?;
        self.length.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        // After a failed sync nobody knows what is on the disk, so it is not retried.
        self.backend.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with_reserve(|| self.backend.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}
