//! How those requests travel between members, and their answers back.
//!
//! Requests and answers are protobuf messages, whose field numbers never change. Answers come in any order, each with
//! the number of its request.

use std::collections::BTreeMap;
use std::time::Duration;

use bowline_node::raft::{NodeId, Time};
use bowline_node::{Failure, NotDone, Response, Unknown};
use bytes::{Bytes, BytesMut};
use prost::{DecodeError, Message};

use super::LeaderRequest;

/// Longest time limit that a follower may ask for.
const MAX_PATIENCE: Duration = Duration::from_secs(60);

/// The asking end of a connection to another member. `R` tells where the answer to a request goes.
#[derive(Debug)]
pub struct Calls<R> {
    open: BTreeMap<u64, R>,
    last: u64,
}

impl<R> Default for Calls<R> {
    fn default() -> Calls<R> {
        Calls { open: BTreeMap::new(), last: 0 }
    }
}

impl<R> Calls<R> {
    /// Writes a request that may take this long.
    pub fn ask(&mut self, request: &LeaderRequest, patience: Duration, reply: R, out: &mut BytesMut) {
        self.last += 1;
        encode_request(self.last, patience, request, out);
        self.open.insert(self.last, reply);
    }

    /// Takes the message of an answer. `None` if it can't be decoded, or if nothing is open that it answers.
    pub fn answered(&mut self, message: Bytes) -> Option<(R, Response)> {
        let (id, answer) = decode_answer(message).ok()?;
        self.open.remove(&id).map(|reply| (reply, answer))
    }

    /// Forgets the requests for which nobody waits any more.
    pub fn forget(&mut self, given_up: impl Fn(&R) -> bool) {
        self.open.retain(|_, reply| !given_up(reply));
    }

    /// The connection is lost: what becomes of the open requests is unknown.
    pub fn lost(self) -> impl Iterator<Item = (R, Response)> {
        self.open.into_values().map(|reply| (reply, Err(Unknown::ConnectionLost.into())))
    }
}

/// What arrives at the answering end.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived {
    /// A request, to be answered under its number.
    Request {
        /// Its number on this connection.
        id: u64,
        /// What is asked.
        request: LeaderRequest,
        /// When the asking member waits no longer.
        deadline: Time,
    },
    /// A request that can't be served here, and its answer.
    Refused {
        /// Its number on this connection.
        id: u64,
        /// The answer.
        answer: Response,
    },
}

/// Takes the message of a request.
///
/// # Errors
/// It can't be decoded.
pub fn receive(message: Bytes, now: Time) -> Result<Arrived, DecodeError> {
    let (id, patience, request) = decode_request(message)?;
    Ok(match request {
        Some(request) => Arrived::Request { id, request, deadline: now.after(patience.min(MAX_PATIENCE)) },
        // A kind of request that only newer members know is not done.
        None => Arrived::Refused { id, answer: Err(NotDone::TryAgain.into()) },
    })
}

