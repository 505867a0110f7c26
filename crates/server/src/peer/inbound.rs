//! The receiving side: accepts connections, does the handshake, and reads messages.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bowline_node::raft::NodeId;
use bowline_node::wire::decode;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::directory::Directory;
use super::forward::serve_requests;
use super::frame::{FrameError, read_frame};
use super::handshake::{Channel, accept};
use super::max_frame;
use super::traffic::Traffic;

use crate::accept::{Accepted, Acceptor};
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
            let Accepted { stream, address, place } = acceptor.accept().await;
            let inbound = Arc::clone(&self);
            tokio::spawn(async move {
                if let Err(error) = inbound.serve(stream).await {
                    warn!(%address, %error, "closed a connection to the peer port");
                }
                drop(place);
            });
        }
    }

    async fn serve(&self, mut stream: TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let directory = &self.directory;
        let (judge, cluster) = (|hello: &_| directory.judge(hello), || directory.cluster());
        let accepted = accept(&mut stream, directory.own(), directory.own_introduction(), judge, cluster).await?;
        // A new member got its answer.
        let Some(hello) = accepted else { return Ok(()) };
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
        stream: TcpStream,
        channel: Channel,
        from: NodeId,
        traffic: &Arc<Traffic>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if channel == Channel::Requests {
            return Ok(serve_requests(stream, &self.inbox, self.clock, traffic).await?);
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
