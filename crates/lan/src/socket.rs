//! The three socket forms of the LAN protocol, and a replica's end of each: [`ReplicaSocket`]. What the network's end
//! needs too, such as [`framing`] and [`outbox`], is public.
//!
//! | form | socket | a message is |
//! |---|---|---|
//! | `udp` | UDP between loopback ports | a datagram |
//! | `packets` | Unix, `SOCK_SEQPACKET` | a packet |
//! | `stream` | Unix, `SOCK_STREAM` | a line |
//!
//! Nothing here blocks but [`ReplicaSocket::receive`], and nothing grows without a bound.

use std::fmt;
use std::io;
use std::path::PathBuf;

pub mod arguments;
pub mod framing;
pub mod outbox;
mod replica;

pub use replica::{Received, ReplicaCounters, ReplicaSocket};

/// What a receive buffer must hold: the longest message, its newline, and room to notice that a
/// packet is longer.
pub const BUFFER_BYTES: usize = 65_536;

/// What is asked of the system for its own buffers; it may give less.
pub const SYSTEM_BUFFER_BYTES: usize = 4 << 20;

/// A form of socket between the network and its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SocketKind {
    /// Datagrams between loopback ports.
    Udp,
    /// A Unix socket of type `SOCK_SEQPACKET`.
    Packets,
    /// A Unix socket of type `SOCK_STREAM`.
    Stream,
}

impl SocketKind {
    /// Every kind, in the order in which `auto` tries them.
    pub const ALL: [SocketKind; 3] = [SocketKind::Udp, SocketKind::Packets, SocketKind::Stream];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            SocketKind::Udp => "udp",
            SocketKind::Packets => "packets",
            SocketKind::Stream => "stream",
        }
    }
}

impl fmt::Display for SocketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a socket could not be had or used. One line each.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The harness's port could not be used.
    #[error("can't use UDP port {port} of the loopback interface: {source}")]
    Udp {
        /// The port; 0 for one of the system's choice.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// The socket file could not be used.
    #[error("can't use the socket file {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Receiving failed for another reason than that the other side is gone.
    #[error("can't receive from the {kind} socket: {source}")]
    Receive {
        /// The socket's form.
        kind: SocketKind,
        /// What the system says.
        source: io::Error,
    },
    /// Sending failed for another reason than that the other side is gone or slow.
    #[error("can't send to the {kind} socket: {source}")]
    Send {
        /// The socket's form.
        kind: SocketKind,
        /// What the system says.
        source: io::Error,
    },
}
