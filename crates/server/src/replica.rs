//! A running replica: the handle for it. The workers of `bowline-member` do its work, on threads.
//!
//! A read waits until the state is recent enough, then reads it without these threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bowline_kv::store::{AuthBook, Authorized, Dump, KvError, LeaseRenewal, Principal, Query, RedbRecords, Task};
use bowline_kv::watch::{PortionLimits, Stream};
use bowline_member::{
    Attempt, Instruments, LeaderRequest, LeaseTime, Request, RequestBody, Settings, Shared, State, ToLeader, Workers,
    pause,
};
use bowline_node::raft::{ConfigError, MembershipChange, NodeId, Recovered, Time};
use bowline_node::{Failure, NodeConfig, NotDone, Response, Unknown};
use bowline_storage::{Disk, Log, RealDisk};
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::peer::{Forwarder, Outbox};
use crate::sessions::Sessions;
use crate::watches::Watches;
use threads::Surroundings;

mod inbox;
pub mod metrics;
mod threads;

pub use bowline_member::{AlarmFacts, ComparisonFacts, Facts, MAX_REQUESTS, Status};
pub(crate) use inbox::Inbox;
pub use metrics::Metrics;
pub use threads::Threads;

/// How long a request waits for a rewrite of the state's file.
const SHRINK_PATIENCE: Duration = Duration::from_secs(3_600);

/// How much longer than its deadline a request waits for its answer.
const GRACE: Duration = Duration::from_millis(200);

/// Why a replica ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It was told to stop.
    Told,
    /// It could not go on.
    Failed(String),
}

/// What a replica starts with.
pub struct Start<L: Disk> {
    /// The configuration of the node.
    pub config: NodeConfig,
    /// The settings of the workers.
    pub settings: Settings,
    /// What was recovered from the log.
    pub recovered: Recovered,
    /// The log.
    pub log: Log<L>,
    /// The state machine and its files.
    pub state: State<RealDisk>,
}

impl<L: Disk> std::fmt::Debug for Start<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").field("config", &self.config).field("state", &self.state).finish_non_exhaustive()
    }
}

/// A handle for a running replica. Copies refer to the same one.
#[derive(Clone, Debug)]
pub struct Replica {
    own: NodeId,
    clock: Clock,
    inbox: Arc<Inbox>,
    status: watch::Receiver<Status>,
    shared: Arc<Shared<RealDisk>>,
    watches: Arc<Watches>,
    forwarder: Forwarder,
    metrics: Arc<Metrics>,
    patience: Duration,
    /// Whether its state was known to be recent once since the start.
    caught_up: Arc<AtomicBool>,
}

impl Replica {
    /// Starts a replica's threads. `patience` is the time limit of a request. `on_failure` is called if they stop by
    /// themselves.
    ///
    /// # Errors
    /// The configuration is out of range, or the recovered data contradicts itself.
    pub fn start<L: Disk>(
        start: Start<L>,
        clock: Clock,
        (outbox, forwarder): (Arc<Outbox>, Forwarder),
        sessions: Arc<Sessions>,
        patience: Duration,
        on_failure: impl Fn(String) + Send + Clone + 'static,
    ) -> Result<(Replica, Threads), ConfigError> {
        let Start { config, settings, recovered, log, state } = start;
        let (own, published) = (config.raft.id, state.machine.published());
        let watches = Arc::new(Watches::new(published.facts.revision, &published.auth));
        let metrics = Arc::<Metrics>::default();
        let instruments = Arc::clone(&metrics) as Arc<dyn Instruments>;
        let workers = Workers::new(config, &settings, recovered, log, state, &instruments, clock.now())?;
        let (status, status_seen) = watch::channel(workers.consensus.first_status());
        let (inbox, shared) = (Arc::<Inbox>::default(), Arc::clone(&workers.shared));
        let around = Surroundings { clock, inbox: Arc::clone(&inbox), outbox, watches: Arc::clone(&watches), sessions };
        let threads = Threads::start(workers, &around, status, on_failure);
        let (status, caught_up) = (status_seen, Arc::default());
        let replica = Replica { own, clock, inbox, status, shared, watches, forwarder, metrics, patience, caught_up };
        Ok((replica, threads))
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

    /// The users and roles that it knows.
    #[must_use]
    pub fn auth(&self) -> Arc<AuthBook> {
        self.shared.auth()
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

    /// Asks the leader for the remaining time of a lease. `None` if there is no such lease.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn lease_time(&self, _: &Authorized<Task>, id: i64) -> Result<Option<LeaseTime>, Failure> {
        self.lease(id, false).await
    }

    /// Renews a lease, at the leader. `None` if there is no such lease.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn renew_lease(&self, renewal: &Authorized<LeaseRenewal>) -> Result<Option<LeaseTime>, Failure> {
        self.lease(renewal.get().id, true).await
    }

    /// Both are safe to do twice, so they are repeated where a write would not be.
    async fn lease(&self, id: i64, renew: bool) -> Result<Option<LeaseTime>, Failure> {
        let told = self.run(LeaderRequest::Lease { id, renew }).await?;
        // All members that can connect use this format, so an answer that can't be decoded is not valid.
        LeaseTime::decode(told).map_err(Failure::refused)
    }

    /// Runs a request, here or at the leader.
    async fn run(&self, request: LeaderRequest) -> Response {
        let deadline = self.deadline(self.patience);
        let request = ToLeader::new(request, deadline);
        loop {
            let leader = self.status.borrow().leader;
            let asked = request.request().clone();
            let answer = match ToLeader::attempt(self.own, leader) {
                Attempt::Here => self.ask(asked.into(), deadline).await,
                Attempt::At(leader) => self.forwarder.forward(leader, asked, deadline).await,
                Attempt::Nowhere => Err(Failure::not_leader(None)),
            };
            if let Some(answer) = request.ends_with(answer) {
                return answer;
            }
            self.pause(deadline).await;
            if let Some(answer) = request.expires(self.clock.now()) {
                return answer;
            }
        }
    }

