//! Errors in etcd's words: clients match on codes and texts.

use axum::http::{HeaderValue, Response};
use bowline_kv::store::{Code as StoreCode, KvError};
use tonic::{Code, Status};

use crate::replica::RequestError;

/// What the store refused.
pub(super) fn of_store(error: KvError) -> Status {
    let code = match error.code() {
        StoreCode::InvalidArgument => Code::InvalidArgument,
        StoreCode::NotFound => Code::NotFound,
        StoreCode::FailedPrecondition => Code::FailedPrecondition,
        StoreCode::OutOfRange => Code::OutOfRange,
        StoreCode::Unavailable => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}

/// What the replica could not do.
pub(super) fn of_request(error: RequestError) -> Status {
    match error {
        RequestError::NoLeader => Status::unavailable("etcdserver: no leader"),
        RequestError::Overloaded(_) => Status::resource_exhausted("etcdserver: too many requests"),
        RequestError::NoSpace => Status::resource_exhausted("etcdserver: mvcc: database space exceeded"),
        RequestError::TimedOut => Status::unavailable("etcdserver: request timed out"),
        RequestError::ConnectionLost => {
            Status::unavailable("etcdserver: request timed out, possibly due to connection lost")
        }
        RequestError::Refused(reason) => Status::failed_precondition(format!("etcdserver: {reason}")),
        RequestError::Stopped => Status::unavailable("etcdserver: server stopped"),
    }
}

/// Puts codes and texts of the gRPC library in place of which etcd has others: a message that is too long,
/// and one that can't be read. A client that meets `Internal` would think that the server is broken.
pub(crate) fn refuse_status_texts<B>(mut response: Response<B>) -> Response<B> {
    let headers = response.headers_mut();
    let message = headers.get("grpc-message").and_then(|message| message.to_str().ok());
    let Some(message) = message.map(|message| message.replace("%20", " ")) else { return response };
    let (code, text) = if let Some(sizes) = message.strip_prefix("Error, decoded message length too large:") {
        let numbers: Vec<&str> = sizes.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
        let sizes = match numbers.as_slice() {
            [found, limit, ..] => format!(" ({found} vs. {limit})"),
            _ => String::new(),
        };
        ("8", format!("grpc: received message larger than max{sizes}"))
    } else if message.starts_with("failed to decode Protobuf message") {
        ("3", message)
    } else {
        return response;
    };
    let text: String = text.bytes().filter(|byte| (0x20..0x7f).contains(byte)).map(char::from).collect();
    if let Ok(text) = HeaderValue::from_str(&text.replace('%', "%25")) {
        headers.insert("grpc-status", HeaderValue::from_static(code));
        headers.insert("grpc-message", text);
    }
    response
}
