//! The words of the etcd v3 KV service: requests and responses as plain values.
//!
//! Revisions, versions and lease ids are `i64`, as on etcd's wire. A request here may still break a
//! rule of the service (an empty key, say): [`check`](super::check) tells, before it is proposed.
//! What the wire can express and these types can't (unknown enum numbers, a comparison whose operand
//! is of another kind than its target) is settled while it is converted: see [`SortOrder::from_wire`]
//! and [`CompareTarget`].

use bowline_node::raft::Index;
use bytes::Bytes;

use super::leases::Lease;

use super::KvError;

/// A key, its value, and where they come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key; never empty in the store.
    pub key: Bytes,
    /// Revision of the put that created the key since it was last deleted.
    pub create_revision: i64,
    /// Revision of the last put.
    pub mod_revision: i64,
    /// How many puts since the key was created; 1 for the first.
    pub version: i64,
    /// The value.
    pub value: Bytes,
    /// The lease that the key is attached to; 0 for none.
    pub lease: i64,
}

/// The order of a range's result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// By key, ascending; ascending too where the target is not the key, but a limit then takes the first
    /// keys, one more than it shows, and only those are sorted. Etcd's rule.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// What a range's result is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// [`KeyValue::key`].
    #[default]
    Key,
    /// [`KeyValue::version`].
    Version,
    /// [`KeyValue::create_revision`].
    Create,
    /// [`KeyValue::mod_revision`].
    Mod,
    /// [`KeyValue::value`].
    Value,
}

impl SortOrder {
    /// The order of a number on etcd's wire: none, ascend, descend.
    ///
    /// # Errors
    /// [`KvError::InvalidSortOption`] for any number but 0, 1 and 2.
    pub fn from_wire(number: i32) -> Result<SortOrder, KvError> {
        match number {
            0 => Ok(SortOrder::None),
            1 => Ok(SortOrder::Ascend),
            2 => Ok(SortOrder::Descend),
            _ => Err(KvError::InvalidSortOption),
        }
    }
}

impl SortTarget {
    /// The target of a number on etcd's wire: key, version, create, mod, value.
    ///
    /// # Errors
    /// [`KvError::InvalidSortOption`] for any number but 0 to 4.
    pub fn from_wire(number: i32) -> Result<SortTarget, KvError> {
        match number {
            0 => Ok(SortTarget::Key),
            1 => Ok(SortTarget::Version),
            2 => Ok(SortTarget::Create),
            3 => Ok(SortTarget::Mod),
            4 => Ok(SortTarget::Value),
            _ => Err(KvError::InvalidSortOption),
        }
    }
}

/// Asks for a key, or for the keys of a range, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// The key, or the first of the range.
    pub key: Bytes,
    /// Empty: only `key`. One zero byte: every key from `key` on. Else the end, itself excluded.
    pub range_end: Bytes,
    /// At most so many keys; 0 or less for all.
    pub limit: i64,
    /// As of this revision; 0 or less for the latest.
    pub revision: i64,
    /// The order of the result.
    pub sort_order: SortOrder,
    /// What it is sorted by.
    pub sort_target: SortTarget,
    /// Whether the local replica's state is good enough. Decides the way of the request, not its answer.
    pub serializable: bool,
    /// Leaves the values out.
    pub keys_only: bool,
    /// Only counts.
    pub count_only: bool,
    /// Leaves out what was last written before this revision; 0 for off.
    pub min_mod_revision: i64,
    /// Leaves out what was last written after this revision; 0 for off.
    pub max_mod_revision: i64,
    /// Leaves out what was created before this revision; 0 for off.
    pub min_create_revision: i64,
    /// Leaves out what was created after this revision; 0 for off.
    pub max_create_revision: i64,
}

/// The keys of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// The header's revision: the store's, not the one that was asked for.
    pub revision: i64,
    /// The keys and values.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit left something out.
    pub more: bool,
    /// How many keys the range holds at the revision, whatever the limit and the bounds on revisions.
    pub count: i64,
}

