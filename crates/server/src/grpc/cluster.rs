//! The Cluster service: lists the members, and changes them.

use std::sync::Arc;
use std::time::Duration;

use bowline_api::etcdserverpb as pb;
use bowline_kv::store::{Authorized, KvError, Member, MemberChange, MemberRequest, MemberUrls, Task};
use bowline_node::raft::{MembershipError, NodeId};
use bowline_node::{Failure, NotDone};
use pb::cluster_server::Cluster;
use tonic::{Code, Request, Response, Status};

use super::caller::Caller;
use super::{Context, answer, errors};
use crate::clock::stopwatch;
use crate::config::Url;
use crate::peer::{Directory, Outbox};
use crate::random::random;
use crate::replica;
use bowline_kv::versions;

/// Pause before a promotion that another change delays is tried again.
const RETRY: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub(crate) struct ClusterService {
    pub(crate) context: Context,
    pub(crate) directory: Directory,
    pub(crate) outbox: Arc<Outbox>,
}

impl ClusterService {
    fn members(&self) -> Vec<pb::Member> {
        let status = self.context.replica.status();
        let mut members: Vec<pb::Member> = status.members.iter().map(|record| self.listed(record)).collect();
        // A founding member gets its record once every member speaks the version that has them.
        let member = |id: NodeId| {
            let introduction = self.directory.introduction(id);
            let own = id == self.directory.own().replica;
            let address = self.directory.address(id, 0).map(|address| self.directory.url(&address));
            let peer_url = if own { Some(introduction.peer_url).filter(|url| !url.is_empty()) } else { address };
            pb::Member {
                id: id.0,
                name: introduction.name,
                peer_ur_ls: peer_url.into_iter().collect(),
                // It is unknown before the member's introduction, and may not be a reachable address.
                client_ur_ls: reachable(&[introduction.client_url]),
                is_learner: !status.membership.is_voter(id),
            }
        };
        let missing = |id: &NodeId| status.members.get(id.0).is_none() && !status.members.is_removed(id.0);
        members.extend(status.membership.members().into_iter().filter(missing).map(member));
        members.sort_unstable_by_key(|member| member.id);
        members
    }

    fn listed(&self, record: &Member) -> pb::Member {
        let (name, client_ur_ls) = if record.has_started() {
            (record.name.clone(), reachable(&record.client_urls))
        } else {
            // It may have introduced itself, and not published that yet.
            let introduction = self.directory.introduction(NodeId(record.id));
            (introduction.name, reachable(&[introduction.client_url]))
        };
        let Member { id, is_learner, .. } = *record;
        pb::Member { id, name, peer_ur_ls: record.peer_urls.clone(), client_ur_ls, is_learner }
    }

    /// Waits until the members can be changed: all speak the version for it, and the founding members that run have
    /// published their records.
    async fn ready(&self) -> Result<(), Status> {
        let replica = &self.context.replica;
        let published = |status: &replica::Status, id: NodeId| match status.members.get(id.0) {
            Some(record) => record.has_started() || self.reached([id].iter()) == 0,
            None => status.members.is_removed(id.0),
        };
        let recorded =
            |status: &replica::Status| status.membership.members().into_iter().all(|id| published(status, id));
        let mut status = replica.watch_status();
        let ready = status.wait_for(|status| status.facts.cluster_version >= versions::MEMBERS && recorded(status));
        match tokio::time::timeout(replica.patience(), ready).await {
            Ok(Ok(_)) => Ok(()),
            _ if replica.status().leader.is_none() => Err(errors::of_request(Failure::not_leader(None))),
            // A member with an earlier program could not follow the change.
            _ => Err(Status::failed_precondition("etcdserver: not capable")),
        }
    }

