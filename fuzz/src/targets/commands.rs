//! What stands in the log: the store's own commands, in any bytes.

use bowline_kv::store::{
    Command, CompactionRequest, DeleteRangeRequest, ExpiredLease, LeaseExpireRequest, LeaseGrantRequest,
    LeaseRevokeRequest, Operation, PutRequest, RangeRequest, TxnRequest, fuzz_commands,
};

pub(crate) fn run(data: &[u8]) {
    fuzz_commands(data);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let put = PutRequest { key: "k".into(), value: "v".into(), prev_kv: true, ..PutRequest::default() };
    let range = RangeRequest { key: "a".into(), range_end: "z".into(), ..RangeRequest::default() };
    let delete = DeleteRangeRequest { key: "a".into(), range_end: "\0".into(), prev_kv: true };
    let inner = TxnRequest { success: vec![Operation::Put(put.clone()).into()], ..TxnRequest::default() };
    let txn = TxnRequest {
        success: vec![
            Operation::Range(range).into(),
            Operation::Txn(Box::new(inner)).into(),
            Operation::DeleteRange(delete.clone()).into(),
            Operation::Put(put.clone()).into(),
        ],
        ..TxnRequest::default()
    };
    let pieces: Vec<Vec<u8>> = [
        Command::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 10 }).to_bytes(),
        Command::Put(PutRequest { lease: 7, ..put.clone() }).to_bytes(),
        Command::LeaseExpire(LeaseExpireRequest {
            leases: [(7, 1), (8, 2)].map(|(id, granted_at)| ExpiredLease { id, granted_at }).to_vec(),
        })
        .to_bytes(),
        Command::LeaseRevoke(LeaseRevokeRequest { id: 7 }).to_bytes(),
        Command::Put(put).to_bytes(),
        Command::Txn(txn).to_bytes(),
        Command::DeleteRange(delete).to_bytes(),
        Command::Compact(CompactionRequest { revision: 2, physical: false }).to_bytes(),
    ]
    .iter()
    .map(|bytes| [&[0xf0 + (bytes.len() / 256) as u8, (bytes.len() % 256) as u8], &bytes[..]].concat())
    .collect();
    let whole = pieces.concat();
    pieces.into_iter().chain([whole]).collect()
}
