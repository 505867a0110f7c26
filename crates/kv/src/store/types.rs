//! The store's requests and responses, as in the etcd v3 KV service.
//!
//! Those that go through the log are protobuf messages. A field's number is never changed or reused, because members
//! of other versions read these messages too. Requests have etcd's numbers; responses begin
//! with the revision of etcd's header.
//!
//! Revisions, versions and lease ids are `i64`, as in etcd. A request may still break a rule of the service (an
//! empty key, an unknown order): [`check`](super::check) finds out before it is proposed.

use bytes::Bytes;

use super::leases::Lease;

/// A key with its value, revisions and lease.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyValue {
    /// The key; never empty in the store.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Revision of the put that created the key (again, if it was deleted before).
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    /// Revision of the last put.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// How many puts there were since the key was created, including that one.
    #[prost(int64, tag = "4")]
    pub version: i64,
    /// The value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    /// The lease that the key is attached to; 0 for none.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// The order of a range's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SortOrder {
    /// Smallest first. But if the target is not the key, and there is a limit and no bound on revisions, only the first
    /// keys, one more than the limit, are sorted. This is etcd's rule.
    None = 0,
    /// Smallest first.
    Ascend = 1,
    /// Largest first.
    Descend = 2,
}

/// What a range's result is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SortTarget {
    /// [`KeyValue::key`].
    Key = 0,
    /// [`KeyValue::version`].
    Version = 1,
    /// [`KeyValue::create_revision`].
    Create = 2,
    /// [`KeyValue::mod_revision`].
    Mod = 3,
    /// [`KeyValue::value`].
    Value = 4,
}

/// Asks for a key, or for the keys of a range, at one revision.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RangeRequest {
    /// The key, or the first of the range.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Empty: only `key`. One zero byte: every key from `key` on. Otherwise the end of the range, which is excluded.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// Most keys to return; 0 or less for all.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// The revision to read at; 0 or less for the latest.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    /// The order of the result.
    #[prost(enumeration = "SortOrder", tag = "5")]
    pub sort_order: i32,
    /// What it is sorted by.
    #[prost(enumeration = "SortTarget", tag = "6")]
    pub sort_target: i32,
    /// Whether the state of the local replica is good enough. The store ignores it.
    #[prost(bool, tag = "7")]
    pub serializable: bool,
    /// Omits the values.
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
    /// Returns only the count.
    #[prost(bool, tag = "9")]
    pub count_only: bool,
    /// Omits keys last written before this revision; 0 for no bound.
    #[prost(int64, tag = "10")]
    pub min_mod_revision: i64,
    /// Omits keys last written after this revision; 0 for no bound.
    #[prost(int64, tag = "11")]
    pub max_mod_revision: i64,
    /// Omits keys created before this revision; 0 for no bound.
    #[prost(int64, tag = "12")]
    pub min_create_revision: i64,
    /// Omits keys created after this revision; 0 for no bound.
    #[prost(int64, tag = "13")]
    pub max_create_revision: i64,
}

/// The keys of a range.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RangeResponse {
    /// The header's revision: the store's, not the requested one.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// The keys and values.
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    /// Whether the limit omitted keys.
    #[prost(bool, tag = "3")]
    pub more: bool,
    /// How many keys the range holds at the revision, whatever the limit and the bounds on revisions.
    #[prost(int64, tag = "4")]
    pub count: i64,
}

/// Sets a key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PutRequest {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its new value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// The lease to attach it to; 0 for none.
    #[prost(int64, tag = "3")]
    pub lease: i64,
    /// Whether to return the key's previous value.
    #[prost(bool, tag = "4")]
    pub prev_kv: bool,
    /// Keeps the value; `value` must be empty and the key must exist.
    #[prost(bool, tag = "5")]
    pub ignore_value: bool,
    /// Keeps the lease; `lease` must be 0 and the key must exist.
    #[prost(bool, tag = "6")]
    pub ignore_lease: bool,
}

/// The key was set.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PutResponse {
    /// The header's revision: that of the put.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// The key's previous value, if it was requested and the key existed.
    #[prost(message, optional, tag = "2")]
    pub prev_kv: Option<KeyValue>,
}

/// Deletes a key, or the keys of a range.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteRangeRequest {
    /// The key, or the first of the range.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// As in [`RangeRequest::range_end`].
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// Whether to return the deleted values.
    #[prost(bool, tag = "3")]
    pub prev_kv: bool,
}

/// The keys were deleted.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteRangeResponse {
    /// The header's revision: that of the deletion, or the store's if no key existed.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// How many keys were deleted.
    #[prost(int64, tag = "2")]
    pub deleted: i64,
    /// The deleted keys and values, in the order of the keys, if they were requested.
    #[prost(message, repeated, tag = "3")]
    pub prev_kvs: Vec<KeyValue>,
}

