//! Requests for keys, alone or as operations of a transaction, with their options.

use bowline_api::etcdserverpb as pb;
use bowline_api::mvccpb::KeyValue;
use bytes::Bytes;
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request;
use pb::response_op::Response;

use super::txn::{Branches, TxnResponse};

/// The end of the range of all keys that begin with `prefix`. An empty prefix means all keys.
pub(crate) fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while end.pop_if(|last| *last == 0xff).is_some() {}
    match end.last_mut() {
        Some(last) => *last += 1,
        None => end.push(0),
    }
    end.into()
}

/// The first key and the end of the range of all keys that begin with `prefix`.
pub(crate) fn prefix_range(prefix: Bytes) -> (Bytes, Bytes) {
    let end = prefix_end(&prefix);
    // The API has no empty key: the first of all keys is one zero byte.
    (if prefix.is_empty() { Bytes::from_static(&[0]) } else { prefix }, end)
}

/// An operation of a [`Txn`](crate::Txn).
#[derive(Clone, Debug, PartialEq)]
pub struct Op(Request);

impl Op {
    /// Sets a key. Also for [`Client::put_request`](crate::Client::put_request).
    #[must_use]
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Put {
        Put(pb::PutRequest { key: key.into(), value: value.into(), ..pb::PutRequest::default() })
    }

    /// Reads a key or, with [`Get::prefix`] or [`Get::range_end`], a range. Also for
    /// [`Client::range`](crate::Client::range).
    #[must_use]
    pub fn get(key: impl Into<Bytes>) -> Get {
        Get(pb::RangeRequest { key: key.into(), ..pb::RangeRequest::default() })
    }

    /// Deletes a key or, with [`Delete::prefix`] or [`Delete::range_end`], a range. Also for
    /// [`Client::delete_request`](crate::Client::delete_request).
    #[must_use]
    pub fn delete(key: impl Into<Bytes>) -> Delete {
        Delete(pb::DeleteRangeRequest { key: key.into(), ..pb::DeleteRangeRequest::default() })
    }

    /// A transaction inside a transaction. As in etcd, its comparisons see the keys as they were before the outermost
    /// transaction.
    #[must_use]
    pub fn txn() -> Branches {
        Branches::default()
    }
}

impl From<Op> for pb::RequestOp {
    fn from(op: Op) -> pb::RequestOp {
        pb::RequestOp { request: Some(op.0) }
    }
}

/// A put: see [`Op::put`].
#[derive(Clone, Debug, PartialEq)]
pub struct Put(pb::PutRequest);

impl Put {
    /// Attaches the key to the lease with this id. 0, the default, detaches it.
    #[must_use]
    pub fn lease(mut self, id: i64) -> Put {
        self.0.lease = id;
        self
    }

    /// Also returns the key as it was before.
    #[must_use]
    pub fn prev_kv(mut self) -> Put {
        self.0.prev_kv = true;
        self
    }

    /// Keeps the present value, and refuses a key that does not exist. The value of the put must be empty.
    #[must_use]
    pub fn ignore_value(mut self) -> Put {
        self.0.ignore_value = true;
        self
    }

    /// Keeps the present lease, and refuses a key that does not exist.
    #[must_use]
    pub fn ignore_lease(mut self) -> Put {
        self.0.ignore_lease = true;
        self
    }
}

/// What the keys that a [`Get`] returns are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SortBy {
    /// The key, which is the default.
    Key,
    /// The number of puts since the key was created.
    Version,
    /// The revision that created the key.
    CreateRevision,
    /// The revision of the last put.
    ModRevision,
    /// The value.
    Value,
}

/// A read: see [`Op::get`].
#[derive(Clone, Debug, PartialEq)]
pub struct Get(pb::RangeRequest);

impl Get {
    /// Reads all keys that begin with the key; an empty one means all keys.
    #[must_use]
    pub fn prefix(mut self) -> Get {
        (self.0.key, self.0.range_end) = prefix_range(self.0.key);
        self
    }

    /// Reads the keys from the key up to, but not including, `end`. One zero byte means all keys from the key on.
    #[must_use]
    pub fn range_end(mut self, end: impl Into<Bytes>) -> Get {
        self.0.range_end = end.into();
        self
    }

    /// Returns at most so many keys; 0, the default, means all.
    #[must_use]
    pub fn limit(mut self, keys: i64) -> Get {
        self.0.limit = keys;
        self
    }

    /// Reads the keys as they were at this revision; 0, the default, means the latest one.
    #[must_use]
    pub fn revision(mut self, revision: i64) -> Get {
        self.0.revision = revision;
        self
    }

    /// Sorts in ascending order.
    #[must_use]
    pub fn ascending(self, by: SortBy) -> Get {
        self.sort(by, SortOrder::Ascend)
    }

    /// Sorts in descending order.
    #[must_use]
    pub fn descending(self, by: SortBy) -> Get {
        self.sort(by, SortOrder::Descend)
    }

    fn sort(mut self, by: SortBy, order: SortOrder) -> Get {
        let target = match by {
            SortBy::Key => SortTarget::Key,
            SortBy::Version => SortTarget::Version,
            SortBy::CreateRevision => SortTarget::Create,
            SortBy::ModRevision => SortTarget::Mod,
            SortBy::Value => SortTarget::Value,
        };
        (self.0.sort_target, self.0.sort_order) = (target.into(), order.into());
        self
    }

