//! Messages that wait to be sent on a local socket.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::SocketKind;

/// How many bytes may wait. Messages beyond that are dropped, as on a congested network.
const MAX_WAITING_BYTES: usize = 4 << 20;

/// How many messages may wait.
const MAX_WAITING_MESSAGES: usize = 20_000;

/// Messages that wait for a local socket to take them, in order.
#[derive(Debug)]
pub struct Outbox {
    kind: SocketKind,
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// How many bytes of the first message are sent; above zero only on streams.
    sent: usize,
    dropped: u64,
}

/// The result of an attempt to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The message was sent, is waiting, or was dropped for lack of room.
    Yes,
    /// The other side is gone.
    Closed,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(kind: SocketKind) -> Outbox {
        Outbox { kind, waiting: VecDeque::new(), bytes: 0, sent: 0, dropped: 0 }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many messages were dropped for lack of room.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Sends a message at once if the socket accepts it, else keeps it.
    ///
    /// # Errors
    ///
    /// Sending failed, but not for lack of room or because the other side is gone.
    pub fn send(&mut self, socket: BorrowedFd<'_>, message: &[u8]) -> Result<Sent, Errno> {
        let needs_newline = self.kind == SocketKind::Stream && !message.ends_with(b"\n");
        if self.is_empty() && !needs_newline {
            match self.try_send(socket, message)? {
                Some(taken) if taken == message.len() => return Ok(Sent::Yes),
                Some(taken) => {
                    self.keep(Bytes::copy_from_slice(message));
                    self.sent = taken;
                    return Ok(Sent::Yes);
                }
                None => return Ok(Sent::Closed),
            }
        }
        let mut line = message.to_vec();
        if needs_newline {
            line.push(b'\n');
        }
        self.keep(line.into());
        self.flush(socket)
    }

    /// Sends as many waiting messages as the socket accepts now.
    ///
    /// # Errors
    ///
    /// The same as for [`Outbox::send`].
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<Sent, Errno> {
        while let Some(first) = self.waiting.front() {
            let length = first.len();
            let Some(taken) = self.try_send(socket, &first[self.sent..])? else {
                return Ok(Sent::Closed);
            };
            self.sent += taken;
            if self.sent < length {
                break;
            }
            self.bytes -= length;
            self.sent = 0;
            self.waiting.pop_front();
        }
        Ok(Sent::Yes)
    }

    fn keep(&mut self, message: Bytes) {
        let full = self.bytes + message.len() > MAX_WAITING_BYTES || self.waiting.len() >= MAX_WAITING_MESSAGES;
        if full {
            self.dropped += 1;
        } else {
            self.bytes += message.len();
            self.waiting.push_back(message);
        }
    }

    /// The number of bytes that the socket accepted, which is all or none for a packet. `None` if the
    /// other side is gone.
    fn try_send(&self, socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<Option<usize>, Errno> {
        loop {
            match send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(taken) => return Ok(Some(taken)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(Some(0)),
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::CONNREFUSED) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
