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
        StoreCode::PermissionDenied => Code::PermissionDenied,
        StoreCode::Unauthenticated => Code::Unauthenticated,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The errors of the store in the order of their numbers, with etcd's codes and texts without their beginning.
    const STORE: [(Code, &str); 46] = [
        (Code::InvalidArgument, "key is not provided"),
        (Code::InvalidArgument, "key not found"),
        (Code::InvalidArgument, "value is provided"),
        (Code::InvalidArgument, "lease is provided"),
        (Code::InvalidArgument, "too many operations in txn request"),
        (Code::InvalidArgument, "duplicate key given in txn request"),
        (Code::InvalidArgument, "invalid sort option"),
        (Code::InvalidArgument, "request is too large"),
        (Code::OutOfRange, "mvcc: required revision has been compacted"),
        (Code::OutOfRange, "mvcc: required revision is a future revision"),
        (Code::NotFound, "requested lease not found"),
        (Code::Unavailable, "server stopped"),
        // etcd does not have these two; no client can cause them.
        (Code::InvalidArgument, "unreadable request"),
        (Code::FailedPrecondition, "already applied"),
        (Code::FailedPrecondition, "lease already exists"),
        (Code::OutOfRange, "too large lease TTL"),
        (Code::ResourceExhausted, "mvcc: database space exceeded"),
        (Code::DataLoss, "corrupt cluster"),
        (Code::NotFound, "member not found"),
        (Code::FailedPrecondition, "member ID already exist"),
        (Code::FailedPrecondition, "Peer URLs already exists"),
        (Code::InvalidArgument, "given member URLs are invalid"),
        // A quirk of etcd.
        (Code::Unknown, "re-configuration failed due to not enough started members"),
        (Code::FailedPrecondition, "can only promote a learner member"),
        (Code::FailedPrecondition, "too many learner members in cluster"),
        // etcd does not have these two.
        (Code::FailedPrecondition, "too many members in cluster"),
        (Code::FailedPrecondition, "member has another data folder"),
        (Code::FailedPrecondition, "root user does not exist"),
        (Code::FailedPrecondition, "root user does not have root role"),
        (Code::FailedPrecondition, "user name already exists"),
        (Code::InvalidArgument, "user name is empty"),
        (Code::FailedPrecondition, "user name not found"),
        (Code::FailedPrecondition, "role name already exists"),
        (Code::FailedPrecondition, "role name not found"),
        (Code::InvalidArgument, "role name is empty"),
        (Code::InvalidArgument, "authentication failed, invalid user ID or password"),
        (Code::InvalidArgument, "permission not given"),
        (Code::PermissionDenied, "permission denied"),
        (Code::FailedPrecondition, "role is not granted to the user"),
        (Code::FailedPrecondition, "permission is not granted to the role"),
        (Code::FailedPrecondition, "authentication is not enabled"),
        (Code::Unauthenticated, "invalid auth token"),
        (Code::InvalidArgument, "invalid auth management"),
        (Code::InvalidArgument, "revision of auth store is old"),
        // etcd does not have these two.
        (Code::ResourceExhausted, "too many users and roles"),
        (Code::InvalidArgument, "user or role name is too long"),
    ];

    #[test]
    fn errors_have_the_codes_and_texts_of_etcd() {
        let refused = |reason: &str| Failure::NotDone(NotDone::Refused { reason: reason.to_owned() });
        let requests = [
            (Failure::overloaded("requests"), Code::ResourceExhausted, "too many requests"),
            (NotDone::NoSpace.into(), Code::ResourceExhausted, "mvcc: database space exceeded"),
            (Failure::not_leader(None), Code::Unavailable, "no leader"),
            (NotDone::Superseded.into(), Code::Unavailable, "no leader"),
            (NotDone::TryAgain.into(), Code::Unavailable, "no leader"),
            (NotDone::Unreachable.into(), Code::Unavailable, "no leader"),
            (refused("bad leader transferee"), Code::FailedPrecondition, "bad leader transferee"),
            (Unknown::Expired.into(), Code::Unavailable, "request timed out"),
            (Unknown::ConnectionLost.into(), Code::Unavailable, "request timed out, possibly due to connection lost"),
            (Unknown::Stopped.into(), Code::Unavailable, "server stopped"),
        ];
        let requests = requests.into_iter().map(|(failure, code, text)| (of_request(failure), code, text));
        let store = (1..).zip(STORE).map(|(number, (code, text))| {
            let error = KvError::try_from(number).expect("there are as many as the table has");
            (of_store(error), code, text)
        });
        for (status, code, text) in requests.chain(store) {
            assert_eq!((status.code(), status.message()), (code, format!("etcdserver: {text}").as_str()));
        }
        assert!(KvError::try_from(47).is_err(), "the table has them all");
    }
}
