//! A running replica: its threads, and how to speak to it.
//!
//! ```text
//!  clients ──▶ Inbox ──▶ raft thread (owns the Node) ──▶ log thread ──▶ disk
//!  peers   ──▶   ▲            │ Outbox (no wait)            │ Outbox (what waited for the disk)
//!                └────────────┴── Persisted ◀───────────────┘
//! ```
//!
//! The state machine is applied to within the node, on the raft thread: a thread of its own for it would
//! need a node that hands out entries instead.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use bowline_node::raft::{ConfigError, NodeId, ReadKind};
use bowline_node::{Consistency, Node, NodeConfig, RecoveredNode};
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::peer::{Forwarder, Outbox};
use inbox::{DiskEvent, Request, Work};
use log_thread::{LogThread, SharedSnapshots, store_snapshot};
use raft_thread::{Ending, RaftThread, first_status, snapshot_queue};

mod answer;
mod inbox;
mod log_thread;
pub mod metrics;
mod raft_thread;
mod status;
mod store;

pub use answer::Answer;
pub(crate) use inbox::Inbox;
pub use inbox::MAX_REQUESTS;
pub use metrics::Metrics;
pub use status::{Facts, Machine, Status};
pub use store::{Kept, LogStore, MemoryStore, SnapshotStore, StoreError};

/// Jobs that may wait for the log's thread; then the replica's waits too.
const LOG_QUEUE: usize = 64;

/// How long to wait before trying again where nothing tells when it is worth it.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a request was not served. Nothing was done, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No leader was found in time.
    #[error("no leader")]
    NoLeader,
    /// A bound is reached.
    #[error("a bound is reached: {0}")]
    Overloaded(String),
    /// The leader's disk is full.
    #[error("the disk is full")]
    NoSpace,
    /// No answer came in time. A write may or may not have taken effect.
    #[error("no answer in time")]
    TimedOut,
    /// The connection to the leader was lost after the write was sent: it may or may not have taken effect.
    #[error("the connection to the leader was lost")]
    ConnectionLost,
    /// It can't be granted.
    #[error("{0}")]
    Refused(String),
    /// The replica has stopped. A write may or may not have taken effect.
    #[error("stopped")]
    Stopped,
}

/// Why a replica ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It was told to.
    Told,
    /// It could not go on.
    Failed(String),
}

/// What a replica starts with.
#[derive(Debug)]
pub struct Start<M, L, S> {
    /// How it is tuned.
    pub config: NodeConfig,
    /// A state machine without anything in it.
    pub empty: M,
    /// What was found on the disk.
    pub recovered: RecoveredNode,
    /// The log.
    pub log: L,
    /// The snapshots.
    pub snapshots: S,
}

/// Speaks to a running replica; copies speak to the same.
#[derive(Clone, Debug)]
pub struct Replica {
    own: NodeId,
    clock: Clock,
    inbox: Arc<Inbox>,
    status: watch::Receiver<Status>,
    forwarder: Forwarder,
    metrics: Arc<Metrics>,
    patience: Duration,
}

/// The threads of a running replica.
#[derive(Debug)]
pub struct Threads {
    inbox: Arc<Inbox>,
    raft: JoinHandle<Ending>,
    log: JoinHandle<Result<(), StoreError>>,
    snapshots: JoinHandle<Result<(), StoreError>>,
}

impl Replica {
    /// Starts a replica's threads. `patience` bounds how long a request may take. `ended` is told when
    /// they have stopped by themselves.
    ///
    /// # Errors
    /// The configuration is out of range, or what was recovered contradicts itself.
    pub fn start<M: Machine, L: LogStore, S: SnapshotStore>(
        start: Start<M, L, S>,
        clock: Clock,
        outbox: Arc<Outbox>,
        forwarder: Forwarder,
        patience: Duration,
        on_failure: impl Fn(String) + Send + Clone + 'static,
    ) -> Result<(Replica, Threads), ConfigError> {
        let own = start.config.raft.id;
        let node = Node::new(start.config, start.empty, start.recovered, clock.now())?;
        let (inbox, metrics) = (Arc::<Inbox>::default(), Arc::<Metrics>::default());
        let room = Arc::new(AtomicBool::new(true));
        let (status, status_seen) = watch::channel(first_status(&node));
        let shared: SharedSnapshots = Arc::new(Mutex::new(start.snapshots));
        let (log_jobs, log_queue) = sync_channel(LOG_QUEUE);
        let (own_snapshots, snapshot_jobs) = snapshot_queue();

        let log_thread = LogThread {
            log: start.log,
            snapshots: Arc::clone(&shared),
            inbox: Arc::clone(&inbox),
            outbox: Arc::clone(&outbox),
            metrics: Arc::clone(&metrics),
            room: Arc::clone(&room),
        };
        let log_failed = on_failure.clone();
        let log = spawn("log", move || {
            let ended = log_thread.run(&log_queue);
            ended.inspect_err(|error| log_failed(format!("the log can't be written: {error}")))
        });
        let (snapshot_inbox, snapshot_failed) = (Arc::clone(&inbox), on_failure.clone());
        let snapshots = spawn("snapshots", move || {
            while let Ok(snapshot) = snapshot_jobs.recv() {
                let ended = store_snapshot(&shared, &snapshot);
                ended.inspect_err(|error| snapshot_failed(format!("a snapshot can't be written: {error}")))?;
                snapshot_inbox.push_disk(DiskEvent::SnapshotStored(snapshot.header));
            }
            Ok(())
        });
        let raft_thread = RaftThread {
            node,
            clock,
            inbox: Arc::clone(&inbox),
            outbox,
            log: log_jobs,
            snapshots: own_snapshots,
            status,
            metrics: Arc::clone(&metrics),
            room,
            waiting: BTreeMap::new(),
            next_token: 0,
        };
        let raft = spawn("raft", move || {
            let ending = raft_thread.run();
            if let Ending::Faulty(fault) = &ending {
                on_failure(format!("a broken promise was seen: {fault}"));
            }
            ending
        });
        let threads = Threads { inbox: Arc::clone(&inbox), raft, log, snapshots };
        Ok((Replica { own, clock, inbox, status: status_seen, forwarder, metrics, patience }, threads))
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.own
    }

