//! A replica's end of its socket to the network.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send, socket_with,
    sockopt,
};

use super::framing::Lines;
use super::outbox::{Outbox, Sent};
use super::{BUFFER_BYTES, SYSTEM_BUFFER_BYTES, SocketError, SocketKind};
use crate::message::MAX_MESSAGE_BYTES;

/// A replica's connection to the network, on any of the three forms of socket.
#[derive(Debug)]
pub struct ReplicaSocket {
    kind: SocketKind,
    socket: OwnedFd,
    lines: Lines,
    outbox: Outbox,
    closed: bool,
    /// Whether the last read found nothing. Then the socket is not read again before the system
    /// reports that something arrived.
    empty: bool,
    counters: ReplicaCounters,
}

/// The result of [`ReplicaSocket::receive`].
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A message as it was sent; a line of a stream has no newline.
    Message(&'a [u8]),
    /// Nothing arrived in time.
    Timeout,
    /// The network closed the connection for good.
    Closed,
}

/// Messages that were lost at a replica's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplicaCounters {
    /// Received, but longer than [`MAX_MESSAGE_BYTES`].
    pub oversized: u64,
    /// Received, but empty.
    pub empty: u64,
    /// Not sent because the socket and the outbox were full.
    pub dropped: u64,
    /// Not sent because they were longer than [`MAX_MESSAGE_BYTES`] or than the system allows.
    pub too_long: u64,
}

