//! The connections of clients: HTTP/1 and HTTP/2 on one port, with or without TLS, until the server stops.
//!
//! hyper serves them instead of tonic's own server. That one answers an expired deadline with CANCELLED, outside of all
//! layers that could answer as etcd does (see [`crate::grpc::attend`]).

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use bowline_tls::Stream;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;

use crate::accept::{Acceptor, Connection};
use crate::authority::Mended;
use crate::instruments::Gauge;

/// Bytes that a client may send of one request before the server reads them.
const STREAM_WINDOW: u32 = 4 << 20;

/// The same for all requests of a connection.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Interval of pings to a silent HTTP/2 client, and the time limit of the answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// The common name of the certificate by which a client has proved who it is. Only the connection says that, never a
/// field of a request.
#[derive(Clone, Debug)]
pub(crate) struct CertifiedName(pub(crate) Arc<str>);

/// What is bounded of each connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Most requests that are open at a time.
    pub(crate) streams: u32,
    /// Most bytes of the headers of a request that are answered in words. Up to [`HARD`] times as many are read.
    pub(crate) header_bytes: usize,
}

/// How many times more bytes of headers the HTTP library reads than are allowed, so that whoever sends a few too many is
/// told the limit. For more, the library answers 431, or closes the connection.
const HARD: usize = 2;

/// Most streams that a client may have reset before the server has looked at them. Beyond it, its connection is closed
/// (CVE-2023-44487).
const PENDING_RESETS: usize = 20;

/// Most streams that the server may have reset because of errors of the client. Beyond it, the connection is closed.
const ERROR_RESETS: usize = 1_024;

/// Serves connections until the server stops and their last requests are answered. `open` counts the connections. The
/// first router is for connections without TLS.
pub(crate) async fn serve(
    (plain, secure): (Router, Router),
    mut clients: Acceptor,
    bounds: Bounds,
    open: Gauge,
    mut stopped: watch::Receiver<bool>,
) {
    let (builder, graceful) = (builder(bounds), GracefulShutdown::new());
    loop {
        let accepted = tokio::select! {
            _ = stopped.wait_for(|stopping| *stopping) => break,
            accepted = clients.accept() => accepted,
        };
        let (builder, watcher) = (builder.clone(), graceful.watcher());
        let (plain, secure) = (plain.clone(), secure.clone());
        let (open, mut stopping) = (open.clone(), stopped.clone());
        // A handshake must not delay other clients.
        tokio::spawn(async move {
            let arrived = tokio::select! {
                arrived = accepted.secure() => arrived,
                _ = stopping.wait_for(|stopping| *stopping) => None,
            };
            let Some(arrived) = arrived else { return };
            let router = if matches!(arrived.stream, Stream::Plain(_)) { plain } else { secure };
            let router = match arrived.certified_name() {
                Some(name) => router.layer(Extension(name)),
                None => router,
            };
            let service = TowerToHyperService::new(router);
            let stream = TokioIo::new(Mended::new(Connection::from(arrived).counted(open)));
            // A client that disconnects, or speaks another protocol, is not worth logging.
            let _ = watcher.watch(builder.serve_connection_with_upgrades(stream, service).into_owned()).await;
        });
    }
    // Accept no connection while the others end.
    drop(clients);
    graceful.shutdown().await;
}

fn builder(Bounds { streams, header_bytes }: Bounds) -> Builder<TokioExecutor> {
    let header_bytes = header_bytes.saturating_mul(HARD);
    let mut builder = Builder::new(TokioExecutor::new());
    // The timer ends requests whose headers never end.
    builder.http1().timer(TokioTimer::new()).max_buf_size(header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(streams)
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(ERROR_RESETS)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1);
    builder
}
