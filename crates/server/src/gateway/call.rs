//! Calls in this process, which the services can't tell from those of the network.

use axum::Router;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, Uri};
use bytes::{Buf, BufMut, Bytes};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status, Streaming};

/// The metadata that a client may give, as `Grpc-Metadata-NAME`. All else is about the connection, not about the call.
const FORWARDED: [(&str, &str); 4] = [
    ("grpc-metadata-token", "token"),
    ("grpc-metadata-authorization", "authorization"),
    ("grpc-metadata-hasleader", "hasleader"),
    ("grpc-metadata-client-api-version", "client-api-version"),
];

/// The headers that have the same name there.
const SAME: [&str; 2] = ["authorization", "grpc-timeout"];

/// The metadata of a call. A token comes from a header. The name in a client's certificate does not count here: with
/// etcd's gateway, which had a certificate of its own, everybody had the name in that one (CVE-2018-16886). A call of the
/// gateway is a new request, without what the connection knows of its client, so no header and no certificate can give it
/// a [`CertifiedName`](crate::client_connection::CertifiedName).
pub(super) fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (from, to) in FORWARDED.into_iter().chain(SAME.map(|name| (name, name))) {
        if let Some(value) = headers.get(from) {
            metadata.insert(HeaderName::from_static(to), value.clone());
        }
    }
    metadata
}

/// Begins a call.
///
/// # Errors
/// The status, if the call has ended without an answer.
pub(super) async fn begin(
    api: Router,
    path: PathAndQuery,
    metadata: HeaderMap,
    messages: mpsc::Receiver<Bytes>,
) -> Result<Streaming<Bytes>, Status> {
    let mut client = Grpc::with_origin(api, Uri::from_static("http://localhost"))
        // An answer is in memory already.
        .max_decoding_message_size(usize::MAX);
    let (metadata, messages) = (MetadataMap::from_headers(metadata), ReceiverStream::new(messages));
    let request = Request::from_parts(metadata, Extensions::default(), messages);
    Ok(client.streaming(request, path, Encoded).await?.into_inner())
}

/// Messages that are encoded already.
#[derive(Clone, Copy, Debug, Default)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Encoded;
    type Decoder = Encoded;

    fn encoder(&mut self) -> Encoded {
        Encoded
    }

    fn decoder(&mut self) -> Encoded {
        Encoded
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
