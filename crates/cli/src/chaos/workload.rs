//! Clients that put, delete, swap and read on all members, through the real client library, and record their
//! operations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_api::mvccpb::KeyValue;
use bowline_checker::keys::{Answer, Operation, Request};
use bowline_client::{Client, ClientError};
use bowline_emulator::Random;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};

/// Clients that share keys. It bounds the concurrent operations on a key, and with it the checker's work.
const CLIENTS: u64 = 8;

/// Groups of clients, each with its own keys.
const GROUPS: u64 = 2;

/// Keys of a group at a time.
const KEYS: u64 = 3;

/// How long keys are used before new ones replace them.
const GENERATION: Duration = Duration::from_secs(12);

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// Bytes that are added to most values, and to some, so that the log grows.
const PADDING: usize = 200;
const LONG_PADDING: usize = 12_000;

/// Interval of compaction, and the number of revisions that it keeps.
const COMPACT_EVERY: Duration = Duration::from_secs(5);
const KEPT_REVISIONS: i64 = 1_000;

/// The record of all clients.
pub(super) struct Record {
    start: Instant,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    history: Vec<Operation>,
    /// The times at which writes were acknowledged, in nanoseconds.
    writes: Vec<u64>,
    longest_gap: u64,
    unknown: u64,
    refused: u64,
    faults: BTreeMap<&'static str, u64>,
}

/// The counters of a run.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) operations: u64,
    pub(super) unknown: u64,
    /// Certainly not done, and not part of the history.
    pub(super) refused: u64,
    pub(super) longest_gap: Duration,
    /// When the last write was acknowledged.
    pub(super) last_write: Duration,
    /// Faults by kind.
    pub(super) faults: BTreeMap<&'static str, u64>,
}

impl Record {
    pub(super) fn new() -> Record {
        Record { start: Instant::now(), inner: Mutex::new(Inner::default()) }
    }

    /// Time since the start.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("a run doesn't take centuries")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tally(&self) -> Tally {
        let inner = self.lock();
        Tally {
            operations: inner.history.len() as u64,
            unknown: inner.unknown,
            refused: inner.refused,
            longest_gap: Duration::from_nanos(inner.longest_gap),
            last_write: Duration::from_nanos(inner.writes.last().copied().unwrap_or(0)),
            faults: inner.faults.clone(),
        }
    }

    fn add(&self, operation: Operation) {
        let mut inner = self.lock();
        match operation.ret {
            Some(now) if operation.request != Request::Get => {
                let before = inner.writes.last().copied().unwrap_or(now);
                inner.longest_gap = inner.longest_gap.max(now.saturating_sub(before));
                inner.writes.push(now.max(before));
            }
            Some(_) => {}
            None => inner.unknown += 1,
        }
        inner.history.push(operation);
    }

    pub(super) fn count_fault(&self, kind: &'static str) {
        *self.lock().faults.entry(kind).or_default() += 1;
    }

    pub(super) fn history(&self) -> Vec<Operation> {
        self.lock().history.clone()
    }

    /// Every key that was used.
    pub(super) fn keys(&self) -> BTreeSet<String> {
        self.lock().history.iter().map(|operation| operation.key.clone()).collect()
    }

    /// The longest write gap that begins before `until` and ends after `from`.
    pub(super) fn gap(&self, from: Duration, until: Duration) -> Duration {
        let (from, until) = (from.as_nanos() as u64, until.as_nanos() as u64);
        let inner = self.lock();
        let pairs = inner.writes.windows(2).filter(|pair| pair[1] >= from && pair[0] <= until);
        Duration::from_nanos(pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or(0))
    }
}

/// Starts all clients, which work until `stop` is set.
pub(super) fn start(
    endpoints: &[String],
    seed: u64,
    record: &Arc<Record>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Vec<tokio::task::JoinHandle<()>>> {
    let mut tasks = Vec::new();
    for number in 0..CLIENTS * GROUPS {
        let mut worker = Worker {
            number,
            name: number,
            // The clients begin at different members.
            client: client(endpoints, number)?,
            random: Random::stream(seed, 1_000 + number),
            record: Arc::clone(record),
            written: 0,
            seen: BTreeMap::new(),
        };
        let stop = Arc::clone(stop);
        tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                worker.step().await;
            }
        }));
    }
    tasks.push(tokio::spawn(compact(client(endpoints, 0)?, Arc::clone(stop))));
    Ok(tasks)
}

