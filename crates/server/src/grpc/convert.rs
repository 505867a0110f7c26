//! Converts between the messages of the API and the values of the store.

use bowline_api::etcdserverpb as pb;
use bowline_api::mvccpb;
use bowline_kv::store as kv;
use pb::compare::TargetUnion;
use pb::request_op::Request;
use pb::response_op::Response;
use tonic::Status;

pub(super) fn range(request: pb::RangeRequest) -> kv::RangeRequest {
    kv::RangeRequest {
        sort_order: request.sort_order,
        sort_target: request.sort_target,
        key: request.key,
        range_end: request.range_end,
        limit: request.limit,
        revision: request.revision,
        serializable: request.serializable,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    }
}

pub(super) fn put(request: pb::PutRequest) -> kv::PutRequest {
    kv::PutRequest {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

pub(super) fn delete_range(request: pb::DeleteRangeRequest) -> kv::DeleteRangeRequest {
    kv::DeleteRangeRequest { key: request.key, range_end: request.range_end, prev_kv: request.prev_kv }
}

/// The decoder has bounded the depth of nested transactions.
pub(super) fn txn(request: pb::TxnRequest) -> Result<kv::TxnRequest, Status> {
    let operations = |ops: Vec<pb::RequestOp>| ops.into_iter().map(operation).collect::<Result<_, _>>();
    Ok(kv::TxnRequest {
        compare: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: operations(request.success)?,
        failure: operations(request.failure)?,
    })
}

fn operation(op: pb::RequestOp) -> Result<kv::RequestOp, Status> {
    let Some(request) = op.request else { return Ok(kv::RequestOp::default()) };
    let operation = match request {
        Request::RequestRange(request) => kv::Operation::Range(range(request)),
        Request::RequestPut(request) => kv::Operation::Put(put(request)),
        Request::RequestDeleteRange(request) => kv::Operation::DeleteRange(delete_range(request)),
        Request::RequestTxn(request) => kv::Operation::Txn(Box::new(txn(request)?)),
    };
    Ok(operation.into())
}

/// An operand that is missing or does not fit the target counts as 0 or empty.
fn compare(compare: pb::Compare) -> Result<kv::Compare, Status> {
    let unknown = || Status::invalid_argument("etcdserver: unknown comparison in txn request");
    let operand = compare.target_union;
    let number = |wanted: fn(&TargetUnion) -> Option<i64>| operand.as_ref().and_then(wanted).unwrap_or(0);
    let target = match pb::compare::CompareTarget::try_from(compare.target).map_err(|_| unknown())? {
        pb::compare::CompareTarget::Version => {
            kv::CompareTarget::Version(number(|op| if let TargetUnion::Version(n) = op { Some(*n) } else { None }))
        }
        pb::compare::CompareTarget::Create => {
            kv::CompareTarget::Create(number(
                |op| if let TargetUnion::CreateRevision(n) = op { Some(*n) } else { None },
            ))
        }
        pb::compare::CompareTarget::Mod => {
            kv::CompareTarget::Mod(number(|op| if let TargetUnion::ModRevision(n) = op { Some(*n) } else { None }))
        }
        pb::compare::CompareTarget::Lease => {
            kv::CompareTarget::Lease(number(|op| if let TargetUnion::Lease(n) = op { Some(*n) } else { None }))
        }
        pb::compare::CompareTarget::Value => kv::CompareTarget::Value(match operand {
            Some(TargetUnion::Value(value)) => value,
            _ => bytes::Bytes::new(),
        }),
    };
    let result = kv::CompareResult::try_from(compare.result).map_err(|_| unknown())?.into();
    Ok(kv::Compare { key: compare.key, range_end: compare.range_end, result, target: Some(target) })
}

pub(super) fn key_value(kv: kv::KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value,
        lease: kv.lease,
    }
}

pub(super) fn range_response(header: pb::ResponseHeader, response: kv::RangeResponse) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: response.count,
    }
}

pub(super) fn put_response(header: pb::ResponseHeader, response: kv::PutResponse) -> pb::PutResponse {
    pb::PutResponse { header: Some(header), prev_kv: response.prev_kv.map(key_value) }
}

pub(super) fn delete_response(
    header: pb::ResponseHeader,
    response: kv::DeleteRangeResponse,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: Some(header),
        deleted: response.deleted,
        prev_kvs: response.prev_kvs.into_iter().map(key_value).collect(),
    }
}

pub(super) fn txn_response(header: pb::ResponseHeader, response: kv::TxnResponse) -> pb::TxnResponse {
    pb::TxnResponse {
        header: Some(header),
        succeeded: response.succeeded,
        responses: response.responses.into_iter().map(operation_response).collect(),
    }
}

/// Within a transaction, headers contain only the revision; the header of a nested transaction is empty.
fn operation_response(op: kv::ResponseOp) -> pb::ResponseOp {
    let header = |revision| pb::ResponseHeader { revision, ..pb::ResponseHeader::default() };
    use kv::OperationResponse::{DeleteRange, Put, Range, Txn};
    let response = op.response.map(|response| match response {
        Range(response) => Response::ResponseRange(range_response(header(response.revision), response)),
        Put(response) => Response::ResponsePut(put_response(header(response.revision), response)),
        DeleteRange(response) => Response::ResponseDeleteRange(delete_response(header(response.revision), response)),
        Txn(response) => Response::ResponseTxn(txn_response(header(response.revision), *response)),
    });
    pb::ResponseOp { response }
}
