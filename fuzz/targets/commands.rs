//! What stands in the log: the store's own commands, in any bytes.
#![no_main]

use bowline_kv::store::{
    Command, CompactionRequest, DeleteRangeRequest, LeaseExpireRequest, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, fuzz_commands,
};
use bowline_raft::Index;
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: bowline_fuzz::seed(seeds()),
    |data: &[u8]| fuzz_commands(data)
);

fn seeds() -> Vec<Vec<u8>> {
    let put = PutRequest { key: "k".into(), value: "v".into(), prev_kv: true, ..PutRequest::default() };
    let range = RangeRequest { key: "a".into(), range_end: "z".into(), ..RangeRequest::default() };
    let delete = DeleteRangeRequest { key: "a".into(), range_end: "\0".into(), prev_kv: true };
    let inner = TxnRequest { success: vec![RequestOp::Put(put.clone())], ..TxnRequest::default() };
    let txn = TxnRequest {
        success: vec![
            RequestOp::Range(range),
            RequestOp::Txn(Box::new(inner)),
            RequestOp::DeleteRange(delete.clone()),
            RequestOp::Put(put.clone()),
        ],
        ..TxnRequest::default()
    };
    let pieces: Vec<Vec<u8>> = [
        Command::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 10 }).encode(),
        Command::Put(PutRequest { lease: 7, ..put.clone() }).encode(),
        Command::LeaseExpire(LeaseExpireRequest { leases: vec![(7, Index(1)), (8, Index(2))] }).encode(),
        Command::LeaseRevoke(LeaseRevokeRequest { id: 7 }).encode(),
        Command::Put(put).encode(),
        Command::Txn(txn).encode(),
        Command::DeleteRange(delete).encode(),
        Command::Compact(CompactionRequest { revision: 2, physical: false }).encode(),
    ]
    .iter()
    .map(|bytes| [&[0xf0 + (bytes.len() / 256) as u8, (bytes.len() % 256) as u8], &bytes[..]].concat())
    .collect();
    let whole = pieces.concat();
    pieces.into_iter().chain([whole]).collect()
}
