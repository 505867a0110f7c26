//! The etcd v3 API over gRPC.
//!
//! Services that are not there yet (Watch, Lease, Auth, Lock, Election) are answered `Unimplemented`.

mod cluster;
mod convert;
mod counts;
mod errors;
mod fuzz;
mod kv;
mod maintenance;
mod stream;

pub(crate) use cluster::ClusterService;
pub(crate) use counts::{Counts, count};
pub(crate) use errors::refuse_status_texts;
pub use fuzz::fuzz_requests;
pub(crate) use kv::KvService;
pub(crate) use maintenance::MaintenanceService;

use std::sync::Arc;

use bowline_api::etcdserverpb::ResponseHeader;
use bowline_kv::store::{Limits, Reply, Response, decode_reply};
use bytes::Bytes;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::replica::Replica;

/// What every service needs.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) replica: Replica,
    pub(crate) cluster_id: u64,
    pub(crate) limits: Limits,
    pub(crate) counts: Arc<Counts>,
}

impl Context {
    /// A response's header. `revision` is 0 where the store has no part in the answer.
    fn header(&self, revision: i64) -> ResponseHeader {
        let raft_term = self.replica.status().term;
        ResponseHeader { cluster_id: self.cluster_id, member_id: self.replica.id().0, revision, raft_term }
    }

    /// Whoever insists on a leader is told at once that there is none, instead of waiting for one.
    fn require_leader(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let insists = metadata.get("hasleader").is_some_and(|value| value == "true");
        if insists && self.replica.status().leader.is_none() {
            return Err(Status::unavailable("etcdserver: no leader"));
        }
        Ok(())
    }
}

/// What the state machine said.
fn reply(bytes: &Bytes) -> Result<Response, Status> {
    let reply: Reply = decode_reply(bytes).map_err(|error| Status::data_loss(format!("bowline: {error}")))?;
    reply.map_err(errors::of_store)
}

/// The state machine answered something else than what was asked: a bug, told as such.
fn mismatch() -> Status {
    Status::data_loss("bowline: the answer is of another kind than the question")
}
