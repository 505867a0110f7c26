//! The KV service.

use bowline_api::etcdserverpb as pb;
use bowline_kv::store::CompactionRequest;
use pb::kv_server::Kv;
use tonic::{Request, Response, Status};

use super::stream::{RangeChunks, stream_range};
use super::{Context, answer, convert};
use crate::replica::Facts;

#[derive(Clone, Debug)]
pub(crate) struct KvService {
    pub(crate) context: Context,
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let range = convert::range(request.into_inner());
        let serializable = range.serializable;
        let found = caller.range(range, serializable).await?;
        let header = self.context.header(found.revision);
        Ok(answer(convert::range_response(header, found)))
    }

    type RangeStreamStream = RangeChunks;

    async fn range_stream(&self, request: Request<pb::RangeRequest>) -> Result<Response<RangeChunks>, Status> {
        let caller = self.context.caller(&request).await?;
        Ok(Response::new(stream_range(self.context.clone(), caller.principal(), request.into_inner())?))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let response = caller.write(convert::put(request.into_inner())).await?;
        let header = self.context.header(response.revision);
        Ok(answer(convert::put_response(header, response)))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let response = caller.write(convert::delete_range(request.into_inner())).await?;
        let header = self.context.header(response.revision);
        Ok(answer(convert::delete_response(header, response)))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let txn = convert::txn(request.into_inner())?;
        let serializable = txn.is_serializable();
        let response = match txn.is_read_only() {
            true => caller.read(txn, serializable).await?,
            false => caller.write(txn).await?,
        };
        let header = self.context.header(response.revision);
        Ok(answer(convert::txn_response(header, response)))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let pb::CompactionRequest { revision, physical } = request.into_inner();
        let response = caller.write(CompactionRequest { revision, physical }).await?;
        // A compaction has no revision of its own to wait for, so wait for its effect on this member.
        let compacted = |facts: &Facts| facts.compact_revision >= revision;
        let removed = |facts: &Facts| !physical || facts.scrubbed_revision >= revision;
        if !self.context.replica.reaches(|facts| compacted(facts) && removed(facts)).await {
            return Err(Status::unavailable("etcdserver: request timed out"));
        }
        let header = Some(self.context.header(response.revision));
        Ok(answer(pb::CompactionResponse { header }))
    }
}
