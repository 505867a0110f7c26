//! What a follower's clients want of the leader, on its way there and back.
//!
//! `id: u64`, `patience: u32` (milliseconds), `kind: u8`, and a command (0), or a lease and whether it is to be
//! renewed (1); answered, in any order, by `id: u64` and how it ended. Each is sent once. If the connection is lost
//! after that, nobody knows what became of it, and whoever asked is told so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bowline_node::raft::NodeId;
use bowline_node::{Failure, NotDone, Response, Unknown};
use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::directory::Directory;
use super::frame::{FrameError, put_frame, read_frame};
use super::handshake::Channel;
use super::outbound::{Line, WRITE_PATIENCE};
use super::traffic::Traffic;
use super::wire::{Reader, WireError, put_bytes};
use super::{MAX_FRAME, max_frame};
use crate::clock::Clock;
use crate::journal::Journal;
use crate::replica::{Inbox, InboxRequest, Work};

/// Most requests that wait for a connection's writer.
const QUEUE: usize = 1_024;

/// Most requests of one follower that are being served at once.
const MAX_OPEN: usize = 8_192;

/// Longest patience that a follower may ask for.
const MAX_PATIENCE: Duration = Duration::from_secs(60);

/// Sends requests to other replicas; copies send over the same connections.
#[derive(Clone, Debug, Default)]
pub struct Forwarder {
    links: Arc<BTreeMap<NodeId, mpsc::Sender<Sent>>>,
}

/// What only the leader can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// A command for the state machine.
    Write(Bytes),
    /// How long a lease still lives.
    Lease {
        /// Its identity.
        id: i64,
        /// Whether it is to be given its whole time anew.
        renew: bool,
    },
}

impl Errand {
    /// Whether it may be sent again when nobody knows what became of it.
    pub(crate) fn is_harmless_twice(&self) -> bool {
        matches!(self, Errand::Lease { .. })
    }
}

impl From<Errand> for Work {
    fn from(errand: Errand) -> Work {
        match errand {
            Errand::Write(command) => Work::Write(command),
            Errand::Lease { id, renew } => Work::Lease { id, renew },
        }
    }
}

/// An errand under way, and who waits for it.
#[derive(Debug)]
struct Sent {
    errand: Errand,
    deadline: Instant,
    reply: oneshot::Sender<Response>,
}

impl Forwarder {
    /// Starts the tasks that keep the connections.
    pub(crate) fn start(directory: &Directory, journal: &Journal) -> Forwarder {
        let links = directory.peers().map(|(peer, address)| {
            let (errands, waiting) = mpsc::channel(QUEUE);
            tokio::spawn(keep(Line::new(directory, peer, address, Channel::Requests, journal), waiting));
            (peer, errands)
        });
        Forwarder { links: Arc::new(links.collect()) }
    }

