//! The LAN protocol of Bowline, in JSON, and the replica that speaks it.
//!
//! What decides is pure. The protocol: [`message`] is the codec, [`wire`] the replicas' own messages. The replica:
//! [`replica`], tuned by a [`profile`].
//!
//! What touches the operating system is in two places: [`socket`] has the three forms of socket, and [`replica_program`] gives a
//! replica its socket and its clock.

mod lan_id;
pub mod message;
pub mod profile;
pub mod replica;
pub mod replica_program;
pub mod socket;
pub mod wire;

pub use lan_id::{LanId, LanIdError};
