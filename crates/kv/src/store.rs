//! The multi-version store behind the etcd v3 KV service.
//!
//! Each transaction that writes gets one revision, and each of its writes a sub-revision. A record is
//! kept in the [`Engine`] under the revision that wrote it, so records only ever grow at the end; an
//! index in memory knows which revisions each key has. It is rebuilt from the records at the start.
//!
//! [`Store`] is pure: the same [`Command`]s in the same order give the same answers, the same
//! checksum ([`Store::hash_kv`]) and the same snapshot, byte for byte, on every replica, whatever the
//! engine and however far [`Store::scrub`] went. It does no I/O but through its engine.
//!
//! ```
//! use bowline_kv::store::{Command, MemoryEngine, PutRequest, RangeRequest, Store};
//! use bowline_node::raft::Index;
//!
//! let mut store = Store::open(MemoryEngine::default())?;
//! let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
//! store.apply_command(Index(1), &Command::Put(put)).expect("nothing forbids it");
//! let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
//! let found = store.range(&range).expect("nothing forbids it");
//! assert_eq!((found.revision, &found.kvs[0].value[..]), (2, &b"v"[..]));
//! # Ok::<(), bowline_kv::store::EngineError>(())
//! ```

mod backend;
mod check;
mod codec;
mod command;
mod compact;
mod disk;
mod engine;
mod error;
mod fuzz;
mod hash;
mod index;
mod kept_hashes;
mod leases;
mod legacy;
mod lessor;
mod machine;
mod memory;
mod meta;
mod operations;
mod query;
mod read;
mod rebuild;
mod record;
mod reply;
mod reserve;
mod rewrite;
mod snapshot;
mod txn;
mod types;

use std::cell::OnceCell;
use std::ops::ControlFlow;
use std::sync::OnceLock;

use bowline_node::raft::Index;

pub use backend::OnDisk;
pub use check::{Limits, MAX_TXN_DEPTH};
pub use codec::{CodecError, MAX_FIELD_BYTES};
pub use command::Command;
pub use compact::Progress;
pub use disk::{RedbEngine, RedbRecords};
pub use engine::{Batch, Engine, EngineError, EngineSize, Records, Revision};
pub use error::{Code, KvError};
pub use fuzz::{fuzz_commands, fuzz_restore};
pub use leases::{Lease, LeaseChange, MAX_LEASE_TTL};
pub use lessor::{Lessor, Renewal, Renewed};
pub use memory::{MemoryEngine, MemoryRecords};
pub use operations::Operations;
pub use query::Query;
pub use record::Record;
pub use reply::{Change, Reply, Response, decode_reply, decode_reply_to, encode_reply, is_good_reply};
pub use rewrite::{Part, Rewrite, RewriteError, Rewritten};
pub use snapshot::{Dump, MAX_BLOCK_BYTES, RestoreError};
pub use types::*;

use hash::HashPass;
use index::KeyIndex;
use leases::LeaseBook;
use meta::Meta;
use read::{Failure, View};
use rebuild::Rebuild;
use rewrite::Tee;

/// What was applied goes to the engine when there is so much of it, in records and in bytes.
const PENDING_RECORDS: usize = 1024;
const PENDING_BYTES: usize = 1 << 20;

/// The multi-version store.
#[derive(Debug)]
pub struct Store<E> {
    engine: E,
    index: KeyIndex,
    book: LeaseBook,
    meta: Meta,
    /// Records that are applied but not in the engine yet, in order. All are newer than those there.
    pending: Vec<(Revision, Record)>,
    pending_bytes: usize,
    /// Changes of the leases, likewise.
    pending_leases: Vec<LeaseChange>,
    /// Those of the last command.
    lease_changes: Vec<LeaseChange>,
    /// What the last command did.
    operations: Operations,
    /// What the engine's note says.
    flushed: Meta,
    /// The checksum of a compaction that is being computed.
    hashing: Option<HashPass>,
    /// For another engine that is to hold the same.
    tee: Tee,
    fault: OnceLock<EngineError>,
}

