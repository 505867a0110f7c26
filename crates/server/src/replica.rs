//! A running replica: its threads, and how to speak to it.
//!
//! ```text
//!  clients ──▶ Inbox ──▶ raft thread (owns the Conductor) ──▶ log thread ──▶ disk
//!  peers   ──▶   ▲            │ Outbox (no wait)      │           │ Outbox (what waited for the disk)
//!                │            ▼                       ▼           │
//!                │       apply thread (the state)  snapshots' thread (files) ──▶ Outbox (pieces)
//!                └────────────┴── what became of it ──┴───────────┘
//! ```
//!
//! A read waits here for the state to be recent enough, and then looks at it by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use bowline_kv::store::{KvError, Query};
use bowline_node::raft::{ConfigError, NodeId, ReadKind, Recovered};
use bowline_node::{Conductor, Failure, Incoming, NodeConfig, NotDone, Response, SnapshotTransfer, Unknown};
use bowline_storage::{Arrival, Arriving, RealDisk, Snapshots};
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::machine::KvMachine;
use crate::peer::{Forwarder, LeaderRequest, Outbox};
use crate::state_files::StateFiles;
use apply_thread::ApplyThread;
use inbox::Request;
use leases::Leases;
use log_thread::LogThread;
use raft_thread::{Ending, RaftThread, first_status};
use shared::Shared;
use shrink::Shrink;
use snapshot_thread::SnapshotThread;

mod apply_thread;
mod inbox;
mod lease_time;
mod leases;
mod log_thread;
pub mod metrics;
mod raft_thread;
mod rewriting;
mod shared;
mod shrink;
mod snapshot_thread;
mod status;
mod store;

pub use inbox::MAX_REQUESTS;
pub(crate) use inbox::{Inbox, Request as InboxRequest, RequestBody};
pub use lease_time::LeaseTime;
pub use metrics::Metrics;
pub use status::{Facts, Status};
pub use store::{LogStore, MemoryStore, StoreError, StoredWrites};

/// Jobs that may wait for the log's thread; then the replica's waits too.
const LOG_QUEUE: usize = 64;

/// How long a rewrite of the state's file may take before nobody waits for it any more.
const SHRINK_PATIENCE: Duration = Duration::from_secs(3_600);

/// How long to wait before trying again where nothing tells when it is worth it.
const PAUSE: Duration = Duration::from_millis(20);

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
pub struct Start<L> {
    /// How it is tuned.
    pub config: NodeConfig,
    /// How its reads are made linearizable.
    pub read_kind: ReadKind,
    /// A state's file of so many bytes, less than half of which are in use, is written anew.
    pub shrink_bytes: u64,
    /// The version of the peer protocol that this program speaks.
    pub version: u32,
    /// What was found of the log.
    pub recovered: Recovered,
    /// The log.
    pub log: L,
    /// The state machine, and all about it.
    pub state: State,
}

/// The state machine of a member, in its folder.
pub struct State {
    /// What it contains, `recovered` says.
    pub machine: KvMachine,
    /// Where others are made.
    pub files: StateFiles,
    /// Where snapshots are written for followers.
    pub snapshots: Snapshots<RealDisk>,
    /// A snapshot that was arriving when the life before ended.
    pub arriving: Option<Arriving<RealDisk>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("machine", &self.machine).finish_non_exhaustive()
    }
}

/// Speaks to a running replica; copies speak to the same.
#[derive(Clone, Debug)]
pub struct Replica {
    own: NodeId,
    clock: Clock,
    inbox: Arc<Inbox>,
    status: watch::Receiver<Status>,
    shared: Arc<Shared>,
    forwarder: Forwarder,
    metrics: Arc<Metrics>,
    patience: Duration,
}

/// The threads of a running replica.
#[derive(Debug)]
pub struct Threads {
    inbox: Arc<Inbox>,
    ending: Arc<AtomicBool>,
    raft: JoinHandle<Ending>,
    log: JoinHandle<Result<(), StoreError>>,
    apply: JoinHandle<Result<(), StoreError>>,
    snapshots: JoinHandle<Result<(), StoreError>>,
}

