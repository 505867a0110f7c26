//! The log thread: writes everything that waits, syncs once, then sends the messages that had to wait for that.
//!
//! During a sync, writes gather in the queue, and the next sync covers them all: group commit without a timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use bowline_node::NodeMessage;
use bowline_node::raft::{NodeId, PersistId, SnapshotHeader, Write};

use super::inbox::{Event, Inbox};
use super::metrics::Metrics;
use super::store::{LogStore, StoreError};
use crate::peer::Outbox;

/// Maximum number of jobs for one sync, because their messages wait for the whole sync.
const MAX_JOBS: usize = 256;

/// Bytes of room that the log needs to accept entries.
const LARGEST_PORTION: u64 = 1 << 20;

/// Practically forever.
const LONG: Duration = Duration::from_secs(3_600);

/// Interval between checks whether a full disk has room again.
const ROOM_PAUSE: Duration = Duration::from_millis(100);

/// A step of the log thread's work, in order.
#[derive(Debug)]
pub(crate) enum Step {
    /// A write of the stream.
    Write(PersistId, Write),
    /// Remove the log before this state, which is durable.
    Compact(SnapshotHeader),
}

/// The work of one round of the raft thread for the log thread.
#[derive(Debug, Default)]
pub(crate) struct LogJob {
    pub(crate) steps: Vec<Step>,
    /// Messages to send when the steps of this and all earlier jobs are durable.
    pub(crate) messages: Vec<(NodeId, NodeMessage)>,
}

impl LogJob {
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.messages.is_empty()
    }
}

pub(crate) struct LogThread<L> {
    pub(crate) log: L,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether the disk has room for entries.
    pub(crate) room: Arc<AtomicBool>,
}

impl<L: LogStore> LogThread<L> {
    /// Works until the queue is closed.
    ///
    /// # Errors
    /// Something can't be made durable. No message that waited for it was sent.
    pub(crate) fn run(mut self, jobs: &Receiver<LogJob>) -> Result<(), StoreError> {
        loop {
            let pause = if self.room.load(Ordering::Relaxed) { LONG } else { ROOM_PAUSE };
            let mut taken = match jobs.recv_timeout(pause) {
                Ok(first) => vec![first],
                Err(RecvTimeoutError::Timeout) => {
                    self.look_for_room()?;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            while taken.len() < MAX_JOBS {
                match jobs.try_recv() {
                    Ok(job) => taken.push(job),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            self.work(taken)?;
        }
    }

    fn look_for_room(&mut self) -> Result<(), StoreError> {
        self.log.tend()?;
        self.room.store(self.log.admits(LARGEST_PORTION), Ordering::Relaxed);
        Ok(())
    }

    fn work(&mut self, jobs: Vec<LogJob>) -> Result<(), StoreError> {
        let (mut written, mut compacted) = (None, false);
        let mut messages = Vec::new();
        for job in jobs {
            messages.extend(job.messages);
            for step in job.steps {
                match step {
                    Step::Write(id, write) => {
                        self.log.append(&write)?;
                        written = Some(id);
                    }
                    Step::Compact(header) => {
                        self.log.compact(&header)?;
                        compacted = true;
                    }
                }
            }
        }
        if written.is_some() || compacted {
            let started = Instant::now();
            self.log.sync()?;
            self.metrics.fsync.observe(started.elapsed().as_secs_f64());
            self.metrics.log_bytes.set(self.log.bytes_written());
        }
        // Messages first, because other members wait for them.
        for (to, message) in messages {
            self.outbox.send(to, message);
        }
        if let Some(id) = written {
            self.inbox.push_event(Event::Persisted(id));
        }
        self.look_for_room()
    }
}
