//! Forwards requests of a follower's clients to the leader, and answers back.
//!
//! Requests and answers are protobuf messages, whose field numbers never change. Answers come in any order, each with
//! the number of its request. Each request is sent once. If the connection is lost after that, the client is told that
//! the outcome is unknown.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bowline_member::{Request, RequestBody};
use bowline_node::raft::{MembershipChange, NodeId};
use bowline_node::{Failure, NotDone, Response, Unknown};
use bowline_tls::Stream;
use bytes::{Bytes, BytesMut};
use prost::{DecodeError, Message};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::directory::Directory;
use super::frame::{FrameError, put_frame, read_frame};
use super::handshake::Channel;
use super::outbound::{Line, WRITE_PATIENCE};
use super::traffic::Traffic;
use super::{MAX_FRAME, max_frame};
use crate::clock::Clock;
use crate::replica::Inbox;

/// Maximum number of requests that wait for a connection's writer.
const QUEUE: usize = 1_024;

/// Maximum number of requests of one follower that are served at once.
const MAX_OPEN: usize = 8_192;

/// Longest time limit that a follower may ask for.
const MAX_PATIENCE: Duration = Duration::from_secs(60);

/// Sends requests to other replicas. Copies share the connections.
#[derive(Clone, Debug, Default)]
pub struct Forwarder {
    /// The task of a link ends with its sender.
    links: Arc<RwLock<BTreeMap<NodeId, mpsc::Sender<Sent>>>>,
}

/// A request that only the leader can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaderRequest {
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
    pub(crate) fn is_harmless_twice(&self) -> bool {
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

/// A request, and the channel for its answer.
#[derive(Debug)]
struct Sent {
    request: LeaderRequest,
    deadline: Instant,
    reply: oneshot::Sender<Response>,
}

impl Forwarder {
    /// Has connections to all members of the directory from now on, and to no others.
    pub(crate) fn follow(&self, directory: &Directory) {
        let peers = directory.peers();
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        links.retain(|peer, _| peers.contains(peer));
        for peer in peers {
            links.entry(peer).or_insert_with(|| {
                let (requests, waiting) = mpsc::channel(QUEUE);
                tokio::spawn(keep(Line::new(directory, peer, Channel::Requests), waiting));
                requests
            });
        }
    }

    /// Sends a request to another replica, and waits for its answer.
    pub(crate) async fn forward(&self, to: NodeId, request: LeaderRequest, deadline: Instant) -> Response {
        // Every change is complete before the lock is released, even after a panic.
        let link = self.links.read().unwrap_or_else(PoisonError::into_inner).get(&to).cloned();
        let Some(link) = link else { return Err(NotDone::Unreachable.into()) };
        let (reply, answer) = oneshot::channel();
        if let Err(error) = link.try_send(Sent { request, deadline, reply }) {
            return Err(match error {
                mpsc::error::TrySendError::Full(_) => Failure::overloaded("requests on their way to the leader"),
                mpsc::error::TrySendError::Closed(_) => Unknown::Stopped.into(),
            });
        }
        match timeout(deadline.saturating_duration_since(Instant::now()), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Unknown::ConnectionLost.into()),
            Err(_) => Err(Unknown::Expired.into()),
        }
    }
}

async fn keep(line: Line, mut requests: mpsc::Receiver<Sent>) {
    let traffic = line.traffic();
    loop {
        let connected = line.connected();
        tokio::pin!(connected);
        let stream = loop {
            tokio::select! {
                stream = &mut connected => break stream,
                request = requests.recv() => match request {
                    // Nothing was sent, so the request may be tried elsewhere.
                    Some(request) => drop(request.reply.send(Err(NotDone::Unreachable.into()))),
                    None => return,
                },
            }
        };
        let mut open = BTreeMap::new();
        // The control connection logs why the connection was lost.
        let _ = run(stream, &mut requests, &mut open, &traffic).await;
        for (_, reply) in open {
            // The receiver may have given up.
            let _ = oneshot::Sender::<Response>::send(reply, Err(Unknown::ConnectionLost.into()));
        }
    }
}

/// Sends requests and takes answers until the connection ends.
async fn run(
    stream: Stream,
    requests: &mut mpsc::Receiver<Sent>,
    open: &mut BTreeMap<u64, oneshot::Sender<Response>>,
    traffic: &Traffic,
) -> Result<(), FrameError> {
    match stream {
        Stream::Plain(mut stream) => {
            let (reader, writer) = stream.split();
            exchange(reader, writer, requests, open, traffic).await
        }
        secure => {
            let (reader, writer) = tokio::io::split(secure);
            exchange(reader, writer, requests, open, traffic).await
        }
    }
}

