//! Fetching a snapshot of a member's state.

use std::sync::Arc;

use bowline_api::etcdserverpb as pb;
use bytes::Bytes;
use pb::maintenance_client::MaintenanceClient;
use tonic::{Status, Streaming};

use super::login::{self, Login, with_login};
use super::{Client, ClientError, MAX_RESPONSE, kv};

/// A snapshot that is being fetched.
#[derive(Debug)]
pub struct Snapshot {
    endpoint: String,
    is_recent: bool,
    stream: Streaming<pb::SnapshotResponse>,
    login: Option<Arc<Login>>,
}

impl Client {
    /// Begins to fetch a snapshot of the state of one member, the first that can be reached. First waits until the member
    /// has everything that was acknowledged before, at most for the client's patience: see [`Snapshot::is_recent`]. There
    /// is no time limit for the snapshot, but a lost connection ends it.
    ///
    /// # Errors
    /// No endpoint can be reached, or the member refuses.
    pub async fn snapshot(&self) -> Result<Snapshot, ClientError> {
        let mut client = self.apart();
        let (endpoint, channel) = client.channel().await?;
        let key = Bytes::from_static(&[0]);
        let read = pb::RangeRequest { key, count_only: true, ..pb::RangeRequest::default() };
        let ask = || {
            let (mut member, read) = (kv(channel.clone()), read.clone());
            async move { member.range(read).await }
        };
        let read = tokio::time::timeout(self.patience, with_login(self.login.as_deref(), ask)).await;
        let is_recent = read.is_ok_and(|answer| answer.is_ok());
        let refused = |status| match client.refusal(&endpoint, &status) {
            Some(why) => client.unreachable(why),
            None => client.refused(endpoint.clone(), status),
        };
        let ask = || {
            let mut member = MaintenanceClient::new(channel.clone()).max_decoding_message_size(MAX_RESPONSE);
            async move { member.snapshot(pb::SnapshotRequest {}).await }
        };
        let stream = with_login(self.login.as_deref(), ask).await.map_err(refused)?.into_inner();
        Ok(Snapshot { endpoint, is_recent, stream, login: client.login })
    }
}

impl Snapshot {
    /// The member's endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether the snapshot surely has everything that was acknowledged before it was asked for. If not, the member has
    /// no leader, so its state may be behind.
    #[must_use]
    pub fn is_recent(&self) -> bool {
        self.is_recent
    }

    /// The next message; `None` after the last one. That one is the SHA-256 of all others.
    ///
    /// # Errors
    /// The connection is lost, or the member gives up.
    pub async fn next(&mut self) -> Result<Option<pb::SnapshotResponse>, ClientError> {
        let failed = |status: Status| login::refused(self.login.as_deref(), self.endpoint.clone(), status);
        self.stream.message().await.map_err(failed)
    }
}
