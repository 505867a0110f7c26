//! Why the store refuses a request. The texts are etcd's, because clients compare them.

/// A gRPC status code, by its name in the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request makes no sense, whatever the state.
    InvalidArgument,
    /// The named key or lease does not exist.
    NotFound,
    /// The state forbids it; a retry does not help.
    FailedPrecondition,
    /// A revision or a number is out of range.
    OutOfRange,
    /// There is no space for it.
    ResourceExhausted,
    /// This replica can't serve the request; another one may.
    Unavailable,
    /// The data can't be trusted.
    DataLoss,
    /// Etcd gives one of its errors this code.
    Unknown,
    /// The user is not permitted to do this.
    PermissionDenied,
    /// Nobody has proved to be the user.
    Unauthenticated,
}

impl Code {
    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Code::Unknown => 2,
            Code::InvalidArgument => 3,
            Code::NotFound => 5,
            Code::PermissionDenied => 7,
            Code::ResourceExhausted => 8,
            Code::FailedPrecondition => 9,
            Code::OutOfRange => 11,
            Code::Unavailable => 14,
            Code::DataLoss => 15,
            Code::Unauthenticated => 16,
        }
    }
}

/// Why a request is refused. The texts are exactly etcd's, but for six. The numbers go over the wire, and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration, thiserror::Error)]
#[repr(i32)]
pub enum KvError {
    /// A request or a comparison without a key.
    #[error("etcdserver: key is not provided")]
    EmptyKey = 1,
    /// The key whose value or lease should be kept does not exist; or an operation is missing.
    #[error("etcdserver: key not found")]
    KeyNotFound = 2,
    /// A value together with `ignore_value`.
    #[error("etcdserver: value is provided")]
    ValueProvided = 3,
    /// A lease together with `ignore_lease`.
    #[error("etcdserver: lease is provided")]
    LeaseProvided = 4,
    /// More operations or deeper nesting than allowed.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps = 5,
    /// A transaction that would write a key twice.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey = 6,
    /// An unknown order or target.
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption = 7,
    /// More bytes than allowed.
    #[error("etcdserver: request is too large")]
    RequestTooLarge = 8,
    /// The revision is older than the compacted one.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted = 9,
    /// The revision is greater than the latest one.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision = 10,
    /// No such lease.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound = 11,
    /// The identity belongs to an existing lease.
    #[error("etcdserver: lease already exists")]
    LeaseExists = 15,
    /// A time to live beyond [`MAX_LEASE_TTL`](super::MAX_LEASE_TTL).
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge = 16,
    /// The engine failed; see [`Store::fault`](super::Store::fault).
    #[error("etcdserver: server stopped")]
    Stopped = 12,
    /// The bytes are damaged, or of an unknown kind. Etcd does not have this text, but no client can cause it.
    #[error("etcdserver: unreadable request")]
    Unreadable = 13,
    /// The log entry was applied before. Etcd does not have this text, but no client waits for this answer.
    #[error("etcdserver: already applied")]
    AlreadyApplied = 14,
    /// The request needs space, and there is an alarm that a member has none.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace = 17,
    /// There is an alarm that the members' states differ.
    #[error("etcdserver: corrupt cluster")]
    Corrupt = 18,
    /// No member has this id.
    #[error("etcdserver: member not found")]
    MemberNotFound = 19,
    /// A member has this id, or had it.
    #[error("etcdserver: member ID already exist")]
    MemberExists = 20,
    /// Another member has one of these addresses.
    #[error("etcdserver: Peer URLs already exists")]
    PeerUrlExists = 21,
    /// The addresses are missing, too many, or too long.
    #[error("etcdserver: given member URLs are invalid")]
    BadMemberUrls = 22,
    /// Too few of the voters after the change have started once.
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    TooFewStarted = 23,
    /// The member is a voter already.
    #[error("etcdserver: can only promote a learner member")]
    NotLearner = 24,
    /// There is a learner already.
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners = 25,
    /// There are as many members as there can be. Etcd has no such bound, and so no such text.
    #[error("etcdserver: too many members in cluster")]
    TooManyMembers = 26,
    /// The member has started with another data folder before. Etcd does not have this text, but no client waits for
    /// this answer.
    #[error("etcdserver: member has another data folder")]
    OtherFolder = 27,
    /// There is no user root.
    #[error("etcdserver: root user does not exist")]
    RootUserMissing = 28,
    /// The user root does not have the role root.
    #[error("etcdserver: root user does not have root role")]
    RootRoleMissing = 29,
    /// There is a user of this name.
    #[error("etcdserver: user name already exists")]
    UserExists = 30,
    /// Nobody has logged in, or the name of a user is missing.
    #[error("etcdserver: user name is empty")]
    UserEmpty = 31,
    /// There is no user of this name.
    #[error("etcdserver: user name not found")]
    UserNotFound = 32,
    /// There is a role of this name.
    #[error("etcdserver: role name already exists")]
    RoleExists = 33,
    /// There is no role of this name.
    #[error("etcdserver: role name not found")]
    RoleNotFound = 34,
    /// The name of a role is missing.
    #[error("etcdserver: role name is empty")]
    RoleEmpty = 35,
    /// The user does not exist, has no password, or has another one.
    #[error("etcdserver: authentication failed, invalid user ID or password")]
    AuthenticationFailed = 36,
    /// A permission is missing in the request.
    #[error("etcdserver: permission not given")]
    PermissionNotGiven = 37,
    /// The user is not permitted to do this.
    #[error("etcdserver: permission denied")]
    PermissionDenied = 38,
    /// The user does not have the role.
    #[error("etcdserver: role is not granted to the user")]
    RoleNotGranted = 39,
    /// The role does not have the permission.
    #[error("etcdserver: permission is not granted to the role")]
    PermissionNotGranted = 40,
    /// Nobody has to log in.
    #[error("etcdserver: authentication is not enabled")]
    AuthNotEnabled = 41,
    /// The token is unknown, has expired, or is older than the user's password.
    #[error("etcdserver: invalid auth token")]
    InvalidAuthToken = 42,
    /// Without root, nobody could change anything any more; or a permission is for no key.
    #[error("etcdserver: invalid auth management")]
    InvalidAuthManagement = 43,
    /// Users or roles were changed meanwhile.
    #[error("etcdserver: revision of auth store is old")]
    AuthRevisionOld = 44,
    /// The users and roles would take more than a mebibyte. Etcd has no such bound, and so no such text.
    #[error("etcdserver: too many users and roles")]
    TooManyUsers = 45,
    /// The name of a user or role has more than 255 bytes. Etcd has no such bound, and so no such text.
    #[error("etcdserver: user or role name is too long")]
    NameTooLong = 46,
}

