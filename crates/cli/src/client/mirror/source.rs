//! The cluster that is mirrored.

use std::time::Duration;

use bowline_api::etcdserverpb as pb;
use bowline_client::{Client, ClientError, WatchRequest, Watcher};
use bytes::Bytes;
use tonic::Code;

use super::report::Remarks;
use crate::complaint;

/// Pause between attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether the same request may succeed later.
pub(super) fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::Unknown { .. } => true,
        ClientError::Refused { status, .. } => match status.code() {
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::DeadlineExceeded => true,
            // Too many requests, or no space for now; but a message that is too large stays so.
            Code::ResourceExhausted => !status.message().contains("larger than max"),
            _ => false,
        },
        _ => false,
    }
}

/// Whether the wanted revision is compacted.
pub(super) fn is_compacted(error: &ClientError) -> bool {
    match error {
        ClientError::Compacted { .. } => true,
        ClientError::Refused { status, .. } => {
            status.code() == Code::OutOfRange && status.message().contains("has been compacted")
        }
        _ => false,
    }
}

/// Says once what went wrong, and waits.
pub(super) async fn wait_out(told: &mut bool, remarks: Remarks, error: ClientError) {
    if !std::mem::replace(told, true) {
        remarks.say(&format!("{}; trying again", complaint::tell(&error.into())));
    }
    tokio::time::sleep(PAUSE).await;
}

/// Reads a range, and tries again until a member answers.
///
/// # Errors
/// A member refuses.
pub(super) async fn read(
    client: &mut Client,
    remarks: Remarks,
    request: &pb::RangeRequest,
) -> Result<pb::RangeResponse, ClientError> {
    let mut told = false;
    loop {
        match client.range(request.clone()).await {
            Err(error) if is_passing(&error) => wait_out(&mut told, remarks, error).await,
            answer => return answer,
        }
    }
}

/// A read of no key, for its header.
pub(super) fn of_nothing() -> pb::RangeRequest {
    pb::RangeRequest { key: Bytes::from_static(&[0]), count_only: true, ..pb::RangeRequest::default() }
}

pub(super) struct Source {
    client: Client,
    remarks: Remarks,
}

impl Source {
    pub(super) fn new(client: Client, remarks: Remarks) -> Source {
        Source { client, remarks }
    }

    /// The id of its cluster, and its revision.
    ///
    /// # Errors
    /// A member refuses.
    pub(super) async fn look(&mut self) -> Result<(u64, i64), ClientError> {
        let header = read(&mut self.client, self.remarks, &of_nothing()).await?.header.unwrap_or_default();
        Ok((header.cluster_id, header.revision))
    }

    /// Its revision, if a member answers soon.
    pub(super) async fn revision(&mut self) -> Option<i64> {
        let answer = tokio::time::timeout(PAUSE, self.client.range(of_nothing())).await;
        answer.ok()?.ok()?.header.map(|header| header.revision)
    }

    /// As [`read`].
    pub(super) async fn range(&mut self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, ClientError> {
        read(&mut self.client, self.remarks, request).await
    }

    /// Watches, and tries again until a member does.
    ///
    /// # Errors
    /// A member refuses.
    pub(super) async fn watch(&mut self, request: WatchRequest) -> Result<Watcher, ClientError> {
        let mut told = false;
        loop {
            match self.client.watch(request.clone()).await {
                Err(error) if is_passing(&error) => wait_out(&mut told, self.remarks, error).await,
                answer => return answer,
            }
        }
    }
}
