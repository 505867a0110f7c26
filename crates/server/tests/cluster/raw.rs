//! Calls by hand, over HTTP/2: what a gRPC library would not send, and what it would not show.

use axum::http::{HeaderMap, Request};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use tokio::net::TcpStream;

use crate::harness::{Cluster, PATIENCE};

pub(crate) async fn http2(cluster: &Cluster, id: u64) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(cluster.server(id).client_address()).await.expect("it listens");
    let (client, connection) = h2::client::handshake(stream).await.expect("it speaks HTTP/2");
    tokio::spawn(async move {
        // How it ends is seen by the requests.
        let _ = connection.await;
    });
    client.ready().await.expect("it takes requests")
}

/// What a call was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status, as digits.
    pub(crate) code: String,
    pub(crate) text: String,
    pub(crate) headers: HeaderMap,
    /// The messages, each behind its five bytes.
    pub(crate) body: Vec<u8>,
}

/// Begins a call; `method` is its path without the first slash.
pub(crate) async fn begin(
    client: &SendRequest<Bytes>,
    method: &str,
    headers: &[(&str, &str)],
) -> (ResponseFuture, SendStream<Bytes>) {
    let mut request = Request::post(format!("http://localhost/{method}"));
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(headers) {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("a good request");
    let mut client = client.clone().ready().await.expect("it takes requests");
    client.send_request(request, false).expect("sent")
}

/// A body as it is, as a call; if it is not whole, the client goes on as if more would come.
pub(crate) async fn ask(
    client: &SendRequest<Bytes>,
    method: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    whole: bool,
) -> Answer {
    let (response, mut stream) = begin(client, method, headers).await;
    stream.send_data(Bytes::copy_from_slice(body), whole).expect("sent");
    let answer = end(response).await;
    drop(stream);
    answer
}

/// Waits for the end of a call.
pub(crate) async fn end(response: ResponseFuture) -> Answer {
    let answered = async {
        let (parts, mut stream) = response.await.expect("an answer").into_parts();
        let body = read(&mut stream).await;
        let headers = parts.headers;
        let status = match headers.contains_key("grpc-status") {
            true => headers.clone(),
            false => stream.trailers().await.expect("the end").expect("a status"),
        };
        let text =
            |name| status.get(name).map_or(String::new(), |value| String::from_utf8_lossy(value.as_bytes()).into());
        let text = (text("grpc-status"), text("grpc-message").replace("%20", " ").replace("%22", "\""));
        Answer { code: text.0, text: text.1, headers, body }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("an answer in time")
}

async fn read(stream: &mut RecvStream) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.expect("the stream is whole");
        stream.flow_control().release_capacity(data.len()).expect("it was received");
        body.extend_from_slice(&data);
    }
    body
}

/// A message with its five bytes.
pub(crate) fn message(bytes: &[u8]) -> Vec<u8> {
    framed(0, bytes)
}

/// The same, compressed, as it says.
pub(crate) fn compressed(bytes: &[u8]) -> Vec<u8> {
    framed(1, bytes)
}

fn framed(flag: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("it is short").to_be_bytes();
    [&[flag], &length[..], bytes].concat()
}
