//! The etcd v3 API's wire types and service traits, generated from `proto/` (see `tests/generated.rs`).
//!
//! Names and numbers of services, messages and fields are facts of the wire, taken from etcd's public
//! API; the files are this project's own. What a field means is said there. Every service has a server
//! trait and a client. gRPC's own service for health, which etcd serves too, is among them.

/// Keys with their values, and events.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, reason = "generated")]
pub mod mvccpb {
    include!("../generated/mvccpb.rs");
}

/// Permissions.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, reason = "generated")]
pub mod authpb {
    include!("../generated/authpb.rs");
}

/// Requests, responses and services.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, reason = "generated")]
pub mod etcdserverpb {
    include!("../generated/etcdserverpb.rs");
}

/// Health, as gRPC's probes ask for it.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, reason = "generated")]
pub mod healthpb {
    include!("../generated/grpc.health.v1.rs");
}

pub use prost::{DecodeError, Message};
