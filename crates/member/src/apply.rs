//! The worker of the state: the only one that changes it, in the order of the log.
//!
//! It may lag behind: the core bounds the bytes of entries that are not applied yet.

use std::sync::Arc;
use std::time::Duration;

use bowline_kv::store::{EngineError, Operations};
use bowline_node::raft::{Entry, SnapshotHeader, Time};
use bowline_node::{Job, Report, recalled};

use crate::disk::StateDisk;
use crate::instruments::Instruments;
use crate::machine::{AppliedEntry, KvMachine};
use crate::outlet::{Fatal, Outlet};
use crate::queue::Event;
use crate::shared::Shared;
use crate::shrink::Shrink;
use crate::snapshots::SnapshotJob;
use crate::workers::Settings;

/// Pause between two steps of removing compacted revisions, so that others can use the state.
const TIDY_PAUSE: Duration = Duration::from_millis(5);

/// Interval between checks whether a full disk has room again.
const ROOM_PAUSE: Duration = Duration::from_millis(250);

/// Practically forever.
const LONG: Duration = Duration::from_secs(3_600);

/// A job for the worker.
#[derive(Debug)]
pub enum ApplyJob<R> {
    /// A job of the core.
    Of(Job),
    /// Rewrite the state's file, and answer when it is done.
    Shrink(R),
}

/// The worker.
#[derive(Debug)]
pub struct ApplyWorker<D: StateDisk, R> {
    shared: Arc<Shared<D>>,
    instruments: Arc<dyn Instruments>,
    /// A checkpoint to make as soon as the disk has room for it.
    owed: Option<SnapshotHeader>,
    shrink: Shrink<R>,
    /// The version of the peer protocol that this program speaks.
    version: u32,
    /// As in [`Settings`].
    flush_records: usize,
    /// As in [`Settings`].
    tidy_records: usize,
    /// Whether compacted revisions are still to be removed.
    untidy: bool,
    /// When the last step of that was done.
    tidied_at: Time,
    /// The stopwatch when the removal began, if it is under way.
    tidies_since: Option<Duration>,
}

impl<D: StateDisk, R> ApplyWorker<D, R> {
    /// For the state of a member that starts.
    pub fn new(
        shared: Arc<Shared<D>>,
        settings: &Settings,
        instruments: Arc<dyn Instruments>,
        now: Time,
    ) -> ApplyWorker<D, R> {
        shared.write().flush_at(settings.flush_records);
        let untidy = shared.read().is_untidy();
        ApplyWorker {
            shared,
            instruments,
            owed: None,
            shrink: Shrink::new(settings.shrink_bytes),
            version: settings.version,
            flush_records: settings.flush_records,
            tidy_records: settings.tidy_records,
            untidy,
            tidied_at: now,
            tidies_since: None,
        }
    }

    /// The longest time until the next [`ApplyWorker::work`], if no job comes.
    #[must_use]
    pub fn pause(&self) -> Duration {
        let pause = match (self.shared.has_room(), self.untidy) {
            (false, _) => ROOM_PAUSE,
            (true, true) => TIDY_PAUSE,
            (true, false) => LONG,
        };
        pause.min(self.shrink.pause())
    }

    /// Does a job, if there is one, and then what is due.
    ///
    /// # Errors
    /// The state can't be read or written any more. No answer that depends on it was given.
    pub fn work(&mut self, now: Time, job: Option<ApplyJob<R>>, outlet: &mut impl Outlet<R>) -> Result<(), Fatal> {
        match job {
            Some(ApplyJob::Of(job)) => self.do_job(job, outlet)?,
            Some(ApplyJob::Shrink(reply)) => self.shrink.request(reply),
            None => {}
        }
        if self.catch_up(outlet)? {
            self.untidy = self.shared.read().is_untidy();
            if self.untidy && now.since(self.tidied_at) >= TIDY_PAUSE {
                self.tidy(outlet)?;
                self.tidied_at = now;
            }
        }
        // After the last step of a removal, which no other event follows. Also on a full disk, because a rewrite may
        // free space.
        self.shrink.tend(now, &self.shared, outlet, &*self.instruments)
    }