/// How a comparison must come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum CompareResult {
    /// The key's value is equal to the operand.
    Equal = 0,
    /// The key's value is greater.
    Greater = 1,
    /// The key's value is less.
    Less = 2,
    /// The key's value differs.
    NotEqual = 3,
}

/// What is compared, and with which operand. On etcd's wire the two are separate: if the operand is
/// missing or of another kind than the target, it counts as 0, or as empty.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum CompareTarget {
    /// [`KeyValue::version`].
    #[prost(int64, tag = "4")]
    Version(i64),
    /// [`KeyValue::create_revision`].
    #[prost(int64, tag = "5")]
    Create(i64),
    /// [`KeyValue::mod_revision`].
    #[prost(int64, tag = "6")]
    Mod(i64),
    /// [`KeyValue::value`].
    #[prost(bytes = "bytes", tag = "7")]
    Value(Bytes),
    /// [`KeyValue::lease`].
    #[prost(int64, tag = "8")]
    Lease(i64),
}

/// A condition on a key, or on each key of a range.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Compare {
    /// The key, or the first of the range.
    #[prost(bytes = "bytes", tag = "3")]
    pub key: Bytes,
    /// As in [`RangeRequest::range_end`].
    #[prost(bytes = "bytes", tag = "64")]
    pub range_end: Bytes,
    /// How the comparison must come out.
    #[prost(enumeration = "CompareResult", tag = "1")]
    pub result: i32,
    /// What is compared, and with which operand.
    #[prost(oneof = "CompareTarget", tags = "4, 5, 6, 7, 8")]
    pub target: Option<CompareTarget>,
}

/// One operation of a transaction. Without an [`Operation`] it is always refused.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RequestOp {
    /// What is to be done.
    #[prost(oneof = "Operation", tags = "1, 2, 3, 4")]
    pub operation: Option<Operation>,
}

/// What a [`RequestOp`] is to do.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Operation {
    /// Reads; sees the earlier operations of the transaction.
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    /// Sets a key.
    #[prost(message, tag = "2")]
    Put(PutRequest),
    /// Deletes keys.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
    /// A nested transaction; its comparisons see the state before the outermost one.
    #[prost(message, boxed, tag = "4")]
    Txn(Box<TxnRequest>),
}

impl From<Operation> for RequestOp {
    fn from(operation: Operation) -> RequestOp {
        RequestOp { operation: Some(operation) }
    }
}

/// What was done for a [`RequestOp`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ResponseOp {
    /// The response, of the same kind as the operation; always there.
    #[prost(oneof = "OperationResponse", tags = "1, 2, 3, 4")]
    pub response: Option<OperationResponse>,
}

/// What was done for an [`Operation`], of the same kind.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum OperationResponse {
    /// For a range.
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    /// For a put.
    #[prost(message, tag = "2")]
    Put(PutResponse),
    /// For a deletion.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeResponse),
    /// For a transaction. Its revision is 0: etcd's inner header is present, but empty.
    #[prost(message, boxed, tag = "4")]
    Txn(Box<TxnResponse>),
}

impl From<OperationResponse> for ResponseOp {
    fn from(response: OperationResponse) -> ResponseOp {
        ResponseOp { response: Some(response) }
    }
}

/// Does `success` if all comparisons hold, otherwise `failure`: all of it or nothing.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TxnRequest {
    /// The conditions; none always holds.
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// What is done if they hold.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    /// What is done if they don't.
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

impl TxnRequest {
    /// Whether both branches only read, so that the log is not needed. As in etcd, a nested transaction
    /// counts as a write.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.operations().all(|op| matches!(&op.operation, Some(Operation::Range(_))))
    }

    /// Whether both branches hold nothing but serializable reads.
    #[must_use]
    pub fn is_serializable(&self) -> bool {
        self.operations().all(|op| matches!(&op.operation, Some(Operation::Range(range)) if range.serializable))
    }

    fn operations(&self) -> impl Iterator<Item = &RequestOp> {
        self.success.iter().chain(&self.failure)
    }
}

/// What a transaction did.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TxnResponse {
    /// The header's revision: that of the transaction if it wrote, else the store's; 0 in a nested one.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// Whether the comparisons held.
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    /// One for each operation of the branch that was taken.
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<ResponseOp>,
}

/// Gives up the records that only readers at older revisions can see.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct CompactionRequest {
    /// The oldest revision that stays readable.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// Whether to answer only when the records are removed: see [`Store::is_scrubbed`](super::Store::is_scrubbed).
    /// The store always answers at once; the host has to wait.
    #[prost(bool, tag = "2")]
    pub physical: bool,
}