impl Replica {
    /// Starts a replica's threads. `patience` bounds how long a request may take. `ended` is told when
    /// they have stopped by themselves.
    ///
    /// # Errors
    /// The configuration is out of range, or what was recovered contradicts itself.
    pub fn start<L: LogStore>(
        start: Start<L>,
        clock: Clock,
        outbox: Arc<Outbox>,
        forwarder: Forwarder,
        patience: Duration,
        on_failure: impl Fn(String) + Send + Clone + 'static,
    ) -> Result<(Replica, Threads), ConfigError> {
        let own = start.config.raft.id;
        let mut conductor = Conductor::new(start.config, start.recovered, clock.now())?;
        let State { machine, files, snapshots, arriving } = start.state;
        if let Some(arriving) = &arriving {
            conductor.resume(incoming(arriving));
        }
        let (inbox, metrics) = (Arc::<Inbox>::default(), Arc::<Metrics>::default());
        let (room, ending) = (Arc::new(AtomicBool::new(true)), Arc::<AtomicBool>::default());
        let leases = Leases::new(clock.now(), machine.leases(), Arc::clone(&metrics));
        let shared = Arc::new(Shared::new(machine));
        let (status, status_seen) = watch::channel(first_status(&conductor, shared.facts()));
        let (log_jobs, log_queue) = sync_channel(LOG_QUEUE);
        let (apply_jobs, apply_queue) = channel();
        let (snapshot_jobs, snapshot_queue) = channel();

        let log_thread = LogThread {
            log: start.log,
            inbox: Arc::clone(&inbox),
            outbox: Arc::clone(&outbox),
            metrics: Arc::clone(&metrics),
            room: Arc::clone(&room),
        };
        let apply_thread = ApplyThread {
            shared: Arc::clone(&shared),
            inbox: Arc::clone(&inbox),
            metrics: Arc::clone(&metrics),
            snapshots: snapshot_jobs.clone(),
            owed: None,
            shrink: Shrink::new(start.shrink_bytes),
            version: start.version,
        };
        let snapshot_thread = SnapshotThread {
            snapshots,
            files,
            arriving,
            shared: Arc::clone(&shared),
            inbox: Arc::clone(&inbox),
            outbox: Arc::clone(&outbox),
            ready: BTreeMap::new(),
            rewriting: None,
            ending: Arc::clone(&ending),
            metrics: Arc::clone(&metrics),
        };
        let raft_thread = RaftThread {
            conductor,
            clock,
            inbox: Arc::clone(&inbox),
            outbox,
            log: log_jobs,
            apply: apply_jobs,
            snapshots: snapshot_jobs,
            shared: Arc::clone(&shared),
            status,
            metrics: Arc::clone(&metrics),
            room,
            leases,
            waiting: BTreeMap::new(),
            next_token: 0,
            read_kind: start.read_kind,
        };
        let watched = |what: &'static str| {
            let failed = on_failure.clone();
            move |error: &StoreError| failed(format!("{what}: {error}"))
        };
        let (log_failed, apply_failed) = (watched("can't write the log"), watched("can't keep the state"));
        let snapshots_failed = watched("can't keep a snapshot");
        let log = spawn("log", move || log_thread.run(&log_queue).inspect_err(log_failed));
        let apply = spawn("apply", move || apply_thread.run(&apply_queue).inspect_err(apply_failed));
        let snapshots = spawn("snapshots", move || snapshot_thread.run(&snapshot_queue).inspect_err(snapshots_failed));
        let raft = spawn("raft", move || {
            let ending = raft_thread.run();
            if let Ending::Faulty(fault) = &ending {
                on_failure(format!("internal error: {fault}"));
            }
            ending
        });
        let threads = Threads { inbox: Arc::clone(&inbox), ending, raft, log, apply, snapshots };
        Ok((Replica { own, clock, inbox, status: status_seen, shared, forwarder, metrics, patience }, threads))
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
    /// See [`Failure`].
    pub async fn write(&self, command: Bytes) -> Response {
        self.run(LeaderRequest::Write(command)).await
    }

