//! The members of the cluster.

use bowline_api::etcdserverpb as pb;
use pb::cluster_client::ClusterClient;

use super::{Client, ClientError};

impl Client {
    /// The members, as a majority knows them; if `linearizable` is false, as one member knows them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn member_list(&mut self, linearizable: bool) -> Result<pb::MemberListResponse, ClientError> {
        let request = pb::MemberListRequest { linearizable };
        self.read_at(|channel| async move { ClusterClient::new(channel).member_list(request).await }).await
    }

    /// Adds a member that other members reach at these addresses. It is to be started then.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn member_add(
        &mut self,
        peer_urls: &[String],
        is_learner: bool,
    ) -> Result<pb::MemberAddResponse, ClientError> {
        let request = pb::MemberAddRequest { peer_ur_ls: peer_urls.to_vec(), is_learner };
        self.write_at(|channel| {
            let request = request.clone();
            async move { ClusterClient::new(channel).member_add(request).await }
        })
        .await
    }

    /// Removes a member.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn member_remove(&mut self, id: u64) -> Result<pb::MemberRemoveResponse, ClientError> {
        let request = pb::MemberRemoveRequest { id };
        self.write_at(|channel| async move { ClusterClient::new(channel).member_remove(request).await }).await
    }

    /// Changes the addresses of a member for other members.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn member_update(
        &mut self,
        id: u64,
        peer_urls: &[String],
    ) -> Result<pb::MemberUpdateResponse, ClientError> {
        let request = pb::MemberUpdateRequest { id, peer_ur_ls: peer_urls.to_vec() };
        self.write_at(|channel| {
            let request = request.clone();
            async move { ClusterClient::new(channel).member_update(request).await }
        })
        .await
    }

    /// Makes a learner a voter.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn member_promote(&mut self, id: u64) -> Result<pb::MemberPromoteResponse, ClientError> {
        let request = pb::MemberPromoteRequest { id };
        self.write_at(|channel| async move { ClusterClient::new(channel).member_promote(request).await }).await
    }
}