    /// Lets another replica do an errand, and waits for its answer.
    pub(crate) async fn forward(&self, to: NodeId, errand: Errand, deadline: Instant) -> Response {
        let Some(link) = self.links.get(&to) else { return Err(NotDone::Unreachable.into()) };
        let (reply, answer) = oneshot::channel();
        if let Err(error) = link.try_send(Sent { errand, deadline, reply }) {
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

async fn keep(line: Line, mut errands: mpsc::Receiver<Sent>) {
    let traffic = line.traffic();
    loop {
        let connected = line.connected();
        tokio::pin!(connected);
        let stream = loop {
            tokio::select! {
                stream = &mut connected => break stream,
                errand = errands.recv() => match errand {
                    // Nothing was sent: whoever asked may try elsewhere.
                    Some(errand) => drop(errand.reply.send(Err(NotDone::Unreachable.into()))),
                    None => return,
                },
            }
        };
        let mut open = BTreeMap::new();
        // How it ended is told by the line of the small traffic.
        let _ = run(stream, &mut errands, &mut open, &traffic).await;
        for (_, reply) in open {
            // Who has given up needs no answer.
            let _ = oneshot::Sender::<Response>::send(reply, Err(Unknown::ConnectionLost.into()));
        }
    }
}

/// Sends errands and takes answers until the connection ends.
async fn run(
    mut stream: TcpStream,
    errands: &mut mpsc::Receiver<Sent>,
    open: &mut BTreeMap<u64, oneshot::Sender<Response>>,
    traffic: &Traffic,
) -> Result<(), FrameError> {
    let (reader, mut writer) = stream.split();
    let (answers, mut answered) = mpsc::channel(QUEUE);
    // Reading a frame can't be given up halfway, so it is a future of its own.
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
            count = errands.recv_many(&mut waiting, QUEUE) => {
                if count == 0 {
                    return Ok(());
                }
                open.retain(|_, reply| !reply.is_closed());
                for sent in waiting.drain(..) {
                    next_id += 1;
                    let patience = sent.deadline.saturating_duration_since(Instant::now());
                    put_frame(&mut out, |out| encode_errand(next_id, patience, &sent.errand, out));
                    open.insert(next_id, sent.reply);
                }
                let written = timeout(WRITE_PATIENCE, writer.write_all(&out)).await;
                written.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
                traffic.sent(out.len());
                out.clear();
            }
        }
    }
}

/// Serves what a follower sends, until the connection ends.
pub(super) async fn serve_requests(
    stream: TcpStream,
    inbox: &Arc<Inbox>,
    clock: Clock,
    traffic: &Arc<Traffic>,
) -> Result<(), FrameError> {
    let (reader, mut writer) = stream.into_split();
    let (answers, mut answered) = mpsc::channel::<(u64, Response)>(QUEUE);
    let sent = Arc::clone(traffic);
    let write = tokio::spawn(async move {
        let (mut out, mut waiting) = (BytesMut::new(), Vec::new());
        while answered.recv_many(&mut waiting, QUEUE).await > 0 {
            for (id, answer) in waiting.drain(..) {
                put_frame(&mut out, |out| encode_answer(id, &answer, out));
            }
            if writer.write_all(&out).await.is_err() {
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
    mut reader: BufReader<tokio::net::tcp::OwnedReadHalf>,
    inbox: &Arc<Inbox>,
    clock: Clock,
    answers: mpsc::Sender<(u64, Response)>,
    traffic: &Traffic,
) -> Result<(), FrameError> {
    let room = Arc::new(Semaphore::new(MAX_OPEN));
    while let Some(frame) = read_frame(&mut reader, max_frame(Channel::Requests)).await? {
        traffic.received(&frame);
        let Ok((id, patience, errand)) = decode_errand(frame) else {
            traffic.received_failures.fetch_add(1, Relaxed);
            return Ok(());
        };
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let (reply, answer) = oneshot::channel();
        let deadline = clock.now().after(patience.min(MAX_PATIENCE));
        inbox.push_request(InboxRequest { work: errand.into(), deadline, reply });
        let answers = answers.clone();
        tokio::spawn(async move {
            let answer = answer.await.unwrap_or(Err(Unknown::Stopped.into()));
            // If the follower is gone, it knows no more than that already.
            let _ = answers.send((id, answer)).await;
            drop(permit);
        });
    }
    Ok(())
}

fn encode_errand(id: u64, patience: Duration, errand: &Errand, out: &mut BytesMut) {
    out.put_u64_le(id);
    out.put_u32_le(u32::try_from(patience.as_millis()).unwrap_or(u32::MAX));
    match errand {
        Errand::Write(command) => {
            out.put_u8(0);
            out.put_slice(command);
        }
        Errand::Lease { id, renew } => {
            out.put_u8(1);
            out.put_i64_le(*id);
            out.put_u8((*renew).into());
        }
    }
}

fn decode_errand(frame: Bytes) -> Result<(u64, Duration, Errand), WireError> {
    let mut reader = Reader::new(frame);
    let id = reader.u64("id")?;
    let patience = Duration::from_millis(reader.u32("patience")?.into());
    let errand = match reader.u8("kind")? {
        // Any command may follow: what it means is for the state machine to say.
        0 => Errand::Write(reader.rest()),
        1 => {
            let errand = Errand::Lease { id: reader.u64("lease")?.cast_signed(), renew: reader.flag("renew")? };
            reader.end()?;
            errand
        }
        value => return Err(WireError::Value { field: "kind", value: value.into(), allowed: "0 or 1" }),
    };
    Ok((id, patience, errand))
}

fn encode_answer(id: u64, answer: &Response, out: &mut BytesMut) {
    out.put_u64_le(id);
    let why = match answer {
        Ok(bytes) => {
            out.put_u8(0);
            put_bytes(out, bytes);
            return;
        }
        Err(Failure::NotDone(why)) => why,
        Err(Failure::Unknown(Unknown::Expired)) => return out.put_u8(4),
        // The leader itself never sends a write on.
        Err(Failure::Unknown(Unknown::ConnectionLost | Unknown::Stopped)) => return out.put_u8(7),
    };
    match why {
        NotDone::NotLeader { leader } => {
            out.put_u8(1);
            out.put_u8(leader.is_some().into());
            out.put_u64_le(leader.map_or(0, |leader| leader.0));
        }
        NotDone::Overloaded { limit } => {
            out.put_u8(2);
            put_bytes(out, limit.as_bytes());
        }
        NotDone::Superseded => out.put_u8(3),
        NotDone::TryAgain | NotDone::Unreachable => out.put_u8(5),
        NotDone::Refused { reason } => {
            out.put_u8(6);
            put_bytes(out, reason.as_bytes());
        }
        NotDone::NoSpace => out.put_u8(8),
    }
}

fn decode_answer(frame: Bytes) -> Result<(u64, Response), WireError> {
    let mut reader = Reader::new(frame);
    let id = reader.u64("id")?;
    let answer = match reader.u8("answer")? {
        0 => Ok(reader.bytes("response")?),
        1 => {
            let known = reader.flag("leader known")?;
            let leader = NodeId(reader.u64("leader")?);
            Err(Failure::not_leader(known.then_some(leader)))
        }
        2 => Err(Failure::overloaded(reader.text("limit")?)),
        3 => Err(NotDone::Superseded.into()),
        4 => Err(Unknown::Expired.into()),
        5 => Err(NotDone::TryAgain.into()),
        6 => Err(Failure::refused(reader.text("reason")?)),
        // Whether it took effect is not known, and the connection is as good as lost.
        7 => Err(Unknown::ConnectionLost.into()),
        8 => Err(NotDone::NoSpace.into()),
        value => return Err(WireError::Value { field: "answer", value: value.into(), allowed: "0 to 8" }),
    };
    reader.end()?;
    Ok((id, answer))
}

/// Reads a request and an answer, for a fuzzer: what is read is written and read back the same.
pub(super) fn fuzz(body: Bytes) {
    if let Ok((id, patience, errand)) = decode_errand(body.clone()) {
        let mut out = BytesMut::new();
        encode_errand(id, patience, &errand, &mut out);
        assert_eq!(out.freeze(), body);
    }
    if let Ok((id, answer)) = decode_answer(body) {
        let mut out = BytesMut::new();
        encode_answer(id, &answer, &mut out);
        assert_eq!(decode_answer(out.freeze()), Ok((id, answer)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back_as_they_were() {
        let all: [Response; 9] = [
            Ok(Bytes::from_static(b"response")),
            Err(Failure::not_leader(Some(NodeId(3)))),
            Err(Failure::not_leader(None)),
            Err(Failure::overloaded("room")),
            Err(NotDone::Superseded.into()),
            Err(Unknown::Expired.into()),
            Err(NotDone::TryAgain.into()),
            Err(NotDone::NoSpace.into()),
            Err(Failure::refused("why")),
        ];
        for (id, answer) in (7..).zip(all) {
            let mut out = BytesMut::new();
            encode_answer(id, &answer, &mut out);
            let bytes = out.freeze();
            assert_eq!(decode_answer(bytes.clone()), Ok((id, answer)));
            for length in 0..bytes.len() {
                assert!(decode_answer(bytes.slice(..length)).is_err());
            }
        }
    }

    #[test]
    fn an_errand_arrives_as_it_was_and_says_how_long_it_may_take() {
        let write = Errand::Write(Bytes::from_static(b"command"));
        let (renew, ask) = (Errand::Lease { id: -7, renew: true }, Errand::Lease { id: i64::MAX, renew: false });
        for errand in [write, renew, ask] {
            let mut out = BytesMut::new();
            encode_errand(9, Duration::from_secs(5), &errand, &mut out);
            let bytes = out.freeze();
            fuzz(bytes.clone());
            assert_eq!(decode_errand(bytes.clone()), Ok((9, Duration::from_secs(5), errand)));
            assert!(decode_errand(bytes.slice(..12)).is_err());
        }
        let kind = Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert!(decode_errand(kind).is_err(), "of no kind");
    }
}
