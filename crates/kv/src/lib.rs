//! The replicated key-value state: what the log's commands mean.
//!
//! [`Map`] is the state of the LAN face: text keys and values, each command applied exactly once
//! however often it reaches the log.

mod command;
mod map;

pub use command::{Command, CommandError, MAX_FIELD_BYTES, Query};
pub use map::{Map, REMEMBERED};
