//! The transport between replicas: frames on TCP, with a checksum each, over connections that belong to one
//! kind of traffic.
//!
//! Each replica connects to each other one, four times: see [`Channel`]. So votes never wait for entries, nor
//! entries for a snapshot, and each can be bounded by itself. A connection carries messages one way, except for
//! requests, whose answers come back on it. Nothing is promised: what is lost, the core sends again.

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
pub(crate) use forward::LeaderRequest;
pub use frame::{FrameError, HEADER_BYTES, put_frame, read_frame};
pub use fuzz::{framed, fuzz_frames};
pub use handshake::{Channel, HandshakeError, Hello, Identity, Introduction, Welcome, accept, connect, sender};
pub(crate) use inbound::Inbound;
pub(crate) use lane::weight;
pub use outbound::Outbox;
pub use traffic::Traffic;
pub use version::Protocol;
pub(crate) use version::{check as check_version, raised};

/// Longest frame between replicas, in bytes: an entry with the largest command has room in it, and so has
/// a portion of smaller ones.
pub const MAX_FRAME: u32 = 16 << 20;

/// Longest frame of small messages, in bytes.
const MAX_CONTROL_FRAME: u32 = 64 << 10;

/// The longest frame of a channel, in bytes.
fn max_frame(channel: Channel) -> u32 {
    if channel == Channel::Control { MAX_CONTROL_FRAME } else { MAX_FRAME }
}
