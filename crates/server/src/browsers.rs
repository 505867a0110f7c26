//! Requests that a browser may have been made to send: which web pages may use the server, and under which names it
//! answers. gRPC is not for browsers, so its calls are not checked.

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::config::Allowed;
use crate::http::refusal;

/// As in etcd.
const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static("accept, content-type, authorization");

/// Who may use the server from a browser.
#[derive(Clone, Debug)]
pub(crate) struct Browsers {
    /// The origins of web pages.
    pub(crate) origins: Allowed,
    /// The host names under which requests without TLS are answered. They keep a page from reaching the server under a
    /// name of its own, which it makes point to the server's address (CVE-2018-5702).
    pub(crate) hosts: Allowed,
}

impl Browsers {
    /// Handles a request that is no call of gRPC.
    pub(crate) async fn pass(&self, request: Request, next: Next) -> Response {
        let host = host(&request);
        if !self.hosts.admits(&host) {
            let text = format!("{host:?} is no name of this server; --host-whitelist names those that are");
            return refusal(StatusCode::MISDIRECTED_REQUEST, &text);
        }
        let origin = request.headers().get(header::ORIGIN).cloned();
        let named = origin.as_ref().map(|origin| origin.to_str().unwrap_or_default());
        let admitted = named.is_some_and(|origin| self.origins.admits(origin));
        if named.is_some() && !admitted {
            // Most requests would have been done by the time when the browser hides the answer from the page.
            return refusal(StatusCode::FORBIDDEN, "this origin is not among those of --cors");
        }
        let mut response = match *request.method() {
            Method::OPTIONS => StatusCode::OK.into_response(),
            _ => next.run(request).await,
        };
        let everybody = (self.origins == Allowed::All).then_some(HeaderValue::from_static("*"));
        if let Some(origin) = everybody.or(origin) {
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        }
        response
    }
}

/// The host name that a request is for, without its port; empty if it has none.
fn host(request: &Request) -> String {
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let host = request.uri().host().or(named.as_ref().map(Authority::host)).unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}
