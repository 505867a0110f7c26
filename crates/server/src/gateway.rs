//! The API over JSON and HTTP, as etcd's gateway offers it: `POST /v3/...`, and web sockets for streams.
//!
//! A request becomes the gRPC request that it stands for, and goes in this process through the same routes and layers as
//! one from the network: they count it, keep its deadline, find out who makes it, and check what that user may do. There
//! is no other way to the data.

mod call;
mod errors;
mod fuzz;
mod json;
mod objects;
mod paths;
mod socket;

pub use fuzz::fuzz_gateway;
pub use paths::gateway_path;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequestParts, Request, State, WebSocketUpgrade};
use axum::http::{HeaderMap, Method as HttpMethod, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use errors::{in_stream, refusal};
use objects::Objects;
use paths::Method;

/// Number of answers that may wait for a slow client.
const AHEAD: usize = 1;

/// How long a client may take to send a request that is not one of many.
const BODY_PATIENCE: Duration = Duration::from_secs(30);

const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// The gRPC services, with their layers.
    api: Router,
    /// The largest JSON object, in bytes.
    most: usize,
    /// Each open web socket has a copy.
    sockets: mpsc::Sender<()>,
}

/// An answer as JSON, or the status that ends them.
type Answer = Result<String, Status>;

/// The routes. `api` has the gRPC services, of which the largest message may have `largest` bytes. Each open web socket
/// has a copy of `sockets`, so that a server that stops can wait for them.
pub(crate) fn router(api: Router, largest: usize, sockets: mpsc::Sender<()>) -> Router {
    // Base64 has four bytes for three.
    let gateway = Gateway { api, most: largest / 2 * 3, sockets };
    Router::new().route("/v3/{*path}", any(serve)).route("/v3beta/{*path}", any(serve)).with_state(Arc::new(gateway))
}

async fn serve(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let Some(method) = paths::method(parts.uri.path()) else {
        return refusal(StatusCode::NOT_FOUND, &Status::not_found("Not Found"));
    };
    if parts.method == HttpMethod::GET && method.answers_many() && parts.headers.contains_key(header::UPGRADE) {
        return match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
            Ok(upgrade) => socket::accept(gateway, method, upgrade, &parts.headers),
            Err(rejection) => rejection.into_response(),
        };
    }
    if parts.method != HttpMethod::POST {
        let refused = refusal(StatusCode::METHOD_NOT_ALLOWED, &Status::unimplemented("Method Not Allowed"));
        return ([(header::ALLOW, "POST")], refused).into_response();
    }
    let objects = Objects::new(gateway.most);
    let requests = Requests::Body { data: body.into_data_stream(), objects, ended: false };
    let mut answers = gateway.begin(method, &parts.headers, requests);
    match answers.recv().await {
        Some(Err(status)) if method.answers_many() => {
            (errors::http_code(status.code()), JSON, in_stream(&Err(status))).into_response()
        }
        Some(Err(status)) => refusal(errors::http_code(status.code()), &status),
        first if method.answers_many() => {
            let answers = tokio_stream::iter(first).chain(ReceiverStream::new(answers));
            let lines = answers.map(|answer| Ok::<_, std::convert::Infallible>(in_stream(&answer) + "\n"));
            (JSON, Body::from_stream(lines)).into_response()
        }
        Some(Ok(answer)) => (JSON, answer).into_response(),
        None => refusal(StatusCode::INTERNAL_SERVER_ERROR, &Status::internal("bowline: there is no answer")),
    }
}

/// Where requests come from.
enum Requests {
    /// From the body of a request.
    Body { data: BodyDataStream, objects: Objects, ended: bool },
    /// From a web socket.
    Socket(mpsc::Receiver<Bytes>),
}

impl Requests {
    /// The next request as JSON; none at the end.
    ///
    /// # Errors
    /// It is too large or no object, or the client is gone.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let (data, objects, ended) = match self {
            Requests::Body { data, objects, ended } => (data, objects, ended),
            Requests::Socket(texts) => return Ok(texts.recv().await),
        };
        loop {
            if let Some(object) = objects.next()? {
                return Ok(Some(object));
            }
            if *ended {
                return Ok(None);
            }
            match data.next().await {
                Some(Ok(piece)) => objects.push(&piece),
                Some(Err(_)) => return Err(Status::cancelled("etcdserver: request canceled")),
                None if objects.is_blank() => *ended = true,
                None => {
                    let text = "bowline: the request is not valid: it ends in the middle of a JSON object";
                    return Err(Status::invalid_argument(text));
                }
            }
        }
    }

    /// The only request. Without one, all of its fields have their defaults.
    async fn only(&mut self) -> Result<Bytes, Status> {
        let next = tokio::time::timeout(BODY_PATIENCE, self.next()).await;
        let next = next.map_err(|_| Status::deadline_exceeded("bowline: the request did not come within 30 s"))??;
        match self {
            Requests::Body { objects, .. } if !objects.is_blank() => {
                Err(Status::invalid_argument("bowline: the request is not valid: more follows after the JSON object"))
            }
            _ => Ok(next.unwrap_or(Bytes::from_static(b"{}"))),
        }
    }
}

impl Gateway {
    /// Begins a call. It ends with its last answer, or when nobody waits for answers any more.
    fn begin(
        self: &Arc<Self>,
        method: &'static Method,
        headers: &HeaderMap,
        requests: Requests,
    ) -> mpsc::Receiver<Answer> {
        let (answers, received) = mpsc::channel(AHEAD);
        let (gateway, metadata) = (Arc::clone(self), call::metadata(headers));
        tokio::spawn(async move {
            let (messages, sent) = mpsc::channel(AHEAD);
            let ended = tokio::select! {
                ended = gateway.answer(method, metadata, sent, &answers) => ended,
                status = feed(method, requests, messages) => Err(status),
                () = answers.closed() => return,
            };
            if let Err(status) = ended {
                // The client may be gone.
                let _ = answers.send(Err(status)).await;
            }
        });
        received
    }

    /// Calls the method, and hands its answers over as fast as they are taken.
    async fn answer(
        &self,
        method: &Method,
        metadata: HeaderMap,
        messages: mpsc::Receiver<Bytes>,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<(), Status> {
        let mut stream = call::begin(self.api.clone(), method.path.clone(), metadata, messages).await?;
        // The status comes after the last message.
        while let Some(message) = stream.message().await? {
            let json = json::to_json(&method.descriptor.output(), message)?;
            if answers.send(Ok(json)).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Hands requests over to the call. Returns only if one of them can't be read.
async fn feed(method: &Method, mut requests: Requests, messages: mpsc::Sender<Bytes>) -> Status {
    let fed = async {
        let input = method.descriptor.input();
        if !method.takes_many() {
            let message = json::to_message(&input, &requests.only().await?)?;
            // If the call has ended already, its status says why.
            let _ = messages.send(message).await;
            return Ok(());
        }
        while let Some(request) = requests.next().await? {
            if messages.send(json::to_message(&input, &request)?).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    match fed.await {
        Err(status) => status,
        Ok(()) => {
            // The call learns that no more requests come.
            drop(messages);
            std::future::pending().await
        }
    }
}
