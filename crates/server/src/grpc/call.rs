//! The common part of all calls: deadlines, counters, and etcd's status texts.

use crate::clock::timer_now;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::{Code, Status};

use super::counts::Counts;
use super::errors::in_etcds_words;
use crate::browsers::Browsers;
use crate::http::refusal;
use crate::limits::HeaderLimit;

/// Bytes before each message: the compression flag and the length.
const PREFIX: usize = 5;

/// Handles a call from beginning to end. Other requests pass unchanged.
///
/// A call whose deadline expires ends with DEADLINE_EXCEEDED at any point: before its request is complete, before the
/// first answer, or in the middle of a stream. No other layer reads `grpc-timeout`.
pub(crate) async fn attend(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let began = timer_now();
    let kind = request.headers().get(header::CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return match gate.headers.check(&request) {
            Ok(()) => gate.browsers.pass(request, next).await,
            Err(text) => refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &text),
        };
    }
    let path = request.uri().path();
    let call = Arc::new(Call::begin(Arc::clone(&gate.counts), path, began));
    if let Err(text) = gate.headers.check(&request) {
        return call.refuse(&Status::resource_exhausted(text));
    }
    let deadline = match call.admit(request.headers(), began).and_then(|deadline| gate.admit(path).map(|()| deadline)) {
        Ok(deadline) => deadline,
        Err(status) => return call.refuse(&status),
    };
    if call.is_chatty() {
        // Compressing each small answer costs far more than it saves, and a stream can't disable it in tonic.
        request.headers_mut().remove("grpc-accept-encoding");
    }
    let heard = Arc::clone(&call);
    let request = request.map(|body| Body::new(Heard { body, messages: Messages::default(), call: heard }));
    let answered = match deadline {
        None => Some(next.run(request).await),
        // Don't begin a call that has expired.
        Some(deadline) if deadline <= began => None,
        Some(deadline) => timeout_at(deadline, next.run(request)).await.ok(),
    };
    let Some(mut response) = answered else { return call.refuse(&expired()) };
    if let Some(code) = in_etcds_words(response.headers_mut()) {
        call.end(code);
        return response;
    }
    // The answer of a unary call is complete by now.
    let expiry = deadline.filter(|_| call.is_stream()).map(|deadline| Box::pin(sleep_until(deadline)));
    response.map(|body| Body::new(Said { body, messages: Messages::default(), call, expiry }))
}

/// What every call passes.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) counts: Arc<Counts>,
    /// Whether this member is a learner, until an operator promotes it.
    pub(crate) learner: Arc<AtomicBool>,
    /// Bounds the headers of every request.
    pub(crate) headers: HeaderLimit,
    /// What requests pass that are no calls.
    pub(crate) browsers: Browsers,
}

impl Gate {
    /// As in etcd, a learner answers only what needs no other member. (Of ranges, only serializable ones: their service
    /// checks that.)
    fn admit(&self, path: &str) -> Result<(), Status> {
        const SERVED: [&str; 4] = [
            "/etcdserverpb.KV/Range",
            "/etcdserverpb.KV/RangeStream",
            "/etcdserverpb.Maintenance/Status",
            "/etcdserverpb.Maintenance/Snapshot",
        ];
        let of_etcd = ["/etcdserverpb.", "/v3lockpb.", "/v3electionpb."].iter().any(|start| path.starts_with(start));
        let refused = self.learner.load(Relaxed) && of_etcd && !SERVED.contains(&path);
        if refused { Err(not_for_learners()) } else { Ok(()) }
    }
}

pub(super) fn not_for_learners() -> Status {
    Status::failed_precondition("etcdserver: rpc not supported for learner")
}

/// The status that etcd's clients expect.
fn expired() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

/// A running call. It is counted once when it begins and once when it ends, however it ends.
#[derive(Debug)]
struct Call {
    counts: Arc<Counts>,
    /// Its method's place in the counts; `None` if there is no such method.
    place: Option<usize>,
    began: Instant,
    ended: AtomicBool,
}

impl Call {
    fn begin(counts: Arc<Counts>, path: &str, began: Instant) -> Call {
        let place = Counts::place(path);
        if let Some(place) = place {
            counts.started[place].inc();
        }
        Call { counts, place, began, ended: AtomicBool::new(false) }
    }

    fn is_stream(&self) -> bool {
        self.place.is_some_and(Counts::is_stream)
    }

    /// Whether it is a stream of many small answers.
    fn is_chatty(&self) -> bool {
        self.place.is_some_and(Counts::is_chatty)
    }

