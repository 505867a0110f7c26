//! What commands are answered, and its bytes.

use bowline_node::raft::Index;
use bytes::Bytes;

use super::codec::{CodecError, Sink, Source};
use super::types::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, KeyValue, LeaseExpireRequest,
    LeaseExpireResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest,
    PutResponse, RangeResponse, ResponseOp, TxnRequest, TxnResponse,
};
use super::{Command, KvError, Lease, MAX_TXN_DEPTH};

/// First byte of a reply.
const VERSION: u8 = 1;

/// What a command did, or why not.
pub type Reply = Result<Response, KvError>;

/// What a command did. On the wire 1, 6, 7, 11 and 12 were answers to queries, and are not used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// For a put.
    Put(PutResponse),
    /// For a deletion.
    DeleteRange(DeleteRangeResponse),
    /// For a transaction.
    Txn(TxnResponse),
    /// For a compaction.
    Compact(CompactionResponse),
    /// For a lease that is made.
    LeaseGrant(LeaseGrantResponse),
    /// For a lease that is ended.
    LeaseRevoke(LeaseRevokeResponse),
    /// For leases whose time is over.
    LeaseExpire(LeaseExpireResponse),
}

/// A request that changes the store, with the type of its response.
pub trait Change: Into<Command> {
    /// What it is answered.
    type Response;

    /// Its response, if that is what this is.
    fn response(response: Response) -> Option<Self::Response>;
}

macro_rules! changes {
    ($($variant:ident: $request:ident => $response:ident),* $(,)?) => {$(
        impl From<$request> for Command {
            fn from(request: $request) -> Command {
                Command::$variant(request)
            }
        }

        impl Change for $request {
            type Response = $response;

            fn response(response: Response) -> Option<$response> {
                if let Response::$variant(response) = response { Some(response) } else { None }
            }
        }
    )*

        impl Response {
            /// The header's revision.
            #[must_use]
            pub fn revision(&self) -> i64 {
                match self {
                    $(Response::$variant(response) => response.revision,)*
                }
            }
        }
    };
}

changes! {
    Put: PutRequest => PutResponse,
    DeleteRange: DeleteRangeRequest => DeleteRangeResponse,
    Txn: TxnRequest => TxnResponse,
    Compact: CompactionRequest => CompactionResponse,
    LeaseGrant: LeaseGrantRequest => LeaseGrantResponse,
    LeaseRevoke: LeaseRevokeRequest => LeaseRevokeResponse,
    LeaseExpire: LeaseExpireRequest => LeaseExpireResponse,
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

/// Whether the bytes of a reply say that something was done, without reading any further.
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

/// Reads the reply to a change, and says at which revision it was answered.
///
/// # Errors
/// The bytes are something else, or the response to another kind of request; says what.
pub fn decode_reply_to<C: Change>(bytes: &[u8]) -> Result<Result<(C::Response, i64), KvError>, CodecError> {
    match decode_reply(bytes)? {
        Ok(response) => {
            let revision = response.revision();
            C::response(response).map(|response| Ok((response, revision))).ok_or(CodecError::OtherResponse)
        }
        Err(error) => Ok(Err(error)),
    }
}

impl Response {
    fn write(&self, out: &mut impl Sink) {
        match self {
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
        }
    }

    fn read(source: &mut Source<'_>) -> Result<Response, CodecError> {
        Ok(match source.u8("response")? {
            2 => Response::Put(PutResponse::read(source)?),
            3 => Response::DeleteRange(DeleteRangeResponse::read(source)?),
            4 => Response::Txn(TxnResponse::read(source, MAX_TXN_DEPTH)?),
            5 => Response::Compact(CompactionResponse { revision: source.i64("revision")? }),
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
