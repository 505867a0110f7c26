//! The connections of the clients.

use std::time::Duration;

use bowline_client::ClientError;
use tonic::transport::{Channel, Endpoint};

/// Time limit for connecting.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that a server may send of one answer, and on one connection, before they are read.
const WINDOWS: (u32, u32) = (4 << 20, 16 << 20);

/// Makes `count` connections, in turn to each of the `endpoints`, which are URLs. A connection that breaks is made again
/// by itself.
///
/// # Errors
/// An endpoint is no URL, or can't be reached. One that is left out would make the measurement another one.
pub(crate) async fn connect(endpoints: &[String], count: u64) -> Result<Vec<Channel>, ClientError> {
    let mut channels = Vec::new();
    for url in endpoints.iter().cycle().take(count as usize) {
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|_| ClientError::Endpoint(url.clone()))?;
        let endpoint = endpoint.connect_timeout(PATIENCE).tcp_nodelay(true);
        let endpoint = endpoint.initial_stream_window_size(WINDOWS.0).initial_connection_window_size(WINDOWS.1);
        let unreachable = |error| ClientError::Unreachable { tried: url.clone(), why: cause(&error) };
        channels.push(endpoint.connect().await.map_err(unreachable)?);
    }
    Ok(channels)
}

/// The root cause of an error: the other levels only tell that something went wrong.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}
