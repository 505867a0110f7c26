//! What the store refuses, in etcd's words: clients match on the texts.

/// A gRPC status code, by its name in the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request makes no sense, whatever the state.
    InvalidArgument,
    /// What was named is not there.
    NotFound,
    /// The state forbids it; asking again changes nothing.
    FailedPrecondition,
    /// The revision is outside of the history.
    OutOfRange,
    /// This replica can't serve; another may.
    Unavailable,
}

impl Code {
    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Code::InvalidArgument => 3,
            Code::NotFound => 5,
            Code::FailedPrecondition => 9,
            Code::OutOfRange => 11,
            Code::Unavailable => 14,
        }
    }
}

/// Why a request is refused. The texts are exactly etcd's; the numbers go over the wire, and are kept for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration, thiserror::Error)]
#[repr(i32)]
pub enum KvError {
    /// A request or a comparison without a key.
    #[error("etcdserver: key is not provided")]
    EmptyKey = 1,
    /// The key whose value or lease shall be kept is not there; or an operation of no kind.
    #[error("etcdserver: key not found")]
    KeyNotFound = 2,
    /// A value beside `ignore_value`.
    #[error("etcdserver: value is provided")]
    ValueProvided = 3,
    /// A lease beside `ignore_lease`.
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
    /// The revision is yet to come.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision = 10,
    /// No such lease.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound = 11,
    /// The identity is another lease's.
    #[error("etcdserver: lease already exists")]
    LeaseExists = 15,
    /// A time to live beyond [`MAX_LEASE_TTL`](super::MAX_LEASE_TTL).
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge = 16,
    /// The engine failed; see [`Store::fault`](super::Store::fault).
    #[error("etcdserver: server stopped")]
    Stopped = 12,
    /// The bytes are of no kind that this program knows, or damaged. Not a text of etcd's:
    /// no client can cause it.
    #[error("etcdserver: unreadable request")]
    Unreadable = 13,
    /// The entry of the log was applied before. Not a text of etcd's: no client waits for it.
    #[error("etcdserver: already applied")]
    AlreadyApplied = 14,
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
            | KvError::Unreadable => Code::InvalidArgument,
            KvError::Compacted | KvError::FutureRevision | KvError::LeaseTtlTooLarge => Code::OutOfRange,
            KvError::LeaseNotFound => Code::NotFound,
            KvError::LeaseExists | KvError::AlreadyApplied => Code::FailedPrecondition,
            KvError::Stopped => Code::Unavailable,
        }
    }
}
