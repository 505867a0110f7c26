//! Connections to endpoints, with and without TLS.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bowline_tls::{ClientTls, Protocol, SERVER_REFUSED, SPEAKS_TLS, Stream};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{self, Channel, Endpoint};

use crate::{CONNECT_PATIENCE, ClientError};

/// An endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Its address with its scheme.
    pub(crate) url: String,
    pub(crate) endpoint: Endpoint,
    connector: Connector,
}

impl Place {
    /// Parses an address. Without a scheme, it is with TLS if `tls` is there.
    pub(crate) fn new(text: &str, tls: Option<&ClientTls>) -> Result<Place, ClientError> {
        let text = text.trim();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") };
        let wrong = || ClientError::Endpoint(text.to_owned());
        let (scheme, authority) = url.split_once("://").ok_or_else(wrong)?;
        let tls = match (scheme, tls) {
            ("http", _) => None,
            ("https", Some(tls)) => Some(tls.clone()),
            ("https", None) => return Err(ClientError::NoTls(url)),
            _ => return Err(wrong()),
        };
        if !authority.contains(':') {
            return Err(wrong());
        }
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|_| wrong())?;
        let endpoint = endpoint.connect_timeout(CONNECT_PATIENCE);
        Ok(Place { url, endpoint, connector: Connector { tls, refusal: Refusal::default() } })
    }

    /// A connection that is made on use.
    pub(crate) fn lazy(&self) -> Channel {
        self.endpoint.connect_with_connector_lazy(self.connector.clone())
    }

    pub(crate) async fn connect(&self) -> Result<Channel, transport::Error> {
        self.endpoint.connect_with_connector(self.connector.clone()).await
    }

    /// Why the server refused the last connection before it read any request; `None` if it did not.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.connector.refusal.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why the last connection was refused. What serves HTTP/2 may only tell that the connection was closed.
#[derive(Clone, Debug, Default)]
struct Refusal(Arc<Mutex<Option<String>>>);

impl Refusal {
    fn set(&self, why: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

/// Connects to an endpoint.
#[derive(Clone, Debug)]
struct Connector {
    /// `None`: without TLS.
    tls: Option<ClientTls>,
    refusal: Refusal,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Noted>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Noted>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Connector { tls, refusal } = self.clone();
        refusal.set(None);
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let stream = TcpStream::connect(uri.authority().map_or("", |authority| authority.as_str())).await?;
            // Otherwise a request may wait for the acknowledgement of the one before.
            stream.set_nodelay(true)?;
            let stream = match tls {
                None => Stream::Plain(stream),
                Some(tls) => tls.connect(host, stream, Protocol::Http2).await?,
            };
            Ok(TokioIo::new(Noted { stream, refusal, first: true }))
        })
    }
}

/// A connection that notes if it is refused.
struct Noted {
    stream: Stream,
    refusal: Refusal,
    /// Whether nothing was read yet.
    first: bool,
}

impl AsyncRead for Noted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (this, begin) = (&mut *self, buffer.filled().len());
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        match &read {
            Poll::Ready(Ok(())) if this.first => {
                this.first = false;
                let told = SPEAKS_TLS.as_bytes();
                if buffer.filled()[begin..].windows(told.len()).any(|window| window == told) {
                    this.refusal.set(Some(SPEAKS_TLS.to_owned()));
                }
            }
            Poll::Ready(Err(error)) => {
                let why = error.to_string();
                if why.starts_with(SERVER_REFUSED) {
                    this.refusal.set(Some(why));
                }
            }
            _ => {}
        }
        read
    }
}

impl AsyncWrite for Noted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
