//! The Maintenance service.

use bowline_api::etcdserverpb as pb;
use bowline_kv::store::{Alarm, AlarmKind, AlarmListRequest, AlarmRequest, AlarmResponse, HashKvRequest, Task};
use bowline_node::raft::NodeId;
use pb::alarm_request::AlarmAction;
use pb::downgrade_request::DowngradeAction;
use pb::maintenance_server::Maintenance;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::snapshot::Blobs;
use super::{Context, SnapshotSender, answer, errors};
use crate::clock::stopwatch;
use bowline_kv::versions;

/// Maximum number of alarms. They are written with every batch of the state.
const MAX_ALARMS: usize = 1_000;

/// The version of etcd's API. Clients parse it as three numbers, and some require at least 3.5.13.
pub const API_VERSION: &str = "3.6.0";

#[derive(Clone, Debug)]
pub(crate) struct MaintenanceService {
    pub(crate) context: Context,
    pub(crate) snapshots: SnapshotSender,
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn status(&self, request: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        self.context.caller(&request).await?.may(Task::Status)?;
        let status = self.context.replica.status();
        let size = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        let no_leader = status.leader.is_none().then(|| "etcdserver: no leader".to_owned());
        let alarms = self.context.alarms().await?;
        let errors = no_leader.into_iter().chain(alarms.iter().map(told)).collect();
        Ok(answer(pb::StatusResponse {
            header: Some(self.context.header(status.facts.revision)),
            version: API_VERSION.to_owned(),
            db_size: size(status.facts.db_size),
            leader: status.leader.map_or(0, |leader| leader.0),
            raft_index: status.commit_index,
            raft_term: status.term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: size(status.facts.db_size_in_use),
            is_learner: !status.membership.is_voter(self.context.replica.id()),
            storage_version: API_VERSION.to_owned(),
            db_size_quota: self.context.quota.0,
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    async fn hash_kv(&self, request: Request<pb::HashKvRequest>) -> Result<Response<pb::HashKvResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let began = stopwatch();
        let hash = caller.read(HashKvRequest { revision: request.into_inner().revision }, true).await;
        self.context.replica.metrics().hashes.observe((stopwatch() - began).as_secs_f64());
        let hash = hash?;
        Ok(answer(pb::HashKvResponse {
            header: Some(self.context.header(hash.revision)),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
        }))
    }

    /// As in etcd, where each of them goes through the log, all actions wait for a quorum.
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let pb::AlarmRequest { action, member_id, alarm: kind } = request.into_inner();
        let told = match AlarmAction::try_from(action) {
            Ok(AlarmAction::Get) => caller.read(AlarmListRequest { kind }, false).await?,
            Ok(action) => self.change_alarm(&caller, member_id, kind, action == AlarmAction::Activate).await?,
            Err(_) => {
                let text = format!("bowline: action is {action}; allowed: GET, ACTIVATE, DEACTIVATE");
                return Err(Status::invalid_argument(text));
            }
        };
        let alarm = |alarm: &Alarm| pb::AlarmMember { member_id: alarm.member, alarm: alarm.kind };
        let header = Some(self.context.header(told.revision));
        Ok(answer(pb::AlarmResponse { header, alarms: told.alarms.iter().map(alarm).collect() }))
    }

    /// Rewrites this member's file and waits for the end. Unlike in etcd, the member serves meanwhile.
    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        let permit = self.context.caller(&request).await?.may(Task::Defragment)?;
        self.context.replica.shrink(&permit).await.map_err(errors::of_request)?;
        Ok(answer(pb::DefragmentResponse { header: None }))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let permit = self.context.caller(&request).await?.may(Task::MoveLeader)?;
        let target = NodeId(request.into_inner().target_id);
        let status = self.context.replica.status();
        if !status.is_leader {
            return Err(Status::failed_precondition("etcdserver: not leader"));
        }
        if !status.membership.is_voter(target) {
            return Err(Status::failed_precondition("etcdserver: bad leader transferee"));
        }
        self.context.replica.move_leader(&permit, target).await.map_err(errors::of_request)?;
        Ok(answer(pb::MoveLeaderResponse { header: None }))
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        self.context.caller(&request).await?.may(Task::Hash)?;
        Err(Status::unimplemented("bowline: Hash depends on etcd's own files; use HashKV"))
    }

    type SnapshotStream = Blobs;

    /// As in etcd, the snapshot is of this member's own state, and any member has one.
    async fn snapshot(&self, request: Request<pb::SnapshotRequest>) -> Result<Response<Blobs>, Status> {
        let permit = self.context.caller(&request).await?.may(Task::Snapshot)?;
        let mut response = Response::new(self.snapshots.start(self.context.clone(), permit));
        // Compressing gigabytes would delay other calls.
        response.disable_compression();
        Ok(response)
    }

    /// There is no other version of the API to downgrade to. So a target is refused as in etcd, or because of that, and
    /// no downgrade is ever in progress.
    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        self.context.caller(&request).await?.may(Task::Downgrade)?;
        let pb::DowngradeRequest { action, version } = request.into_inner();
        let action = DowngradeAction::try_from(action).map_err(|_| {
            Status::invalid_argument(format!("bowline: action is {action}; allowed: VALIDATE, ENABLE, CANCEL"))
        })?;
        let target = (action != DowngradeAction::Cancel).then(|| minor_version(&version));
        if target == Some(None) {
            return Err(Status::invalid_argument("etcdserver: wrong downgrade target version format"));
        }
        self.context.replica.confirm().await.map_err(errors::of_request)?;
        let (major, minor) = minor_version(API_VERSION).expect("it is three numbers");
        match target.flatten() {
            None => Err(Status::failed_precondition("etcdserver: no inflight downgrade job")),
            Some(target) if target != (major, minor - 1) => {
                Err(Status::invalid_argument("etcdserver: invalid downgrade target version"))
            }
            Some(_) => Err(Status::unimplemented(format!(
                "bowline: a downgrade to version {version} of etcd's API is not supported; to return to an earlier \
                 program, restart one member after the other with it"
            ))),
        }
    }
}