    fn do_job(&mut self, job: Job, outlet: &mut impl Outlet<R>) -> Result<(), Fatal> {
        match job {
            Job::Apply { entries } => self.apply(&entries, outlet)?,
            Job::Recall { token, proposed_at, contains, .. } => {
                let recall = self.shared.read().recall();
                outlet.event(Event::Answered(token, recalled(recall, proposed_at, contains)));
            }
            // `catch_up` does this when there is room.
            Job::StoreState { header } => self.owed = Some(header),
            Job::Dump { header } => {
                let dump = self.shared.read().dump()?;
                outlet.snapshot_job(SnapshotJob::Dump(header, Box::new(dump)));
            }
            Job::Install { header } => {
                // The snapshot is durable already.
                self.owed = None;
                self.install(&header, outlet)?;
            }
            other => unreachable!("{other:?} is not for this worker"),
        }
        Ok(())
    }

    /// Makes pending changes and checkpoints durable, if the disk has room. Returns whether it has. On a full disk,
    /// applied changes stay in memory, and no more writes are accepted, so reads and votes go on.
    fn catch_up(&mut self, outlet: &mut impl Outlet<R>) -> Result<bool, Fatal> {
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
            outlet.event(Event::StateStored(header));
        }
        Ok(room)
    }

    /// Writes the state's file, and measures how long that takes.
    fn commit(&self, commit: impl FnOnce(&mut KvMachine) -> Result<(), EngineError>) -> Result<(), Fatal> {
        let mut machine = self.shared.write();
        let began = self.instruments.stopwatch();
        commit(&mut machine)?;
        self.instruments.committed(self.instruments.stopwatch().saturating_sub(began));
        Ok(())
    }

    fn apply(&self, entries: &[Entry], outlet: &mut impl Outlet<R>) -> Result<(), Fatal> {
        let Some(last) = entries.last().map(|last| last.index) else { return Ok(()) };
        let mut machine = self.shared.write();
        let applied = machine.apply(entries, &*self.instruments, self.version);
        if let Some(fault) = machine.fault() {
            return Err(fault.clone().into());
        }
        machine.check_version(self.version).map_err(Fatal)?;
        let published = machine.published();
        drop(machine);
        outlet.applied(&applied, &published)?;
        let mut responses = Vec::with_capacity(applied.len());
        let (mut leases, mut operations) = (Vec::new(), Operations::default());
        for AppliedEntry { index, response, leases: changes, operations: did, .. } in applied {
            responses.push((index, response));
            leases.extend(changes);
            operations += did;
        }
        self.shared.publish(published);
        self.instruments.did(&operations);
        // Before the report, so that the consensus knows the changes of leases when it hears of the entries.
        if !leases.is_empty() {
            outlet.event(Event::Leases(leases));
        }
        outlet.event(Event::Report(Report::Applied { index: last, responses }));
        Ok(())
    }

    fn install(&self, header: &SnapshotHeader, outlet: &mut impl Outlet<R>) -> Result<(), Fatal> {
        let accepted = self.shared.take_accepted(header);
        let machine = accepted.state.install();
        let mut machine = machine.map_err(|error| Fatal(format!("can't install a snapshot: {error}")))?;
        machine.flush_at(self.flush_records);
        machine.check_version(self.version).map_err(Fatal)?;
        let (published, leases) = (machine.published(), machine.leases());
        // The old file is removed already. Free its memory after the lock is released.
        let old = std::mem::replace(&mut *self.shared.write(), machine);
        drop(old);
        outlet.replaced(&published);
        self.shared.publish(published);
        let index = header.position.index;
        outlet.event(Event::LeasesReset(leases));
        outlet.event(Event::Report(Report::Applied { index, responses: Vec::new() }));
        Ok(())
    }

    /// Removes some compacted revisions.
    fn tidy(&mut self, outlet: &mut impl Outlet<R>) -> Result<(), Fatal> {
        let began = *self.tidies_since.get_or_insert_with(|| self.instruments.stopwatch());
        let mut machine = self.shared.write();
        machine.tidy(self.tidy_records, &*self.instruments)?;
        let facts = machine.facts();
        self.untidy = machine.is_untidy();
        drop(machine);
        if !self.untidy {
            self.tidies_since = None;
            // Before the waiting requests are told.
            self.instruments.compacted(self.instruments.stopwatch().saturating_sub(began));
        }
        if self.shared.facts() != facts {
            self.shared.set_facts(facts);
            outlet.event(Event::Facts);
        }
        Ok(())
    }
}
