//! What a client sends over gRPC, on its whole way to the store and back.

use bowline_api::{Message, etcdserverpb as pb};
use bowline_server::fuzz_requests;
use pb::request_op::Request;

pub(crate) fn run(data: &[u8]) {
    fuzz_requests(data);
}

fn piece(method: u8, message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let length = (bytes.len() as u16).to_le_bytes();
    [&[method, length[0], length[1]], &bytes[..]].concat()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), prev_kv: true, ..Default::default() };
    let range = pb::RangeRequest {
        key: "a".into(),
        range_end: "\0".into(),
        limit: 3,
        revision: 2,
        sort_order: 2,
        sort_target: 4,
        ..Default::default()
    };
    let delete = pb::DeleteRangeRequest { key: "a".into(), range_end: "z".into(), prev_kv: true };
    let op = |request| pb::RequestOp { request: Some(request) };
    let compare = pb::Compare {
        result: 1,
        target: 3,
        key: "k".into(),
        target_union: Some(pb::compare::TargetUnion::Value("u".into())),
        range_end: "l".into(),
    };
    let inner = pb::TxnRequest { success: vec![op(Request::RequestRange(range.clone()))], ..Default::default() };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Request::RequestPut(put.clone())), op(Request::RequestTxn(inner))],
        failure: vec![op(Request::RequestDeleteRange(delete.clone()))],
    };
    let compact = pb::CompactionRequest { revision: 2, physical: true };
    let grant = pb::LeaseGrantRequest { ttl: 10, id: 7 };
    let leased = pb::PutRequest { lease: 7, ..put.clone() };
    let pieces = [
        piece(1, &put),
        piece(0, &range),
        piece(3, &txn),
        piece(4, &compact),
        piece(2, &delete),
        piece(3, &txn),
        piece(5, &grant),
        piece(1, &leased),
        piece(7, &pb::LeaseTimeToLiveRequest { id: 7, keys: true }),
        piece(6, &pb::LeaseRevokeRequest { id: 7 }),
    ];
    let mut seeds = pieces.to_vec();
    seeds.push(pieces.concat());
    seeds
}
