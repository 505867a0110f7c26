//! Requests that only the leader can serve: whom a member asks, and what it tells its client.
//!
//! A member that does not lead forwards them to the leader. Each attempt sends the request once. If nothing was done,
//! there is another attempt, until the deadline. If the connection is lost after the request was sent, the outcome is
//! unknown, and only what does no harm when done twice is attempted again.

use std::time::Duration;

use bowline_node::raft::{MembershipChange, NodeId, Time};
use bowline_node::{Failure, Response, Unknown};
use bytes::Bytes;

use crate::queue::RequestBody;
pub use wire::{Arrived, Calls, encode_answer, fuzz_message, receive};

mod wire;

/// Longest pause between two attempts while a leader is known. It may refuse because it does not know yet that it leads.
const PAUSE: Duration = Duration::from_millis(20);

/// A request that only the leader can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderRequest {
    /// A command for the state machine.
    Write(Bytes),
    /// The remaining time to live of a lease.
    Lease {
        /// The id of the lease.
        id: i64,
        /// Whether to renew it.
        renew: bool,
    },
    /// Make a learner a voter.
    Promote(NodeId),
}

impl LeaderRequest {
    /// Whether it may be repeated when its outcome is unknown.
    fn is_harmless_twice(&self) -> bool {
        matches!(self, LeaderRequest::Lease { .. })
    }
}

impl From<LeaderRequest> for RequestBody {
    fn from(request: LeaderRequest) -> RequestBody {
        match request {
            LeaderRequest::Write(command) => RequestBody::Write(command),
            LeaderRequest::Lease { id, renew } => RequestBody::Lease { id, renew },
            LeaderRequest::Promote(id) => RequestBody::ChangeMembership(MembershipChange::Promote(id)),
        }
    }
}

/// Whom a member asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Itself: it leads.
    Here,
    /// Another member.
    At(NodeId),
    /// Nobody: it knows no leader.
    Nowhere,
}

/// A request of a member's client that only the leader can serve, until the client is answered.
#[derive(Clone, Debug)]
pub struct ToLeader {
    request: LeaderRequest,
    deadline: Time,
}

impl ToLeader {
    /// A request that must be answered by its deadline.
    #[must_use]
    pub fn new(request: LeaderRequest, deadline: Time) -> ToLeader {
        ToLeader { request, deadline }
    }

    /// What is asked.
    #[must_use]
    pub fn request(&self) -> &LeaderRequest {
        &self.request
    }

    /// When the client waits no longer.
    #[must_use]
    pub fn deadline(&self) -> Time {
        self.deadline
    }

    /// Whom member `own` asks now.
    #[must_use]
    pub fn attempt(own: NodeId, leader: Option<NodeId>) -> Attempt {
        match leader {
            Some(leader) if leader == own => Attempt::Here,
            Some(leader) => Attempt::At(leader),
            None => Attempt::Nowhere,
        }
    }

    /// What the client is told after an attempt. `None`: there is another attempt, after a pause.
    #[must_use]
    pub fn ends_with(&self, answer: Response) -> Option<Response> {
        match answer {
            Err(failure) if failure.is_passing() => None,
            Err(Failure::Unknown(Unknown::ConnectionLost)) if self.request.is_harmless_twice() => None,
            answer => Some(answer),
        }
    }

    /// What the client is told if the time is over before another attempt.
    #[must_use]
    pub fn expires(&self, now: Time) -> Option<Response> {
        (now >= self.deadline).then(|| Err(Failure::not_leader(None)))
    }

    /// How long to wait before the next attempt, if no other leader appears earlier.
    #[must_use]
    pub fn pause(&self, now: Time, leader: Option<NodeId>) -> Duration {
        pause(now, self.deadline, leader)
    }
}

/// How long to wait before something is attempted again, if no other leader appears earlier.
#[must_use]
pub fn pause(now: Time, deadline: Time, leader: Option<NodeId>) -> Duration {
    let left = deadline.since(now);
    if leader.is_some() { PAUSE.min(left) } else { left }
}

#[cfg(test)]
mod tests {
    use bowline_node::NotDone;

    use super::*;

    const OWN: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn write() -> ToLeader {
        ToLeader::new(LeaderRequest::Write(Bytes::from_static(b"command")), Time::ZERO.after(Duration::from_secs(5)))
    }

    fn lease() -> ToLeader {
        ToLeader::new(LeaderRequest::Lease { id: 7, renew: true }, Time::ZERO.after(Duration::from_secs(5)))
    }

    #[test]
    fn the_leader_is_asked() {
        assert_eq!(ToLeader::attempt(OWN, Some(OWN)), Attempt::Here);
        assert_eq!(ToLeader::attempt(OWN, Some(OTHER)), Attempt::At(OTHER));
        assert_eq!(ToLeader::attempt(OWN, None), Attempt::Nowhere);
    }

    #[test]
    fn what_was_not_done_is_attempted_again() {
        for why in [NotDone::NotLeader { leader: None }, NotDone::Superseded, NotDone::TryAgain, NotDone::Unreachable] {
            assert_eq!(write().ends_with(Err(why.into())), None);
        }
        let full: Response = Err(NotDone::NoSpace.into());
        assert_eq!(write().ends_with(full.clone()), Some(full));
    }

    #[test]
    fn of_what_may_have_been_done_only_the_harmless_is_attempted_again() {
        let lost: Response = Err(Unknown::ConnectionLost.into());
        assert_eq!(write().ends_with(lost.clone()), Some(lost.clone()));
        assert_eq!(lease().ends_with(lost), None);
        let late: Response = Err(Unknown::Expired.into());
        assert_eq!(lease().ends_with(late.clone()), Some(late));
    }

    #[test]
    fn the_next_attempt_waits_for_a_leader_but_not_beyond_the_deadline() {
        let at = |milliseconds| Time::ZERO.after(Duration::from_millis(milliseconds));
        assert_eq!(write().pause(at(0), None), Duration::from_secs(5));
        assert_eq!(write().pause(at(0), Some(OTHER)), PAUSE);
        assert_eq!(write().pause(at(4_990), Some(OTHER)), Duration::from_millis(10));
        assert_eq!(write().expires(at(4_999)), None);
        assert_eq!(write().expires(at(5_000)), Some(Err(Failure::not_leader(None))));
    }
}
