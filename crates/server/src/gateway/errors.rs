//! Errors as etcd's gateway writes them.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tonic::{Code, Status};

use super::{Answer, JSON};

/// The HTTP status for a code of gRPC.
pub(super) fn http_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An answer that refuses a call. All versions of etcd have some of these keys, and clients look for each of them.
pub(super) fn refusal(http: StatusCode, status: &Status) -> Response {
    let (text, code) = (quoted(status.message()), status.code() as i32);
    (http, JSON, format!(r#"{{"error":{text},"code":{code},"message":{text}}}"#)).into_response()
}

/// An answer of many, as one line without its end.
pub(super) fn in_stream(answer: &Answer) -> String {
    let status = match answer {
        Ok(json) => return format!(r#"{{"result":{json}}}"#),
        Err(status) => status,
    };
    let (code, http) = (status.code() as i32, http_code(status.code()));
    let (number, reason) = (http.as_u16(), quoted(http.canonical_reason().unwrap_or_default()));
    let text = quoted(status.message());
    // The first four keys are of etcd 3.4 and 3.5, and `code` with `message` of later ones.
    format!(
        r#"{{"error":{{"grpc_code":{code},"http_code":{number},"message":{text},"http_status":{reason},"code":{code}}}}}"#
    )
}
