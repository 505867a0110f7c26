//! How a request ended, here or at the leader that it was sent to.

use bowline_node::Response;
use bowline_node::raft::{NodeId, Refusal};
use bytes::Bytes;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done; this is what the state machine says. A read: the state contains everything that it must see.
    Done(Bytes),
    /// The replica that was asked doesn't lead; nothing was done.
    NotLeader(Option<NodeId>),
    /// A bound is reached; nothing was done.
    Overloaded(String),
    /// The leader's disk is full; nothing was done.
    NoSpace,
    /// Another leader's entry took its place: it has not and will not take effect.
    Superseded,
    /// It may or may not have taken effect.
    Expired,
    /// It can't be granted at this moment; nothing was done, and it is worth trying again.
    TryAgain,
    /// It can't be granted; nothing was done.
    Refused(String),
    /// The connection to the leader was lost after it was sent: it may or may not have taken effect.
    Lost,
    /// There is no connection to the leader; nothing was done.
    Unreachable,
    /// This replica has stopped, or is about to. If it was a write, it may or may not take effect.
    Stopped,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Answer {
        match response {
            Response::Done(bytes) => Answer::Done(bytes),
            Response::Readable => Answer::Done(Bytes::new()),
            Response::NotLeader { leader } => Answer::NotLeader(leader),
            Response::Overloaded { limit } => Answer::Overloaded(limit.to_owned()),
            Response::Superseded => Answer::Superseded,
            Response::Expired => Answer::Expired,
            Response::Refused(Refusal::TransferUnderWay) => Answer::TryAgain,
            Response::Refused(refusal) => Answer::Refused(refusal.to_string()),
        }
    }
}