fn client(endpoints: &[String], number: u64) -> Result<Client, ClientError> {
    let mut endpoints = endpoints.to_vec();
    let first = usize::try_from(number).unwrap_or(0) % endpoints.len();
    endpoints.rotate_left(first);
    Client::new(&endpoints, PATIENCE)
}

/// Compacts the store regularly.
async fn compact(mut client: Client, stop: Arc<AtomicBool>) {
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if last.elapsed() < COMPACT_EVERY {
            continue;
        }
        last = Instant::now();
        let request = pb::RangeRequest { key: "k".into(), count_only: true, ..pb::RangeRequest::default() };
        let Ok(found) = client.range(request).await else { continue };
        let revision = found.header.map_or(0, |header| header.revision) - KEPT_REVISIONS;
        if revision > 0 {
            // This fails without a leader, or if another compaction came first; the next one will do.
            let _ = client.compact(revision, false).await;
        }
    }
}

struct Worker {
    number: u64,
    /// Its id in the history; a new one after each operation without an answer.
    name: u64,
    client: Client,
    random: Random,
    record: Arc<Record>,
    written: u64,
    /// The last value that it saw of each key.
    seen: BTreeMap<String, Option<String>>,
}

/// An answer, and the revisions that came with it.
struct Told {
    answer: Answer,
    header: Option<pb::ResponseHeader>,
    mod_revision: Option<i64>,
}

impl Worker {
    async fn step(&mut self) {
        let pause = 10 + self.random.below(30);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let generation = self.record.now().as_secs() / GENERATION.as_secs();
        let key = format!("k{}/{generation}/{}", self.number / CLIENTS, self.random.below(KEYS));
        let request = self.draw(&key);
        let call = self.record.nanos();
        let told = self.ask(&key, &request).await;
        let ret = self.record.nanos();
        let mut operation = Operation {
            client: self.name,
            key: key.clone(),
            request,
            answer: Answer::Unknown,
            revision: None,
            mod_revision: None,
            call,
            ret: None,
        };
        match told {
            Ok(told) => {
                self.remember(key, &operation.request, &told.answer);
                operation.revision = told.header.map(|header| header.revision);
                operation.mod_revision = told.mod_revision;
                (operation.answer, operation.ret) = (told.answer, Some(ret));
            }
            // A failed read tells nothing, but a write that may have been done must be in the history.
            Err(ClientError::Unknown { .. }) if operation.request != Request::Get => self.name += CLIENTS * GROUPS,
            Err(_) => {
                self.record.lock().refused += 1;
                return;
            }
        }
        self.record.add(operation);
    }

    /// Draws the next request.
    fn draw(&mut self, key: &str) -> Request {
        match self.random.below(100) {
            0..35 => Request::Get,
            35..65 => Request::Put(self.value()),
            65..75 => Request::Delete,
            _ => {
                let expect = self.seen.get(key).cloned().unwrap_or_default();
                Request::Swap { expect, value: self.value() }
            }
        }
    }

    /// A value that is never written again.
    fn value(&mut self) -> String {
        self.written += 1;
        format!("{}.{}", self.number, self.written)
    }

    fn remember(&mut self, key: String, request: &Request, answer: &Answer) {
        let now = match (request, answer) {
            (Request::Put(value), _) | (Request::Swap { value, .. }, Answer::Done) => Some(value.clone()),
            (Request::Delete, _) => None,
            (_, Answer::Found(found)) => found.clone(),
            (_, Answer::Done | Answer::Unknown) => return,
        };
        self.seen.insert(key, now);
        // Forget keys that are no longer used.
        while self.seen.len() > 2 * KEYS as usize {
            self.seen.pop_first();
        }
    }

