//! The sending side: a queue for each peer and kind of traffic, and a task that maintains its connection.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bowline_node::NodeMessage;
use bowline_node::raft::{Body, Message, NodeId};
use bowline_node::wire::encode_extended;
use bowline_tls::{Stream, words};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

use super::coalesce::coalesce;
use super::directory::Directory;
use super::frame::put_frame;
use super::handshake::{Channel, HandshakeError, Hello, PATIENCE, connect};
use super::hex;
use super::lane::Lane;
use super::traffic::Traffic;
use crate::random::random;

/// Maximum bytes of messages in one write.
const PORTION: usize = 1 << 20;

/// Time limit of a write, after which the connection is dropped.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// Time limit for connecting.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

const FIRST_DELAY: Duration = Duration::from_millis(20);
const LAST_DELAY: Duration = Duration::from_secs(1);

/// The channels of the queues, and the bounds of each in messages and in bytes.
const LANES: [(Channel, usize, usize); 3] =
    [(Channel::Control, 8_192, 4 << 20), (Channel::Entries, 8_192, 32 << 20), (Channel::Snapshot, 64, 8 << 20)];

/// The queues for messages to other replicas. Sending never waits.
#[derive(Debug, Default)]
pub struct Outbox {
    lanes: RwLock<BTreeMap<(NodeId, Channel), Kept>>,
}

/// A queue, and the task that maintains its connection.
#[derive(Debug)]
struct Kept {
    lane: Arc<Lane>,
    task: AbortHandle,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Outbox {
    /// An outbox without any queue.
    #[must_use]
    pub fn new() -> Outbox {
        Outbox::default()
    }

    /// Has queues for all members of the directory from now on, and for no others.
    pub(crate) fn follow(&self, directory: &Directory) {
        let peers: BTreeSet<NodeId> = directory.peers();
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|(peer, _), _| peers.contains(peer));
        for peer in peers {
            for (channel, messages, bytes) in LANES {
                lanes.entry((peer, channel)).or_insert_with(|| {
                    let lane = Arc::new(Lane::new(messages, bytes));
                    let line = Line::new(directory, peer, channel);
                    Kept { task: tokio::spawn(keep(line, Arc::clone(&lane))).abort_handle(), lane }
                });
            }
        }
    }

    fn lane(&self, to: NodeId, channel: Channel) -> Option<Arc<Lane>> {
        // Every change is complete before the lock is released, even after a panic.
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        lanes.get(&(to, channel)).map(|kept| Arc::clone(&kept.lane))
    }

    /// Puts a message into its queue. It may be lost.
    pub fn send(&self, to: NodeId, message: NodeMessage) {
        let channel = match &message {
            NodeMessage::Chunk(_) => Channel::Snapshot,
            NodeMessage::Raft(Message { body: Body::AppendEntries(_), .. }) => Channel::Entries,
            NodeMessage::Raft(_) | NodeMessage::ChunkReply(_) => Channel::Control,
        };
        if let Some(lane) = self.lane(to, channel) {
            lane.push(message);
        }
    }

    /// The number of dropped messages to this replica.
    #[must_use]
    pub fn lost_to(&self, to: NodeId) -> u64 {
        LANES.iter().filter_map(|(channel, ..)| self.lane(to, *channel)).map(|lane| lane.lost()).sum()
    }

    /// Whether there is a control connection to this replica.
    #[must_use]
    pub fn reaches(&self, to: NodeId) -> bool {
        self.lane(to, Channel::Control).is_some_and(|lane| lane.is_connected())
    }
}

/// A connection to a peer, which is made again whenever it is lost.
#[derive(Debug)]
pub(super) struct Line {
    hello: Hello,
    directory: Directory,
    attempts: AtomicUsize,
}

impl Line {
    pub(super) fn new(directory: &Directory, to: NodeId, channel: Channel) -> Line {
        let hello = Hello { from: directory.own(), to, channel, introduction: directory.own_introduction().clone() };
        Line { hello, directory: directory.clone(), attempts: AtomicUsize::new(0) }
    }

    /// The address of the present attempt, for the log.
    fn address(&self) -> String {
        let attempt = self.attempts.load(Ordering::Relaxed);
        self.directory.address(self.hello.to, attempt).unwrap_or_default()
    }

    /// The traffic counters of the peer.
    pub(super) fn traffic(&self) -> Arc<Traffic> {
        self.directory.traffic(self.hello.to)
    }

