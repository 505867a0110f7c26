//! The three socket forms of the LAN protocol, from both ends: [`ReplicaSocket`] is a replica's,
//! [`Switch`] the network's.
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
use std::str::FromStr;

pub mod arguments;
mod framing;
mod outbox;
mod replica;
mod switch;

pub use replica::{Received, ReplicaCounters, ReplicaSocket};
pub use switch::{Incoming, Switch, SwitchCounters};

/// What a receive buffer must hold: the longest message, its newline, and room to notice that a
/// packet is longer.
pub(crate) const BUFFER_BYTES: usize = 65_536;

/// What is asked of the system for its own buffers; it may give less.
const SYSTEM_BUFFER_BYTES: usize = 4 << 20;

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

/// The answer to "which form of socket?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum SocketChoice {
    /// Find out by trying.
    #[default]
    Auto,
    /// This one.
    Only(SocketKind),
}

impl SocketChoice {
    /// The kinds to try, in this order.
    pub fn kinds(self) -> Vec<SocketKind> {
        match self {
            SocketChoice::Auto => SocketKind::ALL.to_vec(),
            SocketChoice::Only(kind) => vec![kind],
        }
    }
}

impl fmt::Display for SocketChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketChoice::Auto => f.pad("auto"),
            SocketChoice::Only(kind) => kind.fmt(f),
        }
    }
}

/// Text that names no form of socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is no form of socket; allowed are udp, packets, stream and auto")]
pub struct SocketChoiceError {
    /// What was given, shortened.
    pub value: String,
}

impl FromStr for SocketChoice {
    type Err = SocketChoiceError;

    fn from_str(text: &str) -> Result<SocketChoice, SocketChoiceError> {
        if text == "auto" {
            return Ok(SocketChoice::Auto);
        }
        let kind = SocketKind::ALL.into_iter().find(|kind| kind.name() == text);
        kind.map(SocketChoice::Only).ok_or_else(|| SocketChoiceError { value: crate::message::shorten(text) })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_by_its_name() {
        for kind in SocketKind::ALL {
            assert_eq!(kind.name().parse(), Ok(SocketChoice::Only(kind)));
            assert_eq!(SocketChoice::Only(kind).kinds(), [kind]);
        }
        assert_eq!("auto".parse(), Ok(SocketChoice::Auto));
        assert_eq!(SocketChoice::Auto.kinds(), SocketKind::ALL);
    }

    #[test]
    fn an_unknown_kind_is_refused_with_the_known_ones() {
        let error = "tcp".parse::<SocketChoice>().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("\"tcp\"") && text.contains("udp, packets, stream"), "{text}");
    }
}