    async fn ask(&mut self, key: &str, request: &Request) -> Result<Told, ClientError> {
        let key = key.to_owned();
        // Half of the writes return the previous value, which tells the checker their place in the order.
        let prev_kv = self.random.chance(0.5);
        let before = |kv: Option<&KeyValue>| if prev_kv { Answer::Found(kv.map(unpad)) } else { Answer::Done };
        match request {
            Request::Get => read(&mut self.client, key).await,
            Request::Put(value) => {
                let (key, value) = (key.into(), pad(value).into());
                let request = pb::PutRequest { key, value, prev_kv, ..pb::PutRequest::default() };
                let put = self.client.put_request(request).await?;
                Ok(Told { answer: before(put.prev_kv.as_ref()), header: put.header, mod_revision: None })
            }
            Request::Delete => {
                let request = pb::DeleteRangeRequest { key: key.into(), prev_kv: true, ..Default::default() };
                let deleted = self.client.delete_request(request).await?;
                let answer = Answer::Found(deleted.prev_kvs.first().map(unpad));
                Ok(Told { answer, header: deleted.header, mod_revision: None })
            }
            Request::Swap { expect, value } => {
                let response = self.client.txn_request(swap(key, expect.as_deref(), value)).await?;
                let found = response.responses.iter().find_map(|response| match &response.response {
                    Some(pb::response_op::Response::ResponseRange(range)) => Some(range.kvs.first()),
                    _ => None,
                });
                let (answer, mod_revision) = match found {
                    _ if response.succeeded => (Answer::Done, None),
                    found => {
                        let kv = found.flatten();
                        (Answer::Found(kv.map(unpad)), kv.map(|kv| kv.mod_revision))
                    }
                };
                Ok(Told { answer, header: response.header, mod_revision })
            }
        }
    }
}

async fn read(client: &mut Client, key: String) -> Result<Told, ClientError> {
    let found = client.range(pb::RangeRequest { key: key.into(), ..pb::RangeRequest::default() }).await?;
    let kv = found.kvs.first();
    Ok(Told { answer: Answer::Found(kv.map(unpad)), header: found.header, mod_revision: kv.map(|kv| kv.mod_revision) })
}

/// Reads every key once more, on alternating members: every acknowledged write must be there.
pub(super) async fn read_all(endpoints: &[String], record: &Record) -> anyhow::Result<()> {
    for (number, key) in (0..).zip(record.keys()) {
        let mut client = client(endpoints, number)?;
        let call = record.nanos();
        let Told { answer, header, mod_revision } = read(&mut client, key.clone()).await?;
        let (ret, revision) = (Some(record.nanos()), header.map(|header| header.revision));
        record.add(Operation {
            client: u64::MAX,
            key,
            request: Request::Get,
            answer,
            revision,
            mod_revision,
            call,
            ret,
        });
    }
    Ok(())
}

/// Sets the key to `value` if it has the value `expect`, else reads it.
fn swap(key: String, expect: Option<&str>, value: &str) -> pb::TxnRequest {
    let (target, operand) = match expect {
        Some(expect) => (CompareTarget::Value, TargetUnion::Value(pad(expect).into())),
        None => (CompareTarget::Version, TargetUnion::Version(0)),
    };
    let compare = pb::Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.clone().into(),
        target_union: Some(operand),
        ..pb::Compare::default()
    };
    let put = pb::PutRequest { key: key.clone().into(), value: pad(value).into(), ..pb::PutRequest::default() };
    let get = pb::RangeRequest { key: key.into(), ..pb::RangeRequest::default() };
    let operation = |request| vec![pb::RequestOp { request: Some(request) }];
    pb::TxnRequest {
        compare: vec![compare],
        success: operation(pb::request_op::Request::RequestPut(put)),
        failure: operation(pb::request_op::Request::RequestRange(get)),
    }
}

fn pad(value: &str) -> String {
    format!("{value} {}", "x".repeat(padding(value)))
}

fn padding(value: &str) -> usize {
    if value.ends_with('7') { LONG_PADDING } else { PADDING }
}

/// Removes the padding. If it is damaged, returns a text that matches no write.
fn unpad(kv: &KeyValue) -> String {
    let text = String::from_utf8_lossy(&kv.value);
    match text.split_once(' ') {
        Some((value, rest)) if rest.len() == padding(value) && rest.bytes().all(|byte| byte == b'x') => {
            value.to_owned()
        }
        _ => format!("damaged: {}", text.escape_debug()),
    }
}
