//! The etcd v3 API's wire types and service traits, generated from `proto/` (see `tests/generated.rs`).
//!
//! The names and numbers of services, messages and fields are those of etcd's public API; the files
//! are this project's own and document the fields. Every service has a server trait and a client. They
//! include gRPC's health service, which etcd serves, too.

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

/// Locks that the server keeps.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, reason = "generated")]
pub mod v3lockpb {
    include!("../generated/v3lockpb.rs");
}

/// Elections that the server keeps.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, reason = "generated")]
pub mod v3electionpb {
    include!("../generated/v3electionpb.rs");
}

/// gRPC's health service.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, reason = "generated")]
pub mod healthpb {
    include!("../generated/grpc.health.v1.rs");
}

/// The descriptors of all services and messages, as an encoded `google.protobuf.FileDescriptorSet`, for gRPC's reflection
/// service.
pub const DESCRIPTORS: &[u8] = include_bytes!("../generated/descriptors.bin");

pub use prost::{DecodeError, Message};
