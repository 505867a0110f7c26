//! The state machine of a server: the multi-version store, in a file.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bowline_kv::store::{
    AlarmKind, Command, Dump, Engine, EngineError, KvError, Lease, LeaseChange, Members, Operations, Part, Query,
    Record, RedbEngine, RedbRecords, RestoreError, Revision, Rewrite, RewriteError, Rewritten, Store, is_good_reply,
};
use bowline_kv::watch::{PortionLimits, Stream};
use bowline_node::Recall;
use bowline_node::raft::{Entry, Index, Payload, SnapshotHeader};
use bowline_storage::{Identity, Label};
use bytes::Bytes;

use crate::peer::check_version;
use crate::replica::{AlarmFacts, ComparisonFacts, Facts, Metrics};

/// Records that one step of removing old revisions visits.
const SCRUB_BUDGET: usize = 1_024;

/// Maximum size of the file's cache in memory, in bytes.
const CACHE_BYTES: usize = 32 << 20;

/// The results of applying entries.
#[derive(Default)]
pub(crate) struct Applied {
    /// The responses to the commands among them.
    pub(crate) responses: Vec<(Index, Bytes)>,
    /// The changes of leases.
    pub(crate) leases: Vec<LeaseChange>,
    /// The operations on keys.
    pub(crate) operations: Operations,
    /// The records that were written, for watchers.
    pub(crate) writes: Vec<(Revision, Record)>,
}

/// The store of a member.
#[derive(Debug)]
pub struct KvMachine {
    store: Store<RedbEngine>,
    identity: Identity,
}

impl KvMachine {
    /// Makes an empty store in a new file that belongs to this member.
    ///
    /// # Errors
    /// The file can't be created.
    pub fn found(path: &Path, identity: Identity) -> Result<KvMachine, EngineError> {
        let mut store = Store::open(KvMachine::make_engine(path)?)?;
        store.checkpoint_with(Some(&label(identity, None)))?;
        Ok(KvMachine::of(store, identity))
    }

    fn of(mut store: Store<RedbEngine>, identity: Identity) -> KvMachine {
        store.note_writes();
        KvMachine { store, identity }
    }

    /// Opens the store in a file. Also returns the header of its last checkpoint, if it has had one since it was
    /// created.
    ///
    /// # Errors
    /// The file is damaged, or belongs to another member or folder.
    pub fn open(path: &Path, identity: Identity) -> Result<(KvMachine, Option<SnapshotHeader>), EngineError> {
        let store = Store::open(KvMachine::make_engine(path)?)?;
        let label = Label::decode(&store.engine().label()?).map_err(|error| EngineError::new("be used", error))?;
        match label.identity == identity {
            true => Ok((KvMachine::of(store, identity), label.header)),
            false => Err(EngineError::new("be used", format!("it belongs to {}", label.identity))),
        }
    }

    /// Restores a store from a snapshot, durably in a new file.
    ///
    /// # Errors
    /// The snapshot is damaged or does not fit its header, or the file can't be written.
    pub fn restore(
        path: &Path,
        identity: Identity,
        header: &SnapshotHeader,
        snapshot: &mut impl Read,
    ) -> Result<KvMachine, RestoreError> {
        let store = Store::restore_from(KvMachine::make_engine(path)?, snapshot)?;
        let (applied, index) = (store.applied(), header.position.index);
        if applied != index {
            return Err(RestoreError::Invalid(format!("it ends at index {applied}, but its header says {index}")));
        }
        if snapshot.read(&mut [0])? > 0 {
            return Err(RestoreError::Invalid("there is data after its end".to_owned()));
        }
        let mut machine = KvMachine::of(store, identity);
        machine.checkpoint(header)?;
        Ok(machine)
    }

    /// The index of the last applied entry.
    #[must_use]
    pub fn applied(&self) -> Index {
        self.store.applied()
    }

    /// Checks that a program of this version can use the state: the cluster may have a later version.
    ///
    /// # Errors
    /// It can't; the text tells what to do.
    pub(crate) fn check_version(&self, program: u32) -> Result<(), String> {
        check_version(self.store.cluster_version(), self.identity.replica, program)
    }

    /// Applies entries, but none after one for which a program of this version is too old: see
    /// [`KvMachine::check_version`].
    pub(crate) fn apply(&mut self, entries: &[Entry], metrics: &Metrics, program: u32) -> Applied {
        let mut applied = self.apply_all(entries, metrics, program);
        applied.writes = self.store.take_writes();
        applied
    }

    fn apply_all(&mut self, entries: &[Entry], metrics: &Metrics, program: u32) -> Applied {
        let mut applied = Applied { responses: Vec::with_capacity(entries.len()), ..Applied::default() };
        for entry in entries {
            match &entry.payload {
                Payload::Command(command) => {
                    let (began, commits) = (Instant::now(), self.store.engine().commits());
                    let reply = self.store.apply_bytes(entry.index, command);
                    let took = began.elapsed();
                    metrics.applied(Command::kind_of(command), is_good_reply(&reply), took);
                    if self.store.engine().commits() != commits {
                        metrics.commits.observe(took.as_secs_f64());
                    }
                    applied.responses.push((entry.index, reply));
                    applied.leases.extend_from_slice(self.store.lease_changes());
                    applied.operations += self.store.operations();
                    if self.check_version(program).is_err() {
                        return applied;
                    }
                }
                Payload::Blank | Payload::Membership(_) => self.store.pass_over(entry.index),
            }
        }
        applied
    }

