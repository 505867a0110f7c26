//! The etcd v3 API over gRPC.

mod auth;
mod call;
mod caller;
mod cluster;
mod convert;
mod counts;
mod election;
mod errors;
mod fuzz;
mod health;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod queue;
mod snapshot;
mod stream;
mod watches;

pub(crate) use auth::AuthService;
pub(crate) use call::{Gate, attend};
pub(crate) use cluster::ClusterService;
pub(crate) use counts::Counts;
pub(crate) use election::ElectionService;
pub(crate) use errors::of_request;
pub use fuzz::fuzz_requests;
pub(crate) use health::HealthService;
pub(crate) use kv::KvService;
pub(crate) use lease::LeaseService;
pub(crate) use lock::LockService;
pub use maintenance::API_VERSION;
pub(crate) use maintenance::MaintenanceService;
pub(crate) use snapshot::SnapshotSender;
pub(crate) use watches::WatchService;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bowline_api::Message;
use bowline_api::etcdserverpb::ResponseHeader;
use bowline_kv::store::{Alarm, AlarmKind, AlarmListRequest, KvError, Limits, Principal};
use bowline_member::Quota;
use bowline_node::{Failure, Unknown};
use bytes::Bytes;
use tokio::sync::watch;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::peer::Protocol;
use crate::replica::Replica;
use crate::sessions::Sessions;

/// Size in bytes of answers that are compressed if the client accepts that. Compression gains little on smaller
/// answers, but clients of gRPC's C core accept it with every call. On larger ones, it would delay all other calls of
/// the same thread. (RangeStream is for large answers.)
const WORTH_COMPRESSING: std::ops::RangeInclusive<usize> = 1 << 10..=1 << 20;

/// The answer of a unary call.
fn answer<T: Message>(message: T) -> tonic::Response<T> {
    let worth = WORTH_COMPRESSING.contains(&message.encoded_len());
    let mut response = tonic::Response::new(message);
    if !worth {
        response.disable_compression();
    }
    response
}

/// The context that all services share.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) replica: Replica,
    pub(crate) cluster_id: u64,
    pub(crate) protocol: Protocol,
    pub(crate) limits: Limits,
    pub(crate) quota: Quota,
    pub(crate) counts: Arc<Counts>,
    pub(crate) sessions: Arc<Sessions>,
    /// Whether this member is a learner, until an operator promotes it.
    pub(crate) learner: Arc<AtomicBool>,
    /// Whether the server is stopping, which ends streams.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Context {
    /// The header of a response. `revision` is 0 if the answer does not come from the store.
    fn header(&self, revision: i64) -> ResponseHeader {
        let raft_term = self.replica.status().term;
        ResponseHeader { cluster_id: self.cluster_id, member_id: self.replica.id().0, revision, raft_term }
    }

    /// Refuses a request with the metadata `hasleader` at once if no leader is known.
    fn require_leader(&self, metadata: &MetadataMap) -> Result<(), Status> {
        if self.insists_on_leader(metadata) && self.replica.status().leader.is_none() {
            return Err(errors::of_request(Failure::not_leader(None)));
        }
        Ok(())
    }

    fn insists_on_leader(&self, metadata: &MetadataMap) -> bool {
        metadata.get("hasleader").is_some_and(|value| value == "true")
    }

    /// The alarms that this member knows.
    pub(crate) async fn alarms(&self) -> Result<Vec<Alarm>, Status> {
        if self.replica.status().facts.alarms.count == 0 {
            // The status and the metrics must not wait for the state.
            return Ok(Vec::new());
        }
        let all = AlarmListRequest { kind: AlarmKind::None.into() };
        Ok(self.on_behalf_of(Principal::Member).read(all, true).await?.alarms)
    }

    /// As in etcd, a learner reads only its own state.
    fn refuse_for_learner(&self, serializable: bool) -> Result<(), Status> {
        let refused = !serializable && self.learner.load(Ordering::Relaxed);
        if refused { Err(call::not_for_learners()) } else { Ok(()) }
    }

    /// Refuses a request that reads no state, if an alarm says that the members' states differ.
    fn refuse_corrupt(&self) -> Result<(), Status> {
        let corrupt = self.replica.status().facts.alarms.corrupt;
        if corrupt { Err(errors::of_store(KvError::Corrupt)) } else { Ok(()) }
    }

    /// Waits until no leader was known for `patience`. Returns the status that ends a stream then.
    async fn lost_leader(&self, patience: Duration) -> Status {
        let mut status = self.replica.watch_status();
        loop {
            if status.wait_for(|status| status.leader.is_none()).await.is_err() {
                return errors::of_request(Unknown::Stopped.into());
            }
            let found = status.wait_for(|status| status.leader.is_some());
            if tokio::time::timeout(patience, found).await.is_err() {
                return errors::of_request(Failure::not_leader(None));
            }
        }
    }

    /// Waits until the server is stopping. Returns the status that ends a stream then.
    async fn stopped(&self) -> Status {
        // The sender sets it before it is dropped.
        let _ = self.stopping.clone().wait_for(|stopping| *stopping).await;
        errors::of_request(Unknown::Stopped.into())
    }

    /// Adds the extension of this program to a command: see [`Protocol::extension`].
    fn extended(&self, command: Bytes) -> Bytes {
        let Protocol { version, extension, .. } = self.protocol;
        if extension.is_empty() || self.replica.status().facts.cluster_version < version {
            return command;
        }
        [&command, extension].concat().into()
    }
}