    /// Tries to connect until it succeeds. Logs when connecting begins to fail, and when it succeeds again.
    pub(super) async fn connected(&self) -> Stream {
        let mut delay = FIRST_DELAY;
        let mut told = None;
        loop {
            match self.try_connect().await {
                Ok(stream) => {
                    if told.is_some() && self.logs() {
                        info!(member = %hex(self.hello.to), address = self.address(), "reconnected to a member");
                    }
                    return stream;
                }
                Err(error) => {
                    if let HandshakeError::Removed(_) = error {
                        self.directory.note_removal();
                    }
                    let error = error.to_string();
                    if told.as_ref() != Some(&error) && delay > FIRST_DELAY * 8 {
                        self.warn_of("can't reach a member", &error);
                        told = Some(error);
                    }
                    self.attempts.fetch_add(1, Ordering::Relaxed);
                }
            }
            tokio::select! {
                () = sleep(jittered(delay)) => delay = (delay * 2).min(LAST_DELAY),
                // The peer has connected, so it can probably be reached again.
                () = self.directory.knocked(self.hello.to) => delay = FIRST_DELAY,
            }
        }
    }

    async fn try_connect(&self) -> Result<Stream, HandshakeError> {
        let address = self.directory.address(self.hello.to, self.attempts.load(Ordering::Relaxed));
        let address = address.ok_or_else(|| HandshakeError::Unwelcome("its address is not known yet".to_owned()))?;
        let stream = timeout(CONNECT_PATIENCE, TcpStream::connect(&address));
        let stream = stream.await.map_err(|_| HandshakeError::Silent)?;
        let stream = stream.map_err(super::FrameError::from)?;
        // Otherwise a message may wait for the acknowledgement of the one before.
        stream.set_nodelay(true).map_err(super::FrameError::from)?;
        let connector = self.directory.tls().map(|tls| tls.connector());
        let mut stream = secure(connector.as_ref(), &address, stream).await?;
        let welcome = connect(&mut stream, &self.hello).await?;
        let heard = self.directory.hear(self.hello.to, welcome.incarnation, &welcome.introduction);
        heard.map_err(|refusal| HandshakeError::Unwelcome(refusal.into()))?;
        Ok(stream)
    }

    /// Only the control connection logs, because the others fail with it.
    fn logs(&self) -> bool {
        self.hello.channel == Channel::Control
    }

    fn warn_of(&self, what: &str, error: &dyn std::fmt::Display) {
        if self.logs() {
            warn!(member = %hex(self.hello.to), address = self.address(), %error, "{what}");
        }
    }
}

/// What somebody with TLS is told at a port without: no record of TLS begins so.
pub(super) const PLAIN_TEXT: &[u8] = b"plain text\r\n";

/// Does the handshake of TLS at the connecting end, if there is one.
pub(crate) async fn secure(
    connector: Option<&TlsConnector>,
    address: &str,
    stream: TcpStream,
) -> Result<Stream, HandshakeError> {
    let Some(connector) = connector else { return Ok(stream.into()) };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let connected = timeout(PATIENCE, bowline_tls::connect(connector, host, stream, "member"));
    let connected = connected.await.map_err(|_| HandshakeError::Silent)?;
    connected.map_err(|error| HandshakeError::Tls(words(&error, "member")))
}

/// A random time in the upper half of `delay`, so that replicas don't all reconnect at the same time.
fn jittered(delay: Duration) -> Duration {
    let thousandths = u32::try_from(random() % 1_000).unwrap_or(0);
    delay / 2 + delay / 2 * thousandths / 1_000
}

async fn keep(line: Line, lane: Arc<Lane>) {
    let (traffic, extension) = (line.traffic(), line.directory.protocol().extension);
    loop {
        let stream = line.connected().await;
        lane.connected();
        let ended = speak(stream, &lane, &traffic, extension).await;
        lane.disconnected();
        if line.hello.channel == Channel::Control {
            traffic.disconnections.fetch_add(1, Ordering::Relaxed);
        }
        if let Err(error) = ended {
            line.warn_of("lost the connection to a member", &error);
        }
    }
}

/// Writes messages from the queue until the connection ends.
async fn speak(stream: Stream, lane: &Lane, traffic: &Traffic, extension: &[u8]) -> io::Result<()> {
    match stream {
        Stream::Plain(mut stream) => {
            let (reader, writer) = stream.split();
            write_all(reader, writer, lane, traffic, extension).await
        }
        secure => {
            let (reader, writer) = tokio::io::split(secure);
            write_all(reader, writer, lane, traffic, extension).await
        }
    }
}

async fn write_all(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    lane: &Lane,
    traffic: &Traffic,
    extension: &[u8],
) -> io::Result<()> {
    let mut out = BytesMut::new();
    let mut nothing = [0; 16];
    loop {
        let messages = tokio::select! {
            // The other end sends nothing on this connection. If it does, or closes it, this is the end.
            _ = reader.read(&mut nothing) => return Ok(()),
            messages = lane.take(PORTION) => messages,
        };
        for message in coalesce(messages) {
            put_frame(&mut out, |out| encode_extended(&message, extension, out));
        }
        let written = timeout(WRITE_PATIENCE, async {
            writer.write_all(&out).await?;
            writer.flush().await
        });
        written.await.map_err(|_| io::ErrorKind::TimedOut)??;
        traffic.sent(out.len());
        out.clear();
    }
}