/// Sets a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutRequest {
    /// The key.
    pub key: Bytes,
    /// Its new value.
    pub value: Bytes,
    /// The lease to attach it to; 0 for none.
    pub lease: i64,
    /// Answers with what the key held before.
    pub prev_kv: bool,
    /// Keeps the value; `value` must be empty and the key present.
    pub ignore_value: bool,
    /// Keeps the lease; `lease` must be 0 and the key present.
    pub ignore_lease: bool,
}

/// The key was set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutResponse {
    /// The header's revision: that of the put.
    pub revision: i64,
    /// What the key held before, if it was asked for and the key was there.
    pub prev_kv: Option<KeyValue>,
}

/// Deletes a key, or the keys of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeRequest {
    /// The key, or the first of the range.
    pub key: Bytes,
    /// As in [`RangeRequest::range_end`].
    pub range_end: Bytes,
    /// Answers with what was deleted.
    pub prev_kv: bool,
}

/// The keys were deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeResponse {
    /// The header's revision: that of the deletion, or the store's if nothing was there.
    pub revision: i64,
    /// How many keys were deleted.
    pub deleted: i64,
    /// What they held, in the order of the keys, if it was asked for.
    pub prev_kvs: Vec<KeyValue>,
}

/// How a comparison must come out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompareResult {
    /// The key's is equal to the operand.
    #[default]
    Equal,
    /// The key's is greater.
    Greater,
    /// The key's is less.
    Less,
    /// The key's differs.
    NotEqual,
}

impl CompareResult {
    /// The result of a number on etcd's wire: equal, greater, less, not equal. `None` for any other
    /// number: a comparison that nobody understands must not guard a write.
    #[must_use]
    pub fn from_wire(number: i32) -> Option<CompareResult> {
        match number {
            0 => Some(CompareResult::Equal),
            1 => Some(CompareResult::Greater),
            2 => Some(CompareResult::Less),
            3 => Some(CompareResult::NotEqual),
            _ => None,
        }
    }
}

/// What of a key is compared, and with what. Etcd's wire carries the two apart: where the operand is
/// missing or of another kind than the target, it is 0, or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// [`KeyValue::version`].
    Version(i64),
    /// [`KeyValue::create_revision`].
    Create(i64),
    /// [`KeyValue::mod_revision`].
    Mod(i64),
    /// [`KeyValue::value`].
    Value(Bytes),
    /// [`KeyValue::lease`].
    Lease(i64),
}

/// A condition on a key, or on each key of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key, or the first of the range.
    pub key: Bytes,
    /// As in [`RangeRequest::range_end`].
    pub range_end: Bytes,
    /// How the comparison must come out.
    pub result: CompareResult,
    /// What is compared, and with what.
    pub target: CompareTarget,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOp {
    /// Reads; sees the earlier operations of the transaction.
    Range(RangeRequest),
    /// Sets a key.
    Put(PutRequest),
    /// Deletes keys.
    DeleteRange(DeleteRangeRequest),
    /// A transaction within; its comparisons see the state before the whole one.
    Txn(Box<TxnRequest>),
    /// None was set. Always refused.
    Empty,
}

/// What was done for a [`RequestOp`], of the same kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseOp {
    /// For a range.
    Range(RangeResponse),
    /// For a put.
    Put(PutResponse),
    /// For a deletion.
    DeleteRange(DeleteRangeResponse),
    /// For a transaction. Its revision is 0: etcd's inner header is present, but empty.
    Txn(Box<TxnResponse>),
}

/// If all the comparisons hold, does the one; else the other. All or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnRequest {
    /// The conditions; none always holds.
    pub compare: Vec<Compare>,
    /// What is done if they hold.
    pub success: Vec<RequestOp>,
    /// What is done if they don't.
    pub failure: Vec<RequestOp>,
}

impl TxnRequest {
    /// Whether both branches only read, so that the log is not needed. As in etcd, a transaction
    /// within counts as a write.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.operations().all(|op| matches!(op, RequestOp::Range(_)))
    }

    /// Whether both branches hold nothing but serializable reads.
    #[must_use]
    pub fn is_serializable(&self) -> bool {
        self.operations().all(|op| matches!(op, RequestOp::Range(range) if range.serializable))
    }

    fn operations(&self) -> impl Iterator<Item = &RequestOp> {
        self.success.iter().chain(&self.failure)
    }
}

