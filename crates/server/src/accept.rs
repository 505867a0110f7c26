//! Accepts connections, up to a limit, and does the handshake of TLS with those that need one.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bowline_tls::{Facts, FirstBytes, Keeper, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tracing::warn;

use crate::client_connection::CertifiedName;
use crate::complaints::Complaints;
use crate::instruments::Gauge;
use crate::limits::{AddressPlace, Addresses, Limit};
use crate::secure::{Door, Handshake, Handshakes};

/// Pause after the system refused a connection, mostly for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a new connection may be silent: it takes the place of another one.
const SILENCE: Duration = Duration::from_secs(30);

/// Listeners with a common limit of connections.
pub(crate) struct Acceptor {
    listeners: Vec<Listener>,
    /// The one that is asked first.
    first: usize,
    room: Arc<Semaphore>,
    most: usize,
    /// For the warning: whose connections they are, and where the limit comes from.
    whose: &'static str,
    bound: String,
    complaints: Complaints,
    /// Bounds the connections of each address, if there is such a bound.
    addresses: Option<Addresses>,
    door: Door,
    handshakes: Handshakes,
    /// What a stranger is told who does not speak TLS where it is needed.
    answer: fn(FirstBytes) -> Vec<u8>,
}

/// A port, and its TLS if it has some.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) tls: Option<Arc<Keeper>>,
}

