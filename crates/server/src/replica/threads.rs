//! The threads of a replica. Each drives one worker, and decides nothing.
//!
//! `bowline-member` shows what they hand each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use bowline_kv::store::EngineError;
use bowline_member::{
    AppliedEntry, ApplyJob, ApplyWorker, Consensus, Event, Fatal, LogJob, LogWorker, MAX_JOBS, Outlet, Published,
    Shared, SnapshotJob, SnapshotWorker, Status, Workers,
};
use bowline_node::NodeMessage;
use bowline_node::raft::{Fault, NodeId};
use bowline_node::{Response, Unknown};
use bowline_storage::{Disk, DiskError, RealDisk};
use tokio::sync::{oneshot, watch};

use super::StopReason;
use super::inbox::{Inbox, Reply};
use crate::clock::Clock;
use crate::peer::Outbox;
use crate::sessions::Sessions;
use crate::threads::{Thread, pause, spawn, try_spawn};
use crate::watches::Watches;

/// Maximum number of jobs that wait for the log thread; at the limit, the raft thread waits, too.
const LOG_QUEUE: usize = 64;

/// Pause before the log thread tries again what the system has refused for now.
const LOG_PAUSE: Duration = Duration::from_millis(250);

/// Longest pause between two steps of a rewrite of the state's file. They pause as long as they work, so that others can
/// use the disk.
const MAX_REWRITE_PAUSE: Duration = Duration::from_millis(50);

/// Practically forever.
const LONG: Duration = Duration::from_secs(3_600);

/// What the threads share with the rest of the member.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) clock: Clock,
    pub(super) inbox: Arc<Inbox>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) watches: Arc<Watches>,
    pub(super) sessions: Arc<Sessions>,
}

/// The threads of a running replica.
#[derive(Debug)]
pub struct Threads {
    inbox: Arc<Inbox>,
    ending: Arc<AtomicBool>,
    raft: Thread<Ending>,
    log: Thread<Result<(), Fatal>>,
    apply: Thread<Result<(), Fatal>>,
    snapshots: Thread<Result<(), Fatal>>,
}

/// Why the raft thread ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ending {
    /// The inbox was closed.
    Closed,
    /// The core has seen something that must never happen.
    Faulty(Fault),
    /// Another thread of the replica is gone, and has reported why.
    Deserted,
}

impl Threads {
    /// Starts the threads. `on_failure` is called if they stop by themselves.
    pub(super) fn start<L: Disk>(
        workers: Workers<L, RealDisk, Reply>,
        around: &Surroundings,
        status: watch::Sender<Status>,
        on_failure: impl Fn(String) + Send + Clone + 'static,
    ) -> Threads {
        let Workers { shared, consensus, log, apply, snapshots, ending } = workers;
        let (log_jobs, log_queue) = sync_channel(LOG_QUEUE);
        let (apply_jobs, apply_queue) = channel();
        let (snapshot_jobs, snapshot_queue) = channel();
        let wires = |jobs: Option<Sender<SnapshotJob>>| Wires { around: around.clone(), snapshot_jobs: jobs };
        let (of_log, of_apply, of_snapshots) = (wires(None), wires(Some(snapshot_jobs.clone())), wires(None));
        let raft_thread = RaftThread {
            consensus,
            around: around.clone(),
            log: log_jobs,
            apply: apply_jobs,
            snapshots: snapshot_jobs,
            status,
        };
        let watched = |what: &'static str| {
            let failed = on_failure.clone();
            move |error: &Fatal| failed(format!("{what}: {error}"))
        };
        let (log_failed, apply_failed) = (watched("can't write the log"), watched("can't keep the state"));
        let snapshots_failed = watched("can't keep a snapshot");
        let log = spawn("log", move || write_log(log, &log_queue, &shared, of_log).inspect_err(log_failed));
        let apply = spawn("apply", move || keep_state(apply, &apply_queue, of_apply).inspect_err(apply_failed));
        let snapshots = spawn("snapshots", move || {
            keep_snapshots(snapshots, &snapshot_queue, of_snapshots).inspect_err(snapshots_failed)
        });
        let raft = spawn("raft", move || {
            let ending = raft_thread.run();
            if let Ending::Faulty(fault) = &ending {
                on_failure(format!("internal error: {fault}"));
            }
            ending
        });
        let inbox = Arc::clone(&around.inbox);
        Threads { inbox, ending, raft, log, apply, snapshots }
    }

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

/// Where the output of a worker goes.
struct Wires {
    around: Surroundings,
    /// Only the worker of the state has jobs for that of the snapshots, which ends when nobody can have any more.
    snapshot_jobs: Option<Sender<SnapshotJob>>,
}

impl Outlet<Reply> for Wires {
    fn event(&mut self, event: Event<Reply>) {
        self.around.inbox.push_event(event);
    }

    fn snapshot_job(&mut self, job: SnapshotJob) {
        if let Some(jobs) = &self.snapshot_jobs {
            // If that thread is gone, it has reported why.
            let _ = jobs.send(job);
        }
    }

    fn send(&mut self, to: NodeId, message: NodeMessage) {
        self.around.outbox.send(to, message);
    }

    fn applied(&mut self, applied: &[AppliedEntry], published: &Published) -> Result<(), EngineError> {
        applied.iter().filter_map(|applied| applied.issued.as_ref()).for_each(|it| self.around.sessions.applied(it));
        let writes = applied.iter().flat_map(|applied| &applied.writes);
        self.around.watches.applied(writes, published.facts.revision, &published.auth)
    }