impl<E: Engine> Store<E> {
    /// The store that an engine holds: a new one, if it holds none. Reads every record once, to build
    /// the index.
    ///
    /// # Errors
    /// The engine can't be read, or does not hold what it should.
    pub fn open(mut engine: E) -> Result<Store<E>, EngineError> {
        let Some(meta) = Meta::decode(&engine.meta()?)? else {
            // Without a note, records are the leavings of a restore that did not end.
            let meta = Meta::default();
            engine.write(&Batch { clear: true, meta: meta.encode(), ..Batch::default() })?;
            return Store::of(engine, Rebuild::default(), meta);
        };
        let mut rebuild = Rebuild::default();
        let mut failed = None;
        let whole = Revision::default()..Revision::start_of(i64::MAX);
        let reader = engine.reader()?;
        for lease in reader.leases()? {
            if !lease.is_valid() {
                return Err(EngineError::new("be trusted", "it holds a lease that nobody can have granted"));
            }
            rebuild.lease(lease);
        }
        reader.scan(whole.start, whole.end, &mut |at, record| match rebuild.record(at, &record) {
            Ok(_) if at.main > meta.revision => {
                failed = Some(EngineError::new("be trusted", "it holds a record beyond the latest revision"));
                ControlFlow::Break(())
            }
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        drop(reader);
        failed.map_or(Ok(()), Err)?;
        Store::of(engine, rebuild, meta)
    }

    fn of(engine: E, rebuild: Rebuild, meta: Meta) -> Result<Store<E>, EngineError> {
        let (index, book) = rebuild.finish()?;
        let (pending, pending_bytes, pending_leases) = (Vec::new(), 0, Vec::new());
        let (lease_changes, operations) = (Vec::new(), Operations::default());
        let (flushed, hashing) = (meta.clone(), None);
        let (tee, fault) = (Tee::default(), OnceLock::new());
        let store = Store {
            engine,
            index,
            book,
            meta,
            pending,
            pending_bytes,
            pending_leases,
            lease_changes,
            operations,
            flushed,
            hashing,
            tee,
            fault,
        };
        Ok(store)
    }

    /// The latest revision; 1 if nothing was ever written.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.meta.revision
    }

    /// The oldest readable revision; -1 if there never was a compaction.
    #[must_use]
    pub fn compacted_revision(&self) -> i64 {
        self.meta.compacted
    }

    /// The version that every member of the cluster speaks, as they agreed through the log; 0 before they first did. A
    /// command, or a field of one, that a version brings may be proposed once the cluster has that version. It never
    /// goes back.
    #[must_use]
    pub fn cluster_version(&self) -> u32 {
        self.meta.cluster_version
    }

    /// The last log entry that was applied. After a start it may be before the last one that was
    /// applied in the life before: see [`Store::checkpoint`].
    #[must_use]
    pub fn applied(&self) -> Index {
        Index(self.meta.applied)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.index.live()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why the engine can't be used any more, if so. The replica must stop before it tells anyone
    /// anything: its state may be behind what it has applied. Until then all is refused.
    #[must_use]
    pub fn fault(&self) -> Option<&EngineError> {
        self.fault.get()
    }

    /// Applies the command of the log entry at `index`, and says what its client is told. All or
    /// nothing; what is refused changes nothing but [`Store::applied`]. An entry that was applied
    /// before changes nothing, and is answered [`KvError::AlreadyApplied`].
    ///
    /// # Errors
    /// Why the command is refused, the same on every replica; [`KvError::Stopped`] if there is a
    /// [`Store::fault`], which is this replica's alone.
    pub fn apply_command(&mut self, index: Index, command: &Command) -> Reply {
        self.begin(index)?;
        let outcome = match command {
            Command::Put(put) => self.write(|txn| txn.put(put)).map(Response::Put),
            Command::DeleteRange(delete) => self.write(|txn| txn.delete_range(delete)).map(Response::DeleteRange),
            Command::Txn(txn) => self.write(|write| write.txn(txn)).map(Response::Txn),
            Command::Compact(compaction) => self.compact(compaction).map(Response::Compact),
            Command::LeaseGrant(grant) => self.grant_lease(index, grant).map(Response::LeaseGrant),
            Command::LeaseRevoke(revoke) => self.revoke_lease(revoke.id).map(Response::LeaseRevoke),
            Command::LeaseExpire(expire) => self.expire_leases(expire).map(Response::LeaseExpire),
            Command::ClusterVersion(raise) => Ok(Response::ClusterVersion(self.raise_cluster_version(raise))),
        };
        let reply = self.settle(outcome);
        self.finish(index)?;
        reply
    }

    fn raise_cluster_version(&mut self, raise: &ClusterVersionRequest) -> ClusterVersionResponse {
        let version = self.meta.cluster_version.max(raise.version);
        self.meta.cluster_version = version;
        ClusterVersionResponse { revision: self.meta.revision, version }
    }

    /// Applies an entry that can't be read: all that it changes is [`Store::applied`].
    ///
    /// # Errors
    /// Always: [`KvError::Unreadable`], or as [`Store::apply_command`].
    pub(crate) fn apply_unreadable(&mut self, index: Index) -> Reply {
        self.begin(index)?;
        self.finish(index)?;
        Err(KvError::Unreadable)
    }

    fn begin(&mut self, index: Index) -> Result<(), KvError> {
        self.lease_changes.clear();
        self.operations = Operations::default();
        self.refuse_fault()?;
        if index.0 <= self.meta.applied { Err(KvError::AlreadyApplied) } else { Ok(()) }
    }

    fn finish(&mut self, index: Index) -> Result<(), KvError> {
        self.refuse_fault()?;
        self.meta.applied = index.0;
        if self.is_flush_due() && self.has_room() {
            self.flush().map_err(|_| KvError::Stopped)?;
        }
        Ok(())
    }

    /// Whether so much waits for the engine that it should be handed over: after a command, this means that the
    /// engine has no room for it. Nothing is lost, but memory is used until there is, and [`Store::flush`] is
    /// called.
    #[must_use]
    pub fn is_flush_due(&self) -> bool {
        self.pending.len() + self.pending_leases.len() >= PENDING_RECORDS || self.pending_bytes >= PENDING_BYTES
    }

    /// Whether the engine has room for what waits for it, durably. If not, [`Store::flush`],
    /// [`Store::checkpoint`] and [`Store::scrub`] may break it.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.engine.has_room(self.pending_bytes as u64)
    }

    /// What the command that was applied last did with keys; nothing, if it was refused.
    #[must_use]
    pub fn operations(&self) -> Operations {
        self.operations
    }

    /// The checksum of the history up to a revision, 0 for the latest: the same as a real etcd's
    /// with the same history. At the revision of one of the last ten compactions it is the checksum that the history
    /// had just before. Else it reads every record up to there.
    ///
    /// # Errors
    /// As [`Store::ask`].
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, KvError> {
        self.refuse_fault()?;
        self.settle(self.try_hash_kv(revision))
    }

    /// As [`Store::hash_kv`], but always of what is there: for who wants to know whether that is right.
    ///
    /// # Errors
    /// As [`Store::ask`].
    pub fn hash_kv_now(&self, revision: i64) -> Result<HashKv, KvError> {
        self.refuse_fault()?;
        self.settle(self.try_hash_kv_now(revision))
    }

    /// How the store is.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        StoreStatus {
            revision: self.meta.revision,
            compact_revision: self.meta.compacted,
            applied: self.meta.applied,
            keys: self.index.live(),
            // What waits for the engine is there already, for whoever asks.
            db_size: self.engine.size().total + self.pending_bytes as u64,
        }
    }

    /// Hands all that was applied to the engine. What the engine has may still be lost in a crash,
    /// but only as a whole, back to the last [`Store::checkpoint`].
    ///
    /// # Errors
    /// The engine failed; the store is then at a [`Store::fault`].
    pub fn flush(&mut self) -> Result<(), EngineError> {
        let outcome = self.try_flush();
        self.watch(outcome)
    }

    /// Makes all that was applied durable, and says up to which log entry: the log must keep what is
    /// behind it.
    ///
    /// # Errors
    /// The engine failed; the store is then at a [`Store::fault`].
    pub fn checkpoint(&mut self) -> Result<Index, EngineError> {
        self.checkpoint_with(None)
    }

    /// As [`Store::checkpoint`]; the engine keeps this label with it, for the host to find at its start
    /// by [`Engine::label`].
    ///
    /// # Errors
    /// As there.
    pub fn checkpoint_with(&mut self, label: Option<&[u8]>) -> Result<Index, EngineError> {
        let outcome = self.try_flush().and_then(|()| self.engine.checkpoint(label));
        self.watch(outcome)?;
        Ok(self.applied())
    }

    /// Entries up to this one were applied that are no commands of the store.
    pub fn pass_over(&mut self, up_to: Index) {
        self.meta.applied = self.meta.applied.max(up_to.0);
    }

    /// How large the engine is, with the records that it is still to get.
    #[must_use]
    pub fn size(&self) -> EngineSize {
        let EngineSize { total, in_use } = self.engine.size();
        EngineSize { total, in_use: (in_use + self.pending_bytes as u64).min(total) }
    }

    /// The engine, to ask it what only it knows.
    #[must_use]
    pub fn engine(&self) -> &E {
        &self.engine
    }

    fn try_flush(&mut self) -> Result<(), EngineError> {
        self.check_fault()?;
        if self.pending.is_empty() && self.meta == self.flushed {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let leases = std::mem::take(&mut self.pending_leases);
        self.pending_bytes = 0;
        self.write_batch(&Batch { puts: &pending, leases: &leases, ..Batch::default() })?;
        (self.pending, self.pending_leases) = (pending, leases);
        self.pending.clear();
        self.pending_leases.clear();
        Ok(())
    }

    /// Writes a batch together with the note.
    fn write_batch(&mut self, batch: &Batch<'_>) -> Result<(), EngineError> {
        let meta = self.meta.encode();
        self.engine.write(&Batch { meta: meta.clone(), ..batch.clone() })?;
        self.tee.note(batch, &meta);
        self.flushed = self.meta.clone();
        Ok(())
    }

    fn view(&self) -> View<'_, E> {
        View {
            index: &self.index,
            book: &self.book,
            engine: &self.engine,
            reader: OnceCell::new(),
            pending: &self.pending,
            staged: &[],
            base: self.meta.revision,
            compacted: self.meta.compacted,
        }
    }

    /// Shows records in order, those that wait for the engine too.
    fn scan(
        &self,
        from: Revision,
        until: Revision,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let mut stopped = false;
        self.engine.reader()?.scan(from, until, &mut |at, record| {
            let flow = visit(at, record);
            stopped = flow.is_break();
            flow
        })?;
        for (at, record) in self.pending.iter().filter(|(at, _)| (from..until).contains(at)) {
            if stopped {
                break;
            }
            stopped = visit(*at, record.clone()).is_break();
        }
        Ok(())
    }

    fn refuse_fault(&self) -> Result<(), KvError> {
        self.check_fault().map_err(|_| KvError::Stopped)
    }

    fn check_fault(&self) -> Result<(), EngineError> {
        self.fault.get().cloned().map_or(Ok(()), Err)
    }

    /// Remembers what broke.
    fn watch<T>(&self, outcome: Result<T, EngineError>) -> Result<T, EngineError> {
        outcome.inspect_err(|error| {
            // The first is the cause.
            let _ = self.fault.set(error.clone());
        })
    }

    fn settle<T>(&self, outcome: Result<T, Failure>) -> Result<T, KvError> {
        outcome.map_err(|failure| match failure {
            Failure::Refused(error) => error,
            Failure::Broken(error) => {
                let _ = self.fault.set(error);
                KvError::Stopped
            }
        })
    }
}
