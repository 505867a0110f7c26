//! The answers to commands, and their encoding: protobuf messages, whose field numbers never change.

use bytes::{Buf, Bytes};
use prost::Message;

use super::auth::{AuthRequest, AuthResponse};
use super::codec::CodecError;
use super::types::{
    AlarmRequest, AlarmResponse, ClusterVersionRequest, ClusterVersionResponse, CompactionRequest, CompactionResponse,
    CompareRequest, CompareResponse, DeleteRangeRequest, DeleteRangeResponse, LeaseExpireRequest, LeaseExpireResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse, MemberRequest, MemberResponse,
    PutRequest, PutResponse, TxnRequest, TxnResponse,
};
use super::{Command, KvError};

/// The result of a command, or why it was refused.
pub type Reply = Result<Response, KvError>;

/// The result of a command.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Response {
    /// For a put.
    #[prost(message, tag = "1")]
    Put(PutResponse),
    /// For a deletion.
    #[prost(message, tag = "2")]
    DeleteRange(DeleteRangeResponse),
    /// For a transaction.
    #[prost(message, tag = "3")]
    Txn(TxnResponse),
    /// For a compaction.
    #[prost(message, tag = "4")]
    Compact(CompactionResponse),
    /// For a lease that is made.
    #[prost(message, tag = "5")]
    LeaseGrant(LeaseGrantResponse),
    /// For a lease that is ended.
    #[prost(message, tag = "6")]
    LeaseRevoke(LeaseRevokeResponse),
    /// For leases whose time is over.
    #[prost(message, tag = "7")]
    LeaseExpire(LeaseExpireResponse),
    /// For the version of the cluster.
    #[prost(message, tag = "8")]
    ClusterVersion(ClusterVersionResponse),
    /// For an alarm.
    #[prost(message, tag = "9")]
    Alarm(AlarmResponse),
    /// For the record of a member.
    #[prost(message, tag = "10")]
    Member(MemberResponse),
    /// For a comparison of the members' states.
    #[prost(message, tag = "11")]
    Compare(CompareResponse),
    /// For users and roles.
    #[prost(message, tag = "12")]
    Auth(AuthResponse),
}

/// The encoding of a reply: exactly one of the two fields is set.
#[derive(Clone, PartialEq, prost::Message)]
struct ReplyMessage {
    #[prost(oneof = "Response", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    response: Option<Response>,
    #[prost(enumeration = "KvError", optional, tag = "15")]
    error: Option<i32>,
}

/// First byte of a reply that is an error: the number of the field, and its wire type.
const ERROR: u8 = 15 << 3;

/// A request that changes the store, with the type of its response.
pub trait Change: Into<Command> {
    /// The type of the response.
    type Response;

    /// Its response; `None` if this is the response to another kind of request.
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
    ClusterVersion: ClusterVersionRequest => ClusterVersionResponse,
    Alarm: AlarmRequest => AlarmResponse,
    Member: MemberRequest => MemberResponse,
    Compare: CompareRequest => CompareResponse,
    Auth: AuthRequest => AuthResponse,
}

/// Whether a reply is a success, from its first byte alone.
#[must_use]
pub fn is_good_reply(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|byte| *byte != ERROR)
}

/// Encodes a reply.
#[must_use]
pub fn encode_reply(reply: &Reply) -> Bytes {
    match reply {
        Ok(response) => {
            let mut out = Vec::with_capacity(response.encoded_len());
            response.encode(&mut out);
            out.into()
        }
        Err(error) => ReplyMessage { response: None, error: Some((*error).into()) }.encode_to_vec().into(),
    }
}

/// Reads what [`encode_reply`] wrote. If the input is `Bytes`, keys and values share its memory.
///
/// # Errors
/// The bytes are no reply, or the error is unknown to this program.
pub fn decode_reply(bytes: impl Buf) -> Result<Reply, CodecError> {
    let ReplyMessage { response, error } = ReplyMessage::decode(bytes)?;
    match (response, error) {
        (Some(response), None) => Ok(Ok(response)),
        (None, Some(error)) => KvError::try_from(error).map(Err).map_err(|_| CodecError::UnknownError(error)),
        _ => Err(CodecError::UnknownReply),
    }
}

/// Reads the reply to a change, with the revision of its header.
///
/// # Errors
/// The bytes are no reply, or the response to another kind of request.
pub fn decode_reply_to<C: Change>(bytes: impl Buf) -> Result<Result<(C::Response, i64), KvError>, CodecError> {
    match decode_reply(bytes)? {
        Ok(response) => {
            let revision = response.revision();
            C::response(response).map(|response| Ok((response, revision))).ok_or(CodecError::OtherResponse)
        }
        Err(error) => Ok(Err(error)),
    }
}
