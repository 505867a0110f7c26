//! The replicated key-value state: what the log's commands mean.
//!
//! [`Map`] is the state of the LAN face: text keys and values, each command applied exactly once
//! however often it reaches the log. [`store`] is the state of the service face: multi-version, as
//! etcd's v3 KV API asks for.

mod command;
mod map;
pub mod store;

pub use command::{Command, CommandError, MAX_FIELD_BYTES};
pub use map::{Map, REMEMBERED};
