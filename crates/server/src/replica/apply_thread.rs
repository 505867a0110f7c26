//! The apply thread: the only one that changes the state machine, in the order of the log.
//!
//! It may lag behind: the core bounds the bytes of entries that are not applied yet.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use bowline_kv::store::{EngineError, Operations};
use bowline_node::raft::{Entry, SnapshotHeader};
use bowline_node::{Job, Report, Response, recalled};
use tokio::sync::oneshot;

use super::inbox::{Event, Inbox};
use super::metrics::Metrics;
use super::shared::Shared;
use super::shrink::Shrink;
use super::snapshot_thread::SnapshotJob;
use super::store::StoreError;
use bowline_member::{AppliedEntry, KvMachine};

/// Records that one step of removing compacted revisions visits.
const TIDY_RECORDS: usize = 1_024;

/// Pause between two steps of removing compacted revisions, so that others can use the state machine.
const TIDY_PAUSE: Duration = Duration::from_millis(5);

/// Interval between checks whether a full disk has room again.
const ROOM_PAUSE: Duration = Duration::from_millis(250);

/// Practically forever.
const LONG: Duration = Duration::from_secs(3_600);

/// A job for the thread.
pub(crate) enum ApplyJob {
    /// A job of the core.
    Of(Job),
    /// Rewrite the state's file, and answer when it is done.
    Shrink(oneshot::Sender<Response>),
}

pub(crate) struct ApplyThread {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) snapshots: Sender<SnapshotJob>,
    /// A checkpoint to make as soon as the disk has room for it.
    pub(crate) owed: Option<SnapshotHeader>,
    pub(crate) shrink: Shrink,
    /// The version of the peer protocol that this program speaks.
    pub(crate) version: u32,
}