impl ReplicaSocket {
    /// A UDP socket on a free loopback port. It is connected to `127.0.0.1:port`, so the system
    /// rejects datagrams from any other address.
    ///
    /// # Errors
    ///
    /// The system can't provide such a socket, or `port` is 0.
    pub fn udp(port: u16) -> Result<ReplicaSocket, SocketError> {
        let open = || -> std::io::Result<OwnedFd> {
            let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
            socket.connect(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        };
        match open() {
            Ok(_) if port == 0 => {
                Err(SocketError::Udp { port, source: std::io::Error::from(std::io::ErrorKind::InvalidInput) })
            }
            Ok(socket) => Ok(ReplicaSocket::new(SocketKind::Udp, socket)),
            Err(source) => Err(SocketError::Udp { port, source }),
        }
    }

    /// Connects to a Unix socket file. Without `kind`, tries the two local forms.
    ///
    /// # Errors
    ///
    /// There is no such file, nobody listens on it, or it has another form.
    pub fn local(path: &Path, kind: Option<SocketKind>) -> Result<ReplicaSocket, SocketError> {
        let fault = |source: Errno| SocketError::File { path: path.to_owned(), source: source.into() };
        let address = SocketAddrUnix::new(path).map_err(fault)?;
        let open = |kind: SocketKind| -> Result<ReplicaSocket, Errno> {
            let of_type = match kind {
                SocketKind::Udp => return Err(Errno::PROTOTYPE),
                SocketKind::Packets => SocketType::SEQPACKET,
                SocketKind::Stream => SocketType::STREAM,
            };
            let socket = socket_with(AddressFamily::UNIX, of_type, SocketFlags::CLOEXEC, None)?;
            connect(&socket, &address)?;
            rustix::io::ioctl_fionbio(&socket, true)?;
            Ok(ReplicaSocket::new(kind, socket))
        };
        match kind {
            Some(kind) => open(kind),
            None => match open(SocketKind::Packets) {
                Err(Errno::PROTOTYPE) => open(SocketKind::Stream),
                other => other,
            },
        }
        .map_err(fault)
    }

    fn new(kind: SocketKind, socket: OwnedFd) -> ReplicaSocket {
        // A larger buffer loses less in a burst, but the socket works without it.
        let _ = sockopt::set_socket_recv_buffer_size(&socket, SYSTEM_BUFFER_BYTES);
        ReplicaSocket {
            kind,
            socket,
            lines: Lines::default(),
            outbox: Outbox::new(kind),
            closed: false,
            empty: false,
            counters: ReplicaCounters::default(),
        }
    }

    /// The form of the socket.
    pub fn kind(&self) -> SocketKind {
        self.kind
    }

    /// The messages lost so far.
    pub fn counters(&self) -> ReplicaCounters {
        ReplicaCounters {
            oversized: self.counters.oversized + self.lines.discarded(),
            dropped: self.counters.dropped + self.outbox.dropped(),
            ..self.counters
        }
    }

    /// Sends one message without waiting. A message that does not fit is dropped and counted. If the
    /// network is gone, the next [`ReplicaSocket::receive`] says so.
    ///
    /// # Errors
    ///
    /// Sending failed, but not for lack of room or because the other side is gone.
    pub fn send(&mut self, message: &[u8]) -> Result<(), SocketError> {
        if message.len() > MAX_MESSAGE_BYTES {
            self.counters.too_long += 1;
            return Ok(());
        }
        let sent = match self.kind {
            SocketKind::Udp => self.send_datagram(message),
            _ => self.outbox.send(self.socket.as_fd(), message),
        };
        self.note(sent)
    }

    fn send_datagram(&mut self, message: &[u8]) -> Result<Sent, Errno> {
        loop {
            match send(&self.socket, message, SendFlags::DONTWAIT) {
                Ok(_) => return Ok(Sent::Yes),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => {
                    self.counters.dropped += 1;
                    return Ok(Sent::Yes);
                }
                Err(Errno::CONNREFUSED) => return Ok(Sent::Closed),
                Err(error) => return Err(error),
            }
        }
    }

    fn note(&mut self, sent: Result<Sent, Errno>) -> Result<(), SocketError> {
        match sent {
            Ok(Sent::Yes) => Ok(()),
            Ok(Sent::Closed) => {
                self.closed = true;
                Ok(())
            }
            Err(Errno::MSGSIZE) => {
                self.counters.too_long += 1;
                Ok(())
            }
            Err(error) => Err(SocketError::Send { kind: self.kind, source: error.into() }),
        }
    }

    /// Waits for the next message for at most `timeout`, or without limit if it is `None`.
    ///
    /// With a `timeout` of zero, it never waits and makes few system calls. To handle all messages
    /// that have arrived, call it with zero until it returns [`Received::Timeout`].
    ///
    /// # Errors
    ///
    /// Receiving failed, but not because the other side is gone.
    pub fn receive<'b>(
        &mut self,
        timeout: Option<Duration>,
        buffer: &'b mut Vec<u8>,
    ) -> Result<Received<'b>, SocketError> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let fault = |kind, source: Errno| SocketError::Receive { kind, source: source.into() };
        let must_look = timeout == Some(Duration::ZERO);
        loop {
            if !self.empty || must_look {
                match self.take(buffer).map_err(|error| fault(self.kind, error))? {
                    Taken::Message(length) => return Ok(Received::Message(&buffer[..length])),
                    Taken::Closed => return Ok(Received::Closed),
                    Taken::Nothing => self.empty = true,
                }
            }
            if self.closed {
                return Ok(Received::Closed);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(Received::Timeout);
            }
            self.wait(left)?;
        }
    }

    /// Waits until a message can be received or the time is up, and sends waiting messages.
    fn wait(&mut self, left: Option<Duration>) -> Result<(), SocketError> {
        let mut flags = PollFlags::IN;
        if !self.outbox.is_empty() {
            flags |= PollFlags::OUT;
        }
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut polled = [PollFd::new(&self.socket, flags)];
        match poll(&mut polled, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                return Err(SocketError::Receive { kind: self.kind, source: error.into() });
            }
        }
        let ready = polled[0].revents();
        if ready.contains(PollFlags::OUT) {
            let sent = self.outbox.flush(self.socket.as_fd());
            self.note(sent)?;
        }
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.empty = false;
        }
        Ok(())
    }

    /// Takes one message, if there is one.
    fn take(&mut self, buffer: &mut Vec<u8>) -> Result<Taken, Errno> {
        buffer.resize(BUFFER_BYTES, 0);
        loop {
            if let Some(line) = self.lines.next_line() {
                buffer[..line.len()].copy_from_slice(line);
                return Ok(Taken::Message(line.len()));
            }
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            // On a stream, `TRUNC` would discard the bytes.
            let flags = match self.kind {
                SocketKind::Stream => RecvFlags::DONTWAIT,
                _ => flags,
            };
            let length = match recv(&self.socket, &mut buffer[..], flags) {
                Ok((_, length)) => length,
                // A reset is reported once, before the messages sent earlier and the end of the stream.
                Err(Errno::INTR | Errno::CONNRESET) => continue,
                Err(Errno::AGAIN) => return Ok(Taken::Nothing),
                Err(Errno::CONNREFUSED) => {
                    self.closed = true;
                    return Ok(Taken::Closed);
                }
                Err(error) => return Err(error),
            };
            match self.kind {
                SocketKind::Udp if length == 0 => self.counters.empty += 1,
                _ if length == 0 => {
                    self.closed = true;
                    return Ok(Taken::Closed);
                }
                SocketKind::Stream => self.lines.push(&buffer[..length]),
                _ if length > MAX_MESSAGE_BYTES => self.counters.oversized += 1,
                _ => return Ok(Taken::Message(length)),
            }
        }
    }
}

impl AsFd for ReplicaSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

enum Taken {
    Message(usize),
    Nothing,
    Closed,
}
