//! The replicated key-value state: what the log's commands mean.
//!
//! [`Map`] is the state of the LAN protocol: text keys and values, each command applied exactly once
//! however often it reaches the log. [`store`] is the state of the etcd API: multi-version, as
//! etcd's v3 KV API asks for.

mod command;
mod map;
pub mod store;

pub use command::{Command, CommandError, MAX_FIELD_BYTES};
pub use map::{Map, REMEMBERED};
