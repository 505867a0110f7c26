//! The receiving side: accepts connections, does the handshake, and reads messages.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bowline_node::raft::NodeId;
use bowline_node::wire::decode;
use bowline_tls::{Stream, hang_up};
use tokio::io::BufReader;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::directory::Directory;
use super::forward::serve_requests;
use super::frame::{FrameError, read_frame};
use super::handshake::{Channel, HandshakeError, Hello, accept};
use super::max_frame;
use super::outbound::PLAIN_TEXT;
use super::traffic::Traffic;

use crate::accept::{Acceptor, Arrived};
use crate::clock::Clock;
use crate::replica::Inbox;

/// Pause while the replica's inbox is full.
const PAUSE: Duration = Duration::from_millis(1);

/// Receives messages for a replica.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) directory: Directory,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) clock: Clock,
}

impl Inbound {
    /// Accepts connections forever.
    pub(crate) async fn listen(self: Arc<Inbound>, mut acceptor: Acceptor) {
        loop {
            let accepted = acceptor.accept().await;
            let inbound = Arc::clone(&self);
            tokio::spawn(async move {
                let Some(Arrived { mut stream, address, place, door }) = accepted.secure().await else { return };
                match inbound.welcome(&mut stream).await {
                    // A new member got its answer.
                    Ok(None) => {}
                    Ok(Some(hello)) => {
                        if let Err(error) = inbound.serve(stream, hello).await {
                            warn!(%address, %error, "closed a connection to the peer port");
                        }
                    }
                    Err(error @ HandshakeError::SpeaksTls) => {
                        door.complain(address, &error.to_string());
                        if let Stream::Plain(stream) = stream {
                            hang_up(stream, PLAIN_TEXT.to_vec()).await;
                        }
                    }
                    Err(error) => warn!(%address, %error, "closed a connection to the peer port"),
                }
                drop(place);
            });
        }
    }

    /// Does the handshake; `None` if a new member got its answer.
    async fn welcome(&self, stream: &mut Stream) -> Result<Option<Hello>, HandshakeError> {
        let directory = &self.directory;
        let (judge, cluster) = (|hello: &_| directory.judge(hello), || directory.cluster());
        accept(stream, directory.own(), directory.own_introduction(), judge, cluster).await
    }

    async fn serve(&self, stream: Stream, hello: Hello) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let directory = &self.directory;
        let from = hello.from.replica;
        debug!(member = from.0, channel = ?hello.channel, "a member connected");
        let traffic = self.directory.traffic(from);
        let served = tokio::select! {
            served = self.take(stream, hello.channel, from, &traffic) => served,
            // When it connects again, it is told.
            () = directory.left(from) => Ok(()),
        };
        if served.is_err() {
            traffic.received_failures.fetch_add(1, Relaxed);
        }
        served
    }

    /// Receives from a peer until it closes the connection.
    ///
    /// # Errors
    /// A frame or a message can't be decoded.
    async fn take(
        &self,
        stream: Stream,
        channel: Channel,
        from: NodeId,
        traffic: &Arc<Traffic>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if channel == Channel::Requests {
            match stream {
                Stream::Plain(stream) => {
                    let (reader, writer) = stream.into_split();
                    serve_requests(reader, writer, &self.inbox, self.clock, traffic).await?;
                }
                secure => {
                    let (reader, writer) = tokio::io::split(secure);
                    serve_requests(reader, writer, &self.inbox, self.clock, traffic).await?;
                }
            }
            return Ok(());
        }
        let mut reader = BufReader::with_capacity(64 << 10, stream);
        loop {
            let frame = match read_frame(&mut reader, max_frame(channel)).await {
                Ok(Some(frame)) => frame,
                // A lost connection is not worth logging: the peer connects again.
                Ok(None) | Err(FrameError::Io(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            traffic.received(&frame);
            // A kind of message that only newer members know is dropped, as if the network had lost it.
            let Some(mut message) = decode(frame)? else { continue };
            while let Some(refused) = self.inbox.push_peer(from, message) {
                message = refused;
                sleep(PAUSE).await;
            }
        }
    }
}
