//! A store that is driven as a node drives it: by bytes.

use bowline_kv::store::*;
use bowline_node::StateMachine;
use bowline_node::raft::Index;
use bytes::Bytes;

/// A store in memory, and the index of the last entry.
pub(crate) struct Kv {
    pub(crate) store: Store<MemoryEngine>,
    index: u64,
}

impl Kv {
    pub(crate) fn new() -> Kv {
        Kv { store: Store::open(MemoryEngine::default()).expect("memory does not fail"), index: 0 }
    }

    /// Checks a command and applies it: what the server and then the node do.
    pub(crate) fn apply(&mut self, command: &Command) -> Reply {
        command.check(&Limits::default())?;
        self.index += 1;
        decode_reply(self.store.apply(Index(self.index), &command.to_bytes())).expect("a reply can be read")
    }

    /// The same of a request of any kind.
    pub(crate) fn change<C: Change>(&mut self, change: C) -> Result<C::Response, KvError> {
        let command: Command = change.into();
        command.check(&Limits::default())?;
        self.index += 1;
        let reply = self.store.apply(Index(self.index), &command.to_bytes());
        let reply = decode_reply_to::<C>(reply).expect("a reply can be read");
        reply.map(|(response, _)| response)
    }

    pub(crate) fn ask<Q: Query>(&self, query: &Q) -> Result<Q::Answer, KvError> {
        query.check(&Limits::default())?;
        self.store.ask(query)
    }

    pub(crate) fn try_put(&mut self, put: PutRequest) -> Result<PutResponse, KvError> {
        self.change(put)
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) -> PutResponse {
        self.try_put(put(key, value)).expect("nothing forbids it")
    }

    pub(crate) fn try_delete(&mut self, delete: DeleteRangeRequest) -> Result<DeleteRangeResponse, KvError> {
        self.change(delete)
    }

    pub(crate) fn delete(&mut self, key: &str, range_end: &str) -> DeleteRangeResponse {
        self.try_delete(delete(key, range_end)).expect("nothing forbids it")
    }

    pub(crate) fn txn(&mut self, txn: TxnRequest) -> Result<TxnResponse, KvError> {
        self.change(txn)
    }

    /// A transaction without conditions.
    pub(crate) fn all(&mut self, ops: Vec<RequestOp>) -> Result<TxnResponse, KvError> {
        self.txn(TxnRequest { success: ops, ..TxnRequest::default() })
    }

    /// Whether a single comparison holds.
    pub(crate) fn holds(&mut self, compare: Compare) -> bool {
        let txn = TxnRequest { compare: vec![compare], ..TxnRequest::default() };
        self.txn(txn).expect("nothing forbids it").succeeded
    }

    pub(crate) fn grant(&mut self, id: i64, ttl: i64) -> Result<LeaseGrantResponse, KvError> {
        self.change(LeaseGrantRequest { id, ttl })
    }

    pub(crate) fn revoke(&mut self, id: i64) -> Result<i64, KvError> {
        self.change(LeaseRevokeRequest { id }).map(|response| response.revision)
    }

    /// The keys of a lease; `None` if there is no such lease.
    pub(crate) fn attached(&self, id: i64) -> Option<Vec<String>> {
        let found = self.ask(&LeaseTimeToLiveRequest { id, keys: true }).expect("nothing forbids it");
        let keys = found.keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
        found.lease.map(|_| keys)
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<i64, KvError> {
        self.change(CompactionRequest { revision, physical: false }).map(|response| response.revision)
    }

    /// Removes all that compactions gave up.
    pub(crate) fn scrub(&mut self) {
        while !self.store.scrub(3).expect("memory does not fail").done {}
    }

    pub(crate) fn range(&self, range: RangeRequest) -> Result<RangeResponse, KvError> {
        self.ask(&range)
    }

    pub(crate) fn get_at(&self, key: &str, revision: i64) -> Result<Option<KeyValue>, KvError> {
        Ok(self.range(RangeRequest { revision, ..range(key, "") })?.kvs.pop())
    }

    pub(crate) fn get(&self, key: &str) -> Option<KeyValue> {
        self.get_at(key, 0).expect("nothing forbids it")
    }

    pub(crate) fn hash(&self, revision: i64) -> Result<HashKv, KvError> {
        self.ask(&HashKvRequest { revision })
    }

    pub(crate) fn revision(&self) -> i64 {
        self.store.revision()
    }
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

pub(crate) fn delete(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: false }
}

pub(crate) fn range(key: &str, range_end: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), range_end: bytes(range_end), ..RangeRequest::default() }
}

/// A put that attaches the key to a lease.
pub(crate) fn leased(key: &str, lease: i64) -> PutRequest {
    PutRequest { lease, ..put(key, "v") }
}

/// Every key.
pub(crate) fn everything() -> RangeRequest {
    range("\0", "\0")
}

pub(crate) fn op_put(key: &str, value: &str) -> RequestOp {
    Operation::Put(put(key, value)).into()
}

pub(crate) fn op_delete(key: &str, range_end: &str) -> RequestOp {
    Operation::DeleteRange(delete(key, range_end)).into()
}

pub(crate) fn op_range(key: &str, range_end: &str) -> RequestOp {
    Operation::Range(range(key, range_end)).into()
}

/// A transaction within, without conditions.
pub(crate) fn op_txn(success: Vec<RequestOp>) -> RequestOp {
    op_branches(vec![], success, vec![])
}

pub(crate) fn op_branches(compare: Vec<Compare>, success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    Operation::Txn(Box::new(TxnRequest { compare, success, failure })).into()
}

pub(crate) fn compare(key: &str, result: CompareResult, target: CompareTarget) -> Compare {
    Compare { key: bytes(key), range_end: Bytes::new(), result: result.into(), target: Some(target) }
}

pub(crate) fn keys(kvs: &[KeyValue]) -> Vec<&str> {
    kvs.iter().map(|kv| std::str::from_utf8(&kv.key).expect("the tests' keys are text")).collect()
}
