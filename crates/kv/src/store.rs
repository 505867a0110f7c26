//! The multi-version store behind the etcd v3 KV service.
//!
//! Each transaction that writes gets one revision, and each of its writes a sub-revision. The [`Engine`] keeps each
//! record under the revision that wrote it, so new records are always added at the end. An
//! index in memory maps each key to its revisions. It is rebuilt from the records at the start.
//!
//! [`Store`] is pure: the same [`Command`]s in the same order give the same answers, the same
//! checksum ([`Store::hash_kv`]) and the same snapshot, byte for byte, on every replica, whatever the
//! engine and however far [`Store::scrub`] went. It does I/O only through its engine.
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

mod alarms;
mod auth;
mod backend;
mod backup;
mod check;
mod codec;
mod command;
mod compact;
mod comparison;
mod disk;
mod engine;
mod error;
mod fuzz;
mod hash;
mod history;
mod index;
mod kept_hashes;
mod leases;
mod legacy;
mod lessor;
mod machine;
mod members;
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

pub use auth::{
    AuthBook, AuthChange, AuthListRequest, AuthRequest, AuthResponse, AuthStatusRequest, Authorized, Check, Guarded,
    Issued, LeaseRenewal, LoggedIn, Login, Need, NewPassword, Permission, PermissionKind, Principal, ROOT, Role,
    RoleGetRequest, RoleOfUser, RolePermission, Submission, Task, User, UserGetRequest,
};
pub use backend::OnDisk;
pub use backup::{BACKUP_VERSION, Backup, BackupError, BackupOrigin, BackupPlan, BackupSummary};
pub use check::{Limits, MAX_TXN_DEPTH};
pub use codec::{CodecError, MAX_FIELD_BYTES};
pub use command::Command;
pub use compact::Progress;
pub use comparison::Reports;
pub use disk::{RedbEngine, RedbRecords};
pub use engine::{Batch, Engine, EngineError, EngineSize, Records, Revision};
pub use error::{Code, KvError};
pub use fuzz::{fuzz_commands, fuzz_restore};
pub use leases::{Lease, LeaseChange, MAX_LEASE_TTL};
pub use lessor::{Lessor, Renewal, Renewed};
pub use members::Members;
pub use memory::{MemoryEngine, MemoryRecords};
pub use operations::Operations;
pub use query::{Found, Query};
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

/// Applied records and leases go to the engine when there are this many of them, or this many bytes.
pub const PENDING_RECORDS: usize = 1024;
const PENDING_BYTES: usize = 1 << 20;

/// The multi-version store.
#[derive(Debug)]
pub struct Store<E> {
    engine: E,
    index: KeyIndex,
    book: LeaseBook,
    meta: Meta,
    /// Records that are applied but not in the engine yet, in order. All are newer than the engine's.
    pending: Vec<(Revision, Record)>,
    pending_bytes: usize,
    /// How many records and leases may be pending.
    flush_records: usize,
    /// Changes of the leases, likewise.
    pending_leases: Vec<LeaseChange>,
    /// Changes of the leases by the last command.
    lease_changes: Vec<LeaseChange>,
    /// Number of pending records before the last command.
    begun: usize,
    /// The operations of the last command.
    operations: Operations,
    /// The token that the last command issued.
    issued: Option<Issued>,
    /// The writes since the last [`Store::take_writes`], if they are noted.
    noted: Option<Vec<(Revision, Record)>>,
    /// The note in the engine.
    flushed: Meta,
    /// The checksum of a compaction that is being computed.
    hashing: Option<HashPass>,
    /// Notes the engine's batches while a rewrite copies it.
    tee: Tee,
    fault: OnceLock<EngineError>,
}

impl<E: Engine> Store<E> {
    /// Opens the store in an engine, or makes a new one there. Reads every record once, to build
    /// the index.
    ///
    /// # Errors
    /// The engine can't be read, or its content is invalid.
    pub fn open(mut engine: E) -> Result<Store<E>, EngineError> {
        let Some(meta) = Meta::decode(&engine.meta()?)? else {
            // Records without a note are left over from an interrupted restore.
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
                return Err(EngineError::new("be trusted", "it holds an invalid lease"));
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
        let (lease_changes, begun, operations, issued) = (Vec::new(), 0, Operations::default(), None);
        let (flushed, hashing) = (meta.clone(), None);
        let (tee, noted, fault) = (Tee::default(), None, OnceLock::new());
        let store = Store {
            engine,
            index,
            book,
            meta,
            pending,
            pending_bytes,
            flush_records: PENDING_RECORDS,
            pending_leases,
            lease_changes,
            begun,
            operations,
            issued,
            noted,
            flushed,
            hashing,
            tee,
            fault,
        };
        Ok(store)
    }

    /// The latest revision; 1 if nothing has been written yet.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.meta.revision
    }