    /// Asks the leader how long a lease still lives, or gives the lease its whole time anew. `None` if there is no such
    /// lease. Safe to do twice, so it is tried again where a write would not be.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn lease_time(&self, id: i64, renew: bool) -> Result<Option<LeaseTime>, Failure> {
        let told = self.run(LeaderRequest::Lease { id, renew }).await?;
        // Members of another version are not spoken to: whoever answers like this is not to be believed.
        LeaseTime::decode(told).map_err(Failure::refused)
    }

    /// Has a request done, here or at the leader.
    async fn run(&self, request: LeaderRequest) -> Response {
        let deadline = Instant::now() + self.patience;
        loop {
            let leader = self.status.borrow().leader;
            let answer = match leader {
                Some(leader) if leader == self.own => self.ask(request.clone().into(), deadline).await,
                Some(leader) => self.forwarder.forward(leader, request.clone(), deadline).await,
                None => Err(Failure::not_leader(None)),
            };
            match answer {
                Err(failure) if failure.is_passing() => {}
                Err(Failure::Unknown(Unknown::ConnectionLost)) if request.is_harmless_twice() => {}
                answer => return answer,
            }
            if !self.pause(deadline).await {
                return Err(Failure::not_leader(None));
            }
        }
    }

    /// Waits until this replica's state contains everything that was acknowledged before: then [`Replica::look`] reads
    /// the latest state.
    ///
    /// # Errors
    /// See [`Failure`]; nothing is ever changed by a read.
    pub async fn confirm(&self) -> Result<(), Failure> {
        self.try_confirm().await.inspect_err(|error| {
            let late = *error == Failure::Unknown(Unknown::Expired);
            let counter = if late { &self.metrics.slow_reads } else { &self.metrics.failed_reads };
            counter.inc();
        })
    }

    async fn try_confirm(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.ask(RequestBody::Read, deadline).await {
                Err(failure) if failure.is_passing() => {}
                answer => return answer.map(|_| ()),
            }
            if !self.pause(deadline).await {
                return Err(Failure::not_leader(None));
            }
        }
    }

    /// Puts a question to this replica's own state, which may be behind. Holds up nobody but those who change it.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn look<Q>(&self, query: Q) -> Result<Result<Q::Answer, KvError>, Failure>
    where
        Q: Query + Send + 'static,
        Q::Answer: Send + 'static,
    {
        if self.inbox.is_closed() {
            return Err(Unknown::Stopped.into());
        }
        // Where a long read or a change has the state, a quick one must not hold up the tasks of the network.
        let at_once = if query.is_quick() { self.shared.try_read().map(|machine| machine.ask(&query)) } else { None };
        let (answer, operations) = match at_once {
            Some(found) => found,
            None => {
                let shared = Arc::clone(&self.shared);
                let looked = tokio::task::spawn_blocking(move || shared.read().ask(&query));
                looked.await.map_err(|_| Unknown::Stopped)?
            }
        };
        self.metrics.did(&operations);
        Ok(answer)
    }

    /// Hands the leadership over, if this replica has it.
    ///
    /// # Errors
    /// It has not, or nobody takes it.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<(), Failure> {
        let deadline = Instant::now() + self.patience;
        match self.ask(RequestBody::TransferLeadership(to), deadline).await {
            Err(Failure::NotDone(NotDone::NotLeader { .. })) => Err(Failure::refused("not leader")),
            Err(Failure::NotDone(NotDone::Superseded)) => Err(Failure::refused("another member became leader")),
            answer => answer.map(|_| ()),
        }
    }

    /// Has the file of this replica's state written anew, without what is free in it, while all goes on; waits for
    /// the end of that.
    ///
    /// # Errors
    /// It was given up: the disk has no room, say. Everything is as it was.
    pub async fn shrink(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + SHRINK_PATIENCE;
        self.ask(RequestBody::Shrink, deadline).await.map(|_| ())
    }

    /// Waits until something is true of this replica's state. Returns whether it was in time.
    pub async fn reaches(&self, state: impl Fn(&Facts) -> bool) -> bool {
        let mut status = self.status.clone();
        let reached = status.wait_for(|status| state(&status.facts));
        tokio::time::timeout(self.patience, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    async fn ask(&self, body: RequestBody, deadline: Instant) -> Response {
        let (reply, answer) = oneshot::channel();
        self.inbox.push_request(Request { body, deadline: self.clock.at(deadline), reply });
        // The node gives up at the deadline itself; a little later, nobody is there to do so.
        let patience = deadline.saturating_duration_since(Instant::now()) + PAUSE * 10;
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Unknown::Stopped.into()),
            Err(_) => Err(Unknown::Expired.into()),
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

impl Threads {
    /// Ends the threads: what was handed to the log is durable then. Blocks until they have.
    #[must_use]
    pub fn stop(self) -> StopReason {
        self.ending.store(true, Ordering::Relaxed);
        self.inbox.close();
        // In this order: each lets go of the queue of the next.
        let ending = self.raft.join();
        let others = [self.log.join(), self.apply.join(), self.snapshots.join()];
        let mut failed = None;
        for other in others {
            match other {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failed = failed.or(Some(error.to_string())),
                Err(_) => failed = failed.or(Some("a thread of the replica panicked".to_owned())),
            }
        }
        match (ending, failed) {
            (Ok(Ending::Faulty(fault)), _) => StopReason::Failed(fault.to_string()),
            (_, Some(failed)) => StopReason::Failed(failed),
            (Ok(Ending::Closed), None) => StopReason::Told,
            _ => StopReason::Failed("a thread of the replica panicked".to_owned()),
        }
    }
}

/// How far a snapshot had come that was arriving in an earlier life.
fn incoming(arriving: &Arriving<RealDisk>) -> Incoming {
    let Arrival { from, term, session, header, total } = arriving.arrival().clone();
    Incoming::kept(SnapshotTransfer { from, term, session }, header, total, arriving.received())
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().name(name.to_owned()).spawn(work).expect("the system has room for four more threads")
}
