//! A running replica: its threads, and the handle for it.
//!
//! ```text
//!  clients ──▶ Inbox ──▶ raft thread (owns the Conductor) ──▶ log thread ──▶ disk
//!  peers   ──▶   ▲            │ Outbox (no wait)      │           │ Outbox (what waited for the disk)
//!                │            ▼                       ▼           │
//!                │       apply thread (the state)  snapshot thread (files) ──▶ Outbox (pieces)
//!                └────────────┴────── reports ────────┴───────────┘
//! ```
//!
//! A read waits until the state is recent enough, then reads it without these threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use bowline_kv::store::{Dump, KvError, Query, RedbRecords};
use bowline_kv::watch::{PortionLimits, Stream};
use bowline_member::{KvMachine, StateFiles};
use bowline_node::raft::{ConfigError, MembershipChange, NodeId, ReadKind, Recovered};
use bowline_node::{Conductor, Failure, Incoming, NodeConfig, NotDone, Response, SnapshotTransfer, Unknown};
use bowline_storage::{Arrival, Arriving, RealDisk, Snapshots};
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::peer::{Forwarder, LeaderRequest, Outbox};
use crate::watches::Watches;
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
mod store;

pub use bowline_member::{AlarmFacts, ComparisonFacts, Facts, Status};
pub use inbox::MAX_REQUESTS;
pub(crate) use inbox::{Inbox, Request as InboxRequest, RequestBody};
pub use lease_time::LeaseTime;
pub use metrics::Metrics;
pub use store::{LogStore, MemoryStore, StoreError, StoredWrites};

/// Maximum number of jobs that wait for the log thread; at the limit, the raft thread waits, too.
const LOG_QUEUE: usize = 64;

/// How long a request waits for a rewrite of the state's file.
const SHRINK_PATIENCE: Duration = Duration::from_secs(3_600);

/// Pause before an attempt is repeated, if there is no event to wait for.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a replica ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It was told to stop.
    Told,
    /// It could not go on.
    Failed(String),
}

/// What a replica starts with.
#[derive(Debug)]
pub struct Start<L> {
    /// The configuration of the node.
    pub config: NodeConfig,
    /// How reads are made linearizable.
    pub read_kind: ReadKind,
    /// Size of the state's file, in bytes, from which it is rewritten if less than half of it is in use.
    pub shrink_bytes: u64,
    /// The version of the peer protocol that this program speaks.
    pub version: u32,
    /// What was recovered from the log.
    pub recovered: Recovered,
    /// The log.
    pub log: L,
    /// The state machine and its files.
    pub state: State,
}

/// The state machine of a member, in its folder.
pub struct State {
    /// The state, as [`Start::recovered`] describes it.
    pub machine: KvMachine,
    /// The files of states.
    pub files: StateFiles<RealDisk>,
    /// The files of snapshots for followers.
    pub snapshots: Snapshots<RealDisk>,
    /// A snapshot that an earlier run had received in part.
    pub arriving: Option<Arriving<RealDisk>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("machine", &self.machine).finish_non_exhaustive()
    }
}