    /// Checks the headers that every call may have. Returns its deadline, if it has one.
    fn admit(&self, headers: &HeaderMap, began: Instant) -> Result<Option<Instant>, Status> {
        let version = headers.get("client-api-version").map_or(Ok("unknown"), |value| str::from_utf8(value.as_bytes()));
        let version = version.map_err(|_| Status::invalid_argument("etcdserver: invalid client api version"))?;
        if self.place.is_some() {
            self.counts.versions.count(version, self.is_stream());
        }
        let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
        let timeout = parse_timeout(value.as_bytes()).ok_or_else(|| {
            Status::invalid_argument(format!(
                "grpc-timeout is {:?}; allowed: one to eight digits and one of H, M, S, m, u, n",
                String::from_utf8_lossy(value.as_bytes())
            ))
        })?;
        // A deadline that is too far away to be represented is none.
        Ok(began.checked_add(timeout))
    }

    /// Ends the call with this status, as its only answer.
    fn refuse(&self, status: &Status) -> Response {
        self.end(status.code());
        status.clone().into_http()
    }

    fn end(&self, code: Code) {
        if self.ended.swap(true, Relaxed) {
            return;
        }
        if let Some(place) = self.place {
            self.counts.handled.count(place, code);
            self.counts.times.took(place, self.began.elapsed());
        }
    }
}

impl Drop for Call {
    /// The client is gone, or has cancelled the call.
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// Parses `grpc-timeout`: digits and a unit.
fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3_600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The body of a request, which counts messages and bytes.
struct Heard {
    body: Body,
    messages: Messages,
    call: Arc<Call>,
}

impl HttpBody for Heard {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Heard { body, messages, call } = &mut *self;
        let frame = ready!(Pin::new(body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let (begun, bytes) = frame.data_ref().map_or((0, 0), |data| messages.pass(data));
                call.counts.received_bytes.inc_by(bytes);
                if let Some(place) = call.place {
                    call.counts.received[place].inc_by(begun);
                }
            }
            // The client is gone.
            Some(Err(_)) => call.end(Code::Cancelled),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, which counts messages and bytes and ends a stream at its deadline.
struct Said {
    body: Body,
    messages: Messages,
    call: Arc<Call>,
    /// The deadline of a stream.
    expiry: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Said {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Said { body, messages, call, expiry } = &mut *self;
        if expiry.as_mut().is_some_and(|expiry| expiry.as_mut().poll(cx).is_ready()) {
            *expiry = None;
            // Dropping the body tells the stream's sender to end.
            *body = Body::empty();
            call.end(Code::DeadlineExceeded);
            let mut trailers = HeaderMap::new();
            expired().add_header(&mut trailers).map_err(axum::Error::new)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let mut frame = ready!(Pin::new(body).poll_frame(cx));
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let (begun, bytes) = messages.pass(data);
                    call.counts.sent_bytes.inc_by(bytes);
                    if let Some(place) = call.place {
                        call.counts.sent[place].inc_by(begun);
                    }
                } else if let Some(trailers) = frame.trailers_mut() {
                    call.end(in_etcds_words(trailers).unwrap_or(Code::Unknown));
                }
            }
            Some(Err(_)) => call.end(Code::Unknown),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Finds the messages in a body that arrives in pieces of any length.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix so far.
    seen: usize,
    /// Remaining bytes of the message after it.
    left: usize,
}

impl Messages {
    /// Takes a piece. Returns the number of messages whose prefix ends in it, and its number of message bytes.
    fn pass(&mut self, mut piece: &[u8]) -> (u64, u64) {
        let (mut begun, mut bytes) = (0, 0);
        while !piece.is_empty() {
            if self.left > 0 {
                let length = self.left.min(piece.len());
                self.left -= length;
                bytes += length as u64;
                piece = &piece[length..];
                continue;
            }
            let length = (PREFIX - self.seen).min(piece.len());
            self.prefix[self.seen..self.seen + length].copy_from_slice(&piece[..length]);
            self.seen += length;
            piece = &piece[length..];
            if self.seen == PREFIX {
                let [_, length @ ..] = self.prefix;
                (self.seen, self.left) = (0, u32::from_be_bytes(length) as usize);
                begun += 1;
            }
        }
        (begun, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        let good: [(&str, Duration); 7] = [
            ("1H", Duration::from_secs(3_600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("300m", Duration::from_millis(300)),
            ("5u", Duration::from_micros(5)),
            ("0n", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
        ];
        for (text, expected) in good {
            assert_eq!(parse_timeout(text.as_bytes()), Some(expected), "{text}");
        }
        for text in ["", "S", "5", "5x", "-5S", "+5S", "5.0S", "100000000S", " 5S", "5 S", "\u{664}S"] {
            assert_eq!(parse_timeout(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn messages_are_found_in_pieces_of_any_length() {
        let body = [&[0, 0, 0, 0, 3][..], b"abc", &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 1], b"x"].concat();
        for size in 1..=body.len() {
            let mut messages = Messages::default();
            let (mut begun, mut bytes) = (0, 0);
            for piece in body.chunks(size) {
                let (more, longer) = messages.pass(piece);
                (begun, bytes) = (begun + more, bytes + longer);
            }
            assert_eq!((begun, bytes), (3, 4), "in pieces of {size}");
        }
    }
}
