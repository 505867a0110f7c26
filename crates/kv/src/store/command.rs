//! Commands, and their bytes: a version, a kind, and the fields in order.
//!
//! Kinds are never used again for something else; new ones take new numbers. A program that
//! does not know a kind answers [`KvError::Unreadable`](super::KvError::Unreadable), so a kind must
//! not be proposed before every replica knows it.

use bowline_node::raft::Index;
use bytes::Bytes;

use super::MAX_TXN_DEPTH;
use super::codec::{CodecError, Counter, Sink, Source};
use super::types::{
    CompactionRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, LeaseExpireRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, SortOrder, SortTarget, TxnRequest,
};

/// First byte of commands.
const VERSION: u8 = 1;

/// A change of the store, as it goes through the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sets a key.
    Put(PutRequest),
    /// Deletes keys.
    DeleteRange(DeleteRangeRequest),
    /// Compares, reads and writes at once.
    Txn(TxnRequest),
    /// Gives up old revisions.
    Compact(CompactionRequest),
    /// Makes a lease.
    LeaseGrant(LeaseGrantRequest),
    /// Ends a lease.
    LeaseRevoke(LeaseRevokeRequest),
    /// Ends leases whose time is over.
    LeaseExpire(LeaseExpireRequest),
}

impl Command {
    /// The bytes that go into the log.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.write(&mut out);
        out.into()
    }

    /// How many bytes [`Command::encode`] gives.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let mut counter = Counter::default();
        self.write(&mut counter);
        counter.0
    }

    fn write(&self, out: &mut impl Sink) {
        out.u8(VERSION);
        match self {
            Command::Put(put) => {
                out.u8(1);
                put.write(out);
            }
            Command::DeleteRange(delete) => {
                out.u8(2);
                delete.write(out);
            }
            Command::Txn(txn) => {
                out.u8(3);
                txn.write(out);
            }
            Command::Compact(compaction) => {
                out.u8(4);
                out.i64(compaction.revision);
                out.bool(compaction.physical);
            }
            Command::LeaseGrant(grant) => {
                out.u8(5);
                out.i64(grant.id);
                out.i64(grant.ttl);
            }
            Command::LeaseRevoke(revoke) => {
                out.u8(6);
                out.i64(revoke.id);
            }
            Command::LeaseExpire(expire) => {
                out.u8(7);
                out.length(expire.leases.len());
                for (id, granted_at) in &expire.leases {
                    out.i64(*id);
                    out.u64(granted_at.0);
                }
            }
        }
    }

    /// The number of the kind of command that these bytes are, without reading any further; 0 if they are none.
    #[must_use]
    pub fn kind_of(bytes: &[u8]) -> u8 {
        match bytes {
            [VERSION, kind, ..] => *kind,
            _ => 0,
        }
    }

    /// Reads what [`Command::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are something else; says what.
    pub fn decode(bytes: &[u8]) -> Result<Command, CodecError> {
        let mut source = Source::versioned(bytes, VERSION)?;
        let command = match source.u8("command")? {
            1 => Command::Put(PutRequest::read(&mut source)?),
            2 => Command::DeleteRange(DeleteRangeRequest::read(&mut source)?),
            3 => Command::Txn(TxnRequest::read(&mut source, MAX_TXN_DEPTH)?),
            4 => Command::Compact(CompactionRequest {
                revision: source.i64("revision")?,
                physical: source.bool("physical")?,
            }),
            5 => Command::LeaseGrant(LeaseGrantRequest { id: source.i64("lease")?, ttl: source.i64("ttl")? }),
            6 => Command::LeaseRevoke(LeaseRevokeRequest { id: source.i64("lease")? }),
            7 => {
                let lease = |source: &mut Source<'_>| Ok((source.i64("lease")?, Index(source.u64("granted_at")?)));
                Command::LeaseExpire(LeaseExpireRequest { leases: source.list("leases", lease)? })
            }
            value => return Err(CodecError::Unknown { field: "command", value }),
        };
        source.end()?;
        Ok(command)
    }
}

impl RangeRequest {
    pub(crate) fn write(&self, out: &mut impl Sink) {
        out.bytes(&self.key);
        out.bytes(&self.range_end);
        out.i64(self.limit);
        out.i64(self.revision);
        out.u8(match self.sort_order {
            SortOrder::None => 0,
            SortOrder::Ascend => 1,
            SortOrder::Descend => 2,
        });
        out.u8(match self.sort_target {
            SortTarget::Key => 0,
            SortTarget::Version => 1,
            SortTarget::Create => 2,
            SortTarget::Mod => 3,
            SortTarget::Value => 4,
        });
        out.bool(self.serializable);
        out.bool(self.keys_only);
        out.bool(self.count_only);
        out.i64(self.min_mod_revision);
        out.i64(self.max_mod_revision);
        out.i64(self.min_create_revision);
        out.i64(self.max_create_revision);
    }

