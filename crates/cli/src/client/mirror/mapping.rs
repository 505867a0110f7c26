//! Which key of the source becomes which key of the destination, and which writes share a transaction.

use bowline_api::etcdserverpb as pb;
use bowline_client::{EventKind, WatchEvent};
use bowline_kv::store::prefix_end;
use bytes::Bytes;
use pb::request_op::Request;

/// Most writes in a transaction: etcd allows 128 operations, and one of them is the position.
const MAX_OPS: usize = 127;

/// Bytes of keys and values after which a transaction is full. Etcd allows 1.5 MiB.
const MAX_BYTES: usize = 1 << 20;

/// Replaces a prefix by another one.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    prefix: Bytes,
    dest: Bytes,
}

impl Mapping {
    pub(super) fn new(prefix: Bytes, dest: Bytes) -> Mapping {
        Mapping { prefix, dest }
    }

    pub(super) fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    pub(super) fn dest(&self) -> &Bytes {
        &self.dest
    }

    /// The mirrored keys, as in a request: the first key, and the end of the range.
    pub(super) fn source_range(&self) -> (Bytes, Bytes) {
        range_of(&self.prefix)
    }

    /// The keys of the mirror.
    pub(super) fn dest_range(&self) -> (Bytes, Bytes) {
        range_of(&self.dest)
    }

    /// Whether a key can be in both ranges.
    pub(super) fn overlaps(&self) -> bool {
        self.prefix.starts_with(&self.dest) || self.dest.starts_with(&self.prefix)
    }

    /// The place in the destination of a place in the source's range.
    pub(super) fn to_dest(&self, key: &[u8]) -> Bytes {
        [&self.dest, key.strip_prefix(&self.prefix[..]).unwrap_or_default()].concat().into()
    }

    /// The write of an event; `None` if the key would be that of the position.
    pub(super) fn operation(&self, event: &WatchEvent, position: &Bytes) -> Option<pb::RequestOp> {
        let key = self.to_dest(&event.kv.key);
        let op = match event.kind {
            EventKind::Put => put(key.clone(), event.kv.value.clone()),
            EventKind::Delete => delete(key.clone()),
        };
        (key != *position).then_some(op)
    }
}

fn range_of(prefix: &Bytes) -> (Bytes, Bytes) {
    let first = Bytes::from_static(&[0]);
    if prefix.is_empty() { (first.clone(), first) } else { (prefix.clone(), prefix_end(prefix)) }
}

/// A put without a lease.
pub(super) fn put(key: Bytes, value: Bytes) -> pb::RequestOp {
    pb::RequestOp { request: Some(Request::RequestPut(pb::PutRequest { key, value, ..pb::PutRequest::default() })) }
}

pub(super) fn delete(key: Bytes) -> pb::RequestOp {
    let delete = pb::DeleteRangeRequest { key, ..pb::DeleteRangeRequest::default() };
    pb::RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
}

fn key_and_bytes(op: &pb::RequestOp) -> (&[u8], usize) {
    match &op.request {
        Some(Request::RequestPut(put)) => (&put.key, put.key.len() + put.value.len()),
        Some(Request::RequestDeleteRange(delete)) => (&delete.key, delete.key.len()),
        _ => (&[], 0),
    }
}

/// Divides writes into transactions, in order. No transaction writes a key twice, which etcd refuses.
pub(super) fn parts(ops: Vec<pb::RequestOp>) -> Vec<Vec<pb::RequestOp>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut keys = std::collections::BTreeSet::new();
    for op in ops {
        let (key, more) = key_and_bytes(&op);
        let is_full = part.len() == MAX_OPS || bytes + more > MAX_BYTES || keys.contains(key);
        if is_full && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            keys.clear();
            bytes = 0;
        }
        keys.insert(Bytes::copy_from_slice(key));
        bytes += more;
        part.push(op);
    }
    parts.push(part);
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_replaced() {
        let mapping = Mapping::new("a/".into(), "copy/a/".into());
        assert_eq!(mapping.to_dest(b"a/k"), "copy/a/k");
        assert_eq!(mapping.source_range(), ("a/".into(), "a0".into()));
        assert_eq!(mapping.dest_range(), ("copy/a/".into(), "copy/a0".into()));
        assert!(!mapping.overlaps() && Mapping::new("".into(), "x".into()).overlaps());
        let all = Mapping::new("".into(), "".into());
        assert_eq!((all.to_dest(b"k"), all.source_range().1), ("k".into(), Bytes::from_static(&[0])));
    }

    #[test]
    fn a_transaction_has_few_writes_and_bytes_and_no_key_twice() {
        let lengths = |ops: Vec<pb::RequestOp>| parts(ops).iter().map(Vec::len).collect::<Vec<_>>();
        let puts = |count: usize, bytes: usize| {
            (0..count).map(|number| put(format!("{number:04}").into(), vec![0; bytes].into())).collect::<Vec<_>>()
        };
        assert_eq!(lengths(vec![]), [0; 0]);
        assert_eq!(lengths(puts(127, 1)), [127]);
        assert_eq!(lengths(puts(300, 1)), [127, 127, 46]);
        assert_eq!(lengths(puts(5, 500_000)), [2, 2, 1]);
        assert_eq!(lengths(puts(2, 2_000_000)), [1, 1]);
        assert_eq!(lengths(vec![delete("a".into()), put("b".into(), "".into()), put("a".into(), "".into())]), [2, 1]);
    }
}
