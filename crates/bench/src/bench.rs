//! One server under load: connects, fills the keys, measures, and removes the keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_client::{Channel, Client, ClientError};
use pb::kv_client::KvClient;
use pb::request_op::Request;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::Status;

use crate::measure::{Gathered, Recorder, quantile};
use crate::phase::Phase;
use crate::plan::{Length, Plan, Work};
use crate::report::Run;
use crate::text;
use crate::watchers::Watchers;
use crate::worker::{MAX_ANSWER, Shared, Worker};

/// How often what was measured is gathered.
const TICK: Duration = Duration::from_millis(250);

/// Interval in which it is looked whether all events have come.
const LOOK: Duration = Duration::from_millis(5);

/// Bytes of keys and values in a transaction that fills, and the largest number of its puts; etcd allows 1.5 MiB and 128
/// by default.
const BATCH: (u64, u64) = (512 << 10, 100);

/// Clients that fill.
const FILLERS: u64 = 16;

/// Keys that are removed by one request.
const REMOVED: u64 = 10_000;

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A server can't be reached, or refuses what must be done before the measurement or after it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There are keys with the prefix, which would be overwritten and removed.
    #[error(
        "there are keys with the --prefix {0:?} already ({1}): remove them, or give another prefix, or --keep, with which \
         they may be overwritten, and none is removed"
    )]
    InUse(String, i64),
    /// Somebody wants it to end.
    #[error("interrupted before the measurement")]
    Interrupted,
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Now {
    /// What is being done.
    pub stage: Stage,
    /// How much of it is done, from 0 to 1.
    pub share: f64,
    /// Requests in a second at present.
    pub rate: f64,
    /// The median latency at present.
    pub p50: Option<Duration>,
    /// The 99th percentile of the latencies at present.
    pub p99: Option<Duration>,
    /// Errors so far.
    pub errors: u64,
    /// The time that is left, if it is known.
    pub left: Option<Duration>,
}

/// One line, such as `12,345/s  p50 1.23 ms  p99 4.56 ms  0 errors  7 s left`.
impl std::fmt::Display for Now {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.stage == Stage::Fill {
            return f.write_str("making the keys");
        }
        let time = |time: Option<Duration>| time.map_or("-".to_owned(), |time| text::time(time.as_secs_f64()));
        let (rate, errors) = (text::count(self.rate.round() as u64), text::count(self.errors));
        write!(f, "{rate}/s  p50 {}  p99 {}  {errors} errors", time(self.p50), time(self.p99))?;
        match self.left {
            _ if self.stage == Stage::WarmUp => f.write_str("  warming up"),
            Some(left) => write!(f, "  {:.0} s left", left.as_secs_f64().ceil()),
            None => Ok(()),
        }
    }
}

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The keys are being made.
    Fill,
    /// It is not measured yet.
    WarmUp,
    /// It is measured.
    Measure,
}

/// A server that is measured, with connections to it.
#[derive(Debug)]
pub struct Bench {
    client: Client,
    endpoints: Vec<String>,
    version: String,
    channels: Vec<Channel>,
    shared: Arc<Shared>,
}

impl Bench {
    /// Connects to all endpoints of `client`, and looks whether the keys may be used.
    ///
    /// # Errors
    /// An endpoint can't be reached or refuses to answer, or there are keys that must not be overwritten.
    pub async fn connect(plan: &Plan, mut client: Client) -> Result<Bench, BenchError> {
        let endpoints: Vec<String> = client.endpoints().map(str::to_owned).collect();
        let channels = client.connections(plan.connections() as usize).await?;
        let (settings, (key, range_end)) = (plan.settings(), plan.keys().range());
        let count = pb::RangeRequest { key, range_end, count_only: true, ..pb::RangeRequest::default() };
        let found = client.range(count).await?.count;
        if found > 0 && !settings.keep {
            return Err(BenchError::InUse(String::from_utf8_lossy(&settings.prefix).into_owned(), found));
        }
        let told = client.status().await.into_iter().find_map(|(_, status)| status.ok());
        let version = told.map_or_else(|| "unknown".to_owned(), |status| status.version);
        Ok(Bench { client, endpoints, version, channels, shared: Arc::new(Shared::new(plan)) })
    }

