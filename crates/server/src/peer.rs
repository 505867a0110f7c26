//! The transport between replicas: frames with checksums over TCP, with a connection for each kind of traffic.
//!
//! Each replica makes four connections to each other replica: see [`Channel`]. So votes never wait for entries, nor
//! entries for a snapshot, and each kind has its own bounds. A connection carries messages in one direction; only
//! requests are answered on it. Delivery is not guaranteed: the core repeats what is lost.

use bowline_node::raft::NodeId;

mod coalesce;
mod directory;
mod forward;
mod frame;
mod fuzz;
mod handshake;
mod inbound;
mod lane;
mod outbound;
mod traffic;
mod version;

pub use directory::Directory;
pub use forward::Forwarder;
pub use frame::{FrameError, HEADER_BYTES, put_frame, read_frame};
pub use fuzz::{framed, fuzz_frames};
pub(crate) use handshake::answer_member;
pub use handshake::{
    Channel, ClusterInfo, HandshakeError, Hello, Identity, Introduction, MemberInfo, Refusal, Welcome, accept, connect,
    discover, sender,
};
pub(crate) use inbound::Inbound;
pub use outbound::Outbox;
pub(crate) use outbound::secure;
pub use traffic::Traffic;
pub use version::Protocol;

/// Longest frame between replicas, in bytes. It has room for an entry with the largest command, or for many small ones.
pub const MAX_FRAME: u32 = 16 << 20;

/// Longest frame of small messages, in bytes.
const MAX_CONTROL_FRAME: u32 = 64 << 10;

/// The longest frame of a channel, in bytes.
fn max_frame(channel: Channel) -> u32 {
    if channel == Channel::Control { MAX_CONTROL_FRAME } else { MAX_FRAME }
}

/// The id of a member for the log and for error texts: hexadecimal, as in etcd.
pub(crate) fn hex(id: NodeId) -> impl std::fmt::Display {
    std::fmt::from_fn(move |f| write!(f, "{:x}", id.0))
}