/// The compaction is in force.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct CompactionResponse {
    /// The header's revision.
    #[prost(int64, tag = "1")]
    pub revision: i64,
}

/// Makes a lease.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseGrantRequest {
    /// Its identity, chosen by whoever proposes it; never 0.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Its time to live in seconds; 1 to [`MAX_LEASE_TTL`](super::MAX_LEASE_TTL).
    #[prost(int64, tag = "2")]
    pub ttl: i64,
}

/// The lease was made.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseGrantResponse {
    /// The header's revision: the store's.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// As in the request.
    #[prost(int64, tag = "2")]
    pub id: i64,
    /// As in the request.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}

/// Ends a lease, and deletes its keys.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseRevokeRequest {
    /// Its identity.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// The lease is gone.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseRevokeResponse {
    /// The header's revision: that of the deletion, or the store's if no key was attached.
    #[prost(int64, tag = "1")]
    pub revision: i64,
}

/// Ends leases that a leader found expired, one after the other; each has a revision of its own if keys are
/// attached to it. A lease that is gone, or whose identity belongs to another lease by now, is ignored.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LeaseExpireRequest {
    /// Which leases.
    #[prost(message, repeated, tag = "1")]
    pub leases: Vec<ExpiredLease>,
}

/// A lease that a leader found expired.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ExpiredLease {
    /// Its identity.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Index of the entry that granted it: another lease may have the identity by now.
    #[prost(uint64, tag = "2")]
    pub granted_at: u64,
}

/// The leases are gone.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseExpireResponse {
    /// The header's revision: the store's after it.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// How many leases it ended.
    #[prost(uint64, tag = "2")]
    pub expired: u64,
}

/// Raises the version of the cluster: see [`Store::cluster_version`](super::Store::cluster_version).
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ClusterVersionRequest {
    /// The version that every member speaks. If it is not greater than the present one, nothing changes.
    #[prost(uint32, tag = "1")]
    pub version: u32,
}

/// The version of the cluster is at least the requested one.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ClusterVersionResponse {
    /// The header's revision: the store's.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// The version that is now in force.
    #[prost(uint32, tag = "2")]
    pub version: u32,
}

/// What an alarm says. The numbers are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AlarmKind {
    /// Nothing: no alarm has this kind. In a query it stands for all kinds.
    None = 0,
    /// A member has no space for more data.
    NoSpace = 1,
    /// A member's state differs from that of the others.
    Corrupt = 2,
}

/// An active alarm.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Alarm {
    /// The member that it is about.
    #[prost(uint64, tag = "1")]
    pub member: u64,
    /// What it says.
    #[prost(enumeration = "AlarmKind", tag = "2")]
    pub kind: i32,
    /// Whether the member has raised it by itself, and takes it back by itself.
    #[prost(bool, tag = "3")]
    pub automatic: bool,
}

/// Activates or deactivates an alarm.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct AlarmRequest {
    /// The member that it is about.
    #[prost(uint64, tag = "1")]
    pub member: u64,
    /// Its kind; nothing changes if it is [`AlarmKind::None`].
    #[prost(enumeration = "AlarmKind", tag = "2")]
    pub kind: i32,
    /// Whether the member does this by itself: then an operator's alarm does not change.
    #[prost(bool, tag = "3")]
    pub automatic: bool,
    /// Whether it is activated.
    #[prost(bool, tag = "4")]
    pub active: bool,
}

/// Alarms.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AlarmResponse {
    /// The header's revision: the store's.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// The alarm that is now active, or no longer; or those that were asked for.
    #[prost(message, repeated, tag = "2")]
    pub alarms: Vec<Alarm>,
}

/// The record of a member.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Member {
    /// Its id; never 0.
    #[prost(fixed64, tag = "1")]
    pub id: u64,
    /// Its name, up to 300 bytes; empty until it has started once.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Where other members reach it: up to 16 addresses of up to 300 bytes each.
    #[prost(string, repeated, tag = "3")]
    pub peer_urls: Vec<String>,
    /// Where clients reach it, likewise; empty until it has started once.
    #[prost(string, repeated, tag = "4")]
    pub client_urls: Vec<String>,
    /// Whether it is to stay a learner until an operator promotes it. Another member becomes a voter by itself.
    #[prost(bool, tag = "5")]
    pub is_learner: bool,
    /// The incarnation of its data folder; 0 until it has started once. With another folder it may not take part.
    #[prost(fixed64, tag = "6")]
    pub incarnation: u64,
}

