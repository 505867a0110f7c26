//! Accepts connections, up to a limit.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tracing::warn;

/// Pause after the system refused a connection, mostly for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Shortest interval between warnings.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// How long a new connection may be silent: it takes the place of another one.
const SILENCE: Duration = Duration::from_secs(30);

/// Listeners with a common limit of connections.
pub(crate) struct Acceptor {
    listeners: Vec<TcpListener>,
    /// The one that is asked first.
    first: usize,
    room: Arc<Semaphore>,
    most: usize,
    /// For the warning: whose connections they are, and where the limit comes from.
    whose: &'static str,
    bound: String,
    said: Option<Instant>,
}

impl Acceptor {
    /// Accepts `most` connections at a time. If there are more, a warning names `whose` they are and the `bound`.
    pub(crate) fn new(listeners: Vec<TcpListener>, most: usize, whose: &'static str, bound: String) -> Acceptor {
        let room = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Acceptor { listeners, first: 0, room, most, whose, bound, said: None }
    }

    /// Waits for the next connection. At the limit, new connections wait in the system's queue.
    pub(crate) async fn accept(&mut self) -> Accepted {
        let permit = match Arc::clone(&self.room).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                if self.may_warn() {
                    let (most, whose) = (self.most, self.whose);
                    warn!(limit = self.bound, "all {most} connections of {whose} are in use; new ones wait");
                }
                Arc::clone(&self.room).acquire_owned().await.expect("the semaphore is never closed")
            }
        };
        loop {
            match poll_fn(|context| self.poll_accept(context)).await {
                Ok((stream, address)) => {
                    // Without it, each answer may wait 40 ms for an acknowledgement. A failure shows up later.
                    let _ = stream.set_nodelay(true);
                    return Accepted { stream, address, place: permit };
                }
                // The client has given up already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if self.may_warn() {
                        warn!(%error, "can't accept a connection of {}", self.whose);
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// A connection at any of the listeners. Each is asked first in turn, so that none keeps the others waiting.
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let count = self.listeners.len();
        self.first = (self.first + 1) % count.max(1);
        for place in 0..count {
            let accepted = self.listeners[(self.first + place) % count].poll_accept(context);
            if accepted.is_ready() {
                return accepted;
            }
        }
        Poll::Pending
    }

    fn may_warn(&mut self) -> bool {
        let may = self.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN);
        if may {
            self.said = Some(Instant::now());
        }
        may
    }
}

/// A connection that was accepted.
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
    /// Dropping it makes room for another connection.
    pub(crate) place: OwnedSemaphorePermit,
}

/// A client's connection. It ends if the client sends nothing for some time after connecting.
pub(crate) struct Connection {
    stream: TcpStream,
    /// The time limit, until the client sends something.
    silence: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl From<Accepted> for Connection {
    fn from(accepted: Accepted) -> Connection {
        let Accepted { stream, place, .. } = accepted;
        Connection { stream, silence: Some(Box::pin(sleep(SILENCE))), _place: place }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(silence) = &mut self.silence {
            if read.is_pending() {
                ready!(silence.as_mut().poll(context));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client sent nothing")));
            }
            self.silence = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn acceptor(most: usize) -> (Acceptor, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        (Acceptor::new(vec![listener], most, "clients", "the test".to_owned()), address)
    }

    #[tokio::test]
    async fn a_connection_that_ends_makes_room_for_the_next() {
        let (mut acceptor, address) = acceptor(1).await;
        let _clients = (TcpStream::connect(address).await, TcpStream::connect(address).await);
        let first = acceptor.accept().await;
        assert!(tokio::time::timeout(Duration::from_millis(50), acceptor.accept()).await.is_err(), "there is no room");
        drop(first);
        acceptor.accept().await;
    }

    // Time passes by itself whenever nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_ends_and_one_that_has_spoken_may_be_silent() {
        let (mut acceptor, address) = acceptor(2).await;
        let silent = TcpStream::connect(address).await.expect("it listens");
        let mut connection = Connection::from(acceptor.accept().await);
        let mut buffer = [0; 8];
        let error = connection.read(&mut buffer).await.expect_err("the client sent nothing");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(silent);
        let mut client = TcpStream::connect(address).await.expect("it listens");
        client.write_all(b"hello").await.expect("sent");
        let mut connection = Connection::from(acceptor.accept().await);
        assert_eq!(connection.read(&mut buffer).await.expect("it is there already"), 5);
        let more = tokio::time::timeout(SILENCE * 10, connection.read(&mut buffer)).await;
        assert!(more.is_err(), "it waits: {more:?}");
    }
}
