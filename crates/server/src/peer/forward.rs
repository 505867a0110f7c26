//! The connections on which requests of a follower's clients reach the leader, and answers come back. What travels on
//! them, `bowline_member` decides.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock};

use bowline_member::{Arrived, Calls, LeaderRequest, Request, encode_answer, receive};
use bowline_node::raft::{NodeId, Time};
use bowline_node::{Failure, NotDone, Response, Unknown};
use bowline_tls::Stream;
use bytes::BytesMut;
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

/// Sends requests to other replicas. Copies share the connections.
#[derive(Clone, Debug)]
pub struct Forwarder {
    clock: Clock,
    /// The task of a link ends with its sender.
    links: Arc<RwLock<BTreeMap<NodeId, mpsc::Sender<Sent>>>>,
}

/// A request, and the channel for its answer.
#[derive(Debug)]
struct Sent {
    request: LeaderRequest,
    deadline: Time,
    reply: oneshot::Sender<Response>,
}

impl Forwarder {
    /// Without connections.
    #[must_use]
    pub fn new(clock: Clock) -> Forwarder {
        Forwarder { clock, links: Arc::default() }
    }

    /// Has connections to all members of the directory from now on, and to no others.
    pub(crate) fn follow(&self, directory: &Directory) {
        let peers = directory.peers();
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        links.retain(|peer, _| peers.contains(peer));
        for peer in peers {
            links.entry(peer).or_insert_with(|| {
                let (requests, waiting) = mpsc::channel(QUEUE);
                tokio::spawn(keep(Line::new(directory, peer, Channel::Requests), waiting, self.clock));
                requests
            });
        }
    }

    /// Sends a request to another replica, and waits for its answer.
    pub(crate) async fn forward(&self, to: NodeId, request: LeaderRequest, deadline: Time) -> Response {
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
        match timeout(deadline.since(self.clock.now()), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Unknown::ConnectionLost.into()),
            Err(_) => Err(Unknown::Expired.into()),
        }
    }
}

async fn keep(line: Line, mut requests: mpsc::Receiver<Sent>, clock: Clock) {
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
        let mut calls = Calls::default();
        // The control connection logs why the connection was lost.
        let _ = run(stream, &mut requests, &mut calls, (&traffic, clock)).await;
        for (reply, answer) in calls.lost() {
            // The receiver may have given up.
            let _ = reply.send(answer);
        }
    }
}

/// Sends requests and takes answers until the connection ends.
async fn run(
    stream: Stream,
    requests: &mut mpsc::Receiver<Sent>,
    calls: &mut Calls<oneshot::Sender<Response>>,
    (traffic, clock): (&Traffic, Clock),
) -> Result<(), FrameError> {
    match stream {
        Stream::Plain(mut stream) => {
            let (reader, writer) = stream.split();
            exchange(reader, writer, requests, calls, (traffic, clock)).await
        }
        secure => {
            let (reader, writer) = tokio::io::split(secure);
            exchange(reader, writer, requests, calls, (traffic, clock)).await
        }
    }
}

async fn exchange(
    reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    requests: &mut mpsc::Receiver<Sent>,
    calls: &mut Calls<oneshot::Sender<Response>>,
    (traffic, clock): (&Traffic, Clock),
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
    let (mut out, mut waiting) = (BytesMut::new(), Vec::new());
    loop {
        tokio::select! {
            ended = &mut read => return ended,
            Some(frame) = answered.recv() => {
                traffic.received(&frame);
                if let Some((reply, answer)) = calls.answered(frame) {
                    let _ = reply.send(answer);
                }
            }
            count = requests.recv_many(&mut waiting, QUEUE) => {
                if count == 0 {
                    return Ok(());
                }
                calls.forget(oneshot::Sender::is_closed);
                for Sent { request, deadline, reply } in waiting.drain(..) {
                    let patience = deadline.since(clock.now());
                    put_frame(&mut out, |out| calls.ask(&request, patience, reply, out));
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
        let Ok(arrived) = receive(frame, clock.now()) else {
            traffic.received_failures.fetch_add(1, Relaxed);
            return Ok(());
        };
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let (id, request, deadline) = match arrived {
            Arrived::Request { id, request, deadline } => (id, request, deadline),
            Arrived::Refused { id, answer } => {
                let _ = answers.send((id, answer)).await;
                continue;
            }
        };
        let (reply, answer) = oneshot::channel();
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
