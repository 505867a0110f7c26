//! The LAN face of Bowline: the JSON protocol, and an emulated, hostile network that runs and
//! judges any replica program.
//!
//! What decides is pure: [`message`] is the codec, [`scenario`] reads what shall happen,
//! [`emulation`] makes it happen and records it.

pub mod emulation;
mod lan_id;
pub mod message;
pub mod profile;
pub mod random;
pub mod replica;
pub mod scenario;
pub mod virtual_run;
pub mod wire;

pub use lan_id::{LanId, LanIdError};
