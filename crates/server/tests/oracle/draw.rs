//! Random requests: a few keys, so that they meet, and revisions around those that mean something.
//!
//! What a real etcd can't be asked, as it ends the process or is settled otherwise since: orders and comparisons
//! of unknown kinds. Those are the checklist's.

use bowline_api::etcdserverpb as pb;
use bowline_node::raft::Random;
use bytes::Bytes;
use pb::compare::TargetUnion;
use pb::request_op::Request as Op;

use crate::answers::Outcome;

#[derive(Clone, Debug)]
pub(crate) enum Request {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    Hash(i64),
}

/// No more than twelve: Go's sort leaves what is equal in its order up to there.
const KEYS: [&[u8]; 12] =
    [b"\0", b"a", b"a\0", b"aa", b"ab", b"b", b"b\xff", b"b\xff\xff", b"c", b"key/1", b"key/2", b"\xff"];

/// Where ranges may end, beside keys.
const ENDS: [&[u8]; 6] = [b"\0", b"b", b"c", b"key0", b"\xff\xff", b"a\0\0"];

/// What an etcd survives: one whose transaction deletes every key from one on and then puts one of them, keeping
/// what it had, ends its process. The deletion is not seen when the keys of a transaction are compared.
fn harmless(mut txn: pb::TxnRequest) -> pb::TxnRequest {
    if deletes_all_from(&txn) {
        keep_nothing(&mut txn);
    }
    txn
}

fn deletes_all_from(txn: &pb::TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Op::RequestDeleteRange(delete)) => &delete.range_end[..] == b"\0",
        Some(Op::RequestTxn(txn)) => deletes_all_from(txn),
        _ => false,
    })
}

fn keep_nothing(txn: &mut pb::TxnRequest) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Op::RequestPut(put)) => (put.ignore_value, put.ignore_lease) = (false, false),
            Some(Op::RequestTxn(txn)) => keep_nothing(txn),
            _ => {}
        }
    }
}

/// Deepest nesting of transactions.
const DEPTH: u32 = 2;

pub(crate) struct Draw {
    random: Random,
    revision: i64,
    compacted: i64,
}

impl Draw {
    pub(crate) fn new(seed: u64) -> Draw {
        Draw { random: Random::new(seed), revision: 1, compacted: -1 }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    pub(crate) fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Follows what became of a request.
    pub(crate) fn learn(&mut self, request: &Request, answer: &Outcome) {
        let Ok(answer) = answer else { return };
        self.revision = self.revision.max(answer.revision());
        if let Request::Compact(request) = request {
            self.compacted = request.revision;
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn between(&mut self, least: i64, most: i64) -> i64 {
        let span = u64::try_from(most - least + 1).expect("they are in order");
        least + i64::try_from(self.below(span)).expect("it is small")
    }

    /// True once in so many times.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).expect("it is small")]
    }

    pub(crate) fn request(&mut self) -> Request {
        match self.below(100) {
            0..35 => Request::Put(self.put()),
            35..48 => Request::Delete(self.delete()),
            48..68 => Request::Range(self.range()),
            68..98 => Request::Txn(harmless(self.txn(DEPTH))),
            _ => Request::Compact(self.compact()),
        }
    }

    /// A checksum: of the latest revision, of one that is readable (from the second on: of the compacted one
    /// itself etcd 3.4 tells none), or of one that is not.
    pub(crate) fn hash(&mut self) -> Request {
        Request::Hash(match self.below(4) {
            0 => 0,
            1 => self.revision + 1,
            _ if self.compacted + 1 >= self.revision => self.revision + 2,
            _ => self.between(self.compacted.max(0) + 1, self.revision),
        })
    }

    fn key(&mut self) -> Bytes {
        if self.once_in(150) { Bytes::new() } else { Bytes::from_static(self.one_of(&KEYS)) }
    }

    fn range_end(&mut self) -> Bytes {
        match self.below(10) {
            0..5 => Bytes::new(),
            5..7 => Bytes::from_static(self.one_of(&ENDS)),
            _ => Bytes::from_static(self.one_of(&KEYS)),
        }
    }

    fn value(&mut self) -> Bytes {
        match self.below(20) {
            0..3 => Bytes::new(),
            3 => Bytes::from(vec![b'v'; usize::try_from(self.below(20_000)).expect("it is small")]),
            // Few, so that comparisons hit.
            _ => Bytes::from(format!("{}", self.below(5))),
        }
    }

    fn lease(&mut self) -> i64 {
        if self.once_in(40) { self.one_of(&[1, -1, 7, i64::MAX, i64::MIN]) } else { 0 }
    }

    fn at(&mut self) -> i64 {
        match self.below(12) {
            0..6 => 0,
            6..9 => self.between((self.revision - 30).max(1), self.revision),
            9 => self.between(self.compacted - 2, self.compacted + 2),
            10 => self.between(self.revision - 1, self.revision + 2),
            _ => self.one_of(&[-1, 1, 2, i64::MAX, i64::MIN]),
        }
    }

    fn bound(&mut self) -> i64 {
        if self.once_in(4) { self.between((self.revision - 40).max(0), self.revision + 1) } else { 0 }
    }

    fn put(&mut self) -> pb::PutRequest {
        let (ignore_value, ignore_lease) = (self.once_in(8), self.once_in(8));
        let value = if ignore_value && !self.once_in(10) { Bytes::new() } else { self.value() };
        let lease = self.lease();
        pb::PutRequest { key: self.key(), value, lease, prev_kv: self.once_in(2), ignore_value, ignore_lease }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest { key: self.key(), range_end: self.range_end(), prev_kv: self.once_in(2) }
    }

    fn range(&mut self) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            limit: if self.once_in(2) { 0 } else { self.between(-1, 6) },
            revision: self.at(),
            sort_order: self.one_of(&[0, 0, 1, 2]),
            sort_target: self.one_of(&[0, 0, 0, 1, 2, 3, 4]),
            serializable: self.once_in(3),
            keys_only: self.once_in(5),
            count_only: self.once_in(8),
            min_mod_revision: self.bound(),
            max_mod_revision: self.bound(),
            min_create_revision: self.bound(),
            max_create_revision: self.bound(),
        }
    }

