//! The LAN face of Bowline: the JSON protocol, the replica that speaks it, and an emulated, hostile
//! network that runs and judges any replica program.
//!
//! What decides is pure. The protocol: [`message`] is the codec, [`wire`] the replicas' own
//! messages. The replica: [`replica`], tuned by a [`profile`]. The network: [`scenario`] reads what
//! shall happen, [`emulation`] makes it happen and records it, [`statistics`] counts, [`judge`]
//! judges, [`report`] tells. [`virtual_run`] joins both in virtual time, and [`mixture`] draws
//! what to run there.
//!
//! What touches the world is in three places: [`socket`] has the three forms of socket, from both
//! ends, [`replica_program`] gives a replica its socket and its clock, and [`harness`] starts programs
//! and gives the emulation the real time.

pub mod emulation;
#[cfg(test)]
mod fakes;
pub mod harness;
pub mod history;
pub mod judge;
mod lan_id;
pub mod message;
pub mod mixture;
pub mod profile;
pub mod random;
pub mod replica;
pub mod replica_program;
pub mod report;
pub mod scenario;
mod seconds;
pub mod socket;
pub mod statistics;
pub mod virtual_run;
pub mod wire;

pub use lan_id::{LanId, LanIdError};
