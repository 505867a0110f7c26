//! Commands, and their encoding in the log: protobuf messages.
//!
//! The number of a kind is never reused. A member that does not know a kind or a field can't do
//! what the command says, and its state would differ from that of the others. So neither may be proposed before the
//! cluster has the version that introduced it: see [`Store::cluster_version`](super::Store::cluster_version).

use bytes::Bytes;
use prost::Message;

use super::MAX_FIELD_BYTES;
use super::auth::{AuthRequest, LoggedIn, Principal};
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
    /// Changes users and roles, or logs a user in. Version 8 of the cluster introduced it.
    #[prost(message, tag = "12")]
    Auth(AuthRequest),
}

/// The message in the log: a command, and who gives it. Without the second, nobody in particular does: so it was before
/// version 8 of the cluster, when there were no users.
#[derive(Clone, PartialEq, prost::Message)]
struct LogCommand {
    #[prost(oneof = "Command", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    command: Option<Command>,
    #[prost(string, optional, tag = "16")]
    user: Option<String>,
    #[prost(uint64, tag = "17")]
    logged_in_at: u64,
    #[prost(bool, tag = "18")]
    by_member: bool,
}

impl Command {
    /// The bytes that go into the log, if nobody in particular gives the command.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.to_bytes_by(&Principal::Anonymous)
    }

    /// The bytes that go into the log.
    #[must_use]
    pub fn to_bytes_by(&self, by: &Principal) -> Bytes {
        let given = match by {
            Principal::Anonymous => LogCommand::default(),
            Principal::User(LoggedIn { user, at }) => {
                LogCommand { user: Some(user.as_ref().into()), logged_in_at: *at, ..LogCommand::default() }
            }
            Principal::Member => LogCommand { by_member: true, ..LogCommand::default() },
        };
        let mut out = Vec::with_capacity(self.encoded_len() + given.encoded_len());
        self.encode(&mut out);
        // Two messages in a row are one with the fields of both.
        given.encode_raw(&mut out);
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

    /// Reads the command of what [`Command::to_bytes_by`] wrote. Ignores fields that this program does not know.
    ///
    /// # Errors
    /// The bytes are no command that this program knows, or longer than [`MAX_FIELD_BYTES`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Command, CodecError> {
        Command::read(bytes).map(|(command, _)| command)
    }

    pub(super) fn read(bytes: &[u8]) -> Result<(Command, Principal), CodecError> {
        if bytes.len() > MAX_FIELD_BYTES {
            return Err(CodecError::Long { field: "command", length: bytes.len() });
        }
        // No protobuf message begins with this byte: its field would have the number 0.
        if let [legacy::VERSION, rest @ ..] = bytes {
            return legacy::read(rest).map(|command| (command, Principal::Anonymous));
        }
        let LogCommand { command, user, logged_in_at, by_member } = LogCommand::decode(bytes)?;
        let by = match user {
            _ if by_member => Principal::Member,
            Some(user) => Principal::User(LoggedIn { user: user.into(), at: logged_in_at }),
            None => Principal::Anonymous,
        };
        Ok((command.ok_or(CodecError::UnknownCommand)?, by))
    }
}
