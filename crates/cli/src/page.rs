//! Reads a page of a member, such as `/metrics`.

use std::io;
use std::time::Duration;

use bowline_client::ClientTls;
use bowline_tls::{Protocol, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Largest page that is read, in bytes.
const MAX_PAGE: u64 = 16 << 20;

/// The answer with its head, within a time limit. `authority` is the host and the port.
///
/// # Errors
/// The member can't be reached, or is silent.
pub(crate) async fn get(
    authority: &str,
    tls: Option<&ClientTls>,
    path: &str,
    patience: Duration,
) -> io::Result<String> {
    tokio::time::timeout(patience, fetch(authority, tls, path)).await?
}

async fn fetch(authority: &str, tls: Option<&ClientTls>, path: &str) -> io::Result<String> {
    let stream = TcpStream::connect(authority).await?;
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let mut stream = match tls {
        None => Stream::Plain(stream),
        Some(tls) => tls.connect(host, stream, Protocol::Http1).await?,
    };
    // HTTP/1.0, so that the body comes as a whole.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n").as_bytes()).await?;
    stream.flush().await?;
    let mut page = Vec::new();
    stream.take(MAX_PAGE).read_to_end(&mut page).await?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