/// A handle for a running replica. Copies refer to the same one.
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
    /// Starts a replica's threads. `patience` is the time limit of a request. `on_failure` is called if they stop by
    /// themselves.
    ///
    /// # Errors
    /// The configuration is out of range, or the recovered data contradicts itself.
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
        let (status, status_seen) = watch::channel(first_status(&conductor, shared.published()));
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

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.own
    }

    /// Its present status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// A receiver of all changes of its status.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// The time limit of a request.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Writes a command, here or at the leader. A write that may have taken effect is never repeated.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn write(&self, command: Bytes) -> Response {
        self.run(LeaderRequest::Write(command)).await
    }

    /// Asks the leader for the remaining time of a lease, or renews the lease. `None` if there is no such lease. This
    /// is safe to do twice, so it is repeated where a write would not be.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn lease_time(&self, id: i64, renew: bool) -> Result<Option<LeaseTime>, Failure> {
        let told = self.run(LeaderRequest::Lease { id, renew }).await?;
        // All members that can connect use this format, so an answer that can't be decoded is not valid.
        LeaseTime::decode(told).map_err(Failure::refused)
    }

    /// Runs a request, here or at the leader.
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

    /// Waits until this replica's state contains everything that was acknowledged before, so that [`Replica::look`]
    /// reads the latest state.
    ///
    /// # Errors
    /// See [`Failure`].
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

    /// Queries this replica's own state, which may be behind. Only changes of the state have to wait for this.
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
        // If a long read or a change has locked the state, a quick read must not block the tasks of the network.
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

    /// This replica's own state, to be written elsewhere soon.
    ///
    /// # Errors
    /// The replica has stopped, or its state is broken.
    pub(crate) async fn dump(&self) -> Result<Dump<RedbRecords>, Failure> {
        if self.inbox.is_closed() {
            return Err(Unknown::Stopped.into());
        }
        let shared = Arc::clone(&self.shared);
        let dumped = tokio::task::spawn_blocking(move || shared.read().dump());
        let dumped = dumped.await.map_err(|_| Unknown::Stopped)?;
        dumped.map_err(|error| Failure::refused(error.to_string()))
    }

    /// The watches of this replica.
    pub(crate) fn watches(&self) -> &Watches {
        self.shared.watches()
    }

    /// Makes messages of what a stream of watches has taken, and of a portion of history.
    ///
    /// # Errors
    /// The replica has stopped, or its state is broken.
    pub(crate) async fn advance(&self, stream: &mut Stream, limits: &PortionLimits) -> Result<(), Failure> {
        if self.inbox.is_closed() {
            return Err(Unknown::Stopped.into());
        }
        // History may be read from the disk; the tasks of the network must not wait for that.
        let advanced = tokio::task::block_in_place(|| self.shared.read().advance(stream, limits));
        advanced.map_err(|error| Failure::refused(error.to_string()))
    }

    /// Transfers the leadership, if this replica leads.
    ///
    /// # Errors
    /// It does not lead, or no member takes the leadership.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<(), Failure> {
        let deadline = Instant::now() + self.patience;
        match self.ask(RequestBody::TransferLeadership(to), deadline).await {
            Err(Failure::NotDone(NotDone::NotLeader { .. })) => Err(Failure::refused("not leader")),
            Err(Failure::NotDone(NotDone::Superseded)) => Err(Failure::refused("another member became leader")),
            answer => answer.map(|_| ()),
        }
    }

    /// Changes the configuration by one step, if this replica leads.
    ///
    /// # Errors
    /// It does not lead, or the step is not possible now.
    pub(crate) async fn change_membership(&self, change: MembershipChange) -> Result<(), Failure> {
        let deadline = Instant::now() + self.patience;
        self.ask(RequestBody::ChangeMembership(change), deadline).await.map(|_| ())
    }

    /// Makes a learner a voter, here or at the leader.
    ///
    /// # Errors
    /// See [`Failure`]. It is refused as long as the learner has not caught up.
    pub(crate) async fn promote(&self, id: NodeId) -> Result<(), Failure> {
        self.run(LeaderRequest::Promote(id)).await.map(|_| ())
    }

    /// Rewrites the file of this replica's state without its free space, and waits for the end. The replica serves
    /// meanwhile.
    ///
    /// # Errors
    /// The rewrite was given up, for example because the disk is full. Nothing has changed then.
    pub async fn shrink(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + SHRINK_PATIENCE;
        self.ask(RequestBody::Shrink, deadline).await.map(|_| ())
    }

    /// Waits until a condition on this replica's state is true. Returns whether it became true in time.
    pub async fn reaches(&self, state: impl Fn(&Facts) -> bool) -> bool {
        let mut status = self.status.clone();
        let reached = status.wait_for(|status| state(&status.facts));
        tokio::time::timeout(self.patience, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    async fn ask(&self, body: RequestBody, deadline: Instant) -> Response {
        let (reply, answer) = oneshot::channel();
        self.inbox.push_request(Request { body, deadline: self.clock.at(deadline), reply });
        // The node gives up at the deadline itself. If it has not a little later, its thread is gone.
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
        // A leader that refuses is asked again soon: it may not know yet that it leads.
        let at_most = if leader.is_some() { PAUSE.min(left) } else { left };
        let _ = tokio::time::timeout(at_most, changed).await;
        Instant::now() < deadline
    }
}

impl Threads {
    /// Stops the threads and waits for their end. Everything that the log thread had received is durable then.
    #[must_use]
    pub fn stop(self) -> StopReason {
        self.ending.store(true, Ordering::Relaxed);
        self.inbox.close();
        // The raft thread holds the queues of the others, so it must end first.
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

/// The state of a snapshot that an earlier run had received in part.
fn incoming(arriving: &Arriving<RealDisk>) -> Incoming {
    let Arrival { from, term, session, header, total } = arriving.arrival().clone();
    Incoming::kept(SnapshotTransfer { from, term, session }, header, total, arriving.received())
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().name(name.to_owned()).spawn(work).expect("the system has room for four more threads")
}
