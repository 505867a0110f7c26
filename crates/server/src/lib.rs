//! A member of a cluster as a process: its threads, its connections, and the etcd v3 API on its client port.
//!
//! The pure crates make all decisions. This crate has the threads ([`replica`]), the connections between members
//! ([`peer`]), and the API for clients.

mod accept;
pub mod auth;
mod authority;
mod browsers;
mod client_connection;
mod clock;
mod complaints;
pub mod config;
mod descriptors;
mod duties;
mod files;
pub mod folder;
pub mod founding;
mod gateway;
mod grpc;
mod http;
mod instruments;
mod join;
mod limits;
pub mod paste;
pub mod peer;
mod random;
pub mod replica;
pub mod restore;
pub mod salvage;
mod secure;
mod server;
mod sessions;
mod threads;
mod watches;

pub use auth::fuzz_tokens;
pub use authority::fuzz_authority;
pub use bowline_member::{KvMachine, StateFiles};
pub use clock::Clock;
pub use descriptors::{TooFew, raise_limit};
pub use gateway::{fuzz_gateway, gateway_path};
pub use grpc::{API_VERSION, fuzz_requests};
pub use secure::check_tls;
pub use server::{Disk, Listeners, Server, StartError};