    /// The URLs that are measured.
    #[must_use]
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// The version of the API that the server tells.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    /// Makes all keys, if the work reads them.
    ///
    /// # Errors
    /// A key can't be written, or `stop` was set.
    pub async fn fill(&mut self, progress: &mut dyn FnMut(&Now), stop: &AtomicBool) -> Result<(), BenchError> {
        let settings = self.plan().settings();
        if !settings.work.reads() {
            return Ok(());
        }
        let count = settings.keys;
        let batch = (BATCH.0 / (settings.key_size + settings.value_size)).clamp(1, BATCH.1);
        let (mut next, mut tasks) = (0, JoinSet::new());
        loop {
            while next < count && (tasks.len() as u64) < FILLERS {
                let (mut client, shared) = (self.client.clone(), Arc::clone(&self.shared));
                let numbers = next..(next + batch).min(count);
                next = numbers.end;
                tasks.spawn(async move {
                    let mut random = bowline_raft::Random::stream(shared.plan.settings().seed, numbers.start);
                    let put = |number| {
                        let (key, value) = (shared.keys.key(number), shared.values.value(&mut random));
                        let put = pb::PutRequest { key, value, ..pb::PutRequest::default() };
                        pb::RequestOp { request: Some(Request::RequestPut(put)) }
                    };
                    let success = numbers.map(put).collect();
                    client.txn_request(pb::TxnRequest { success, ..pb::TxnRequest::default() }).await
                });
            }
            let Some(done) = tasks.join_next().await else { return self.catch_up().await };
            done.expect("a task that fills does not panic")?;
            if stop.load(Ordering::Relaxed) {
                return Err(BenchError::Interrupted);
            }
            let share = next as f64 / count as f64;
            progress(&Now { stage: Stage::Fill, share, rate: 0.0, p50: None, p99: None, errors: 0, left: None });
        }
    }

