//! The multi-version store as the state machine of a server, in a file.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use bowline_kv::store::{
    Command, Dump, Engine, EngineError, KvError, Lease, LeaseChange, Operations, Part, Query, RedbEngine, RedbRecords,
    RestoreError, Rewrite, RewriteError, Rewritten, Store, is_good_reply,
};
use bowline_node::Recall;
use bowline_node::raft::{Entry, Index, Payload, SnapshotHeader};
use bowline_storage::{Identity, Label};
use bytes::Bytes;

use crate::peer::check_version;
use crate::replica::{Facts, Metrics};

/// Records that a step of removing old revisions looks at.
const SCRUB_BUDGET: usize = 1_024;

/// Most bytes of the file that are kept in memory; what was never read or written takes none.
const CACHE_BYTES: usize = 32 << 20;

/// What came of entries.
#[derive(Default)]
pub(crate) struct Applied {
    /// What the clients of those that are commands are told.
    pub(crate) responses: Vec<(Index, Bytes)>,
    /// What changed of the leases.
    pub(crate) leases: Vec<LeaseChange>,
    /// What was done with keys.
    pub(crate) operations: Operations,
}

/// The store of a member.
#[derive(Debug)]
pub struct KvMachine {
    store: Store<RedbEngine>,
    identity: Identity,
}

impl KvMachine {
    /// An empty store in a new file, which belongs to this folder.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn found(path: &Path, identity: Identity) -> Result<KvMachine, EngineError> {
        let mut store = Store::open(KvMachine::make_engine(path)?)?;
        store.checkpoint_with(Some(&label(identity, None)))?;
        Ok(KvMachine { store, identity })
    }

    /// The store that a file holds, and what it says of itself as of its last checkpoint, if it has had one
    /// since it was made.
    ///
    /// # Errors
    /// The file is damaged, or belongs to another folder.
    pub fn open(path: &Path, identity: Identity) -> Result<(KvMachine, Option<SnapshotHeader>), EngineError> {
        let store = Store::open(KvMachine::make_engine(path)?)?;
        let label = Label::decode(&store.engine().label()?).map_err(|error| EngineError::new("be used", error))?;
        match label.identity == identity {
            true => Ok((KvMachine { store, identity }, label.header)),
            false => Err(EngineError::new("be used", format!("it belongs to {}", label.identity))),
        }
    }

    /// The store that a snapshot holds, durably in a new file.
    ///
    /// # Errors
    /// It is no snapshot, or a damaged one, or not what its header says; or the file can't be written.
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
        let mut machine = KvMachine { store, identity };
        machine.checkpoint(header)?;
        Ok(machine)
    }

    /// Everything up to here was applied.
    #[must_use]
    pub fn applied(&self) -> Index {
        self.store.applied()
    }

    /// Whether a program of this version can hold the state: the cluster's may be later.
    ///
    /// # Errors
    /// It can't; the text says what to do.
    pub(crate) fn check_version(&self, program: u32) -> Result<(), String> {
        check_version(self.store.cluster_version(), self.identity.replica, program)
    }

    /// Applies entries, but none behind one for which a program of this version is too old: see
    /// [`KvMachine::check_version`].
    pub(crate) fn apply(&mut self, entries: &[Entry], metrics: &Metrics, program: u32) -> Applied {
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

    /// The leases that there are.
    pub(crate) fn leases(&self) -> Vec<Lease> {
        self.store.leases().copied().collect()
    }

    /// Answers a query, and says what it did for that.
    pub(crate) fn ask<Q: Query>(&self, query: &Q) -> (Result<Q::Answer, KvError>, Operations) {
        self.store.ask_counting(query)
    }

    /// What became of a command that the core lost sight of: the store does not know which wrote what.
    pub(crate) fn recall(&self) -> Recall {
        Recall::Forgotten
    }

    /// Makes the state durable, which this header describes.
    pub(crate) fn checkpoint(&mut self, header: &SnapshotHeader) -> Result<(), EngineError> {
        let label = label(self.identity, Some(header));
        self.store.checkpoint_with(Some(&label)).map(|_| ())
    }

    /// Whether something waits for the file that has no room for it.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.store.is_flush_due()
    }

    /// Whether the file's disk has room for what waits for it.
    pub(crate) fn has_room(&self) -> bool {
        self.store.has_room()
    }

    /// Hands the file what waits for it.
    pub(crate) fn flush(&mut self) -> Result<(), EngineError> {
        self.store.flush()
    }

    /// The state as it is now, to be written elsewhere without delay.
    pub(crate) fn dump(&self) -> Result<Dump<RedbRecords>, EngineError> {
        self.store.dump()
    }

    /// Why it can't go on, if it can't.
    pub(crate) fn fault(&self) -> Option<&EngineError> {
        self.store.fault()
    }

    /// An engine in a file, a new one if there is none.
    pub(crate) fn make_engine(path: &Path) -> Result<RedbEngine, EngineError> {
        RedbEngine::open(path, CACHE_BYTES)
    }

    /// Begins to write it to another file. What waits for that may take `bound` bytes.
    pub(crate) fn begin_rewrite(&self, engine: RedbEngine, bound: usize) -> Result<Rewrite<RedbEngine>, EngineError> {
        self.store.begin_rewrite(engine, bound)
    }

    /// What the next step of that needs.
    pub(crate) fn rewrite_part(&self) -> Result<Part<RedbRecords>, RewriteError> {
        self.store.rewrite_part()
    }

    /// It comes to nothing.
    pub(crate) fn forget_rewrite(&self) {
        self.store.forget_rewrite();
    }

    /// Does what is left of it: the other file holds all that this one does, durably.
    pub(crate) fn finish_rewrite(&self, rewrite: Rewrite<RedbEngine>) -> Result<Rewritten<RedbEngine>, RewriteError> {
        self.store.finish_rewrite(rewrite)
    }

    /// Goes on in that file, and gives the one before back.
    pub(crate) fn move_to(&mut self, rewritten: Rewritten<RedbEngine>) -> RedbEngine {
        self.store.move_to(rewritten)
    }

    /// A few numbers about it, at next to no cost.
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
        }
    }

    /// Whether it has put something off.
    pub(crate) fn is_untidy(&self) -> bool {
        !self.store.is_scrubbed(self.store.compacted_revision())
    }

    /// Does a small part of what it has put off. Nothing that it answers depends on it.
    pub(crate) fn tidy(&mut self, metrics: &Metrics) -> Result<(), EngineError> {
        let began = Instant::now();
        let progress = self.store.scrub(SCRUB_BUDGET)?;
        metrics.compaction_steps.observe(began.elapsed().as_secs_f64() * 1e3);
        metrics.compacted_keys.inc_by(progress.removed as u64);
        Ok(())
    }
}

/// What the file says of itself.
fn label(identity: Identity, header: Option<&SnapshotHeader>) -> Vec<u8> {
    Label { identity, header: header.cloned(), note: Vec::new() }.encode()
}
