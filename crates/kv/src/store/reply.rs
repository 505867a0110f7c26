//! What the store answers, and its bytes.

use bowline_node::raft::Index;
use bytes::Bytes;

use super::codec::{CodecError, Sink, Source};
use super::types::{
    CompactionResponse, DeleteRangeResponse, HashKv, KeyValue, LeaseExpireResponse, LeaseGrantResponse,
    LeaseListResponse, LeaseRevokeResponse, LeaseTimeToLive, PutResponse, RangeResponse, ResponseOp, StoreStatus,
    TxnResponse,
};
use super::{KvError, Lease, MAX_TXN_DEPTH};

/// First byte of a reply.
const VERSION: u8 = 1;

/// What a command did or a query found, or why not.
pub type Reply = Result<Response, KvError>;

/// What a command did, or a query found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// For a range.
    Range(RangeResponse),
    /// For a put.
    Put(PutResponse),
    /// For a deletion.
    DeleteRange(DeleteRangeResponse),
    /// For a transaction.
    Txn(TxnResponse),
    /// For a compaction.
    Compact(CompactionResponse),
    /// For a checksum.
    HashKv(HashKv),
    /// For the store's status.
    Status(StoreStatus),
    /// For a lease that is made.
    LeaseGrant(LeaseGrantResponse),
    /// For a lease that is ended.
    LeaseRevoke(LeaseRevokeResponse),
    /// For leases whose time is over.
    LeaseExpire(LeaseExpireResponse),
    /// For what a lease is.
    LeaseTimeToLive(LeaseTimeToLive),
    /// For which leases there are.
    Leases(LeaseListResponse),
}

/// The errors, by their number on the wire.
const ERRORS: [KvError; 16] = [
    KvError::EmptyKey,
    KvError::KeyNotFound,
    KvError::ValueProvided,
    KvError::LeaseProvided,
    KvError::TooManyOps,
    KvError::DuplicateKey,
    KvError::InvalidSortOption,
    KvError::RequestTooLarge,
    KvError::Compacted,
    KvError::FutureRevision,
    KvError::LeaseNotFound,
    KvError::Stopped,
    KvError::Unreadable,
    KvError::AlreadyApplied,
    KvError::LeaseExists,
    KvError::LeaseTtlTooLarge,
];

/// Whether the bytes of a reply say that something was done or found, without reading any further.
#[must_use]
pub fn is_good_reply(bytes: &[u8]) -> bool {
    matches!(bytes, [VERSION, 0, ..])
}

/// The bytes of a reply.
#[must_use]
pub fn encode_reply(reply: &Reply) -> Bytes {
    let mut out = vec![VERSION];
    match reply {
        Ok(response) => {
            out.u8(0);
            response.write(&mut out);
        }
        Err(error) => {
            out.u8(1);
            let number = ERRORS.iter().position(|known| known == error).expect("the table holds every error");
            out.u8(u8::try_from(number).expect("the table is short"));
        }
    }
    out.into()
}

/// Reads what [`encode_reply`] wrote.
///
/// # Errors
/// The bytes are something else; says what.
pub fn decode_reply(bytes: &[u8]) -> Result<Reply, CodecError> {
    let mut source = Source::versioned(bytes, VERSION)?;
    let reply = match source.u8("outcome")? {
        0 => Ok(Response::read(&mut source)?),
        1 => {
            let value = source.u8("error")?;
            Err(*ERRORS.get(usize::from(value)).ok_or(CodecError::Unknown { field: "error", value })?)
        }
        value => return Err(CodecError::Unknown { field: "outcome", value }),
    };
    source.end()?;
    Ok(reply)
}

