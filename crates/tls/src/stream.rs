//! A connection with or without TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::words::in_words;

/// The first byte of a client that speaks TLS: a record with a message of the handshake.
const HANDSHAKE: u8 = 22;

/// How long, and for how many bytes, a connection stays open after its last words, so that they arrive.
const GOODBYE: (Duration, u64) = (Duration::from_secs(1), 256 << 10);

/// A connection with or without TLS. Without, a read is a read of the socket.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS, and with the word for the other end in errors.
    Tls(Box<TlsStream<TcpStream>>, &'static str),
}

impl Stream {
    /// The certificate that the other end has shown, if any.
    #[must_use]
    pub fn other_certificate(&self) -> Option<CertificateDer<'static>> {
        let Stream::Tls(stream, _) = self else { return None };
        let (_, connection) = stream.get_ref();
        connection.peer_certificates()?.first().cloned().map(CertificateDer::into_owned)
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Stream {
        Stream::Plain(stream)
    }
}

/// What a client says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// It speaks TLS.
    Tls,
    /// It speaks HTTP/1.
    Http1,
    /// It speaks HTTP/2 without TLS, as gRPC does.
    Http2,
    /// It speaks something else.
    Other,
    /// It closed the connection.
    Nothing,
}

impl FirstBytes {
    /// Tells it from the first bytes, of which there may be few.
    #[must_use]
    pub fn of(bytes: &[u8]) -> FirstBytes {
        match bytes {
            [] => FirstBytes::Nothing,
            // Then comes the version of the record, 3.1 to 3.4, which is no version of TLS.
            [HANDSHAKE] | [HANDSHAKE, 3] | [HANDSHAKE, 3, 1..=4, ..] => FirstBytes::Tls,
            [b'P', b'R', b'I', ..] => FirstBytes::Http2,
            [b'A'..=b'Z', ..] => FirstBytes::Http1,
            _ => FirstBytes::Other,
        }
    }
}

/// Waits for the first bytes, and leaves them where they are.
///
/// # Errors
/// The connection fails.
pub async fn first_bytes(stream: &TcpStream) -> io::Result<FirstBytes> {
    let mut bytes = [0; 8];
    let length = stream.peek(&mut bytes).await?;
    Ok(FirstBytes::of(&bytes[..length]))
}

/// Does the handshake of a connection that was accepted.
///
/// # Errors
/// It fails, and the other end was told why as far as TLS can. [`crate::words`] gives the reason in plain words, and
/// [`hang_up`] closes the connection that is returned so that what was told arrives.
pub async fn accept(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    other: &'static str,
) -> Result<Stream, (io::Error, TcpStream)> {
    let accepted = acceptor.accept(stream).into_fallible().await;
    accepted.map(|stream| Stream::Tls(Box::new(stream.into()), other))
}

/// Does the handshake of a connection that was made to a host, a name or an IP address (IPv6 with or without brackets).
///
/// # Errors
/// It fails. [`crate::words`] gives the reason in plain words.
pub async fn connect(
    connector: &TlsConnector,
    host: &str,
    stream: TcpStream,
    other: &'static str,
) -> io::Result<Stream> {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let wrong =
        |_| io::Error::new(io::ErrorKind::InvalidInput, format!("{host} is no name that a certificate can have"));
    let name = ServerName::try_from(host.clone()).map_err(wrong)?;
    let stream = connector.connect(name, stream).await?;
    Ok(Stream::Tls(Box::new(stream.into()), other))
}

/// Says the last words and closes the connection. It reads what the other end still sends, because the system would
/// otherwise throw the last words away.
pub async fn hang_up(mut stream: TcpStream, words: Vec<u8>) {
    let goodbye = async {
        stream.write_all(&words).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(GOODBYE.1), &mut tokio::io::sink()).await
    };
    // The other end may have gone.
    let _ = timeout(GOODBYE.0, goodbye).await;
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream, other) => match Pin::new(stream).poll_read(context, buffer) {
                // Some programs close without the goodbye of TLS. What is read from it has its own lengths and ends.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                read => read.map_err(|error| in_words(error, other)),
            },
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, data),
            Stream::Tls(stream, _) => Pin::new(stream).poll_write(context, data),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream, _) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream, _) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, data),
            Stream::Tls(stream, _) => Pin::new(stream).poll_write_vectored(context, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream, _) => stream.is_write_vectored(),
        }
    }
}