    /// How many of these voters this member can reach, itself among them.
    fn reached<'a>(&self, voters: impl Iterator<Item = &'a NodeId>) -> usize {
        let own = self.directory.own().replica;
        voters.filter(|id| **id == own || self.outbox.reaches(**id)).count()
    }

    /// Refuses a change if this member is connected to no majority, as etcd does.
    fn refuse_unhealthy(&self, without: Option<NodeId>) -> Result<(), Status> {
        let voters = self.context.replica.status().membership.voters();
        if let Some(id) = without
            && (!voters.contains(&id) || self.reached([id].iter()) == 0)
        {
            // Without a member that is dead anyway, there are no fewer.
            return Ok(());
        }
        let rest = || voters.iter().filter(|id| Some(**id) != without);
        // That the last voter can't go, the store says.
        let healthy = rest().next().is_none() || self.reached(rest()) > rest().count() / 2;
        if healthy { Ok(()) } else { Err(Status::unavailable("etcdserver: unhealthy cluster")) }
    }

    async fn change(&self, caller: &Caller<'_>, change: MemberChange) -> Result<Vec<pb::Member>, Status> {
        let response = caller.write(MemberRequest { change: Some(change) }).await?;
        Ok(response.members.iter().map(|record| self.listed(record)).collect())
    }

    /// Promotes a learner. Returns the members.
    async fn promote(&self, caller: &Caller<'_>, id: u64) -> Result<Vec<pb::Member>, Status> {
        let permit = caller.may(Task::ChangeMembers)?;
        self.ready().await?;
        self.context.replica.confirm().await.map_err(errors::of_request)?;
        let status = self.context.replica.status();
        match status.members.get(id) {
            None => return Err(errors::of_store(KvError::MemberNotFound)),
            Some(record) if !record.is_learner => return Err(errors::of_store(KvError::NotLearner)),
            Some(_) => {}
        }
        self.promote_voter(&permit, NodeId(id)).await?;
        match self.change(caller, MemberChange::Promote(id)).await {
            // The leader was faster.
            Err(status) if status.message() == KvError::NotLearner.to_string() => Ok(self.members()),
            changed => changed,
        }
    }

    /// Promotes a learner in the configuration.
    async fn promote_voter(&self, permit: &Authorized<Task>, id: NodeId) -> Result<(), Status> {
        let replica = &self.context.replica;
        let until = stopwatch() + replica.patience();
        loop {
            let refused = match replica.promote(permit, id).await {
                Ok(()) => return Ok(()),
                Err(Failure::NotDone(NotDone::Refused { reason })) => reason,
                Err(failure) => return Err(errors::of_request(failure)),
            };
            if replica.status().membership.is_voter(id) {
                return Ok(());
            }
            let passing = [MembershipError::ChangeUnderWay, MembershipError::TermNotCommitted];
            if !passing.iter().any(|error| error.to_string() == refused) || stopwatch() >= until {
                return Err(Status::failed_precondition(
                    "etcdserver: can only promote a learner member which is in sync with leader",
                ));
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

fn reachable(urls: &[String]) -> Vec<String> {
    let can_be_reached = |url: &&String| Url::parse(url).is_some_and(|url| url.can_be_reached());
    urls.iter().filter(can_be_reached).cloned().collect()
}

/// Checks addresses for other members, and sorts them as etcd does.
fn checked(urls: Vec<String>) -> Result<Vec<String>, Status> {
    let parse = |url: String| {
        // Etcd wants the scheme, too.
        let parsed = Url::parse(&url).filter(|_| url.contains("://"));
        parsed.filter(Url::can_be_reached).map(|url| url.to_string())
    };
    let parsed: Option<Vec<String>> = urls.into_iter().map(parse).collect();
    let mut parsed = parsed.filter(|urls| !urls.is_empty()).ok_or_else(|| errors::of_store(KvError::BadMemberUrls))?;
    parsed.sort_unstable();
    Ok(parsed)
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        if request.into_inner().linearizable {
            // After a linearizable read, the records are recent, too.
            self.context.replica.confirm().await.map_err(errors::of_request)?;
        }
        caller.may(Task::MemberList)?;
        let header = Some(self.context.header(0));
        Ok(answer(pb::MemberListResponse { header, members: self.members() }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let caller = &self.context.caller(&request).await?;
        caller.may(Task::ChangeMembers)?;
        let pb::MemberAddRequest { peer_ur_ls, is_learner } = request.into_inner();
        let peer_urls = checked(peer_ur_ls)?;
        self.ready().await?;
        if !is_learner {
            self.refuse_unhealthy(None)?;
        }
        // Zero means "no member".
        let member = Member { id: random().max(1), peer_urls, is_learner, ..Member::default() };
        let members = self.change(caller, MemberChange::Add(member.clone())).await?;
        let header = Some(self.context.header(0));
        Ok(answer(pb::MemberAddResponse { header, member: Some(self.listed(&member)), members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let caller = &self.context.caller(&request).await?;
        caller.may(Task::ChangeMembers)?;
        let id = NodeId(request.into_inner().id);
        self.ready().await?;
        self.refuse_unhealthy(Some(id))?;
        let members = self.change(caller, MemberChange::Remove(id.0)).await?;
        // The leader removes it from the configuration now.
        let replica = &self.context.replica;
        let mut status = replica.watch_status();
        let removed = status.wait_for(|status| !status.membership.contains(id));
        // The removed member itself may not hear of it.
        if id != replica.id() && !matches!(tokio::time::timeout(replica.patience(), removed).await, Ok(Ok(_))) {
            return Err(errors::of_request(bowline_node::Unknown::Expired.into()));
        }
        Ok(answer(pb::MemberRemoveResponse { header: Some(self.context.header(0)), members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let caller = &self.context.caller(&request).await?;
        caller.may(Task::ChangeMembers)?;
        let pb::MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let peer_urls = checked(peer_ur_ls)?;
        self.ready().await?;
        let members = self.change(caller, MemberChange::Update(MemberUrls { id, peer_urls })).await?;
        Ok(answer(pb::MemberUpdateResponse { header: Some(self.context.header(0)), members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let caller = &self.context.caller(&request).await?;
        let promoted = self.promote(caller, request.into_inner().id).await;
        let counts = &self.context.counts;
        match &promoted {
            Ok(_) => _ = counts.promotions.inc(),
            // These have only a few different texts.
            Err(refused) if [Code::NotFound, Code::FailedPrecondition].contains(&refused.code()) => {
                let reason = [("Reason", refused.message().to_owned())];
                counts.refused_promotions.get_or_create(&reason).inc();
            }
            Err(_) => {}
        }
        let members = promoted?;
        Ok(answer(pb::MemberPromoteResponse { header: Some(self.context.header(0)), members }))
    }
}
