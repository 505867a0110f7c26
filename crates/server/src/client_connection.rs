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

/// Serves connections until the server stops and their last requests are answered. Each may have `max_streams` requests
/// open. `open` counts the connections. The first router is for connections without TLS.
pub(crate) async fn serve(
    (plain, secure): (Router, Router),
    mut clients: Acceptor,
    max_streams: u32,
    open: Gauge,
    mut stopped: watch::Receiver<bool>,
) {
    let (builder, graceful) = (builder(max_streams), GracefulShutdown::new());
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

fn builder(max_streams: u32) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // The timer ends requests whose headers never end.
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(max_streams)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1);
    builder
}
