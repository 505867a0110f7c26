//! The Cluster service: lists the members. Changing them is not supported yet.

use bowline_api::etcdserverpb as pb;
use pb::cluster_server::Cluster;
use tonic::{Request, Response, Status};

use super::{Context, answer, errors};
use crate::config::Url;
use crate::peer::Directory;

#[derive(Clone, Debug)]
pub(crate) struct ClusterService {
    pub(crate) context: Context,
    pub(crate) directory: Directory,
}

impl ClusterService {
    fn members(&self) -> Vec<pb::Member> {
        let membership = self.context.replica.status().membership;
        let member = |(id, address): (bowline_node::raft::NodeId, &str)| {
            let introduction = self.directory.introduction(id);
            pb::Member {
                id: id.0,
                name: introduction.name,
                peer_ur_ls: vec![format!("http://{address}")],
                // It is unknown before the member's introduction, and may not be a reachable address.
                client_ur_ls: Some(introduction.client_url).filter(|url| can_be_reached(url)).into_iter().collect(),
                is_learner: !membership.is_voter(id),
            }
        };
        self.directory.addresses().filter(|(id, _)| membership.contains(*id)).map(member).collect()
    }
}

fn can_be_reached(url: &str) -> bool {
    Url::parse(url).is_some_and(|url| url.can_be_reached())
}

fn not_yet<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("bowline: changing members is not supported yet"))
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            // After a linearizable read, the membership is recent, too.
            self.context.replica.confirm().await.map_err(errors::of_request)?;
        }
        let header = Some(self.context.header(0));
        Ok(answer(pb::MemberListResponse { header, members: self.members() }))
    }

    async fn member_add(
        &self,
        _request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        not_yet()
    }

    async fn member_remove(
        &self,
        _request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        not_yet()
    }

    async fn member_update(
        &self,
        _request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        not_yet()
    }

    async fn member_promote(
        &self,
        _request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        not_yet()
    }
}
