//! The log's thread: writes all that waits, syncs once, then lets go what had to wait for it.
//!
//! While a sync is under way, writes gather: the next one takes them all. Group commit is a queue, not a timer.

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

/// Most jobs under one sync: their messages wait for all of it.
const MAX_JOBS: usize = 256;

/// Room that must be left on a full disk for entries to be taken, in bytes.
const LARGEST_PORTION: u64 = 1 << 20;

/// As good as for ever.
const LONG: Duration = Duration::from_secs(3_600);

/// How often to look whether a full disk has room again.
const ROOM_PAUSE: Duration = Duration::from_millis(100);

/// A step of the log's work, in order.
#[derive(Debug)]
pub(crate) enum Step {
    /// A write of the one stream.
    Write(PersistId, Write),
    /// The state that this describes is durable.
    Compact(SnapshotHeader),
}

/// What a round of the replica's thread wants of the log's.
#[derive(Debug, Default)]
pub(crate) struct LogJob {
    pub(crate) steps: Vec<Step>,
    /// What may leave when the steps of this job and of all before it are durable.
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
    /// Works until nobody wants anything any more.
    ///
    /// # Errors
    /// Something can't be made durable. Nothing that waited for it has left.
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
        // The followers' answers first: somebody else waits for them.
        for (to, message) in messages {
            self.outbox.send(to, message);
        }
        if let Some(id) = written {
            self.inbox.push_event(Event::Persisted(id));
        }
        self.look_for_room()
    }
}
