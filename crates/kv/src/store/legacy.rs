//! The encoding of commands before they were protobuf messages: a version, a kind, and the fields in order, as
//! little-endian numbers and counted bytes. Such commands are only read, because old logs are still replayed.

use bytes::Bytes;

use super::MAX_TXN_DEPTH;
use super::codec::{CodecError, Source};
use super::command::Command;
use super::types::{
    CompactionRequest, Compare, CompareTarget, DeleteRangeRequest, ExpiredLease, LeaseExpireRequest, LeaseGrantRequest,
    LeaseRevokeRequest, Operation, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// First byte of such a command.
pub(crate) const VERSION: u8 = 1;

/// Reads what follows the first byte.
///
/// # Errors
/// The bytes are no such command; the error says why.
pub(crate) fn read(bytes: &[u8]) -> Result<Command, CodecError> {
    let mut source = Source::new(bytes);
    let command = match source.u8("command")? {
        1 => Command::Put(source.put()?),
        2 => Command::DeleteRange(source.delete()?),
        3 => Command::Txn(source.txn(MAX_TXN_DEPTH)?),
        4 => Command::Compact(CompactionRequest {
            revision: source.i64("revision")?,
            physical: source.bool("physical")?,
        }),
        5 => Command::LeaseGrant(LeaseGrantRequest { id: source.i64("lease")?, ttl: source.i64("ttl")? }),
        6 => Command::LeaseRevoke(LeaseRevokeRequest { id: source.i64("lease")? }),
        7 => {
            let lease = |source: &mut Source<'_>| {
                Ok(ExpiredLease { id: source.i64("lease")?, granted_at: source.u64("granted_at")? })
            };
            Command::LeaseExpire(LeaseExpireRequest { leases: source.list("leases", lease)? })
        }
        value => return Err(CodecError::Unknown { field: "command", value }),
    };
    source.end()?;
    Ok(command)
}

impl Source<'_> {
    fn option(&mut self, field: &'static str, greatest: u8) -> Result<i32, CodecError> {
        match self.u8(field)? {
            value if value <= greatest => Ok(value.into()),
            value => Err(CodecError::Unknown { field, value }),
        }
    }

    fn range(&mut self) -> Result<RangeRequest, CodecError> {
        Ok(RangeRequest {
            key: self.bytes("key")?,
            range_end: self.bytes("range_end")?,
            limit: self.i64("limit")?,
            revision: self.i64("revision")?,
            sort_order: self.option("sort_order", 2)?,
            sort_target: self.option("sort_target", 4)?,
            serializable: self.bool("serializable")?,
            keys_only: self.bool("keys_only")?,
            count_only: self.bool("count_only")?,
            min_mod_revision: self.i64("min_mod_revision")?,
            max_mod_revision: self.i64("max_mod_revision")?,
            min_create_revision: self.i64("min_create_revision")?,
            max_create_revision: self.i64("max_create_revision")?,
        })
    }

    fn put(&mut self) -> Result<PutRequest, CodecError> {
        Ok(PutRequest {
            key: self.bytes("key")?,
            value: self.bytes("value")?,
            lease: self.i64("lease")?,
            prev_kv: self.bool("prev_kv")?,
            ignore_value: self.bool("ignore_value")?,
            ignore_lease: self.bool("ignore_lease")?,
        })
    }

    fn delete(&mut self) -> Result<DeleteRangeRequest, CodecError> {
        Ok(DeleteRangeRequest {
            key: self.bytes("key")?,
            range_end: self.bytes("range_end")?,
            prev_kv: self.bool("prev_kv")?,
        })
    }

    fn compare(&mut self) -> Result<Compare, CodecError> {
        let (key, range_end): (Bytes, Bytes) = (self.bytes("key")?, self.bytes("range_end")?);
        let result = self.option("result", 3)?;
        let target = match self.option("target", 4)? {
            0 => CompareTarget::Version(self.i64("version")?),
            1 => CompareTarget::Create(self.i64("create_revision")?),
            2 => CompareTarget::Mod(self.i64("mod_revision")?),
            3 => CompareTarget::Value(self.bytes("value")?),
            _ => CompareTarget::Lease(self.i64("lease")?),
        };
        Ok(Compare { key, range_end, result, target: Some(target) })
    }

    fn operation(&mut self, depth: usize) -> Result<RequestOp, CodecError> {
        Ok(match self.option("operation", 4)? {
            0 => return Ok(RequestOp::default()),
            1 => Operation::Range(self.range()?),
            2 => Operation::Put(self.put()?),
            3 => Operation::DeleteRange(self.delete()?),
            _ => Operation::Txn(Box::new(self.txn(depth)?)),
        }
        .into())
    }

    /// At most `depth` levels are allowed, including this one.
    fn txn(&mut self, depth: usize) -> Result<TxnRequest, CodecError> {
        let depth = depth.checked_sub(1).ok_or(CodecError::TooDeep)?;
        Ok(TxnRequest {
            compare: self.list("compare", Source::compare)?,
            success: self.list("success", |source| source.operation(depth))?,
            failure: self.list("failure", |source| source.operation(depth))?,
        })
    }
}