    fn read(source: &mut Source<'_>) -> Result<RangeRequest, CodecError> {
        Ok(RangeRequest {
            key: source.bytes("key")?,
            range_end: source.bytes("range_end")?,
            limit: source.i64("limit")?,
            revision: source.i64("revision")?,
            sort_order: read_named(source, "sort_order", |n| SortOrder::from_wire(n).ok())?,
            sort_target: read_named(source, "sort_target", |n| SortTarget::from_wire(n).ok())?,
            serializable: source.bool("serializable")?,
            keys_only: source.bool("keys_only")?,
            count_only: source.bool("count_only")?,
            min_mod_revision: source.i64("min_mod_revision")?,
            max_mod_revision: source.i64("max_mod_revision")?,
            min_create_revision: source.i64("min_create_revision")?,
            max_create_revision: source.i64("max_create_revision")?,
        })
    }
}

impl PutRequest {
    fn write(&self, out: &mut impl Sink) {
        out.bytes(&self.key);
        out.bytes(&self.value);
        out.i64(self.lease);
        out.bool(self.prev_kv);
        out.bool(self.ignore_value);
        out.bool(self.ignore_lease);
    }

    fn read(source: &mut Source<'_>) -> Result<PutRequest, CodecError> {
        Ok(PutRequest {
            key: source.bytes("key")?,
            value: source.bytes("value")?,
            lease: source.i64("lease")?,
            prev_kv: source.bool("prev_kv")?,
            ignore_value: source.bool("ignore_value")?,
            ignore_lease: source.bool("ignore_lease")?,
        })
    }
}

impl DeleteRangeRequest {
    fn write(&self, out: &mut impl Sink) {
        out.bytes(&self.key);
        out.bytes(&self.range_end);
        out.bool(self.prev_kv);
    }

    fn read(source: &mut Source<'_>) -> Result<DeleteRangeRequest, CodecError> {
        Ok(DeleteRangeRequest {
            key: source.bytes("key")?,
            range_end: source.bytes("range_end")?,
            prev_kv: source.bool("prev_kv")?,
        })
    }
}

impl Compare {
    fn write(&self, out: &mut impl Sink) {
        out.bytes(&self.key);
        out.bytes(&self.range_end);
        out.u8(match self.result {
            CompareResult::Equal => 0,
            CompareResult::Greater => 1,
            CompareResult::Less => 2,
            CompareResult::NotEqual => 3,
        });
        let (kind, number) = match &self.target {
            CompareTarget::Version(number) => (0, number),
            CompareTarget::Create(number) => (1, number),
            CompareTarget::Mod(number) => (2, number),
            CompareTarget::Lease(number) => (4, number),
            CompareTarget::Value(value) => {
                out.u8(3);
                out.bytes(value);
                return;
            }
        };
        out.u8(kind);
        out.i64(*number);
    }

    fn read(source: &mut Source<'_>) -> Result<Compare, CodecError> {
        Ok(Compare {
            key: source.bytes("key")?,
            range_end: source.bytes("range_end")?,
            result: read_named(source, "result", CompareResult::from_wire)?,
            target: match source.u8("target")? {
                0 => CompareTarget::Version(source.i64("version")?),
                1 => CompareTarget::Create(source.i64("create_revision")?),
                2 => CompareTarget::Mod(source.i64("mod_revision")?),
                3 => CompareTarget::Value(source.bytes("value")?),
                4 => CompareTarget::Lease(source.i64("lease")?),
                value => return Err(CodecError::Unknown { field: "target", value }),
            },
        })
    }
}

impl RequestOp {
    fn write(&self, out: &mut impl Sink) {
        match self {
            RequestOp::Empty => out.u8(0),
            RequestOp::Range(range) => {
                out.u8(1);
                range.write(out);
            }
            RequestOp::Put(put) => {
                out.u8(2);
                put.write(out);
            }
            RequestOp::DeleteRange(delete) => {
                out.u8(3);
                delete.write(out);
            }
            RequestOp::Txn(txn) => {
                out.u8(4);
                txn.write(out);
            }
        }
    }

    fn read(source: &mut Source<'_>, depth: usize) -> Result<RequestOp, CodecError> {
        Ok(match source.u8("operation")? {
            0 => RequestOp::Empty,
            1 => RequestOp::Range(RangeRequest::read(source)?),
            2 => RequestOp::Put(PutRequest::read(source)?),
            3 => RequestOp::DeleteRange(DeleteRangeRequest::read(source)?),
            4 => RequestOp::Txn(Box::new(TxnRequest::read(source, depth)?)),
            value => return Err(CodecError::Unknown { field: "operation", value }),
        })
    }
}

impl TxnRequest {
    pub(crate) fn write(&self, out: &mut impl Sink) {
        out.length(self.compare.len());
        self.compare.iter().for_each(|compare| compare.write(out));
        for branch in [&self.success, &self.failure] {
            out.length(branch.len());
            branch.iter().for_each(|op| op.write(out));
        }
    }

    /// `depth` levels may follow, this one included.
    fn read(source: &mut Source<'_>, depth: usize) -> Result<TxnRequest, CodecError> {
        let depth = depth.checked_sub(1).ok_or(CodecError::TooDeep)?;
        Ok(TxnRequest {
            compare: source.list("compare", Compare::read)?,
            success: source.list("success", |source| RequestOp::read(source, depth))?,
            failure: source.list("failure", |source| RequestOp::read(source, depth))?,
        })
    }
}

fn read_named<T>(
    source: &mut Source<'_>,
    field: &'static str,
    name: impl FnOnce(i32) -> Option<T>,
) -> Result<T, CodecError> {
    let value = source.u8(field)?;
    name(value.into()).ok_or(CodecError::Unknown { field, value })
}