/// A request to the leader.
#[derive(Clone, PartialEq, prost::Message)]
struct RequestMessage {
    /// Its number on this connection.
    #[prost(uint64, tag = "1")]
    id: u64,
    /// Its time limit, in milliseconds.
    #[prost(uint64, tag = "2")]
    patience: u64,
    #[prost(oneof = "RequestKind", tags = "3, 4, 5")]
    kind: Option<RequestKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum RequestKind {
    /// A command for the state machine, passed on unchanged.
    #[prost(bytes = "bytes", tag = "3")]
    Write(Bytes),
    #[prost(message, tag = "4")]
    Lease(LeaseQuestion),
    /// The learner. Version 6 introduced it.
    #[prost(fixed64, tag = "5")]
    Promote(u64),
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseQuestion {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(bool, tag = "2")]
    renew: bool,
}

/// The answer to a request.
#[derive(Clone, PartialEq, prost::Message)]
struct AnswerMessage {
    /// The number of the request.
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(oneof = "Ending", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10")]
    ending: Option<Ending>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Ending {
    #[prost(bytes = "bytes", tag = "2")]
    Done(Bytes),
    #[prost(message, tag = "3")]
    NotLeader(NotLeader),
    #[prost(string, tag = "4")]
    Overloaded(String),
    #[prost(message, tag = "5")]
    Superseded(Empty),
    #[prost(message, tag = "6")]
    Expired(Empty),
    #[prost(message, tag = "7")]
    TryAgain(Empty),
    #[prost(string, tag = "8")]
    Refused(String),
    /// The leader itself does not know.
    #[prost(message, tag = "9")]
    Unknown(Empty),
    #[prost(message, tag = "10")]
    NoSpace(Empty),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct NotLeader {
    /// The leader, if known.
    #[prost(fixed64, optional, tag = "1")]
    leader: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Empty {}

fn encode_request(id: u64, patience: Duration, request: &LeaderRequest, out: &mut BytesMut) {
    let kind = match request {
        LeaderRequest::Write(command) => RequestKind::Write(command.clone()),
        LeaderRequest::Lease { id, renew } => RequestKind::Lease(LeaseQuestion { id: *id, renew: *renew }),
        LeaderRequest::Promote(id) => RequestKind::Promote(id.0),
    };
    let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    put(&RequestMessage { id, patience, kind: Some(kind) }, out);
}

fn put(message: &impl Message, out: &mut BytesMut) {
    message.encode(out).expect("memory grows with what is written to it");
}

/// Decodes a request: its number, its time limit, and its body, which is `None` for a kind that only newer members
/// know.
fn decode_request(frame: Bytes) -> Result<(u64, Duration, Option<LeaderRequest>), DecodeError> {
    let RequestMessage { id, patience, kind } = RequestMessage::decode(frame)?;
    let request = kind.map(|kind| match kind {
        RequestKind::Write(command) => LeaderRequest::Write(command),
        RequestKind::Lease(LeaseQuestion { id, renew }) => LeaderRequest::Lease { id, renew },
        RequestKind::Promote(id) => LeaderRequest::Promote(NodeId(id)),
    });
    Ok((id, Duration::from_millis(patience), request))
}

/// Writes the message of an answer.
///
/// # Panics
/// Never: memory grows with what is written to it.
pub fn encode_answer(id: u64, answer: &Response, out: &mut BytesMut) {
    let ending = match answer {
        Ok(bytes) => Ending::Done(bytes.clone()),
        Err(Failure::Unknown(Unknown::Expired)) => Ending::Expired(Empty {}),
        // The leader itself never forwards a write.
        Err(Failure::Unknown(Unknown::ConnectionLost | Unknown::Stopped)) => Ending::Unknown(Empty {}),
        Err(Failure::NotDone(why)) => match why {
            NotDone::NotLeader { leader } => Ending::NotLeader(NotLeader { leader: leader.map(|leader| leader.0) }),
            NotDone::Overloaded { limit } => Ending::Overloaded(limit.clone().into()),
            NotDone::Superseded => Ending::Superseded(Empty {}),
            NotDone::TryAgain | NotDone::Unreachable => Ending::TryAgain(Empty {}),
            NotDone::Refused { reason } => Ending::Refused(reason.clone()),
            NotDone::NoSpace => Ending::NoSpace(Empty {}),
        },
    };
    put(&AnswerMessage { id, ending: Some(ending) }, out);
}

fn decode_answer(frame: Bytes) -> Result<(u64, Response), DecodeError> {
    let AnswerMessage { id, ending } = AnswerMessage::decode(frame)?;
    let answer = match ending {
        Some(Ending::Done(bytes)) => Ok(bytes),
        Some(Ending::NotLeader(NotLeader { leader })) => Err(Failure::not_leader(leader.map(NodeId))),
        Some(Ending::Overloaded(limit)) => Err(Failure::overloaded(limit)),
        Some(Ending::Superseded(_)) => Err(NotDone::Superseded.into()),
        Some(Ending::Expired(_)) => Err(Unknown::Expired.into()),
        Some(Ending::TryAgain(_)) => Err(NotDone::TryAgain.into()),
        Some(Ending::Refused(reason)) => Err(Failure::refused(reason)),
        Some(Ending::NoSpace(_)) => Err(NotDone::NoSpace.into()),
        // Whether the request took effect is unknown, as after a lost connection. The same holds for an ending that
        // only newer members know.
        Some(Ending::Unknown(_)) | None => Err(Unknown::ConnectionLost.into()),
    };
    Ok((id, answer))
}

/// For a fuzzer: decodes a request and an answer, and checks that encoding and decoding them again gives the same.
///
/// # Panics
/// They differ.
pub fn fuzz_message(body: &Bytes) {
    if let Ok((id, patience, Some(request))) = decode_request(body.clone()) {
        let mut out = BytesMut::new();
        encode_request(id, patience, &request, &mut out);
        assert_eq!(decode_request(out.freeze()), Ok((id, patience, Some(request))));
    }
    if let Ok((id, answer)) = decode_answer(body.clone()) {
        let mut out = BytesMut::new();
        encode_answer(id, &answer, &mut out);
        assert_eq!(decode_answer(out.freeze()), Ok((id, answer)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(write: impl FnOnce(&mut BytesMut)) -> Bytes {
        let mut out = BytesMut::new();
        write(&mut out);
        out.freeze()
    }

    fn hex(bytes: &Bytes) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Each with its bytes, which members of other versions send and read: they never change.
    #[test]
    fn answers_come_back_as_they_were() {
        let all: [(Response, &str); 10] = [
            (Ok(Bytes::from_static(b"done")), "08071204646f6e65"),
            (Err(Failure::not_leader(Some(NodeId(3)))), "08071a09090300000000000000"),
            (Err(Failure::not_leader(None)), "08071a00"),
            (Err(Failure::overloaded("room")), "08072204726f6f6d"),
            (Err(NotDone::Superseded.into()), "08072a00"),
            (Err(Unknown::Expired.into()), "08073200"),
            (Err(NotDone::TryAgain.into()), "08073a00"),
            (Err(Failure::refused("why")), "08074203776879"),
            (Err(Unknown::ConnectionLost.into()), "08074a00"),
            (Err(NotDone::NoSpace.into()), "08075200"),
        ];
        for (answer, expected) in all {
            let bytes = encoded(|out| encode_answer(7, &answer, out));
            assert_eq!(hex(&bytes), expected);
            assert_eq!(decode_answer(bytes), Ok((7, answer)));
        }
    }

    #[test]
    fn a_request_arrives_as_it_was_and_says_how_long_it_may_take() {
        let write = LeaderRequest::Write(Bytes::from_static(b"command"));
        let renew = LeaderRequest::Lease { id: 7, renew: true };
        let promote = LeaderRequest::Promote(NodeId(7));
        let all = [
            (write, "08091088271a07636f6d6d616e64"),
            (renew, "0809108827220408071001"),
            (promote, "0809108827290700000000000000"),
        ];
        for (request, expected) in all {
            let bytes = encoded(|out| encode_request(9, Duration::from_secs(5), &request, out));
            assert_eq!(hex(&bytes), expected);
            fuzz_message(&bytes);
            assert_eq!(decode_request(bytes), Ok((9, Duration::from_secs(5), Some(request))));
        }
        let ask = LeaderRequest::Lease { id: i64::MIN, renew: false };
        let bytes = encoded(|out| encode_request(9, Duration::MAX, &ask, out));
        assert_eq!(decode_request(bytes), Ok((9, Duration::from_millis(u64::MAX), Some(ask))));
    }

    /// A follower, and the leader, pass a command on with all that they do not know of it.
    #[test]
    fn what_only_newer_members_know_is_passed_on_or_ends_without_harm() {
        let unknown_field = [0xf8, 0x07, 1];
        let command = Bytes::from([&b"command"[..], &unknown_field].concat());
        let bytes = encoded(|out| encode_request(9, Duration::ZERO, &LeaderRequest::Write(command.clone()), out));
        let newer = Bytes::from([&bytes[..], &unknown_field].concat());
        assert_eq!(decode_request(newer), Ok((9, Duration::ZERO, Some(LeaderRequest::Write(command)))));
        let kind = Bytes::from([&[8, 9][..], &unknown_field].concat());
        assert_eq!(decode_request(kind.clone()), Ok((9, Duration::ZERO, None)));
        assert_eq!(decode_answer(kind.clone()), Ok((9, Err(Unknown::ConnectionLost.into()))));
        let answer = Err(NotDone::TryAgain.into());
        assert_eq!(receive(kind, Time::ZERO), Ok(Arrived::Refused { id: 9, answer }));
    }

    #[test]
    fn each_request_is_answered_once_and_by_its_own_answer() {
        let (mut calls, mut out) = (Calls::default(), BytesMut::new());
        for who in ["first", "second", "third"] {
            calls.ask(&LeaderRequest::Promote(NodeId(7)), Duration::from_secs(5), who, &mut out);
        }
        let answer = |id| encoded(|out| encode_answer(id, &Ok(Bytes::from_static(b"done")), out));
        let done: Response = Ok(Bytes::from_static(b"done"));
        assert_eq!(calls.answered(answer(2)), Some(("second", done)));
        assert_eq!(calls.answered(answer(2)), None);
        assert_eq!(calls.answered(answer(4)), None);
        calls.forget(|who| *who == "first");
        let lost: Vec<_> = calls.lost().collect();
        assert_eq!(lost, [("third", Err(Unknown::ConnectionLost.into()))]);
    }

    #[test]
    fn a_follower_can_not_make_the_leader_wait_for_ever() {
        let request = LeaderRequest::Promote(NodeId(7));
        let bytes = encoded(|out| encode_request(9, Duration::MAX, &request, out));
        let deadline = Time::ZERO.after(MAX_PATIENCE);
        assert_eq!(receive(bytes, Time::ZERO), Ok(Arrived::Request { id: 9, request, deadline }));
    }
}
