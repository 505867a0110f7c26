//! Commands, and their encoding in the log: protobuf messages.
//!
//! The number of a kind is never reused. A member that does not know a kind or a field can't do
//! what the command says, and its state would differ from that of the others. So neither may be proposed before the
//! cluster has the version that introduced it: see [`Store::cluster_version`](super::Store::cluster_version).

use bytes::Bytes;
use prost::Message;

use super::MAX_FIELD_BYTES;
use super::codec::CodecError;
use super::legacy;
use super::types::{
    AlarmRequest, ClusterVersionRequest, CompactionRequest, CompareRequest, DeleteRangeRequest, LeaseExpireRequest,
    LeaseGrantRequest, LeaseRevokeRequest, MemberRequest, PutRequest, TxnRequest,
};

/// A change of the store, as it goes through the log.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Command {
    /// Sets a key.
    #[prost(message, tag = "1")]
    Put(PutRequest),
    /// Deletes keys.
    #[prost(message, tag = "2")]
    DeleteRange(DeleteRangeRequest),
    /// Compares, reads and writes at once.
    #[prost(message, tag = "3")]
    Txn(TxnRequest),
    /// Gives up old revisions.
    #[prost(message, tag = "4")]
    Compact(CompactionRequest),
    /// Makes a lease.
    #[prost(message, tag = "5")]
    LeaseGrant(LeaseGrantRequest),
    /// Ends a lease.
    #[prost(message, tag = "6")]
    LeaseRevoke(LeaseRevokeRequest),
    /// Ends leases whose time is over.
    #[prost(message, tag = "7")]
    LeaseExpire(LeaseExpireRequest),
    /// Raises the version of the cluster.
    #[prost(message, tag = "8")]
    ClusterVersion(ClusterVersionRequest),
    /// Activates or deactivates an alarm. Version 5 of the cluster introduced it.
    #[prost(message, tag = "9")]
    Alarm(AlarmRequest),
    /// Changes the record of a member. Version 6 of the cluster introduced it.
    #[prost(message, tag = "10")]
    Member(MemberRequest),
    /// Compares the members' states. Version 7 of the cluster introduced it.
    #[prost(message, tag = "11")]
    Compare(CompareRequest),
}

/// The message in the log.
#[derive(Clone, PartialEq, prost::Message)]
struct LogCommand {
    #[prost(oneof = "Command", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    command: Option<Command>,
}

impl Command {
    /// The bytes that go into the log.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.encode(&mut out);
        out.into()
    }

    /// The number of the command's kind, from its first bytes alone; 0 if there are no bytes.
    #[must_use]
    pub fn kind_of(bytes: &[u8]) -> u8 {
        match bytes {
            [legacy::VERSION, kind, ..] => *kind,
            // A message begins with the number of its first field; the low three bits are the wire type.
            [byte, ..] => byte >> 3,
            [] => 0,
        }
    }

    /// Reads what [`Command::to_bytes`] wrote. Ignores fields that this program does not know.
    ///
    /// # Errors
    /// The bytes are no command that this program knows, or longer than [`MAX_FIELD_BYTES`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Command, CodecError> {
        if bytes.len() > MAX_FIELD_BYTES {
            return Err(CodecError::Long { field: "command", length: bytes.len() });
        }
        // No protobuf message begins with this byte: its field would have the number 0.
        if let [legacy::VERSION, rest @ ..] = bytes {
            return legacy::read(rest);
        }
        LogCommand::decode(bytes)?.command.ok_or(CodecError::UnknownCommand)
    }
}
