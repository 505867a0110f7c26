//! The LAN face of Bowline: the JSON protocol, and an emulated, hostile network that runs and
//! judges any replica program.
//!
//! What decides is pure: [`message`] is the codec, [`scenario`] reads what shall happen,
//! [`emulation`] makes it happen and records it, [`statistics`] counts, [`judge`] judges,
//! [`report`] tells.
//!
//! What touches the world is in two places: [`socket`] has the three forms of socket, from both
//! ends, and [`harness`] starts programs and gives the emulation the real time.

pub mod check;
pub mod emulation;
#[cfg(test)]
mod fakes;
pub mod harness;
pub mod history;
pub mod judge;
mod lan_id;
pub mod message;
pub mod random;
pub mod report;
pub mod scenario;
mod seconds;
pub mod socket;
pub mod statistics;

pub use lan_id::{LanId, LanIdError};