impl MaintenanceService {
    async fn change_alarm(
        &self,
        caller: &Caller<'_>,
        member: u64,
        kind: i32,
        active: bool,
    ) -> Result<AlarmResponse, Status> {
        let Ok(alarm) = AlarmKind::try_from(kind) else {
            return Err(Status::invalid_argument(format!("bowline: alarm is {kind}; allowed: NONE, NOSPACE, CORRUPT")));
        };
        let request = caller.check(AlarmRequest { member, kind, automatic: false, active }).await?.into_inner();
        let replica = &self.context.replica;
        // From now on the facts are recent.
        replica.confirm().await.map_err(errors::of_request)?;
        if active && alarm != AlarmKind::None {
            // A new cluster agrees on its version as soon as all members know each other. If they don't, this waits in
            // vain.
            let _ = replica.reaches(|facts| facts.cluster_version > 0).await;
        }
        let facts = replica.status().facts;
        let known = facts.cluster_version >= versions::ALARMS;
        if alarm == AlarmKind::None || !known && !active {
            // Nothing changes.
            return Ok(AlarmResponse { revision: facts.revision, alarms: Vec::new() });
        }
        if !known {
            let text = format!(
                "bowline: alarms need version {} of the peer protocol, but the cluster has version {}: start a newer \
                 program on every member",
                versions::ALARMS,
                facts.cluster_version
            );
            return Err(Status::failed_precondition(text));
        }
        if active && facts.alarms.count >= MAX_ALARMS {
            let text = format!("bowline: there are {} alarms already; deactivate some of them", facts.alarms.count);
            return Err(Status::resource_exhausted(text));
        }
        let changed = caller.write(request).await?;
        // It has no revision of its own to wait for. This member tells of the alarm from now on.
        replica.confirm().await.map_err(errors::of_request)?;
        Ok(changed)
    }
}

/// Major and minor version of a text like `3.5`, `3.5.1` or `3.5.0-rc.1+build`.
fn minor_version(text: &str) -> Option<(u64, u64)> {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let parts: Vec<&str> = text.split(['-', '+']).next()?.split('.').collect();
    match parts[..] {
        [major, minor] if parts.join(".") == text => Some((number(major)?, number(minor)?)),
        [major, minor, patch] => number(patch).and(Some((number(major)?, number(minor)?))),
        _ => None,
    }
}

/// Etcd's text for an alarm.
fn told(alarm: &Alarm) -> String {
    let kind = pb::AlarmType::try_from(alarm.kind).map_or("UNKNOWN", |kind| kind.as_str_name());
    match alarm.member {
        0 => format!("alarm:{kind} "),
        member => format!("memberID:{member} alarm:{kind} "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_two_or_three_numbers() {
        for (text, expected) in [("3.5", (3, 5)), ("3.5.0", (3, 5)), ("3.6.7-rc.1+b", (3, 6)), ("12.34.56+b", (12, 34))]
        {
            assert_eq!(minor_version(text), Some(expected), "{text}");
        }
        for text in
            ["", "3", "3.", ".5", "3.5.", "3.5.x", "3.5.0.0", "-3.5.0", "3.5-rc.1", "v3.5.0", "3.99999999999999999999"]
        {
            assert_eq!(minor_version(text), None, "{text}");
        }
    }
}