    /// Reads history for a stream of watches.
    ///
    /// # Errors
    /// The store is broken.
    pub(crate) fn advance(&self, stream: &mut Stream, limits: &PortionLimits) -> Result<(), EngineError> {
        stream.advance(&self.store, limits)
    }

    /// All leases.
    pub(crate) fn leases(&self) -> Vec<Lease> {
        self.store.leases().copied().collect()
    }

    /// The records of the members.
    pub(crate) fn members(&self) -> Arc<Members> {
        Arc::clone(self.store.members())
    }

    /// Answers a query, and returns the operations that it took.
    pub(crate) fn ask<Q: Query>(&self, query: &Q) -> (Result<Q::Answer, KvError>, Operations) {
        self.store.ask_counting(query)
    }

    /// What became of a command that the core lost track of: the store does not record which command wrote what.
    pub(crate) fn recall(&self) -> Recall {
        Recall::Forgotten
    }

    /// Makes the state durable; `header` describes it.
    pub(crate) fn checkpoint(&mut self, header: &SnapshotHeader) -> Result<(), EngineError> {
        let label = label(self.identity, Some(header));
        self.store.checkpoint_with(Some(&label)).map(|_| ())
    }

    /// Whether writes wait for room on the disk.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.store.is_flush_due()
    }

    /// Whether the disk has room for the waiting writes.
    pub(crate) fn has_room(&self) -> bool {
        self.store.has_room()
    }

    /// Writes what waits to the file.
    pub(crate) fn flush(&mut self) -> Result<(), EngineError> {
        self.store.flush()
    }

    /// The present state, to be written elsewhere soon.
    pub(crate) fn dump(&self) -> Result<Dump<RedbRecords>, EngineError> {
        self.store.dump()
    }

    /// The error after which it can't go on, if there was one.
    pub(crate) fn fault(&self) -> Option<&EngineError> {
        self.store.fault()
    }

    /// Opens the engine in a file, or creates it.
    pub(crate) fn make_engine(path: &Path) -> Result<RedbEngine, EngineError> {
        RedbEngine::open(path, CACHE_BYTES)
    }

    /// Begins a rewrite to another file. Changes that wait for the rewrite may take `bound` bytes.
    pub(crate) fn begin_rewrite(&self, engine: RedbEngine, bound: usize) -> Result<Rewrite<RedbEngine>, EngineError> {
        self.store.begin_rewrite(engine, bound)
    }

    /// The data for the next step of the rewrite.
    pub(crate) fn rewrite_part(&self) -> Result<Part<RedbRecords>, RewriteError> {
        self.store.rewrite_part()
    }

    /// Gives the rewrite up.
    pub(crate) fn forget_rewrite(&self) {
        self.store.forget_rewrite();
    }

    /// Finishes the rewrite: the other file then contains the whole state, durably.
    pub(crate) fn finish_rewrite(&self, rewrite: Rewrite<RedbEngine>) -> Result<Rewritten<RedbEngine>, RewriteError> {
        self.store.finish_rewrite(rewrite)
    }

    /// Uses the rewritten file from now on. Returns the old one.
    pub(crate) fn move_to(&mut self, rewritten: Rewritten<RedbEngine>) -> RedbEngine {
        self.store.move_to(rewritten)
    }

    /// A few numbers about the store, which are cheap to get.
    pub(crate) fn facts(&self) -> Facts {
        let (status, size) = (self.store.status(), self.store.size());
        Facts {
            revision: status.revision,
            compact_revision: status.compact_revision,
            scrubbed_revision: self.store.scrubbed_revision(),
            keys: status.keys,
            db_size: size.total,
            db_size_in_use: size.in_use,
            cluster_version: self.store.cluster_version(),
            alarms: self.alarm_facts(),
            comparison: ComparisonFacts {
                mark_due: self.store.is_mark_due(),
                report: self.store.report_of(self.identity.replica.0),
                marked_index: self.store.marked_at().0,
                agreed_index: self.store.agreed_at().0,
            },
        }
    }

    fn alarm_facts(&self) -> AlarmFacts {
        let mut facts = AlarmFacts::default();
        for alarm in self.store.alarms() {
            facts.count += 1;
            facts.corrupt |= alarm.kind() == AlarmKind::Corrupt;
            if alarm.kind() == AlarmKind::NoSpace {
                facts.no_space = true;
                facts.own = facts.own.or((alarm.member == self.identity.replica.0).then_some(alarm.automatic));
            }
        }
        facts
    }

    /// Whether compacted revisions are still to be removed.
    pub(crate) fn is_untidy(&self) -> bool {
        !self.store.is_scrubbed(self.store.compacted_revision())
    }

    /// Removes a few compacted revisions. No answer depends on this.
    pub(crate) fn tidy(&mut self, metrics: &Metrics) -> Result<(), EngineError> {
        let began = Instant::now();
        let progress = self.store.scrub(SCRUB_BUDGET)?;
        metrics.compaction_steps.observe(began.elapsed().as_secs_f64() * 1e3);
        metrics.compacted_keys.inc_by(progress.removed as u64);
        Ok(())
    }
}

/// The label of a file.
fn label(identity: Identity, header: Option<&SnapshotHeader>) -> Vec<u8> {
    Label { identity, header: header.cloned(), note: Vec::new() }.encode()
}
