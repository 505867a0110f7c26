//! One client: how it makes its requests, and what a right answer is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_client::Channel;
use bowline_raft::Random;
use bytes::Bytes;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::request_op::Request;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::keys::{Keys, Picker, Values};
use crate::measure::{Failed, Recorder};
use crate::phase::Phase;
use crate::plan::{Plan, Work};
use crate::watchers::Stamp;

/// Largest answer, in bytes.
pub(crate) const MAX_ANSWER: usize = 1 << 30;

/// Time to live of leases in seconds: longer than any of them is needed, and short enough for those of a program that was
/// killed.
const TTL: i64 = 60;

/// Pause after a failure in a closed loop, so that a server that refuses everything is not asked without end.
const PAUSE: Duration = Duration::from_millis(5);

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) keys: Keys,
    pub(crate) picker: Picker,
    pub(crate) values: Values,
}

impl Shared {
    pub(crate) fn new(plan: &Plan) -> Shared {
        let settings = plan.settings();
        Shared {
            keys: plan.keys(),
            picker: Picker::new(settings.distribution, settings.keys),
            values: Values::new(settings.value_size, settings.seed),
            plan: plan.clone(),
        }
    }
}

/// A client.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    /// Its number.
    number: u64,
    random: Random,
    kv: KvClient<Channel>,
    lease: LeaseCycle,
    /// What the values of its puts say, if they are watched.
    stamp: Option<Stamp>,
}