impl Acceptor {
    /// Accepts `most` connections at a time. If there are more, a warning names `whose` they are and the `bound`.
    pub(crate) fn new(
        listeners: Vec<Listener>,
        most: usize,
        (whose, bound): (&'static str, String),
        (door, answer): (Door, fn(FirstBytes) -> Vec<u8>),
    ) -> Acceptor {
        let room = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        // The others are for those who have finished theirs.
        let handshakes = Handshakes::new((most / 2).max(1));
        Acceptor {
            listeners,
            first: 0,
            room,
            most,
            whose,
            bound,
            complaints: Complaints::default(),
            addresses: None,
            door,
            handshakes,
            answer,
        }
    }

    /// Also bounds the connections of each address.
    pub(crate) fn with_addresses(self, addresses: Addresses) -> Acceptor {
        Acceptor { addresses: Some(addresses), ..self }
    }

    /// Waits for the next connection. At the limit, new connections wait in the system's queue. One whose address has
    /// too many is closed.
    pub(crate) async fn accept(&mut self) -> Accepted {
        let permit = match Arc::clone(&self.room).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let (most, whose) = (self.most, self.whose);
                if let Some(addresses) = &self.addresses {
                    addresses.reached().count(Limit::Connections);
                }
                self.complaints.say("full", |more| {
                    warn!(limit = self.bound, more, "all {most} connections of {whose} are in use; new ones wait");
                });
                Arc::clone(&self.room).acquire_owned().await.expect("the semaphore is never closed")
            }
        };
        loop {
            match poll_fn(|context| self.poll_accept(context)).await {
                Ok((stream, address, tls)) => {
                    let of_address = match &self.addresses {
                        None => None,
                        Some(addresses) => match addresses.enter(address.ip()) {
                            None => continue,
                            place => place,
                        },
                    };
                    let place = Place { _of_all: permit, _of_address: of_address };
                    // Without it, each answer may wait 40 ms for an acknowledgement. A failure shows up later.
                    let _ = stream.set_nodelay(true);
                    let (door, answer) = (self.door.clone(), self.answer);
                    let handshake = tls.map(|keeper| {
                        let ended = self.handshakes.begin();
                        Handshake { keeper, ended, door: door.clone(), answer }
                    });
                    return Accepted { stream, address, place, handshake, door };
                }
                // The client has given up already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    let text = error.to_string();
                    self.complaints.say(&text, |more| {
                        warn!(%error, more, "can't accept a connection of {}", self.whose);
                    });
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// A connection at any of the listeners. Each is asked first in turn, so that none keeps the others waiting.
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Arrival>> {
        let count = self.listeners.len();
        self.first = (self.first + 1) % count.max(1);
        for place in 0..count {
            let Listener { socket, tls } = &self.listeners[(self.first + place) % count];
            if let Poll::Ready(accepted) = socket.poll_accept(context) {
                return Poll::Ready(accepted.map(|(stream, address)| (stream, address, tls.clone())));
            }
        }
        Poll::Pending
    }
}

/// What came to a port, from where, and the TLS of the port.
type Arrival = (TcpStream, SocketAddr, Option<Arc<Keeper>>);

/// The place of a connection among all, and among those of its address. Dropping it makes room for another connection.
#[derive(Debug)]
pub(crate) struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_address: Option<AddressPlace>,
}

/// A connection that was accepted.
pub(crate) struct Accepted {
    stream: TcpStream,
    pub(crate) address: SocketAddr,
    place: Place,
    /// What is to be done before anything else.
    handshake: Option<Handshake>,
    door: Door,
}

impl Accepted {
    /// Does the handshake, if one is needed; `None` if it failed.
    pub(crate) async fn secure(self) -> Option<Arrived> {
        let Accepted { stream, address, place, handshake, door } = self;
        let stream = match handshake {
            None => Stream::Plain(stream),
            Some(handshake) => handshake.run(stream, address).await?,
        };
        Some(Arrived { stream, address, place, door })
    }
}

/// A connection after its handshake.
pub(crate) struct Arrived {
    pub(crate) stream: Stream,
    pub(crate) address: SocketAddr,
    pub(crate) place: Place,
    pub(crate) door: Door,
}

impl Arrived {
    /// The name in the certificate of the other side, if it had to show one.
    pub(crate) fn certified_name(&self) -> Option<CertifiedName> {
        let name = Facts::of(&self.stream.other_certificate()?)?.common_name?;
        (!name.is_empty()).then(|| CertifiedName(name.into()))
    }
}

/// A client's connection. It ends if the client sends nothing for some time after connecting.
pub(crate) struct Connection {
    stream: Stream,
    /// Until the client sends something.
    silence: Option<Silence>,
    _place: Place,
    _open: Option<Open>,
}

impl Connection {
    /// Counts it as long as it is open, also after it has become a web socket.
    pub(crate) fn counted(self, open: Gauge) -> Connection {
        open.inc();
        Connection { _open: Some(Open(open)), ..self }
    }
}

/// Counts a connection.
struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A client has not sent anything yet.
struct Silence {
    limit: Pin<Box<Sleep>>,
    address: SocketAddr,
    door: Door,
}

impl From<Arrived> for Connection {
    fn from(arrived: Arrived) -> Connection {
        let Arrived { stream, address, place, door } = arrived;
        let silence = Silence { limit: Box::pin(sleep(SILENCE)), address, door };
        Connection { stream, silence: Some(silence), _place: place, _open: None }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let begin = buffer.filled().len();
        let this = &mut *self;
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if let Some(silence) = &mut this.silence {
            if read.is_pending() {
                ready!(silence.limit.as_mut().poll(context));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client sent nothing")));
            }
            let first = FirstBytes::of(&buffer.filled()[begin..]);
            if first == FirstBytes::Tls && matches!(this.stream, Stream::Plain(_)) {
                // What is served here answers that this is no HTTP, so the client knows, too.
                silence.door.complain_of_tls(silence.address);
            }
            this.silence = None;
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
    use std::net::IpAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    use super::*;
    use crate::limits::{Reached, limit_counts};
    use crate::secure::answer_client;

    async fn accepted(acceptor: &mut Acceptor) -> Connection {
        acceptor.accept().await.secure().await.expect("it needs no handshake").into()
    }

    async fn acceptor(most: usize) -> (Acceptor, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let address = socket.local_addr().expect("it is bound");
        let (whose, door) = (("clients", "the test".to_owned()), (Door::new("client"), answer_client as fn(_) -> _));
        (Acceptor::new(vec![Listener { socket, tls: None }], most, whose, door), address)
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

    #[tokio::test]
    async fn a_connection_too_many_of_an_address_is_closed_and_keeps_nobody_waiting() {
        let (acceptor, address) = acceptor(3).await;
        let mut acceptor = acceptor.with_addresses(Addresses::new(1, Reached::new(limit_counts())));
        let connect = async |from: [u8; 4]| {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind(SocketAddr::from((from, 0))).expect("all of 127.0.0.0/8 is loopback");
            socket.connect(address).await.expect("it listens")
        };
        let _first = connect([127, 0, 0, 1]).await;
        let place = acceptor.accept().await;
        let mut second = connect([127, 0, 0, 1]).await;
        let _third = connect([127, 0, 0, 2]).await;
        assert_eq!(acceptor.accept().await.address.ip(), IpAddr::from([127, 0, 0, 2]));
        assert_eq!(second.read(&mut [0; 8]).await.expect("it is closed in good order"), 0);
        drop(place);
        let _fourth = connect([127, 0, 0, 1]).await;
        assert_eq!(acceptor.accept().await.address.ip(), IpAddr::from([127, 0, 0, 1]));
    }

    // Time passes by itself whenever nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_ends_and_one_that_has_spoken_may_be_silent() {
        let (mut acceptor, address) = acceptor(2).await;
        let silent = TcpStream::connect(address).await.expect("it listens");
        let mut connection = accepted(&mut acceptor).await;
        let mut buffer = [0; 8];
        let error = connection.read(&mut buffer).await.expect_err("the client sent nothing");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(silent);
        let mut client = TcpStream::connect(address).await.expect("it listens");
        client.write_all(b"hello").await.expect("sent");
        let mut connection = accepted(&mut acceptor).await;
        assert_eq!(connection.read(&mut buffer).await.expect("it is there already"), 5);
        let more = tokio::time::timeout(SILENCE * 10, connection.read(&mut buffer)).await;
        assert!(more.is_err(), "it waits: {more:?}");
    }
}
