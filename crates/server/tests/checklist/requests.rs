//! Requests, in few words.

use bowline_api::etcdserverpb as pb;
use pb::compare::TargetUnion;
use pb::request_op::Request;

use crate::site::bytes;

pub(crate) use crate::cluster::{get, prefix, put};

pub(crate) fn delete(key: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: bytes(key), ..pb::DeleteRangeRequest::default() }
}

pub(crate) fn delete_range(key: &str, range_end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { range_end: bytes(range_end), ..delete(key) }
}

pub(crate) fn range(key: &str, range_end: &str) -> pb::RangeRequest {
    pb::RangeRequest { range_end: bytes(range_end), ..get(key) }
}

pub(crate) fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

pub(crate) fn op_put(key: &str, value: &str) -> pb::RequestOp {
    op(Request::RequestPut(put(key, value)))
}

pub(crate) fn op_get(key: &str) -> pb::RequestOp {
    op(Request::RequestRange(get(key)))
}

pub(crate) fn op_range(request: pb::RangeRequest) -> pb::RequestOp {
    op(Request::RequestRange(request))
}

pub(crate) fn op_delete(key: &str, range_end: &str) -> pb::RequestOp {
    op(Request::RequestDeleteRange(delete_range(key, range_end)))
}

pub(crate) fn op_txn(txn: pb::TxnRequest) -> pb::RequestOp {
    op(Request::RequestTxn(txn))
}

/// A transaction without a condition.
pub(crate) fn all(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success, ..pb::TxnRequest::default() }
}

/// A transaction of both branches.
pub(crate) fn branches(
    compare: Vec<pb::Compare>,
    success: Vec<pb::RequestOp>,
    failure: Vec<pb::RequestOp>,
) -> pb::TxnRequest {
    pb::TxnRequest { compare, success, failure }
}

pub(crate) const EQUAL: i32 = 0;
pub(crate) const GREATER: i32 = 1;
pub(crate) const LESS: i32 = 2;
pub(crate) const NOT_EQUAL: i32 = 3;

/// A comparison; the operand says what is compared.
pub(crate) fn compare(key: &str, result: i32, operand: TargetUnion) -> pb::Compare {
    let target = match operand {
        TargetUnion::Version(_) => 0,
        TargetUnion::CreateRevision(_) => 1,
        TargetUnion::ModRevision(_) => 2,
        TargetUnion::Value(_) => 3,
        TargetUnion::Lease(_) => 4,
    };
    pb::Compare { result, target, key: bytes(key), target_union: Some(operand), ..pb::Compare::default() }
}

pub(crate) fn value_is(key: &str, value: &str) -> pb::Compare {
    compare(key, EQUAL, TargetUnion::Value(bytes(value)))
}

pub(crate) fn version_is(key: &str, version: i64) -> pb::Compare {
    compare(key, EQUAL, TargetUnion::Version(version))
}

/// The response of an operation, as a range's.
pub(crate) fn ranged(op: &pb::ResponseOp) -> &pb::RangeResponse {
    match &op.response {
        Some(pb::response_op::Response::ResponseRange(response)) => response,
        other => panic!("a range was asked for, and this came: {other:?}"),
    }
}

/// The response of an operation, as a transaction's.
pub(crate) fn transacted(op: &pb::ResponseOp) -> &pb::TxnResponse {
    match &op.response {
        Some(pb::response_op::Response::ResponseTxn(response)) => response,
        other => panic!("a transaction was asked for, and this came: {other:?}"),
    }
}