    /// The oldest readable revision; -1 before the first compaction.
    #[must_use]
    pub fn compacted_revision(&self) -> i64 {
        self.meta.compacted
    }

    /// The version that every member of the cluster speaks, as agreed through the log; 0 before the first agreement. A
    /// command or field that a version introduces may be proposed once the cluster has that version. The version
    /// never decreases.
    #[must_use]
    pub fn cluster_version(&self) -> u32 {
        self.meta.cluster_version
    }

    /// The last log entry that was applied. After a restart it may be behind the last one that was
    /// applied before: see [`Store::checkpoint`].
    #[must_use]
    pub fn applied(&self) -> Index {
        Index(self.meta.applied)
    }

    /// The last log entry whose writes the engine has.
    #[must_use]
    pub fn written(&self) -> Index {
        Index(self.flushed.applied)
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

    /// The engine's failure, if it has failed. The replica must stop before it answers anybody:
    /// its state may lack what it has applied. Until then the store refuses everything.
    #[must_use]
    pub fn fault(&self) -> Option<&EngineError> {
        self.fault.get()
    }

    /// Applies the command of the log entry at `index`, and returns the answer for its client. It takes effect as a
    /// whole or not at all; a refused command changes only [`Store::applied`]. An entry that was applied
    /// before changes nothing, and its answer is [`KvError::AlreadyApplied`].
    ///
    /// # Errors
    /// Why the command is refused, the same on every replica; [`KvError::Stopped`] if there is a
    /// [`Store::fault`], which concerns this replica only.
    pub fn apply_command(&mut self, index: Index, command: &Command) -> Reply {
        self.apply_by(index, &Principal::Anonymous, command)
    }

    /// As [`Store::apply_command`]; who gives the command must be permitted to do so.
    ///
    /// # Errors
    /// As [`Store::apply_command`].
    pub fn apply_by(&mut self, index: Index, by: &Principal, command: &Command) -> Reply {
        self.begin(index)?;
        let outcome = match self.authorize(by, command) {
            Ok(command) => self.execute(index, command),
            Err(error) => Err(error.into()),
        };
        let reply = self.settle(outcome);
        if !matches!(command, Command::Compare(_)) {
            self.take_effects(index, reply.is_err());
        }
        if matches!(command, Command::Auth(_)) {
            self.meta.comparison.take_auth(&self.meta.auth);
        }
        self.finish(index)?;
        reply
    }

    fn execute(&mut self, index: Index, command: Authorized<&Command>) -> Result<Response, Failure> {
        let command = command.into_inner();
        self.refuse_alarmed(command)?;
        match command {
            Command::Put(put) => self.write(|txn| txn.put(put)).map(Response::Put),
            Command::DeleteRange(delete) => self.write(|txn| txn.delete_range(delete)).map(Response::DeleteRange),
            Command::Txn(txn) => self.write(|write| write.txn(txn)).map(Response::Txn),
            Command::Compact(compaction) => self.compact(compaction).map(Response::Compact),
            Command::LeaseGrant(grant) => self.grant_lease(index, grant).map(Response::LeaseGrant),
            Command::LeaseRevoke(revoke) => self.revoke_lease(revoke.id).map(Response::LeaseRevoke),
            Command::LeaseExpire(expire) => self.expire_leases(expire).map(Response::LeaseExpire),
            Command::ClusterVersion(raise) => Ok(Response::ClusterVersion(self.raise_cluster_version(raise))),
            Command::Alarm(alarm) => self.change_alarm(alarm).map(Response::Alarm),
            Command::Member(request) => self.change_member(request).map(Response::Member),
            Command::Compare(request) => self.compare(index, request).map(Response::Compare),
            Command::Auth(request) => self.change_auth(index, request).map(Response::Auth),
        }
    }

    fn raise_cluster_version(&mut self, raise: &ClusterVersionRequest) -> ClusterVersionResponse {
        let version = self.meta.cluster_version.max(raise.version);
        self.meta.cluster_version = version;
        ClusterVersionResponse { revision: self.meta.revision, version }
    }

    /// Applies an unreadable entry: it changes only [`Store::applied`].
    ///
    /// # Errors
    /// Always: [`KvError::Unreadable`], or as [`Store::apply_command`].
    pub(crate) fn apply_unreadable(&mut self, index: Index) -> Reply {
        self.begin(index)?;
        self.take_effects(index, true);
        self.finish(index)?;
        Err(KvError::Unreadable)
    }

    /// Adds the effects of a command to the checksum by which the members are compared.
    fn take_effects(&mut self, index: Index, refused: bool) {
        let (revisions, records) = ((self.meta.revision, self.meta.compacted), &self.pending[self.begun..]);
        self.meta.comparison.take(index, revisions, refused, records, &self.lease_changes);
    }

    fn begin(&mut self, index: Index) -> Result<(), KvError> {
        self.lease_changes.clear();
        (self.operations, self.issued) = (Operations::default(), None);
        self.begun = self.pending.len();
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

    /// From now on, applied records and leases go to the engine when there are this many of them; else
    /// [`PENDING_RECORDS`]. A simulation is too short for so many.
    pub fn flush_at(&mut self, records: usize) {
        self.flush_records = records;
    }

    /// Whether enough waits for the engine to be flushed. If this is true after a command, the engine has no room.
    /// Nothing is lost, but memory use grows until there is room and [`Store::flush`] is called.
    #[must_use]
    pub fn is_flush_due(&self) -> bool {
        self.pending.len() + self.pending_leases.len() >= self.flush_records || self.pending_bytes >= PENDING_BYTES
    }

    /// Whether the engine has room for everything that waits for it, and to make it durable. If not, [`Store::flush`],
    /// [`Store::checkpoint`] and [`Store::scrub`] may break the engine.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.engine.has_room(self.pending_bytes as u64)
    }

    /// The operations on keys of the command that was applied last; none if it was refused.
    #[must_use]
    pub fn operations(&self) -> Operations {
        self.operations
    }

    /// The checksum of the history up to a revision, 0 for the latest. A real etcd with the same history has the
    /// same one. At the revision of one of the last ten compactions it is the checksum that the history
    /// had just before that compaction. Otherwise this reads every record up to the revision.
    ///
    /// # Errors
    /// As [`Store::ask`].
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, KvError> {
        self.refuse_fault()?;
        self.settle(self.try_hash_kv(revision))
    }

    /// As [`Store::hash_kv`], but always computed from the present records: for checks of the stored data.
    ///
    /// # Errors
    /// As [`Store::ask`].
    pub fn hash_kv_now(&self, revision: i64) -> Result<HashKv, KvError> {
        self.refuse_fault()?;
        self.settle(self.try_hash_kv_now(revision))
    }

    /// The status of the store.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        StoreStatus {
            revision: self.meta.revision,
            compact_revision: self.meta.compacted,
            applied: self.meta.applied,
            keys: self.index.live(),
            // Records that wait for the engine count already.
            db_size: self.engine.size().total + self.pending_bytes as u64,
        }
    }

    /// Writes everything that was applied to the engine. A crash may still take the engine back to the last
    /// [`Store::checkpoint`], as a whole.
    ///
    /// # Errors
    /// The engine failed; the store then has a [`Store::fault`].
    pub fn flush(&mut self) -> Result<(), EngineError> {
        let outcome = self.try_flush();
        self.watch(outcome)
    }

    /// Makes everything that was applied durable, and returns the index of the last applied entry: the log must keep
    /// the entries after it.
    ///
    /// # Errors
    /// The engine failed; the store then has a [`Store::fault`].
    pub fn checkpoint(&mut self) -> Result<Index, EngineError> {
        self.checkpoint_with(None)
    }

    /// As [`Store::checkpoint`]; the engine also stores this label, which the host reads at its start
    /// with [`Engine::label`].
    ///
    /// # Errors
    /// As [`Store::checkpoint`].
    pub fn checkpoint_with(&mut self, label: Option<&[u8]>) -> Result<Index, EngineError> {
        let outcome = self.try_flush().and_then(|()| self.engine.checkpoint(label));
        self.watch(outcome)?;
        Ok(self.applied())
    }

    /// Raises [`Store::applied`] to `up_to`, after entries that are no commands of the store.
    pub fn pass_over(&mut self, up_to: Index) {
        self.meta.applied = self.meta.applied.max(up_to.0);
    }

    /// The size of the engine, with the records that wait for it.
    #[must_use]
    pub fn size(&self) -> EngineSize {
        let EngineSize { total, in_use } = self.engine.size();
        EngineSize { total, in_use: (in_use + self.pending_bytes as u64).min(total) }
    }

    /// The engine.
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

    /// Visits the records in order, including those that wait for the engine.
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

    /// Remembers a failure of the engine.
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