/// Changes the record of a member.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MemberRequest {
    /// The change.
    #[prost(oneof = "MemberChange", tags = "1, 2, 3, 4, 5, 6")]
    pub change: Option<MemberChange>,
}

/// A change of the record of a member.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum MemberChange {
    /// An operator adds a member.
    #[prost(message, tag = "1")]
    Add(Member),
    /// A member of the configuration gets a record, if it has none.
    #[prost(message, tag = "2")]
    Adopt(Member),
    /// An operator changes the addresses of a member for others.
    #[prost(message, tag = "3")]
    Update(MemberUrls),
    /// An operator removes a member.
    #[prost(fixed64, tag = "4")]
    Remove(u64),
    /// A member publishes its name, its addresses for clients and the incarnation of its folder.
    #[prost(message, tag = "5")]
    Publish(Member),
    /// A learner is one no longer.
    #[prost(fixed64, tag = "6")]
    Promote(u64),
}

/// Addresses of a member for other members.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MemberUrls {
    /// The member.
    #[prost(fixed64, tag = "1")]
    pub id: u64,
    /// The addresses.
    #[prost(string, repeated, tag = "2")]
    pub peer_urls: Vec<String>,
}

/// The records after a change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MemberResponse {
    /// The header's revision: the store's.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// All records, in the order of their ids.
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<Member>,
}

/// A step of the comparison of the members' states.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct CompareRequest {
    /// The step.
    #[prost(oneof = "CompareStep", tags = "1, 2, 3")]
    pub step: Option<CompareStep>,
}

/// A step of the comparison of the members' states.
#[derive(Clone, Copy, PartialEq, Eq, prost::Oneof)]
pub enum CompareStep {
    /// Each member is to report the checksum of the effects of all commands before this one.
    #[prost(message, tag = "1")]
    Mark(()),
    /// A member's checksum of effects at the latest mark.
    #[prost(message, tag = "2")]
    Effects(MemberChecksum),
    /// A member's checksum of the history at a compaction.
    #[prost(message, tag = "3")]
    Compaction(MemberChecksum),
}

/// The checksum that a member reports.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct MemberChecksum {
    /// The member.
    #[prost(fixed64, tag = "1")]
    pub member: u64,
    /// The index of the mark, or the revision of the compaction.
    #[prost(int64, tag = "2")]
    pub at: i64,
    /// The checksum there.
    #[prost(fixed32, tag = "3")]
    pub checksum: u32,
}

/// For a step of the comparison.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct CompareResponse {
    /// The header's revision: the store's.
    #[prost(int64, tag = "1")]
    pub revision: i64,
}

/// Asks for the active alarms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlarmListRequest {
    /// An [`AlarmKind`], or any other number, of which there are no alarms.
    pub kind: i32,
}

/// Asks for a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseTimeToLiveRequest {
    /// Its identity.
    pub id: i64,
    /// Whether to name its keys.
    pub keys: bool,
}

/// A lease, as the state machine knows it. Only the leader knows how long it still lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseTimeToLive {
    /// The header's revision: the store's.
    pub revision: i64,
    /// What was granted; `None` if there is no such lease.
    pub lease: Option<Lease>,
    /// Its keys in order, if they were requested.
    pub keys: Vec<Bytes>,
}

/// Asks for the leases, in the order of their identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseListRequest {
    /// The least identity to return; `i64::MIN` for all.
    pub from: i64,
    /// Most leases to return.
    pub limit: u32,
}

/// Some of the leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseListResponse {
    /// The header's revision: the store's.
    pub revision: i64,
    /// The leases.
    pub leases: Vec<Lease>,
    /// Whether there are more after them.
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
    /// CRC32C over the records up to `hash_revision`. Two are comparable only if their `compact_revision` is the same.
    pub hash: u32,
    /// The compaction whose removals it takes into account: the latest one, or, at the revision of one of the last
    /// ten compactions, the one before that; -1 if there was none.
    pub compact_revision: i64,
    /// The requested revision, or the store's.
    pub hash_revision: i64,
}

/// Asks for the status of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStatusRequest;

/// The status of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// The header's revision.
    pub revision: i64,
    /// The oldest readable revision; -1 before the first compaction.
    pub compact_revision: i64,
    /// Index of the last log entry that the store has seen.
    pub applied: u64,
    /// How many keys there are.
    pub keys: u64,
    /// Bytes that the engine occupies.
    pub db_size: u64,
}

/// The end of the range of all keys that begin with `prefix`: the prefix without trailing `0xff` bytes, its last byte
/// raised by one; or one zero byte (every key from `prefix` on) if it consists only of `0xff`.
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
