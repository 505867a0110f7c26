//! The replicated key-value state machines.
//!
//! [`Map`] is the state of the LAN protocol: keys and values are text, and each command is applied once,
//! however often it reaches the log. [`store`] is the state of the etcd API: a multi-version store, as
//! etcd's v3 KV API requires.

mod command;
mod map;
pub mod store;

pub use command::{Command, CommandError, MAX_FIELD_BYTES};
pub use map::{Map, REMEMBERED};