    /// Returns no values.
    #[must_use]
    pub fn keys_only(mut self) -> Get {
        self.0.keys_only = true;
        self
    }

    /// Returns only the number of keys.
    #[must_use]
    pub fn count_only(mut self) -> Get {
        self.0.count_only = true;
        self
    }

    /// Reads what the member has, which may be old, instead of what is the latest in the cluster.
    #[must_use]
    pub fn serializable(mut self) -> Get {
        self.0.serializable = true;
        self
    }

    /// Returns only keys with such a revision of their last put.
    #[must_use]
    pub fn mod_revisions(mut self, revisions: std::ops::RangeInclusive<i64>) -> Get {
        (self.0.min_mod_revision, self.0.max_mod_revision) = revisions.into_inner();
        self
    }

    /// Returns only keys with such a revision of their creation.
    #[must_use]
    pub fn create_revisions(mut self, revisions: std::ops::RangeInclusive<i64>) -> Get {
        (self.0.min_create_revision, self.0.max_create_revision) = revisions.into_inner();
        self
    }
}

/// A deletion: see [`Op::delete`].
#[derive(Clone, Debug, PartialEq)]
pub struct Delete(pb::DeleteRangeRequest);

impl Delete {
    /// Deletes all keys that begin with the key; an empty one means all keys.
    #[must_use]
    pub fn prefix(mut self) -> Delete {
        (self.0.key, self.0.range_end) = prefix_range(self.0.key);
        self
    }

    /// Deletes the keys from the key up to, but not including, `end`. One zero byte means all keys from the key on.
    #[must_use]
    pub fn range_end(mut self, end: impl Into<Bytes>) -> Delete {
        self.0.range_end = end.into();
        self
    }

    /// Also returns the keys as they were before.
    #[must_use]
    pub fn prev_kv(mut self) -> Delete {
        self.0.prev_kv = true;
        self
    }
}

/// Each operation is a request of the API, and an operation of a transaction.
macro_rules! operations {
    ($($operation:ty, $request:ty, $variant:path;)*) => {$(
        impl From<$operation> for $request {
            fn from(operation: $operation) -> $request {
                operation.0
            }
        }

        impl From<$operation> for Op {
            fn from(operation: $operation) -> Op {
                Op($variant(operation.0))
            }
        }
    )*};
}

operations! {
    Put, pb::PutRequest, Request::RequestPut;
    Get, pb::RangeRequest, Request::RequestRange;
    Delete, pb::DeleteRangeRequest, Request::RequestDeleteRange;
    Branches, pb::TxnRequest, Request::RequestTxn;
}

/// What an operation of a [`Txn`](crate::Txn) has returned.
#[derive(Clone, Debug, PartialEq)]
pub enum OpResponse {
    /// Of a put.
    Put {
        /// The key as it was before, if that was asked for and there was such a key.
        prev_kv: Option<KeyValue>,
    },
    /// Of a read.
    Get {
        /// The keys.
        kvs: Vec<KeyValue>,
        /// The number of keys in the range, whatever the limit is.
        count: i64,
        /// Whether the limit left keys out.
        more: bool,
    },
    /// Of a deletion.
    Delete {
        /// The number of deleted keys.
        deleted: i64,
        /// The keys as they were before, if that was asked for.
        prev_kvs: Vec<KeyValue>,
    },
    /// Of a transaction inside a transaction.
    Txn(TxnResponse),
}

impl OpResponse {
    /// The keys that a read has found, or that a put or a deletion has returned as they were before.
    #[must_use]
    pub fn kvs(&self) -> &[KeyValue] {
        match self {
            OpResponse::Put { prev_kv } => prev_kv.as_slice(),
            OpResponse::Get { kvs, .. } => kvs,
            OpResponse::Delete { prev_kvs, .. } => prev_kvs,
            OpResponse::Txn(_) => &[],
        }
    }

    /// `None` if the server has sent none.
    pub(crate) fn of(response: pb::ResponseOp) -> Option<OpResponse> {
        Some(match response.response? {
            Response::ResponsePut(put) => OpResponse::Put { prev_kv: put.prev_kv },
            Response::ResponseRange(range) => OpResponse::Get { kvs: range.kvs, count: range.count, more: range.more },
            Response::ResponseDeleteRange(del) => OpResponse::Delete { deleted: del.deleted, prev_kvs: del.prev_kvs },
            Response::ResponseTxn(txn) => OpResponse::Txn(txn.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_range() {
        let range = |prefix: &'static [u8]| prefix_range(Bytes::from_static(prefix));
        assert_eq!(range(b"a/"), (Bytes::from("a/"), Bytes::from("a0")));
        assert_eq!(range(b"a\xff\xff"), (Bytes::from_static(b"a\xff\xff"), Bytes::from("b")));
        assert_eq!(range(b"\xff"), (Bytes::from_static(b"\xff"), Bytes::from_static(&[0])));
        assert_eq!(range(b""), (Bytes::from_static(&[0]), Bytes::from_static(&[0])));
    }
}
