//! Streams over a web socket: each text frame is one message, in both directions.

use std::sync::Arc;

use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{Message, WebSocket};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::errors::in_stream;
use super::{AHEAD, Answer, Gateway, Method, Requests};

/// A page can't set headers, but it can give a token as the protocol after this one.
const BEARER: &str = "Bearer";

/// Accepts a web socket, and begins the call.
pub(super) fn accept(
    gateway: Arc<Gateway>,
    method: &'static Method,
    upgrade: WebSocketUpgrade,
    headers: &HeaderMap,
) -> Response {
    let mut headers = headers.clone();
    if let Some(token) = token(&headers) {
        headers.entry(header::AUTHORIZATION).or_insert(token);
    }
    let (most, open) = (gateway.most, gateway.sockets.clone());
    let upgrade = upgrade.protocols([BEARER]).max_message_size(most).max_frame_size(most);
    upgrade.on_upgrade(async move |socket| {
        let (texts, requests) = mpsc::channel(AHEAD);
        let answers = gateway.begin(method, &headers, Requests::Socket(requests));
        drop(gateway);
        // A socket that fails is one whose client is gone.
        let _ = serve(socket, texts, answers).await;
        drop(open);
    })
}

/// The token in a list of protocols such as `Bearer, TOKEN`.
fn token(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocols = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let (first, token) = protocols.split_once(',')?;
    (first.trim() == BEARER).then(|| HeaderValue::from_str(token.trim()).ok())?
}

/// Serves until the call ends, or the client. A client that does not read only holds up itself.
async fn serve(
    mut socket: WebSocket,
    texts: mpsc::Sender<Bytes>,
    mut answers: mpsc::Receiver<Answer>,
) -> Result<(), axum::Error> {
    let mut next: Option<Bytes> = None;
    let mut open = Some(texts);
    loop {
        let texts = open.clone();
        tokio::select! {
            answer = answers.recv() => match answer {
                Some(answer) => socket.send(Message::text(in_stream(&answer))).await?,
                None => return socket.send(Message::Close(None)).await,
            },
            permit = async { texts?.reserve_owned().await.ok() }, if next.is_some() => match (permit, next.take()) {
                (Some(permit), Some(text)) => drop(permit.send(text)),
                // The call takes no more requests.
                _ => open = None,
            },
            message = socket.recv(), if next.is_none() => match message.transpose()? {
                Some(Message::Text(text)) => next = Some(text.into()).filter(|_| open.is_some()),
                Some(Message::Binary(text)) => next = Some(text).filter(|_| open.is_some()),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                Some(Message::Close(_)) | None => return Ok(()),
            },
        }
    }
}