    /// Waits until this replica's state contains everything that was acknowledged before, so that [`Replica::look`]
    /// reads the latest state.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn confirm(&self) -> Result<(), Failure> {
        let confirmed = self.try_confirm().await;
        self.caught_up.fetch_or(confirmed.is_ok(), Relaxed);
        confirmed.inspect_err(|error| {
            let late = *error == Failure::Unknown(Unknown::Expired);
            let counter = if late { &self.metrics.slow_reads } else { &self.metrics.failed_reads };
            counter.inc();
        })
    }

    /// Waits for at most `patience`, unless it was once confirmed since the start that its state is recent. Until then,
    /// the state may be that of long ago.
    pub(crate) async fn catch_up(&self, patience: Duration) {
        if !self.caught_up.load(Relaxed) {
            // If it fails, what is known must do.
            let _ = tokio::time::timeout(patience, self.confirm()).await;
        }
    }

    async fn try_confirm(&self) -> Result<(), Failure> {
        let deadline = self.deadline(self.patience);
        loop {
            match self.ask(RequestBody::Read, deadline).await {
                Err(failure) if failure.is_passing() => {}
                answer => return answer.map(|_| ()),
            }
            self.pause(deadline).await;
            if self.clock.now() >= deadline {
                return Err(Failure::not_leader(None));
            }
        }
    }

    /// Queries this replica's own state, which may be behind, if who asks may do so. Only changes of the state have to wait for this.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn look<Q>(&self, by: &Principal, query: Q) -> Result<Result<Q::Answer, KvError>, Failure>
    where
        Q: Query + Send + 'static,
        Q::Answer: Send + 'static,
    {
        if self.inbox.is_closed() {
            return Err(Unknown::Stopped.into());
        }
        // If a long read or a change has locked the state, a quick read must not block the tasks of the network.
        let at_once =
            if query.is_quick() { self.shared.try_read().map(|machine| machine.ask(by, &query)) } else { None };
        let (answer, operations) = match at_once {
            Some(found) => found,
            None => {
                let (shared, by) = (Arc::clone(&self.shared), by.clone());
                let looked = tokio::task::spawn_blocking(move || shared.read().ask(&by, &query));
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
    pub(crate) async fn dump(&self, _: &Authorized<Task>) -> Result<Dump<RedbRecords>, Failure> {
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
        &self.watches
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

    /// Transfers the leadership to a member, if this replica leads, because an operator wants that.
    ///
    /// # Errors
    /// As [`Replica::transfer`].
    pub(crate) async fn move_leader(&self, _: &Authorized<Task>, to: NodeId) -> Result<(), Failure> {
        self.transfer(Some(to)).await
    }

    /// Transfers the leadership, if this replica leads.
    ///
    /// # Errors
    /// It does not lead, or no member takes the leadership.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<(), Failure> {
        let deadline = self.deadline(self.patience);
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
        let deadline = self.deadline(self.patience);
        self.ask(RequestBody::ChangeMembership(change), deadline).await.map(|_| ())
    }

    /// Makes a learner a voter, here or at the leader.
    ///
    /// # Errors
    /// See [`Failure`]. It is refused as long as the learner has not caught up.
    pub(crate) async fn promote(&self, _: &Authorized<Task>, id: NodeId) -> Result<(), Failure> {
        self.run(LeaderRequest::Promote(id)).await.map(|_| ())
    }

    /// Rewrites the file of this replica's state without its free space, and waits for the end. The replica serves
    /// meanwhile.
    ///
    /// # Errors
    /// The rewrite was given up, for example because the disk is full. Nothing has changed then.
    pub async fn shrink(&self, _: &Authorized<Task>) -> Result<(), Failure> {
        let deadline = self.deadline(SHRINK_PATIENCE);
        self.ask(RequestBody::Shrink, deadline).await.map(|_| ())
    }

    /// Waits until a condition on this replica's state is true. Returns whether it became true in time.
    pub async fn reaches(&self, state: impl Fn(&Facts) -> bool) -> bool {
        let mut status = self.status.clone();
        let reached = status.wait_for(|status| state(&status.facts));
        tokio::time::timeout(self.patience, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    /// Waits until this replica's state contains the log entry at an index. Returns whether it does in time.
    pub(crate) async fn has_applied(&self, index: u64) -> bool {
        let mut status = self.status.clone();
        let applied = status.wait_for(|status| status.applied_index >= index);
        tokio::time::timeout(self.patience, applied).await.is_ok_and(|applied| applied.is_ok())
    }

    fn deadline(&self, patience: Duration) -> Time {
        self.clock.now().after(patience)
    }

    async fn ask(&self, body: RequestBody, deadline: Time) -> Response {
        let (reply, answer) = oneshot::channel();
        self.inbox.push_request(Request { body, deadline, reply });
        // The node gives up at the deadline itself. If it has not a little later, its thread is gone.
        let patience = deadline.since(self.clock.now()) + GRACE;
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Unknown::Stopped.into()),
            Err(_) => Err(Unknown::Expired.into()),
        }
    }

    /// Waits for another leader, or for the time of another attempt.
    async fn pause(&self, deadline: Time) {
        let mut status = self.status.clone();
        status.mark_unchanged();
        let leader = status.borrow().leader;
        let changed = status.wait_for(|status| status.leader != leader);
        let _ = tokio::time::timeout(pause(self.clock.now(), deadline, leader), changed).await;
    }
}