impl Response {
    fn write(&self, out: &mut impl Sink) {
        match self {
            Response::Range(range) => {
                out.u8(1);
                range.write(out);
            }
            Response::Put(put) => {
                out.u8(2);
                put.write(out);
            }
            Response::DeleteRange(delete) => {
                out.u8(3);
                delete.write(out);
            }
            Response::Txn(txn) => {
                out.u8(4);
                txn.write(out);
            }
            Response::Compact(compaction) => {
                out.u8(5);
                out.i64(compaction.revision);
            }
            Response::HashKv(hash) => {
                out.u8(6);
                out.i64(hash.revision);
                out.u32(hash.hash);
                out.i64(hash.compact_revision);
                out.i64(hash.hash_revision);
            }
            Response::Status(status) => {
                out.u8(7);
                out.i64(status.revision);
                out.i64(status.compact_revision);
                out.u64(status.applied);
                out.u64(status.keys);
                out.u64(status.db_size);
            }
            Response::LeaseGrant(grant) => {
                out.u8(8);
                out.i64(grant.revision);
                out.i64(grant.id);
                out.i64(grant.ttl);
            }
            Response::LeaseRevoke(revoke) => {
                out.u8(9);
                out.i64(revoke.revision);
            }
            Response::LeaseExpire(expire) => {
                out.u8(10);
                out.i64(expire.revision);
                out.u64(expire.expired);
            }
            Response::LeaseTimeToLive(found) => {
                out.u8(11);
                found.write(out);
            }
            Response::Leases(list) => {
                out.u8(12);
                list.write(out);
            }
        }
    }

    fn read(source: &mut Source<'_>) -> Result<Response, CodecError> {
        Ok(match source.u8("response")? {
            1 => Response::Range(RangeResponse::read(source)?),
            2 => Response::Put(PutResponse::read(source)?),
            3 => Response::DeleteRange(DeleteRangeResponse::read(source)?),
            4 => Response::Txn(TxnResponse::read(source, MAX_TXN_DEPTH)?),
            5 => Response::Compact(CompactionResponse { revision: source.i64("revision")? }),
            6 => Response::HashKv(HashKv {
                revision: source.i64("revision")?,
                hash: source.u32("hash")?,
                compact_revision: source.i64("compact_revision")?,
                hash_revision: source.i64("hash_revision")?,
            }),
            7 => Response::Status(StoreStatus {
                revision: source.i64("revision")?,
                compact_revision: source.i64("compact_revision")?,
                applied: source.u64("applied")?,
                keys: source.u64("keys")?,
                db_size: source.u64("db_size")?,
            }),
            8 => Response::LeaseGrant(LeaseGrantResponse {
                revision: source.i64("revision")?,
                id: source.i64("lease")?,
                ttl: source.i64("ttl")?,
            }),
            9 => Response::LeaseRevoke(LeaseRevokeResponse { revision: source.i64("revision")? }),
            10 => Response::LeaseExpire(LeaseExpireResponse {
                revision: source.i64("revision")?,
                expired: source.u64("expired")?,
            }),
            11 => Response::LeaseTimeToLive(LeaseTimeToLive::read(source)?),
            12 => Response::Leases(LeaseListResponse::read(source)?),
            value => return Err(CodecError::Unknown { field: "response", value }),
        })
    }
}

impl Lease {
    /// How many bytes a lease takes.
    pub(crate) const BYTES: usize = 24;

    pub(crate) fn write(&self, out: &mut impl Sink) {
        out.i64(self.id);
        out.i64(self.ttl);
        out.u64(self.granted_at.0);
    }

    pub(crate) fn read(source: &mut Source<'_>) -> Result<Lease, CodecError> {
        Ok(Lease { id: source.i64("lease")?, ttl: source.i64("ttl")?, granted_at: Index(source.u64("granted_at")?) })
    }
}

impl LeaseTimeToLive {
    fn write(&self, out: &mut impl Sink) {
        out.i64(self.revision);
        out.bool(self.lease.is_some());
        if let Some(lease) = &self.lease {
            lease.write(out);
        }
        out.length(self.keys.len());
        self.keys.iter().for_each(|key| out.bytes(key));
    }

    fn read(source: &mut Source<'_>) -> Result<LeaseTimeToLive, CodecError> {
        Ok(LeaseTimeToLive {
            revision: source.i64("revision")?,
            lease: if source.bool("found")? { Some(Lease::read(source)?) } else { None },
            keys: source.list("keys", |source| source.bytes("key"))?,
        })
    }
}

impl LeaseListResponse {
    fn write(&self, out: &mut impl Sink) {
        out.i64(self.revision);
        out.length(self.leases.len());
        self.leases.iter().for_each(|lease| lease.write(out));
        out.bool(self.more);
    }

    fn read(source: &mut Source<'_>) -> Result<LeaseListResponse, CodecError> {
        Ok(LeaseListResponse {
            revision: source.i64("revision")?,
            leases: source.list("leases", Lease::read)?,
            more: source.bool("more")?,
        })
    }
}

