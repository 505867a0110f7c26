//! The KV service.

use bowline_api::etcdserverpb as pb;
use bowline_kv::store::{Command, CompactionRequest, Query, Response as StoreResponse, TxnRequest};
use pb::kv_server::Kv;
use tonic::{Request, Response, Status};

use super::stream::{RangeChunks, stream_range};
use super::{Context, answer, convert, mismatch};
use crate::replica::Facts;

#[derive(Clone, Debug)]
pub(crate) struct KvService {
    pub(crate) context: Context,
}

impl KvService {
    /// What is to be done about a transaction.
    async fn run_txn(&self, txn: TxnRequest) -> Result<StoreResponse, Status> {
        if !txn.is_read_only() {
            return self.context.write(Command::Txn(txn)).await;
        }
        let serializable = txn.is_serializable();
        self.context.read(Query::Txn(txn), serializable).await
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        self.context.require_leader(request.metadata())?;
        let range = convert::range(request.into_inner())?;
        let serializable = range.serializable;
        match self.context.read(Query::Range(range), serializable).await? {
            StoreResponse::Range(response) => {
                let header = self.context.header(response.revision);
                Ok(answer(convert::range_response(header, response)))
            }
            _ => Err(mismatch()),
        }
    }

    type RangeStreamStream = RangeChunks;

    async fn range_stream(&self, request: Request<pb::RangeRequest>) -> Result<Response<RangeChunks>, Status> {
        self.context.require_leader(request.metadata())?;
        Ok(Response::new(stream_range(self.context.clone(), request.into_inner())?))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        self.context.require_leader(request.metadata())?;
        match self.context.write(Command::Put(convert::put(request.into_inner()))).await? {
            StoreResponse::Put(response) => {
                let header = self.context.header(response.revision);
                Ok(answer(convert::put_response(header, response)))
            }
            _ => Err(mismatch()),
        }
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        self.context.require_leader(request.metadata())?;
        match self.context.write(Command::DeleteRange(convert::delete_range(request.into_inner()))).await? {
            StoreResponse::DeleteRange(response) => {
                let header = self.context.header(response.revision);
                Ok(answer(convert::delete_response(header, response)))
            }
            _ => Err(mismatch()),
        }
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        self.context.require_leader(request.metadata())?;
        match self.run_txn(convert::txn(request.into_inner())?).await? {
            StoreResponse::Txn(response) => {
                let header = self.context.header(response.revision);
                Ok(answer(convert::txn_response(header, response)))
            }
            _ => Err(mismatch()),
        }
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.context.require_leader(request.metadata())?;
        let pb::CompactionRequest { revision, physical } = request.into_inner();
        match self.context.write(Command::Compact(CompactionRequest { revision, physical })).await? {
            StoreResponse::Compact(response) => {
                // It takes no revision by which its effect here could be waited for.
                let compacted = |facts: &Facts| facts.compact_revision >= revision;
                let removed = |facts: &Facts| !physical || facts.scrubbed_revision >= revision;
                if !self.context.replica.reaches(|facts| compacted(facts) && removed(facts)).await {
                    return Err(Status::unavailable("etcdserver: request timed out"));
                }
                let header = Some(self.context.header(response.revision));
                Ok(answer(pb::CompactionResponse { header }))
            }
            _ => Err(mismatch()),
        }
    }
}