    fn compare(&mut self) -> pb::Compare {
        let near = self.between((self.revision - 20).max(0), self.revision + 1);
        let operand = match self.below(6) {
            0 => Some(TargetUnion::Version(self.between(0, 4))),
            1 => Some(TargetUnion::CreateRevision(near)),
            2 => Some(TargetUnion::ModRevision(near)),
            3 => Some(TargetUnion::Value(self.value())),
            4 => Some(TargetUnion::Lease(self.between(-1, 1))),
            _ => None,
        };
        let fitting = match operand {
            Some(TargetUnion::Version(_)) => 0,
            Some(TargetUnion::CreateRevision(_)) => 1,
            Some(TargetUnion::ModRevision(_)) => 2,
            Some(TargetUnion::Value(_)) => 3,
            Some(TargetUnion::Lease(_)) => 4,
            None => self.one_of(&[0, 1, 2, 3, 4]),
        };
        let target = if self.once_in(20) { self.one_of(&[0, 1, 2, 3, 4]) } else { fitting };
        let range_end = if self.once_in(4) { self.range_end() } else { Bytes::new() };
        pb::Compare { result: self.one_of(&[0, 1, 2, 3]), target, key: self.key(), range_end, target_union: operand }
    }

    fn txn(&mut self, depth: u32) -> pb::TxnRequest {
        let compares = self.below(3);
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.branch(depth),
            failure: self.branch(depth),
        }
    }

    fn branch(&mut self, depth: u32) -> Vec<pb::RequestOp> {
        // Now and then one that only reads, which takes another way.
        let only_reads = self.once_in(4);
        let operations = self.below(4);
        (0..operations).map(|_| self.operation(depth, only_reads)).collect()
    }

    fn operation(&mut self, depth: u32, only_reads: bool) -> pb::RequestOp {
        let request = match self.below(20) {
            _ if only_reads => Op::RequestRange(self.range_within()),
            0..6 => Op::RequestRange(self.range_within()),
            6..12 => Op::RequestPut(self.put()),
            12..16 => Op::RequestDeleteRange(self.delete()),
            16..19 if depth > 0 => Op::RequestTxn(self.txn(depth - 1)),
            _ if self.once_in(20) => return pb::RequestOp { request: None },
            _ => Op::RequestPut(self.put()),
        };
        pb::RequestOp { request: Some(request) }
    }

    /// Mostly of the latest revision: one that can't be read undoes the whole transaction.
    fn range_within(&mut self) -> pb::RangeRequest {
        let range = self.range();
        if self.once_in(3) { range } else { pb::RangeRequest { revision: 0, ..range } }
    }

    fn compact(&mut self) -> pb::CompactionRequest {
        let revision = match self.below(8) {
            0 => self.revision + self.between(1, 3),
            1 => self.compacted + self.between(-1, 0),
            2 => self.revision,
            _ => self.between(self.compacted.max(0), self.revision),
        };
        pb::CompactionRequest { revision, physical: self.once_in(3) }
    }
}