/// What a transaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResponse {
    /// The header's revision: that of the transaction if it wrote, else the store's; 0 in a nested one.
    pub revision: i64,
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// One for each operation of the branch that was taken.
    pub responses: Vec<ResponseOp>,
}

/// Gives up what only older revisions can see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionRequest {
    /// The oldest revision that stays readable.
    pub revision: i64,
    /// Whether to answer only when it is removed: see [`Store::is_scrubbed`](super::Store::is_scrubbed).
    /// The store answers at once; waiting is the host's.
    pub physical: bool,
}

/// The compaction is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionResponse {
    /// The header's revision.
    pub revision: i64,
}

/// Makes a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseGrantRequest {
    /// Its identity; whoever proposes it has picked one, so not 0.
    pub id: i64,
    /// For how long, in seconds; 1 to [`MAX_LEASE_TTL`](super::MAX_LEASE_TTL).
    pub ttl: i64,
}

/// The lease is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseGrantResponse {
    /// The header's revision: the store's.
    pub revision: i64,
    /// As in the request.
    pub id: i64,
    /// As in the request.
    pub ttl: i64,
}

/// Ends a lease, and deletes its keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseRevokeRequest {
    /// Its identity.
    pub id: i64,
}

/// The lease is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseRevokeResponse {
    /// The header's revision: that of the deletion, or the store's if no key was attached.
    pub revision: i64,
}

/// Ends leases that a leader found expired, one after the other, each at a revision of its own if keys are
/// attached to it. One that is gone, or another one's by now, is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseExpireRequest {
    /// Their identities, and what granted them.
    pub leases: Vec<(i64, Index)>,
}

/// The leases are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseExpireResponse {
    /// The header's revision: the store's after it.
    pub revision: i64,
    /// How many leases it ended.
    pub expired: u64,
}

/// Asks for a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseTimeToLiveRequest {
    /// Its identity.
    pub id: i64,
    /// Whether to name its keys.
    pub keys: bool,
}

/// A lease, as far as the state machine knows it: how long it still lives, its leader knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseTimeToLive {
    /// The header's revision: the store's.
    pub revision: i64,
    /// What was granted; `None` if there is no such lease.
    pub lease: Option<Lease>,
    /// Its keys in order, if they were asked for.
    pub keys: Vec<Bytes>,
}

/// Asks for the leases, in the order of their identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseListRequest {
    /// Begins at this identity; `i64::MIN` for the first.
    pub from: i64,
    /// So many at most.
    pub limit: u32,
}

/// Some of the leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseListResponse {
    /// The header's revision: the store's.
    pub revision: i64,
    /// The leases.
    pub leases: Vec<Lease>,
    /// Whether there are more behind them.
    pub more: bool,
}

/// Asks for the checksum of the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashKvRequest {
    /// Up to this revision; 0 for the latest.
    pub revision: i64,
}

/// A checksum of the history, the same on each replica, and the same as etcd's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashKv {
    /// The header's revision.
    pub revision: i64,
    /// CRC32C over the records up to `hash_revision`. Only with the same `compact_revision` is it comparable.
    pub hash: u32,
    /// The compaction whose removals it takes into account: the latest one, or, at the revision of one of the last
    /// ten compactions, the one before that; -1 if there was none.
    pub compact_revision: i64,
    /// The revision that was asked for, or the store's.
    pub hash_revision: i64,
}

/// Asks how the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStatusRequest;

/// How the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// The header's revision.
    pub revision: i64,
    /// The oldest readable revision; -1 if there never was a compaction.
    pub compact_revision: i64,
    /// Index of the last log entry that the store has seen.
    pub applied: u64,
    /// How many keys there are.
    pub keys: u64,
    /// Bytes that the engine occupies.
    pub db_size: u64,
}

/// The end of the range of all keys that begin with `prefix`: the prefix with its last byte raised by
/// one, carrying over `0xff`; one zero byte (every key from `prefix` on) if it is nothing but `0xff`.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|byte| *byte < 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => Bytes::from_static(&[0]),
    }
}
