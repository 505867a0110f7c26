//! The Maintenance service.

use std::time::Instant;

use bowline_api::etcdserverpb as pb;
use bowline_kv::store::HashKvRequest;
use bowline_node::raft::NodeId;
use pb::alarm_request::AlarmAction;
use pb::maintenance_server::Maintenance;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Context, answer, errors};

/// The version of etcd's API. Clients parse it as three numbers, and some require at least 3.5.13.
pub(crate) const API_VERSION: &str = "3.6.0";

#[derive(Clone, Debug)]
pub(crate) struct MaintenanceService {
    pub(crate) context: Context,
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn status(&self, _request: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let status = self.context.replica.status();
        let size = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        let no_leader = status.leader.is_none().then(|| "etcdserver: no leader".to_owned());
        Ok(answer(pb::StatusResponse {
            header: Some(self.context.header(status.facts.revision)),
            version: API_VERSION.to_owned(),
            db_size: size(status.facts.db_size),
            leader: status.leader.map_or(0, |leader| leader.0),
            raft_index: status.commit_index,
            raft_term: status.term,
            raft_applied_index: status.applied_index,
            errors: no_leader.into_iter().collect(),
            db_size_in_use: size(status.facts.db_size_in_use),
            is_learner: !status.membership.is_voter(self.context.replica.id()),
            storage_version: API_VERSION.to_owned(),
            db_size_quota: 0,
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    async fn hash_kv(&self, request: Request<pb::HashKvRequest>) -> Result<Response<pb::HashKvResponse>, Status> {
        let began = Instant::now();
        let hash = self.context.read(HashKvRequest { revision: request.into_inner().revision }, true).await;
        self.context.replica.metrics().hashes.observe(began.elapsed().as_secs_f64());
        let hash = hash?;
        Ok(answer(pb::HashKvResponse {
            header: Some(self.context.header(hash.revision)),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
        }))
    }

    /// There are no alarms yet, so none is listed or cleared. As in etcd, where this goes through the log, the answer
    /// waits for a quorum.
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let request = request.into_inner();
        let none = request.alarm == pb::AlarmType::None as i32;
        if request.action == AlarmAction::Activate as i32 && !none {
            return Err(Status::unimplemented("bowline: raising alarms is not supported yet"));
        }
        self.context.replica.confirm().await.map_err(errors::of_request)?;
        let header = self.context.header(self.context.replica.status().facts.revision);
        Ok(answer(pb::AlarmResponse { header: Some(header), alarms: Vec::new() }))
    }

    /// Rewrites this member's file and waits for the end. Unlike in etcd, the member serves meanwhile.
    async fn defragment(
        &self,
        _request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.context.replica.shrink().await.map_err(errors::of_request)?;
        Ok(answer(pb::DefragmentResponse { header: None }))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let target = NodeId(request.into_inner().target_id);
        let status = self.context.replica.status();
        if !status.is_leader {
            return Err(Status::failed_precondition("etcdserver: not leader"));
        }
        if !status.membership.is_voter(target) {
            return Err(Status::failed_precondition("etcdserver: bad leader transferee"));
        }
        self.context.replica.transfer(Some(target)).await.map_err(errors::of_request)?;
        Ok(answer(pb::MoveLeaderResponse { header: None }))
    }

    async fn hash(&self, _request: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        Err(Status::unimplemented("bowline: Hash depends on etcd's own files; use HashKV"))
    }

    type SnapshotStream = ReceiverStream<Result<pb::SnapshotResponse, Status>>;

    async fn snapshot(&self, _request: Request<pb::SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(Status::unimplemented("bowline: fetching snapshots is not supported yet"))
    }

    async fn downgrade(
        &self,
        _request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(Status::unimplemented("bowline: downgrades are not supported yet"))
    }
}
