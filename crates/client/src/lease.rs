//! Leases.

use bowline_api::etcdserverpb as pb;
use pb::lease_client::LeaseClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::{Client, ClientError, MAX_RESPONSE};

impl Client {
    /// Grants a lease of at least `ttl` seconds; the response tells how many. With `id` 0, the server chooses the id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lease_grant(&mut self, ttl: i64, id: i64) -> Result<pb::LeaseGrantResponse, ClientError> {
        let request = pb::LeaseGrantRequest { ttl, id };
        self.write_at(|channel| async move { LeaseClient::new(channel).lease_grant(request).await }).await
    }

    /// Revokes a lease and deletes its keys.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lease_revoke(&mut self, id: i64) -> Result<pb::LeaseRevokeResponse, ClientError> {
        let request = pb::LeaseRevokeRequest { id };
        self.write_at(|channel| async move { LeaseClient::new(channel).lease_revoke(request).await }).await
    }

    /// Renews a lease and returns its time to live in seconds; 0 if there is no such lease. It is harmless to do twice,
    /// so it is repeated at other endpoints, as a read.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lease_keep_alive_once(&mut self, id: i64) -> Result<i64, ClientError> {
        self.read_at(|channel| keep_alive_once(channel, id)).await.map(|answer| answer.ttl)
    }

    /// The remaining time to live of a lease in seconds; -1 if there is no such lease. With `keys`, also its keys.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lease_time_to_live(
        &mut self,
        id: i64,
        keys: bool,
    ) -> Result<pb::LeaseTimeToLiveResponse, ClientError> {
        let request = pb::LeaseTimeToLiveRequest { id, keys };
        let ask = |channel| async move {
            LeaseClient::new(channel).max_decoding_message_size(MAX_RESPONSE).lease_time_to_live(request).await
        };
        self.read_at(ask).await
    }

    /// The ids of all leases.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lease_list(&mut self) -> Result<Vec<i64>, ClientError> {
        let ask = |channel| async move {
            let mut client = LeaseClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
            client.lease_leases(pb::LeaseLeasesRequest {}).await
        };
        let list = self.read_at(ask).await?;
        Ok(list.leases.into_iter().map(|lease| lease.id).collect())
    }
}

/// Sends one request on a stream and returns the answer.
async fn keep_alive_once(channel: Channel, id: i64) -> Result<Response<pb::LeaseKeepAliveResponse>, Status> {
    let requests = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
    let mut answers = LeaseClient::new(channel).lease_keep_alive(requests).await?.into_inner();
    let answer = answers.message().await?;
    answer.map(Response::new).ok_or_else(|| Status::unavailable("the stream ended without an answer"))
}