impl KvError {
    /// The status code that goes with the text.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            KvError::EmptyKey
            | KvError::KeyNotFound
            | KvError::ValueProvided
            | KvError::LeaseProvided
            | KvError::TooManyOps
            | KvError::DuplicateKey
            | KvError::InvalidSortOption
            | KvError::RequestTooLarge
            | KvError::BadMemberUrls
            | KvError::UserEmpty
            | KvError::RoleEmpty
            | KvError::AuthenticationFailed
            | KvError::PermissionNotGiven
            | KvError::InvalidAuthManagement
            | KvError::AuthRevisionOld
            | KvError::NameTooLong
            | KvError::Unreadable => Code::InvalidArgument,
            KvError::Compacted | KvError::FutureRevision | KvError::LeaseTtlTooLarge => Code::OutOfRange,
            KvError::LeaseNotFound | KvError::MemberNotFound => Code::NotFound,
            KvError::LeaseExists
            | KvError::AlreadyApplied
            | KvError::MemberExists
            | KvError::PeerUrlExists
            | KvError::NotLearner
            | KvError::TooManyLearners
            | KvError::TooManyMembers
            | KvError::OtherFolder
            | KvError::RootUserMissing
            | KvError::RootRoleMissing
            | KvError::UserExists
            | KvError::UserNotFound
            | KvError::RoleExists
            | KvError::RoleNotFound
            | KvError::RoleNotGranted
            | KvError::PermissionNotGranted
            | KvError::AuthNotEnabled => Code::FailedPrecondition,
            KvError::TooFewStarted => Code::Unknown,
            KvError::NoSpace | KvError::TooManyUsers => Code::ResourceExhausted,
            KvError::Stopped => Code::Unavailable,
            KvError::Corrupt => Code::DataLoss,
            KvError::PermissionDenied => Code::PermissionDenied,
            KvError::InvalidAuthToken => Code::Unauthenticated,
        }
    }
}
