//! The connections of clients: HTTP/1 and HTTP/2 on one port, until the server stops.
//!
//! hyper serves them, and not tonic's own server: that one answers a deadline that has passed with CANCELLED, from
//! outside of every layer that could say it in the words that clients know (see [`crate::grpc::attend`]).

use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;

use crate::accept::{Acceptor, Connection};

/// Most requests at once on one connection.
const MAX_STREAMS: u32 = 10_000;

/// What a client may send of one request before anybody reads it, in bytes.
const STREAM_WINDOW: u32 = 4 << 20;

/// The same for all requests of a connection.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// How often a silent HTTP/2 client is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// Serves connections until the server stops; then until the last of their requests is answered.
pub(crate) async fn serve(router: Router, mut clients: Acceptor, mut stopped: watch::Receiver<bool>) {
    let (builder, service, graceful) = (builder(), TowerToHyperService::new(router), GracefulShutdown::new());
    loop {
        let accepted = tokio::select! {
            _ = stopped.wait_for(|stopping| *stopping) => break,
            accepted = clients.accept() => accepted,
        };
        let stream = TokioIo::new(Connection::from(accepted));
        let connection = graceful.watch(builder.serve_connection(stream, service.clone()).into_owned());
        tokio::spawn(async move {
            // A client that goes, or speaks something else, is nothing to tell of.
            let _ = connection.await;
        });
    }
    // Nobody is accepted while the others end.
    drop(clients);
    graceful.shutdown().await;
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // Headers that never end are given up in time.
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1);
    builder
}
