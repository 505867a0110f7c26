//! The LAN face of Bowline: the JSON protocol, and an emulated, hostile network that runs and
//! judges any replica program.
//!
//! What decides is pure: [`message`] is the codec, [`scenario`] reads what shall happen,
//! [`emulation`] makes it happen.

pub mod emulation;
mod lan_id;
pub mod message;
pub mod random;
pub mod scenario;

pub use lan_id::{LanId, LanIdError};

pub mod harness;
pub mod socket;
