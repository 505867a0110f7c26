//! Why a request was not done (law 5: each request ends exactly once, and the client is told what is known about it).

use std::borrow::Cow;

use bowline_raft::{NodeId, Outcome, Refusal};
use bytes::Bytes;

/// How a request ended. A write returns the response of the state machine. A read returns nothing: the state contains
/// everything that the read must see, and may be read now or at any later time.
pub type Response = Result<Bytes, Failure>;

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing was done, and nothing will be.
    #[error("{0}")]
    NotDone(NotDone),
    /// It may have taken effect, may still take effect, or never will.
    #[error("{0}")]
    Unknown(Unknown),
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// The replica that was asked doesn't lead.
    #[error("no leader")]
    NotLeader {
        /// Who leads, as far as it knows.
        leader: Option<NodeId>,
    },
    /// Another leader's entry took its place in the log.
    #[error("another leader's entry took its place")]
    Superseded,
    /// It can't be granted at this moment.
    #[error("it can't be granted at this moment")]
    TryAgain,
    /// There is no connection to the leader.
    #[error("the leader can't be reached")]
    Unreachable,
    /// A limit is reached.
    #[error("a limit is reached: {limit}")]
    Overloaded {
        /// Which limit.
        limit: Cow<'static, str>,
    },
    /// The disk of the replica that was asked is full.
    #[error("the disk is full")]
    NoSpace,
    /// It can't be granted.
    #[error("{reason}")]
    Refused {
        /// Why not.
        reason: String,
    },
}

/// Why nobody knows what became of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No answer came in time, or the replica can no longer tell.
    #[error("no answer in time")]
    Expired,
    /// The connection to the leader was lost after the request was sent.
    #[error("the connection to the leader was lost")]
    ConnectionLost,
    /// The replica has stopped, or is about to.
    #[error("stopped")]
    Stopped,
}

impl Failure {
    /// The replica that was asked doesn't lead.
    #[must_use]
    pub fn not_leader(leader: Option<NodeId>) -> Failure {
        Failure::NotDone(NotDone::NotLeader { leader })
    }

    /// A limit is reached.
    #[must_use]
    pub fn overloaded(limit: impl Into<Cow<'static, str>>) -> Failure {
        Failure::NotDone(NotDone::Overloaded { limit: limit.into() })
    }

    /// It can't be granted.
    #[must_use]
    pub fn refused(reason: impl ToString) -> Failure {
        Failure::NotDone(NotDone::Refused { reason: reason.to_string() })
    }

    /// Whether nothing was done, and trying again, here or elsewhere, may succeed.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Failure::NotDone(
                NotDone::NotLeader { .. } | NotDone::Superseded | NotDone::TryAgain | NotDone::Unreachable
            )
        )
    }

    /// The failure that the core reports; `None` if the request was done.
    pub(crate) fn of(outcome: &Outcome) -> Option<Failure> {
        Some(match outcome {
            Outcome::Done { .. } | Outcome::Readable { .. } => return None,
            Outcome::NotLeader { leader } => Failure::not_leader(*leader),
            Outcome::Overloaded { limit } => Failure::overloaded(*limit),
            Outcome::Superseded => NotDone::Superseded.into(),
            Outcome::Refused(Refusal::TransferUnderWay) => NotDone::TryAgain.into(),
            Outcome::Refused(refusal) => Failure::refused(refusal),
            Outcome::Expired => Unknown::Expired.into(),
        })
    }
}

impl From<NotDone> for Failure {
    fn from(reason: NotDone) -> Failure {
        Failure::NotDone(reason)
    }
}

impl From<Unknown> for Failure {
    fn from(reason: Unknown) -> Failure {
        Failure::Unknown(reason)
    }
}