    fn replaced(&mut self, published: &Published) {
        self.around.watches.replaced(published.facts.revision, &published.auth);
    }
}

struct RaftThread {
    consensus: Consensus<RealDisk, Reply>,
    around: Surroundings,
    log: SyncSender<LogJob>,
    apply: Sender<ApplyJob<Reply>>,
    snapshots: Sender<SnapshotJob>,
    status: watch::Sender<Status>,
}

/// Another thread of the replica is gone.
struct Deserted;

impl RaftThread {
    fn run(mut self) -> Ending {
        loop {
            match self.round() {
                Ok(None) => {}
                Ok(Some(ending)) => return self.end(ending),
                Err(Deserted) => return self.end(Ending::Deserted),
            }
        }
    }

    fn round(&mut self) -> Result<Option<Ending>, Deserted> {
        let (consensus, clock) = (&mut self.consensus, self.around.clock);
        let portion = self.around.inbox.wait(clock.until(consensus.next_deadline()));
        consensus.begin(clock.now());
        for event in portion.events {
            consensus.take_event(clock.now(), event);
        }
        for (from, message) in portion.peers {
            consensus.take_message(clock.now(), from, message);
        }
        // If the receiver has given up, nothing was done yet.
        for request in portion.requests.into_iter().filter(|request| !request.reply.is_closed()) {
            consensus.take_request(clock.now(), request);
        }
        let round = consensus.finish(clock.now());
        for (to, message) in round.messages {
            self.around.outbox.send(to, message);
        }
        if !round.log.is_empty() {
            self.log.send(round.log).map_err(|_| Deserted)?;
        }
        for job in round.apply {
            self.apply.send(job).map_err(|_| Deserted)?;
        }
        for job in round.snapshots {
            self.snapshots.send(job).map_err(|_| Deserted)?;
        }
        for event in round.events {
            self.around.inbox.push_event(event);
        }
        let fault = round.fault.as_ref();
        self.status.send_if_modified(|status| consensus.update(status, fault));
        for (reply, answer) in round.answers {
            // The receiver may have given up.
            let _ = reply.send(answer);
        }
        let closed = portion.closed.then_some(Ending::Closed);
        Ok(round.fault.map(Ending::Faulty).or(closed))
    }

    /// Answers all waiting requests with the failure that the replica has stopped.
    fn end(mut self, ending: Ending) -> Ending {
        let inbox = self.around.inbox;
        inbox.close();
        let stopped = || Response::Err(Unknown::Stopped.into());
        for (reply, answer) in self.consensus.stop() {
            let _ = reply.send(answer);
        }
        for request in inbox.wait(Some(Duration::ZERO)).requests {
            let _: Result<(), Response> = oneshot::Sender::send(request.reply, stopped());
        }
        ending
    }
}

/// The log thread. During a sync, jobs gather in its queue.
fn write_log<L: Disk>(
    mut worker: LogWorker<L>,
    jobs: &Receiver<LogJob>,
    shared: &Shared<RealDisk>,
    mut wires: Wires,
) -> Result<(), Fatal> {
    let mut segment = None;
    loop {
        match jobs.recv_timeout(worker.pause()) {
            Ok(job) => {
                worker.take(job);
                jobs.try_iter().take(MAX_JOBS - 1).for_each(|job| worker.take(job));
                while !worker.work(&mut wires)? {
                    pause(LOG_PAUSE);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        prepare(&mut worker, &mut segment)?;
        shared.set_log_room(worker.has_room());
    }
}

/// Has the next segment of the log prepared in the background.
fn prepare<L: Disk>(
    worker: &mut LogWorker<L>,
    segment: &mut Option<Thread<Result<(), DiskError>>>,
) -> Result<(), Fatal> {
    if let Some(ended) = segment.take_if(|segment| segment.is_finished()) {
        match ended.join() {
            Ok(outcome) => worker.prepared(outcome),
            Err(_) => worker.not_prepared("the thread for it panicked"),
        }
    }
    if let Some(job) = worker.tend()? {
        match try_spawn("segment", move || job.run()) {
            Ok(started) => *segment = Some(started),
            Err(error) => worker.not_prepared(&format!("can't start a thread: {error}")),
        }
    }
    Ok(())
}

/// The apply thread.
fn keep_state(
    mut worker: ApplyWorker<RealDisk, Reply>,
    jobs: &Receiver<ApplyJob<Reply>>,
    mut wires: Wires,
) -> Result<(), Fatal> {
    loop {
        let job = match jobs.recv_timeout(worker.pause()) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        worker.work(wires.around.clock.now(), job, &mut wires)?;
    }
}

/// The snapshot thread.
fn keep_snapshots(
    mut worker: SnapshotWorker<RealDisk>,
    jobs: &Receiver<SnapshotJob>,
    mut wires: Wires,
) -> Result<(), Fatal> {
    let mut took = Duration::ZERO;
    loop {
        let pause = if worker.is_rewriting() { took.min(MAX_REWRITE_PAUSE) } else { LONG };
        let job = match jobs.recv_timeout(pause) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let began = wires.around.clock.now();
        worker.work(job, &mut wires)?;
        took = wires.around.clock.now().since(began);
    }
}