    /// How it is now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Tells of every change of its status.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// How long a request may take.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Writes, here or at the leader. What may have taken effect is never tried again.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn write(&self, command: Bytes) -> Result<Bytes, RequestError> {
        let deadline = Instant::now() + self.patience;
        let mut nobody = RequestError::NoLeader;
        loop {
            let leader = self.status.borrow().leader;
            let answer = match leader {
                Some(leader) if leader == self.own => self.ask(Work::Write(command.clone()), deadline).await,
                Some(leader) => self.forwarder.forward(leader, command.clone(), deadline).await,
                None => Answer::NotLeader(None),
            };
            match answer {
                // Nothing was done, and another leader may do it.
                Answer::NotLeader(_) | Answer::Superseded | Answer::Unreachable | Answer::TryAgain => {}
                Answer::Overloaded(limit) => nobody = RequestError::Overloaded(limit),
                answer => return finished(answer),
            }
            if let RequestError::Overloaded(_) = nobody {
                return Err(nobody);
            }
            if !self.pause(deadline).await {
                return Err(nobody);
            }
        }
    }

    /// Reads the latest state: everything that was acknowledged before is seen.
    ///
    /// # Errors
    /// See [`RequestError`]; nothing is ever changed by a read.
    pub async fn read(&self, query: Bytes) -> Result<Bytes, RequestError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let consistency = Consistency::Linearizable(ReadKind::Lease);
            match self.ask(Work::Read(query.clone(), consistency), deadline).await {
                Answer::NotLeader(_) | Answer::Superseded | Answer::TryAgain => {}
                answer => return finished(answer),
            }
            if !self.pause(deadline).await {
                return Err(RequestError::NoLeader);
            }
        }
    }

    /// Reads this replica's own state, which may be behind.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn read_local(&self, query: Bytes) -> Result<Bytes, RequestError> {
        let deadline = Instant::now() + self.patience;
        finished(self.ask(Work::Read(query, Consistency::Serializable), deadline).await)
    }

    /// Hands the leadership over, if this replica has it.
    ///
    /// # Errors
    /// It has not, or nobody takes it.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<(), RequestError> {
        let deadline = Instant::now() + self.patience;
        match self.ask(Work::Transfer(to), deadline).await {
            Answer::NotLeader(_) => Err(RequestError::Refused("not leader".to_owned())),
            Answer::Superseded => Err(RequestError::Refused("another member took it".to_owned())),
            answer => finished(answer).map(|_| ()),
        }
    }

    /// Waits until something is true of this replica's state. Returns whether it was in time.
    pub async fn reaches(&self, state: impl Fn(&Facts) -> bool) -> bool {
        let mut status = self.status.clone();
        let reached = status.wait_for(|status| state(&status.facts));
        tokio::time::timeout(self.patience, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    async fn ask(&self, work: Work, deadline: Instant) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.inbox.push_request(Request { work, deadline: self.clock.at(deadline), reply });
        // The node gives up at the deadline itself; a little later, nobody is there to do so.
        let patience = deadline.saturating_duration_since(Instant::now()) + PAUSE * 10;
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Answer::Stopped,
            Err(_) => Answer::Expired,
        }
    }

    /// Waits for a leader to appear or to change. Returns whether there is time left.
    async fn pause(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let mut status = self.status.clone();
        status.mark_unchanged();
        let leader = status.borrow().leader;
        let changed = status.wait_for(|status| status.leader != leader);
        // A leader that is known but refuses is tried again soon: it may not know yet that it leads.
        let at_most = if leader.is_some() { PAUSE.min(left) } else { left };
        let _ = tokio::time::timeout(at_most, changed).await;
        Instant::now() < deadline
    }
}

fn finished(answer: Answer) -> Result<Bytes, RequestError> {
    match answer {
        Answer::Done(bytes) => Ok(bytes),
        Answer::NotLeader(_) | Answer::Superseded | Answer::Unreachable | Answer::TryAgain => {
            Err(RequestError::NoLeader)
        }
        Answer::Overloaded(limit) => Err(RequestError::Overloaded(limit)),
        Answer::NoSpace => Err(RequestError::NoSpace),
        Answer::Expired => Err(RequestError::TimedOut),
        Answer::Refused(reason) => Err(RequestError::Refused(reason)),
        Answer::Lost => Err(RequestError::ConnectionLost),
        Answer::Stopped => Err(RequestError::Stopped),
    }
}

impl Threads {
    /// Ends the threads: what was handed to the log is durable then. Blocks until they have.
    #[must_use]
    pub fn stop(self) -> StopReason {
        self.inbox.close();
        // In this order: each lets go of the queue of the next.
        let ending = self.raft.join();
        let log = self.log.join();
        let snapshots = self.snapshots.join();
        match (ending, log, snapshots) {
            (Ok(Ending::Closed), Ok(Ok(())), Ok(Ok(()))) => StopReason::Told,
            (Ok(Ending::Faulty(fault)), _, _) => StopReason::Failed(fault.to_string()),
            (_, Ok(Err(error)), _) | (_, _, Ok(Err(error))) => StopReason::Failed(error.to_string()),
            _ => StopReason::Failed("a thread of the replica has panicked".to_owned()),
        }
    }
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().name(name.to_owned()).spawn(work).expect("the system has room for three more threads")
}