impl ApplyThread {
    /// Works until the queue is closed.
    ///
    /// # Errors
    /// The state can't be read or written any more. No answer that depends on it was given.
    pub(crate) fn run(mut self, jobs: &Receiver<ApplyJob>) -> Result<(), StoreError> {
        let mut untidy = self.shared.read().is_untidy();
        let mut tidied = Instant::now();
        let mut since = None;
        loop {
            let pause = match (self.shared.has_room(), untidy) {
                (false, _) => ROOM_PAUSE,
                (true, true) => TIDY_PAUSE,
                (true, false) => LONG,
            };
            match jobs.recv_timeout(pause.min(self.shrink.pause())) {
                Ok(ApplyJob::Of(job)) => self.work(job)?,
                Ok(ApplyJob::Shrink(reply)) => self.shrink.request(reply),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if self.catch_up()? {
                untidy = self.shared.read().is_untidy();
                if untidy && tidied.elapsed() >= TIDY_PAUSE {
                    let began = *since.get_or_insert_with(Instant::now);
                    untidy = self.tidy(began)?;
                    tidied = Instant::now();
                    since = since.filter(|_| untidy);
                }
            }
            // After the last step of a removal, which no other event follows. Also on a full disk, because a rewrite may
            // free space.
            self.shrink.tend(&self.shared, &self.snapshots, &self.inbox, &self.metrics)?;
        }
    }

    fn work(&mut self, job: Job) -> Result<(), StoreError> {
        match job {
            Job::Apply { entries } => self.apply(&entries)?,
            Job::Recall { token, proposed_at, contains, .. } => {
                let recall = self.shared.read().recall();
                self.inbox.push_event(Event::Answered(token, recalled(recall, proposed_at, contains)));
            }
            // `catch_up` does this when there is room.
            Job::StoreState { header } => self.owed = Some(header),
            Job::Dump { header } => {
                let dump = self.shared.read().dump().map_err(broken)?;
                // The snapshot thread ends only after this one.
                let _ = self.snapshots.send(SnapshotJob::Dump(header, Box::new(dump)));
            }
            Job::Install { header } => {
                // The snapshot is durable already.
                self.owed = None;
                self.install(&header)?;
            }
            other => unreachable!("{other:?} is not for this thread"),
        }
        Ok(())
    }

    /// Makes pending changes and checkpoints durable, if the disk has room. Returns whether it has. On a full disk,
    /// applied changes stay in memory, and no more writes are accepted, so reads and votes go on.
    fn catch_up(&mut self) -> Result<bool, StoreError> {
        let machine = self.shared.read();
        let (waits, wanted) = (machine.waits_for_room(), self.owed.is_some());
        let room = !(waits || wanted || !self.shared.has_room()) || machine.has_room();
        drop(machine);
        match (self.shared.set_room(room), room) {
            (true, false) => {
                tracing::error!("refusing writes for now: the state's disk is full, or no file descriptor is free")
            }
            (false, true) => tracing::info!("accepting writes again: the state's disk has room"),
            _ => {}
        }
        if room && waits {
            self.commit(KvMachine::flush)?;
        }
        if room && let Some(header) = self.owed.take() {
            self.commit(|machine| machine.checkpoint(&header))?;
            self.inbox.push_event(Event::StateStored(header));
        }
        Ok(room)
    }

    /// Writes the state's file, and measures how long that takes.
    fn commit(&self, commit: impl FnOnce(&mut KvMachine) -> Result<(), EngineError>) -> Result<(), StoreError> {
        let mut machine = self.shared.write();
        let began = Instant::now();
        commit(&mut machine).map_err(broken)?;
        self.metrics.commits.observe(began.elapsed().as_secs_f64());
        Ok(())
    }

    fn apply(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let Some(last) = entries.last().map(|last| last.index) else { return Ok(()) };
        let mut machine = self.shared.write();
        let applied = machine.apply(entries, &*self.metrics, self.version);
        if let Some(fault) = machine.fault() {
            return Err(broken(fault.clone()));
        }
        machine.check_version(self.version).map_err(StoreError::Fatal)?;
        let (facts, members) = (machine.facts(), machine.members());
        drop(machine);
        let mut responses = Vec::with_capacity(applied.len());
        let (mut leases, mut writes, mut operations) = (Vec::new(), Vec::new(), Operations::default());
        for AppliedEntry { index, response, leases: changes, operations: did, writes: written } in applied {
            responses.push((index, response));
            leases.extend(changes);
            writes.extend(written);
            operations += did;
        }
        self.shared.watches().applied(&writes, facts.revision).map_err(broken)?;
        self.shared.publish(facts, members);
        self.metrics.did(&operations);
        // Before the report, so that the raft thread knows the changes of leases when it hears of the entries.
        if !leases.is_empty() {
            self.inbox.push_event(Event::Leases(leases));
        }
        self.inbox.push_event(Event::Report(Report::Applied { index: last, responses }));
        Ok(())
    }

    fn install(&self, header: &SnapshotHeader) -> Result<(), StoreError> {
        let accepted = self.shared.take_accepted(header);
        let machine = accepted.state.install();
        let machine = machine.map_err(|error| StoreError::Fatal(format!("can't install a snapshot: {error}")))?;
        machine.check_version(self.version).map_err(StoreError::Fatal)?;
        let (facts, members, leases) = (machine.facts(), machine.members(), machine.leases());
        // The old file is removed already. Free its memory after the lock is released.
        let old = std::mem::replace(&mut *self.shared.write(), machine);
        drop(old);
        self.shared.watches().replaced(facts.revision);
        self.shared.publish(facts, members);
        let index = header.position.index;
        self.inbox.push_event(Event::LeasesReset(leases));
        self.inbox.push_event(Event::Report(Report::Applied { index, responses: Vec::new() }));
        Ok(())
    }

    /// Removes some compacted revisions. Returns whether there are more. `since`: when the removal began.
    fn tidy(&self, since: Instant) -> Result<bool, StoreError> {
        let mut machine = self.shared.write();
        machine.tidy(TIDY_RECORDS, &*self.metrics).map_err(broken)?;
        let (facts, untidy) = (machine.facts(), machine.is_untidy());
        drop(machine);
        if !untidy {
            // Before the waiting requests are told.
            self.metrics.compacted(since.elapsed());
        }
        if self.shared.facts() != facts {
            self.shared.set_facts(facts);
            self.inbox.push_event(Event::Facts);
        }
        Ok(untidy)
    }
}

fn broken(error: EngineError) -> StoreError {
    StoreError::Fatal(error.to_string())
}
