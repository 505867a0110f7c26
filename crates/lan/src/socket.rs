//! The three forms of socket of the LAN protocol. [`ReplicaSocket`] is a replica's end of each. [`framing`] and
//! [`outbox`] are public because the network's end needs them, too.
//!
//! | form | socket | a message is |
//! |---|---|---|
//! | `udp` | UDP between loopback ports | a datagram |
//! | `packets` | Unix, `SOCK_SEQPACKET` | a packet |
//! | `stream` | Unix, `SOCK_STREAM` | a line |
//!
//! Only [`ReplicaSocket::receive`] blocks, and the size of all buffers is bounded.

use std::fmt;
use std::io;
use std::path::PathBuf;

pub mod arguments;
pub mod framing;
pub mod outbox;
mod replica;

pub use replica::{Received, ReplicaCounters, ReplicaSocket};

/// The size of a receive buffer: enough for the longest message with its newline, and for detecting
/// that a packet is longer.
pub const BUFFER_BYTES: usize = 65_536;

/// The requested size of the system's own buffers; the system may provide less.
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
    /// All forms, in the order in which `auto` tries them.
    pub const ALL: [SocketKind; 3] = [SocketKind::Udp, SocketKind::Packets, SocketKind::Stream];

    /// The form's name on the command line.
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

/// Why a socket could not be opened or used. Each error is displayed as one line.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The harness's port could not be used.
    #[error("can't use UDP port {port} of the loopback interface: {source}")]
    Udp {
        /// The port; 0 if the system should choose one.
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
    /// Receiving failed, but not because the other side is gone.
    #[error("can't receive from the {kind} socket: {source}")]
    Receive {
        /// The socket's form.
        kind: SocketKind,
        /// What the system says.
        source: io::Error,
    },
    /// Sending failed, but not because the other side is gone or slow.
    #[error("can't send to the {kind} socket: {source}")]
    Send {
        /// The socket's form.
        kind: SocketKind,
        /// What the system says.
        source: io::Error,
    },
}