impl Worker {
    pub(crate) fn new(shared: &Arc<Shared>, number: u64, channel: Channel, stamp: Option<Stamp>) -> Worker {
        Worker {
            number,
            random: Random::stream(shared.plan.settings().seed, number),
            kv: KvClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER),
            lease: LeaseCycle { client: LeaseClient::new(channel), granted: None, kept: false, stream: None },
            shared: Arc::clone(shared),
            stamp,
        }
    }

    /// Does what the phase hands out until it is over.
    pub(crate) async fn run(mut self, phase: Arc<Phase>, recorder: Arc<Recorder>) {
        let (patience, shard) = (self.shared.plan.settings().patience, self.number as usize);
        while let Some((number, from)) = phase.next().await {
            let done = tokio::time::timeout(patience, self.request(number, from)).await;
            match done.unwrap_or(Err(Failed::Late)) {
                Ok(kind) => recorder.note(shard, kind, from, Instant::now()),
                Err(failed) => {
                    // An answer that still comes must not be taken for a later one.
                    self.lease.stream = None;
                    recorder.fail(shard, &failed.to_string(), 1);
                    if !phase.is_open_loop() {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
        // If that fails, the lease ends by itself.
        let _ = tokio::time::timeout(patience, self.lease.end()).await;
    }

    /// Makes one request. Returns its kind.
    async fn request(&mut self, number: u64, from: Instant) -> Result<usize, Failed> {
        let place = self.shared.picker.pick(number, &mut self.random);
        match self.shared.plan.settings().work {
            Work::Put | Work::Watch { .. } => self.put(place, from).await.map(|()| 0),
            Work::Get { serializable } => self.get(place, serializable).await.map(|()| 0),
            Work::Mixed { reads } if self.random.below(100) < reads => self.get(place, false).await.map(|()| 0),
            Work::Mixed { .. } => self.put(place, from).await.map(|()| 1),
            Work::Range { limit, serializable } => self.range(place, limit, serializable).await.map(|()| 0),
            Work::Txn => self.txn(place).await.map(|()| 0),
            Work::Lease => self.lease.step().await,
        }
    }

    fn put_request(&mut self, place: u64) -> pb::PutRequest {
        let (key, value) = (self.shared.keys.key(place), self.shared.values.value(&mut self.random));
        pb::PutRequest { key, value, ..pb::PutRequest::default() }
    }

    async fn put(&mut self, place: u64, from: Instant) -> Result<(), Failed> {
        let mut put = self.put_request(place);
        if let Some(stamp) = self.stamp {
            put.value = stamp.on(&put.value, from);
        }
        self.kv.put(put).await?;
        Ok(())
    }

    async fn get(&mut self, place: u64, serializable: bool) -> Result<(), Failed> {
        let range = pb::RangeRequest { key: self.shared.keys.key(place), serializable, ..pb::RangeRequest::default() };
        let found = self.kv.range(range).await?.into_inner().kvs.len();
        if found == 1 { Ok(()) } else { Err(Failed::Wrong("the key was not there")) }
    }

    async fn range(&mut self, place: u64, limit: u64, serializable: bool) -> Result<(), Failed> {
        let keys = &self.shared.keys;
        let range = pb::RangeRequest {
            // So that there are always as many as the limit.
            key: keys.key(place.min(keys.count() - limit)),
            range_end: keys.range().1,
            limit: limit as i64,
            serializable,
            ..pb::RangeRequest::default()
        };
        let found = self.kv.range(range).await?.into_inner().kvs.len();
        if found as u64 == limit { Ok(()) } else { Err(Failed::Wrong("there were fewer keys than the limit")) }
    }

    async fn txn(&mut self, place: u64) -> Result<(), Failed> {
        let put = self.put_request(place);
        // It holds whether or not the key is there.
        let compare = pb::Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Version.into(),
            key: put.key.clone(),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::Version(-1)),
        };
        let put = pb::RequestOp { request: Some(Request::RequestPut(put)) };
        let txn = pb::TxnRequest { compare: vec![compare], success: vec![put], failure: Vec::new() };
        let succeeded = self.kv.txn(txn).await?.into_inner().succeeded;
        if succeeded { Ok(()) } else { Err(Failed::Wrong("the comparison did not hold")) }
    }
}

/// The leases of a client: one after the other is granted, kept alive once, and revoked.
struct LeaseCycle {
    client: LeaseClient<Channel>,
    granted: Option<i64>,
    kept: bool,
    stream: Option<(mpsc::Sender<pb::LeaseKeepAliveRequest>, Streaming<pb::LeaseKeepAliveResponse>)>,
}

impl LeaseCycle {
    /// The next request. Returns its kind: 0 a grant, 1 a renewal, 2 a revocation.
    async fn step(&mut self) -> Result<usize, Failed> {
        match (self.granted, self.kept) {
            (None, _) => {
                let granted = self.client.lease_grant(pb::LeaseGrantRequest { ttl: TTL, id: 0 }).await?;
                (self.granted, self.kept) = (Some(granted.into_inner().id), false);
                Ok(0)
            }
            (Some(id), false) => {
                // If this fails, the next request is the revocation.
                self.kept = true;
                self.keep_alive(id).await.map(|()| 1)
            }
            (Some(id), true) => {
                self.granted = None;
                self.client.lease_revoke(pb::LeaseRevokeRequest { id }).await?;
                Ok(2)
            }
        }
    }

    async fn keep_alive(&mut self, id: i64) -> Result<(), Failed> {
        let request = pb::LeaseKeepAliveRequest { id };
        let ended = || Failed::Wrong("the stream of renewals has ended");
        let (_, answers) = match self.stream.take() {
            Some((requests, answers)) => {
                requests.send(request).await.map_err(|_| ended())?;
                self.stream.insert((requests, answers))
            }
            None => {
                let (requests, sent) = mpsc::channel(1);
                // First, because etcd opens the stream only with its first answer.
                requests.send(request).await.map_err(|_| ended())?;
                let answers = self.client.lease_keep_alive(ReceiverStream::new(sent)).await?.into_inner();
                self.stream.insert((requests, answers))
            }
        };
        match answers.message().await? {
            Some(answer) if answer.id == id && answer.ttl > 0 => Ok(()),
            Some(_) => Err(Failed::Wrong("the lease was gone")),
            None => Err(ended()),
        }
    }

    /// Revokes the lease that is left.
    async fn end(&mut self) -> Result<(), Failed> {
        if let Some(id) = self.granted.take() {
            self.client.lease_revoke(pb::LeaseRevokeRequest { id }).await?;
        }
        Ok(())
    }
}
