//! The LAN protocol of Bowline, in JSON, and the replica that speaks it.
//!
//! These modules make the decisions and are pure: [`message`] is the codec of the protocol, [`wire`] encodes the
//! messages between replicas, [`map`] is the replicated state, [`replica`] is the replica, and a [`profile`] sets its
//! timing.
//!
//! Two modules use the operating system: [`socket`] has the three forms of socket, and [`replica_program`] gives a
//! replica its socket and its clock.

mod lan_id;
pub mod map;
pub mod message;
pub mod profile;
pub mod replica;
pub mod replica_program;
pub mod socket;
pub mod wire;

pub use lan_id::{LanId, LanIdError};
