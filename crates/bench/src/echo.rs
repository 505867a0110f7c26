//! A KV service that answers each request at once, with the right shape and no state: measured in place of a server, it
//! tells what gRPC, the network and the load generator themselves cost.

use bowline_api::etcdserverpb as pb;
use bowline_api::mvccpb::KeyValue;
use bytes::Bytes;
use pb::kv_server::{Kv, KvServer};
use pb::response_op::Response as Answer;
use tokio::net::TcpListener;
use tokio_stream::Empty;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Largest request, in bytes.
const MAX_REQUEST: usize = 32 << 20;

/// Largest number of keys of an answer.
const MAX_KEYS: i64 = 10_000;

/// Bytes of one request, and on one connection, that may come before they are read: those of a member.
const WINDOWS: (u32, u32) = (4 << 20, 8 << 20);

/// Serves until `end`. Reads are answered with values of `value_size` bytes.
///
/// # Errors
/// The socket fails.
pub async fn serve(
    listener: TcpListener,
    value_size: usize,
    end: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let echo = KvServer::new(Echo { value: vec![b'x'; value_size].into() }).max_decoding_message_size(MAX_REQUEST);
    Server::builder()
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .add_service(echo)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), end)
        .await
}

struct Echo {
    value: Bytes,
}

fn header() -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { cluster_id: u64::MAX, member_id: u64::MAX, revision: i64::MAX, raft_term: 1 })
}

#[tonic::async_trait]
impl Kv for Echo {
    type RangeStreamStream = Empty<Result<pb::RangeStreamResponse, Status>>;

    /// As many keys as the limit allows, or one; none if only their number is asked.
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let range = request.into_inner();
        let count = if range.count_only { 0 } else { range.limit.clamp(1, MAX_KEYS) };
        let (key, value) = (range.key, self.value.clone());
        let kv = KeyValue { key, value, create_revision: i64::MAX, mod_revision: i64::MAX, version: 1, lease: 0 };
        let kvs = vec![kv; count as usize];
        Ok(Response::new(pb::RangeResponse { header: header(), kvs, more: false, count }))
    }

    async fn put(&self, _: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        Ok(Response::new(pb::PutResponse { header: header(), prev_kv: None }))
    }

    async fn delete_range(
        &self,
        _: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        Ok(Response::new(pb::DeleteRangeResponse { header: header(), ..pb::DeleteRangeResponse::default() }))
    }

    /// All comparisons hold, and all operations are puts.
    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let put = pb::PutResponse { header: header(), prev_kv: None };
        let put = pb::ResponseOp { response: Some(Answer::ResponsePut(put)) };
        let responses = vec![put; request.into_inner().success.len()];
        Ok(Response::new(pb::TxnResponse { header: header(), succeeded: true, responses }))
    }

    async fn compact(&self, _: Request<pb::CompactionRequest>) -> Result<Response<pb::CompactionResponse>, Status> {
        Err(Status::unimplemented("an echo has no history"))
    }

    async fn range_stream(&self, _: Request<pb::RangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("an echo answers only Range"))
    }
}