impl KeyValue {
    fn write(&self, out: &mut impl Sink) {
        out.bytes(&self.key);
        out.bytes(&self.value);
        out.i64(self.create_revision);
        out.i64(self.mod_revision);
        out.i64(self.version);
        out.i64(self.lease);
    }

    fn read(source: &mut Source<'_>) -> Result<KeyValue, CodecError> {
        Ok(KeyValue {
            key: source.bytes("key")?,
            value: source.bytes("value")?,
            create_revision: source.i64("create_revision")?,
            mod_revision: source.i64("mod_revision")?,
            version: source.i64("version")?,
            lease: source.i64("lease")?,
        })
    }
}

fn write_kvs(kvs: &[KeyValue], out: &mut impl Sink) {
    out.length(kvs.len());
    kvs.iter().for_each(|kv| kv.write(out));
}

impl RangeResponse {
    fn write(&self, out: &mut impl Sink) {
        out.i64(self.revision);
        write_kvs(&self.kvs, out);
        out.bool(self.more);
        out.i64(self.count);
    }

    fn read(source: &mut Source<'_>) -> Result<RangeResponse, CodecError> {
        Ok(RangeResponse {
            revision: source.i64("revision")?,
            kvs: source.list("kvs", KeyValue::read)?,
            more: source.bool("more")?,
            count: source.i64("count")?,
        })
    }
}

impl PutResponse {
    fn write(&self, out: &mut impl Sink) {
        out.i64(self.revision);
        out.bool(self.prev_kv.is_some());
        if let Some(kv) = &self.prev_kv {
            kv.write(out);
        }
    }

    fn read(source: &mut Source<'_>) -> Result<PutResponse, CodecError> {
        let revision = source.i64("revision")?;
        let prev_kv = if source.bool("prev_kv")? { Some(KeyValue::read(source)?) } else { None };
        Ok(PutResponse { revision, prev_kv })
    }
}

impl DeleteRangeResponse {
    fn write(&self, out: &mut impl Sink) {
        out.i64(self.revision);
        out.i64(self.deleted);
        write_kvs(&self.prev_kvs, out);
    }

    fn read(source: &mut Source<'_>) -> Result<DeleteRangeResponse, CodecError> {
        Ok(DeleteRangeResponse {
            revision: source.i64("revision")?,
            deleted: source.i64("deleted")?,
            prev_kvs: source.list("prev_kvs", KeyValue::read)?,
        })
    }
}

impl TxnResponse {
    fn write(&self, out: &mut impl Sink) {
        out.i64(self.revision);
        out.bool(self.succeeded);
        out.length(self.responses.len());
        self.responses.iter().for_each(|response| response.write(out));
    }

    fn read(source: &mut Source<'_>, depth: usize) -> Result<TxnResponse, CodecError> {
        let depth = depth.checked_sub(1).ok_or(CodecError::TooDeep)?;
        Ok(TxnResponse {
            revision: source.i64("revision")?,
            succeeded: source.bool("succeeded")?,
            responses: source.list("responses", |source| ResponseOp::read(source, depth))?,
        })
    }
}

impl ResponseOp {
    fn write(&self, out: &mut impl Sink) {
        match self {
            ResponseOp::Range(range) => {
                out.u8(1);
                range.write(out);
            }
            ResponseOp::Put(put) => {
                out.u8(2);
                put.write(out);
            }
            ResponseOp::DeleteRange(delete) => {
                out.u8(3);
                delete.write(out);
            }
            ResponseOp::Txn(txn) => {
                out.u8(4);
                txn.write(out);
            }
        }
    }

    fn read(source: &mut Source<'_>, depth: usize) -> Result<ResponseOp, CodecError> {
        Ok(match source.u8("response")? {
            1 => ResponseOp::Range(RangeResponse::read(source)?),
            2 => ResponseOp::Put(PutResponse::read(source)?),
            3 => ResponseOp::DeleteRange(DeleteRangeResponse::read(source)?),
            4 => ResponseOp::Txn(Box::new(TxnResponse::read(source, depth)?)),
            value => return Err(CodecError::Unknown { field: "response", value }),
        })
    }
}
