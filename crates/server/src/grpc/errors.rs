//! Errors with etcd's codes and texts, which clients compare.

use axum::http::HeaderMap;
use bowline_kv::store::{Code as StoreCode, KvError};
use bowline_node::{Failure, NotDone, Unknown};
use tonic::{Code, Status};

/// The status for an error of the store.
pub(super) fn of_store(error: KvError) -> Status {
    let code = match error.code() {
        StoreCode::InvalidArgument => Code::InvalidArgument,
        StoreCode::NotFound => Code::NotFound,
        StoreCode::FailedPrecondition => Code::FailedPrecondition,
        StoreCode::OutOfRange => Code::OutOfRange,
        StoreCode::ResourceExhausted => Code::ResourceExhausted,
        StoreCode::Unavailable => Code::Unavailable,
        StoreCode::DataLoss => Code::DataLoss,
        StoreCode::Unknown => Code::Unknown,
    };
    Status::new(code, error.to_string())
}

/// The status for a failed request to the replica.
pub(crate) fn of_request(failure: Failure) -> Status {
    match failure {
        Failure::NotDone(NotDone::Overloaded { .. }) => Status::resource_exhausted("etcdserver: too many requests"),
        Failure::NotDone(NotDone::NoSpace) => Status::resource_exhausted("etcdserver: mvcc: database space exceeded"),
        Failure::NotDone(NotDone::Refused { reason }) => Status::failed_precondition(format!("etcdserver: {reason}")),
        // No leader has done it in time.
        Failure::NotDone(
            NotDone::NotLeader { .. } | NotDone::Superseded | NotDone::TryAgain | NotDone::Unreachable,
        ) => Status::unavailable("etcdserver: no leader"),
        Failure::Unknown(Unknown::Expired) => Status::unavailable("etcdserver: request timed out"),
        Failure::Unknown(Unknown::ConnectionLost) => {
            Status::unavailable("etcdserver: request timed out, possibly due to connection lost")
        }
        Failure::Unknown(Unknown::Stopped) => Status::unavailable("etcdserver: server stopped"),
    }
}

/// Replaces codes and texts of the gRPC library by etcd's, in the headers or trailers that end a call. Returns the code
/// with which it ends; `None` if it does not end with these.
pub(super) fn in_etcds_words(headers: &mut HeaderMap) -> Option<Code> {
    if headers.get("grpc-status")?.as_bytes() == b"0" {
        return Some(Code::Ok);
    }
    let status = Status::from_header_map(headers)?;
    let Some(better) = translated(status.message()) else { return Some(status.code()) };
    match better.add_header(headers) {
        Ok(()) => Some(better.code()),
        // It can't be encoded as a header, so the original stays.
        Err(_) => Some(status.code()),
    }
}

/// The status that etcd gives instead. A client that gets `Internal` would think that the server is broken.
fn translated(message: &str) -> Option<Status> {
    let numbers = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    if let Some(sizes) = message.strip_prefix("Error, decoded message length too large:") {
        let sizes = match numbers(sizes).as_slice() {
            [found, limit, ..] => format!(" ({found} vs. {limit})"),
            _ => String::new(),
        };
        return Some(Status::resource_exhausted(format!("grpc: received message larger than max{sizes}")));
    }
    if let Some(size) = message.strip_prefix("Error decompressing: size limit,") {
        let limit = numbers(size).first().map_or(String::new(), |limit| format!(" {limit}"));
        let text = format!("grpc: received message after decompression larger than max{limit}");
        return Some(Status::resource_exhausted(text));
    }
    if let Some(why) = message.strip_prefix("Error decompressing: ") {
        let why = why.trim_end_matches(", while sending request");
        return Some(Status::invalid_argument(format!("grpc: failed to decompress the received message: {why}")));
    }
    let unreadable = message.starts_with("failed to decode Protobuf message");
    unreadable.then(|| Status::invalid_argument(message))
}