async fn exchange(
    reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    requests: &mut mpsc::Receiver<Sent>,
    open: &mut BTreeMap<u64, oneshot::Sender<Response>>,
    traffic: &Traffic,
) -> Result<(), FrameError> {
    let (answers, mut answered) = mpsc::channel(QUEUE);
    // Reading a frame must not be cancelled halfway, so it is a separate future.
    let read = async move {
        let mut reader = BufReader::new(reader);
        while let Some(frame) = read_frame(&mut reader, MAX_FRAME).await? {
            if answers.send(frame).await.is_err() {
                break;
            }
        }
        Ok::<(), FrameError>(())
    };
    tokio::pin!(read);
    let (mut next_id, mut out, mut waiting) = (0_u64, BytesMut::new(), Vec::new());
    loop {
        tokio::select! {
            ended = &mut read => return ended,
            Some(frame) = answered.recv() => {
                traffic.received(&frame);
                if let Ok((id, answer)) = decode_answer(frame)
                    && let Some(reply) = open.remove(&id)
                {
                    let _ = reply.send(answer);
                }
            }
            count = requests.recv_many(&mut waiting, QUEUE) => {
                if count == 0 {
                    return Ok(());
                }
                open.retain(|_, reply| !reply.is_closed());
                for sent in waiting.drain(..) {
                    next_id += 1;
                    let patience = sent.deadline.saturating_duration_since(Instant::now());
                    put_frame(&mut out, |out| encode_request(next_id, patience, &sent.request, out));
                    open.insert(next_id, sent.reply);
                }
                let written = timeout(WRITE_PATIENCE, async {
                    writer.write_all(&out).await?;
                    writer.flush().await
                });
                written.await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
                traffic.sent(out.len());
                out.clear();
            }
        }
    }
}

/// Serves the requests of a follower until the connection ends.
pub(super) async fn serve_requests(
    reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Send + Unpin + 'static,
    inbox: &Arc<Inbox>,
    clock: Clock,
    traffic: &Arc<Traffic>,
) -> Result<(), FrameError> {
    let (answers, mut answered) = mpsc::channel::<(u64, Response)>(QUEUE);
    let sent = Arc::clone(traffic);
    let write = tokio::spawn(async move {
        let (mut out, mut waiting) = (BytesMut::new(), Vec::new());
        while answered.recv_many(&mut waiting, QUEUE).await > 0 {
            for (id, answer) in waiting.drain(..) {
                put_frame(&mut out, |out| encode_answer(id, &answer, out));
            }
            if writer.write_all(&out).await.is_err() || writer.flush().await.is_err() {
                return;
            }
            sent.sent(out.len());
            out.clear();
        }
    });
    let ended = take_requests(BufReader::new(reader), inbox, clock, answers, traffic).await;
    write.abort();
    match ended {
        Err(FrameError::Io(_)) => Ok(()),
        ended => ended,
    }
}

async fn take_requests(
    mut reader: impl AsyncRead + Unpin,
    inbox: &Arc<Inbox>,
    clock: Clock,
    answers: mpsc::Sender<(u64, Response)>,
    traffic: &Traffic,
) -> Result<(), FrameError> {
    let room = Arc::new(Semaphore::new(MAX_OPEN));
    while let Some(frame) = read_frame(&mut reader, max_frame(Channel::Requests)).await? {
        traffic.received(&frame);
        let Ok((id, patience, request)) = decode_request(frame) else {
            traffic.received_failures.fetch_add(1, Relaxed);
            return Ok(());
        };
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let Some(request) = request else {
            // A kind of request that only newer members know is not done.
            let _ = answers.send((id, Err(NotDone::TryAgain.into()))).await;
            continue;
        };
        let (reply, answer) = oneshot::channel();
        let deadline = clock.now().after(patience.min(MAX_PATIENCE));
        inbox.push_request(Request { body: request.into(), deadline, reply });
        let answers = answers.clone();
        tokio::spawn(async move {
            let answer = answer.await.unwrap_or(Err(Unknown::Stopped.into()));
            // If this fails, the follower sees the lost connection.
            let _ = answers.send((id, answer)).await;
            drop(permit);
        });
    }
    Ok(())
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

fn encode_answer(id: u64, answer: &Response, out: &mut BytesMut) {
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
pub(super) fn fuzz(body: &Bytes) {
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
            fuzz(&bytes);
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
        assert_eq!(decode_answer(kind), Ok((9, Err(Unknown::ConnectionLost.into()))));
    }
}
