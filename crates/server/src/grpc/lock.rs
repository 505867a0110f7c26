//! The Lock service. A lock is the first place in a [queue](super::queue). It is advisory: `lock.proto` says how to use
//! its fencing token.

use std::time::Duration;

use bowline_api::v3lockpb as pb;
use bowline_kv::store::DeleteRangeRequest;
use bytes::Bytes;
use pb::lock_server::Lock;
use tonic::{Request, Response, Status};

use super::queue::{Entrant, First, wait};
use super::{Context, answer};

#[derive(Clone, Debug)]
pub(crate) struct LockService {
    pub(crate) context: Context,
    /// How long a call that requires a leader waits without one.
    pub(crate) leaderless: Duration,
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<pb::LockRequest>) -> Result<Response<pb::LockResponse>, Status> {
        let pb::LockRequest { name, lease } = request.get_ref().clone();
        let entrant = Entrant { name, lease, value: Bytes::new(), expired: "mutex: session is expired" };
        // The revision is the fencing token: the key of the holder before was deleted at a lower one.
        let First { key, revision, .. } = wait(&self.context, &request, entrant, self.leaderless).await?;
        Ok(answer(pb::LockResponse { header: Some(self.context.header(revision)), key }))
    }

    async fn unlock(&self, request: Request<pb::UnlockRequest>) -> Result<Response<pb::UnlockResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let key = request.into_inner().key;
        let deleted = caller.write(DeleteRangeRequest { key, ..DeleteRangeRequest::default() }).await?;
        Ok(answer(pb::UnlockResponse { header: Some(self.context.header(deleted.revision)) }))
    }
}
