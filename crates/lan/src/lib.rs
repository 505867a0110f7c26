//! The LAN face of Bowline: the JSON protocol, and an emulated, hostile network that runs and
//! judges any replica program.
//!
//! What decides is pure: [`message`] is the codec, [`scenario`] reads what shall happen,
//! [`emulation`] makes it happen and records it, [`statistics`] counts, [`judge`] judges,
//! [`report`] tells.

pub mod emulation;
#[cfg(test)]
mod fakes;
pub mod history;
pub mod judge;
mod lan_id;
pub mod message;
pub mod random;
pub mod report;
pub mod scenario;
mod seconds;
pub mod statistics;

pub use lan_id::{LanId, LanIdError};
