//! The worker of the log: writes everything that waits, syncs once, then lets the messages leave that had to wait for
//! that.
//!
//! During a sync, jobs gather, and the next sync covers them all: group commit without a timer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bowline_node::NodeMessage;
use bowline_node::raft::{NodeId, PersistId, SnapshotHeader, Write};
use bowline_storage::{Disk, DiskError, Log, LogError, SpareJob};
use tracing::{error, info, warn};

use crate::instruments::Instruments;
use crate::outlet::{Fatal, Outlet};
use crate::queue::Event;

/// Maximum number of jobs for one sync, because their messages wait for the whole sync.
pub const MAX_JOBS: usize = 256;

/// The log takes entries while it has room for this fraction of a segment.
const PORTION: u64 = 8;

/// Interval between checks whether a full disk has room again.
const ROOM_PAUSE: Duration = Duration::from_millis(100);

/// Practically forever.
const LONG: Duration = Duration::from_secs(3_600);

/// A step of the log's work, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogStep {
    /// A write of the stream.
    Write(PersistId, Write),
    /// Remove the log before this state, which is durable.
    Compact(SnapshotHeader),
}

/// The work of one round of the consensus for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogJob {
    /// The steps.
    pub steps: Vec<LogStep>,
    /// Messages to send when the steps of this and all earlier jobs are durable.
    pub messages: Vec<(NodeId, NodeMessage)>,
}

impl LogJob {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.messages.is_empty()
    }
}

/// The log and the jobs under way.
pub struct LogWorker<D: Disk> {
    log: Log<D>,
    jobs: Vec<LogJob>,
    /// The jobs and steps among them that are written, but not synced yet.
    done: (usize, usize),
    /// A segment is being prepared.
    preparing: bool,
    /// The next segment can't be prepared for now: the disk is full, or the system lacks descriptors, memory or threads.
    refused: bool,
    /// The disk did not take a write for now.
    waits: bool,
    instruments: Arc<dyn Instruments>,
}

impl<D: Disk> fmt::Debug for LogWorker<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWorker").field("stats", &self.log.stats()).finish_non_exhaustive()
    }
}

impl<D: Disk> LogWorker<D> {
    /// For an opened log.
    pub fn new(log: Log<D>, instruments: Arc<dyn Instruments>) -> LogWorker<D> {
        LogWorker { log, jobs: Vec::new(), done: (0, 0), preparing: false, refused: false, waits: false, instruments }
    }

    /// The longest time until the next [`LogWorker::tend`], if no job comes.
    #[must_use]
    pub fn pause(&self) -> Duration {
        if self.has_room() { LONG } else { ROOM_PAUSE }
    }

    /// Adds a job to the next sync. Up to [`MAX_JOBS`] at a time are useful.
    pub fn take(&mut self, job: LogJob) {
        self.jobs.push(job);
    }

    /// Writes and syncs all jobs, and lets their messages leave. Returns false if the disk does not take a write for
    /// now: call it again a little later. Nothing is lost meanwhile, and nothing that waits for it has left.
    ///
    /// # Errors
    /// Something can't be made durable. No message that waited for it has left.
    pub fn work<R>(&mut self, outlet: &mut impl Outlet<R>) -> Result<bool, Fatal> {
        match self.write_and_sync() {
            Ok(()) => {
                if std::mem::take(&mut self.waits) {
                    info!("writing the log works again");
                }
            }
            Err(error @ LogError::Passing(_)) => {
                if !std::mem::replace(&mut self.waits, true) {
                    error!(%error, "can't write the log; trying again");
                }
                return Ok(false);
            }
            Err(error) => return Err(Fatal(error.to_string())),
        }
        let mut written = None;
        // Messages first, because other members wait for them.
        for job in self.jobs.drain(..) {
            for (to, message) in job.messages {
                outlet.send(to, message);
            }
            for step in job.steps {
                if let LogStep::Write(id, _) = step {
                    written = Some(id);
                }
            }
        }
        self.done = (0, 0);
        if let Some(id) = written {
            outlet.event(Event::Persisted(id));
        }
        Ok(true)
    }

    fn write_and_sync(&mut self) -> Result<(), LogError> {
        let LogWorker { log, jobs, done: (job, step), .. } = self;
        while let Some(steps) = jobs.get(*job).map(|job| &job.steps) {
            while let Some(next) = steps.get(*step) {
                match next {
                    LogStep::Write(_, write) => log.append(write)?,
                    LogStep::Compact(header) => log.compact(header)?,
                }
                *step += 1;
            }
            (*job, *step) = (*job + 1, 0);
        }
        if jobs.iter().all(|job| job.steps.is_empty()) {
            return Ok(());
        }
        let began = self.instruments.stopwatch();
        self.log.sync()?;
        let took = self.instruments.stopwatch().saturating_sub(began);
        self.instruments.synced(took, self.log.stats().bytes_written);
        Ok(())
    }

    /// To be called after each sync, and from time to time while there is no room. Returns the job of preparing the next
    /// segment as soon as the one in reserve is in use. It may run beside the other work; its end must be told with
    /// [`LogWorker::prepared`].
    ///
    /// # Errors
    /// The log can't be used any more.
    pub fn tend(&mut self) -> Result<Option<SpareJob<D>>, Fatal> {
        if self.preparing || self.log.stats().spares > 0 {
            return Ok(None);
        }
        match self.log.spare_job() {
            Ok(Some(job)) => {
                self.preparing = true;
                return Ok(Some(job));
            }
            // There is a segment in reserve: compaction has freed one, or it was prepared.
            Ok(None) => self.tell_room(true, ""),
            Err(LogError::Passing(error)) => self.tell_room(false, &error.to_string()),
            Err(error) => return Err(Fatal(error.to_string())),
        }
        Ok(None)
    }

    /// The preparation of a segment has ended.
    pub fn prepared(&mut self, outcome: Result<(), DiskError>) {
        self.preparing = false;
        match outcome {
            Ok(()) => self.tell_room(true, ""),
            // Until a segment can be prepared, entries are accepted only while the current segment has room, less a
            // reserve for votes.
            Err(error) if error.is_passing() => self.tell_room(false, &error.to_string()),
            Err(error) => warn!(%error, "can't prepare a segment of the log"),
        }
    }

    /// The preparation of a segment could not begin, or did not end.
    pub fn not_prepared(&mut self, why: &str) {
        self.preparing = false;
        self.tell_room(false, why);
    }

    fn tell_room(&mut self, room: bool, why: &str) {
        match (std::mem::replace(&mut self.refused, !room), room) {
            (false, false) => error!(
                error = why,
                "can't prepare the next segment of the log; trying again; writes are refused once the current one is \
                 nearly full"
            ),
            (true, true) => info!("the next segment of the log is ready; no writes are refused for want of it"),
            _ => {}
        }
    }

    /// Whether there is room for entries. If not, no entries may be appended; votes may. Usually there is, as a missing
    /// segment is made when it is needed. While none can be prepared, only the room in the current one counts.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.refused || self.log.admits(self.log.segment_bytes() / PORTION)
    }
}
