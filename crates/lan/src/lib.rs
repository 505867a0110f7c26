//! The LAN face of Bowline: the JSON protocol, the replica that speaks it, and an emulated, hostile
//! network that runs and judges any replica program.
//!
//! What decides is pure. The protocol: [`message`] is the codec, [`wire`] the replicas' own
//! messages. The replica: [`replica`], tuned by a [`profile`]. The network: [`scenario`] reads what
//! shall happen, [`emulation`] makes it happen and records it, [`statistics`] counts, [`judge`]
//! judges, [`report`] tells. [`virtual_run`] joins both in virtual time.

pub mod emulation;
#[cfg(test)]
mod fakes;
pub mod history;
pub mod judge;
mod lan_id;
pub mod message;
pub mod profile;
pub mod random;
pub mod replica;
pub mod report;
pub mod scenario;
mod seconds;
pub mod statistics;
pub mod virtual_run;
pub mod wire;

pub use lan_id::{LanId, LanIdError};
