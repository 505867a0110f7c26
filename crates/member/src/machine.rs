//! The state machine of a member: the multi-version store, in a file.

use std::io::Read;
use std::sync::Arc;

use bowline_kv::store::{
    AlarmKind, Command, Dump, Engine, EngineError, Issued, KvError, Lease, LeaseChange, Members, Operations, Part,
    Principal, Query, Record, RedbEngine, RedbRecords, RestoreError, Revision, Rewrite, RewriteError, Rewritten, Store,
    is_good_reply,
};
use bowline_kv::watch::{PortionLimits, Stream};
use bowline_node::Recall;
use bowline_node::raft::{Entry, Index, NodeId, Payload, SnapshotHeader};
use bowline_storage::{Identity, Label};
use bytes::Bytes;

use crate::instruments::Instruments;
use crate::status::{AlarmFacts, ComparisonFacts, Facts, Published};

/// What a command did.
#[derive(Clone, Debug)]
pub struct AppliedEntry {
    /// Its index.
    pub index: Index,
    /// The response to it.
    pub response: Bytes,
    /// The changes of leases.
    pub leases: Vec<LeaseChange>,
    /// The operations on keys.
    pub operations: Operations,
    /// The records that were written, for watchers.
    pub writes: Vec<(Revision, Record)>,
    /// The token that was issued.
    pub issued: Option<Issued>,
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
    /// The file can't be written.
    pub fn found(engine: RedbEngine, identity: Identity) -> Result<KvMachine, EngineError> {
        let mut store = Store::open(engine)?;
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
    pub fn open(engine: RedbEngine, identity: Identity) -> Result<(KvMachine, Option<SnapshotHeader>), EngineError> {
        let store = Store::open(engine)?;
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
        engine: RedbEngine,
        identity: Identity,
        header: &SnapshotHeader,
        snapshot: &mut impl Read,
    ) -> Result<KvMachine, RestoreError> {
        let store = Store::restore_from(engine, snapshot)?;
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

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store<RedbEngine> {
        &self.store
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
    pub fn check_version(&self, program: u32) -> Result<(), String> {
        check_version(self.store.cluster_version(), self.identity.replica, program)
    }

    /// Applies entries, but none after one for which a program of this version is too old: see
    /// [`KvMachine::check_version`].
    pub fn apply(&mut self, entries: &[Entry], instruments: &dyn Instruments, program: u32) -> Vec<AppliedEntry> {
        let mut applied = Vec::with_capacity(entries.len());
        for entry in entries {
            let index = entry.index;
            match &entry.payload {
                Payload::Command(command) => {
                    let (began, commits) = (instruments.stopwatch(), self.store.engine().commits());
                    let response = self.store.apply_bytes(index, command);
                    let took = instruments.stopwatch().saturating_sub(began);
                    instruments.applied(Command::kind_of(command), is_good_reply(&response), took);
                    if self.store.engine().commits() != commits {
                        instruments.committed(took);
                    }
                    let (leases, operations) = (self.store.lease_changes().to_vec(), self.store.operations());
                    let writes = self.store.take_writes();
                    let issued = self.store.issued().cloned();
                    applied.push(AppliedEntry { index, response, leases, operations, writes, issued });
                    if self.check_version(program).is_err() {
                        break;
                    }
                }
                Payload::Blank | Payload::Membership(_) => self.store.pass_over(index),
            }
        }
        applied
    }

    /// Reads history for a stream of watches.
    ///
    /// # Errors
    /// The store is broken.
    pub fn advance(&self, stream: &mut Stream, limits: &PortionLimits) -> Result<(), EngineError> {
        stream.advance(&self.store, limits)
    }

    /// All leases.
    pub fn leases(&self) -> Vec<Lease> {
        self.store.leases().copied().collect()
    }

    /// The records of the members.
    pub fn members(&self) -> &Arc<Members> {
        self.store.members()
    }

    /// What is published of the state.
    pub fn published(&self) -> Published {
        let (members, auth) = (Arc::clone(self.store.members()), Arc::clone(self.store.auth()));
        Published { facts: self.facts(), members, auth }
    }

    /// Answers a query, if who asks it may do so, and returns the operations that it took.
    pub fn ask<Q: Query>(&self, by: &Principal, query: &Q) -> (Result<Q::Answer, KvError>, Operations) {
        self.store.ask_by(by, query)
    }

    /// What became of a command that the core lost track of: the store does not record which command wrote what.
    pub fn recall(&self) -> Recall {
        Recall::Forgotten
    }

    /// Makes the state durable; `header` describes it.
    pub fn checkpoint(&mut self, header: &SnapshotHeader) -> Result<(), EngineError> {
        let label = label(self.identity, Some(header));
        self.store.checkpoint_with(Some(&label)).map(|_| ())
    }

    /// Whether writes wait for room on the disk.
    pub fn waits_for_room(&self) -> bool {
        self.store.is_flush_due()
    }

    /// Whether the disk has room for the waiting writes.
    pub fn has_room(&self) -> bool {
        self.store.has_room()
    }

    /// Changes go to the file once they are of this many records and leases, or are large.
    pub fn flush_at(&mut self, records: usize) {
        self.store.flush_at(records);
    }

    /// Writes what waits to the file.
    pub fn flush(&mut self) -> Result<(), EngineError> {
        self.store.flush()
    }

    /// The present state, to be written elsewhere soon.
    pub fn dump(&self) -> Result<Dump<RedbRecords>, EngineError> {
        self.store.dump()
    }

    /// The error after which it can't go on, if there was one.
    pub fn fault(&self) -> Option<&EngineError> {
        self.store.fault()
    }

    /// Begins a rewrite to another file. Changes that wait for the rewrite may take `bound` bytes.
    pub fn begin_rewrite(&self, engine: RedbEngine, bound: usize) -> Result<Rewrite<RedbEngine>, EngineError> {
        self.store.begin_rewrite(engine, bound)
    }

    /// The data for the next step of the rewrite.
    pub fn rewrite_part(&self) -> Result<Part<RedbRecords>, RewriteError> {
        self.store.rewrite_part()
    }

    /// Gives the rewrite up.
    pub fn forget_rewrite(&self) {
        self.store.forget_rewrite();
    }

    /// Finishes the rewrite: the other file then contains the whole state, durably.
    pub fn finish_rewrite(&self, rewrite: Rewrite<RedbEngine>) -> Result<Rewritten<RedbEngine>, RewriteError> {
        self.store.finish_rewrite(rewrite)
    }

    /// Uses the rewritten file from now on. Returns the old one.
    pub fn move_to(&mut self, rewritten: Rewritten<RedbEngine>) -> RedbEngine {
        self.store.move_to(rewritten)
    }

    /// A few numbers about the store, which are cheap to get.
    pub fn facts(&self) -> Facts {
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
    pub fn is_untidy(&self) -> bool {
        !self.store.is_scrubbed(self.store.compacted_revision())
    }

    /// Removes a few compacted revisions, after a look at this many records. No answer depends on this.
    ///
    /// # Errors
    /// The store is broken.
    pub fn tidy(&mut self, records: usize, instruments: &dyn Instruments) -> Result<(), EngineError> {
        let began = instruments.stopwatch();
        let progress = self.store.scrub(records)?;
        instruments.tidied(progress.removed as u64, instruments.stopwatch().saturating_sub(began));
        Ok(())
    }
}

/// The label of a file.
fn label(identity: Identity, header: Option<&SnapshotHeader>) -> Vec<u8> {
    Label { identity, header: header.cloned(), note: Vec::new() }.encode()
}

/// Checks whether a member's program can take part in a cluster.
///
/// # Errors
/// Its version is older than the cluster's; the text tells what to do.
pub fn check_version(cluster: u32, member: NodeId, program: u32) -> Result<(), String> {
    if program >= cluster {
        return Ok(());
    }
    Err(format!(
        "the cluster has version {cluster} of the peer protocol, but the program of member {} speaks only version \
         {program}: start a newer program on that member's data",
        member.0
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_program_is_told_what_to_do() {
        assert_eq!(check_version(4, NodeId(2), 4), Ok(()));
        assert_eq!(check_version(4, NodeId(2), 5), Ok(()));
        let told = "the cluster has version 5 of the peer protocol, but the program of member 2 speaks only version \
                    4: start a newer program on that member's data";
        assert_eq!(check_version(5, NodeId(2), 4), Err(told.to_owned()));
    }
}
