//! Clients that try to take all that a member has, and an honest one beside them.

mod beside;
mod connections;
mod headers;
mod resets;

#[path = "../cluster/harness.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod harness;

#[path = "../cluster/raw.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod raw;