    /// Waits until each endpoint's own state has all keys, which serializable reads will look for. A linearizable read
    /// waits for that.
    async fn catch_up(&self) -> Result<(), BenchError> {
        for (channel, endpoint) in self.channels.iter().zip(&self.endpoints) {
            let read = pb::RangeRequest { key: self.shared.keys.key(0), ..pb::RangeRequest::default() };
            let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER);
            let read = tokio::time::timeout(self.plan().settings().patience, kv.range(read)).await;
            let read = read.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
            read.map_err(|status| ClientError::Refused { endpoint: endpoint.clone(), status: Box::new(status) })?;
        }
        Ok(())
    }

    /// Warms up, and measures once. Ends early if `stop` is set. Calls `progress` a few times a second.
    ///
    /// # Errors
    /// The watches can't be opened.
    pub async fn measure(&self, progress: &mut dyn FnMut(&Now), stop: &AtomicBool) -> Result<Run, BenchError> {
        let settings = self.plan().settings();
        let watchers = match settings.work {
            Work::Watch { watchers, streams } => {
                let (channels, keys) = (&self.channels, &self.shared.keys);
                Some(Watchers::open(channels, keys, (watchers, streams), settings.patience).await?)
            }
            _ => None,
        };
        if !settings.warmup.is_zero() {
            let warmup = Length::Time(settings.warmup);
            self.phase(warmup, Stage::WarmUp, watchers.as_ref(), progress, stop).await;
        }
        Ok(self.phase(settings.length, Stage::Measure, watchers.as_ref(), progress, stop).await)
    }

    /// Lets all clients work until the phase is over.
    async fn phase(
        &self,
        length: Length,
        stage: Stage,
        watchers: Option<&Watchers>,
        progress: &mut dyn FnMut(&Now),
        stop: &AtomicBool,
    ) -> Run {
        let settings = self.plan().settings();
        let (phase, kinds) = (Phase::new(length, settings.rate), settings.work.kinds());
        let shards = tokio::runtime::Handle::current().metrics().num_workers();
        let recorder = Arc::new(Recorder::new(kinds.len(), shards, phase.start, phase.until));
        let stamp = watchers.map(|watchers| watchers.begin(&recorder));
        let mut tasks = JoinSet::new();
        for (number, channel) in (0..settings.clients).zip(self.channels.iter().cycle()) {
            let worker = Worker::new(&self.shared, number, channel.clone(), stamp);
            tasks.spawn(worker.run(Arc::clone(&phase), Arc::clone(&recorder)));
        }
        let pacer = phase.release(settings.clients);
        let (mut gathered, mut ticks) = (Gathered::new(kinds), tokio::time::interval(TICK));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first one comes at once.
        ticks.tick().await;
        let mut interrupted = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    gathered.take(&recorder, phase.start.elapsed());
                    progress(&now(stage, length, &phase, &gathered));
                    interrupted |= stop.load(Ordering::Relaxed);
                    if interrupted {
                        phase.end();
                    }
                }
                ended = tasks.join_next() => match ended {
                    Some(ended) => ended.expect("a client does not panic"),
                    None => break,
                },
            }
        }
        let elapsed = phase.start.elapsed();
        let gap = recorder.gap(phase.start + elapsed);
        phase.end();
        if let Some(pacer) = pacer {
            pacer.join().expect("the thread that releases requests does not panic");
        }
        gathered.take(&recorder, elapsed);
        if let Some(watchers) = watchers {
            self.await_events(watchers, &recorder, &mut gathered, phase.start, stop).await;
        }
        // What comes after the end is counted, but not in the rate.
        let counted = phase.until.filter(|_| !interrupted).map_or(elapsed, |until| until - phase.start);
        let elapsed = counted.min(elapsed);
        Run { gap, pace: phase.pace(), interrupted, ..Run::new(kinds, gathered, elapsed) }
    }

    /// Waits until the events of all puts that succeeded have come to all watchers.
    async fn await_events(
        &self,
        watchers: &Watchers,
        recorder: &Recorder,
        gathered: &mut Gathered,
        start: Instant,
        stop: &AtomicBool,
    ) {
        let until = Instant::now() + self.plan().settings().patience;
        let puts = gathered.done();
        while watchers.missing(puts) > 0 && Instant::now() < until && !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
        }
        let missing = watchers.missing(puts);
        if missing > 0 {
            recorder.fail(0, "the event has not come in time", missing);
        }
        gathered.take(recorder, start.elapsed());
    }

    /// Removes all keys with the prefix, unless they shall stay.
    ///
    /// # Errors
    /// The server refuses it, or does not answer in time.
    pub async fn clean(&mut self) -> Result<(), BenchError> {
        if self.plan().settings().keep {
            return Ok(());
        }
        let keys = self.shared.keys.clone();
        let (_, end) = keys.range();
        // In pieces, because one large request would block others for long.
        for from in (0..keys.count()).step_by(REMOVED as usize) {
            let last = from + REMOVED >= keys.count();
            let end = if last { end.clone() } else { keys.key(from + REMOVED) };
            self.client.delete(keys.key(from), end).await?;
        }
        Ok(())
    }
}

/// How far it is.
fn now(stage: Stage, length: Length, phase: &Phase, gathered: &Gathered) -> Now {
    let (elapsed, current) = (phase.start.elapsed(), gathered.current());
    let rate = current.as_ref().map_or(0.0, |point| point.rate());
    let (share, left) = match length {
        Length::Time(time) => {
            (elapsed.as_secs_f64() / time.as_secs_f64().max(1e-9), Some(time.saturating_sub(elapsed)))
        }
        Length::Requests(requests) => {
            let sent = phase.sent();
            let left = (requests - sent.min(requests)) as f64 / rate;
            (sent as f64 / requests as f64, Duration::try_from_secs_f64(left).ok())
        }
    };
    let at = |part| current.as_ref().and_then(|point| quantile(&point.times, part));
    Now { stage, share: share.min(1.0), rate, p50: at(0.5), p99: at(0.99), errors: gathered.errors.total(), left }
}
