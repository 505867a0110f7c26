//! Large values through one member: more than all bounds of its queues together.

use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_client::{Client, ClientError};

/// Bytes of a value.
const VALUE: usize = 1 << 20;

/// Values that are written over again and again, and as many writes at a time.
const KEYS: usize = 4;

/// Bytes that a member must have passed on: twice what waits at most.
pub(super) const AT_LEAST: usize = 129 << 20;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Puts values through the member at `endpoint`, until there are [`AT_LEAST`] bytes, a write fails, or `limit` is over.
/// Returns the bytes that were acknowledged, and the failure.
pub(super) async fn write(endpoint: &str, limit: Duration) -> (usize, Option<ClientError>) {
    let until = Instant::now() + limit;
    let each = AT_LEAST.div_ceil(VALUE * KEYS);
    let writers = (0..KEYS).map(|key| {
        let endpoint = endpoint.to_owned();
        tokio::spawn(async move {
            let mut client = Client::new(&[endpoint], PATIENCE).map_err(|error| (0, error))?;
            for done in 0..each {
                if Instant::now() >= until {
                    return Ok(done);
                }
                let (key, value) = (format!("large/{key}").into(), vec![b'v'; VALUE].into());
                let request = pb::PutRequest { key, value, ..pb::PutRequest::default() };
                client.put_request(request).await.map_err(|error| (done, error))?;
            }
            Ok(each)
        })
    });
    let (mut written, mut failure) = (0, None);
    for writer in writers.collect::<Vec<_>>() {
        let done = match writer.await.expect("a writer does not panic") {
            Ok(done) => done,
            Err((done, error)) => {
                failure = Some(error);
                done
            }
        };
        written += done * VALUE;
    }
    (written, failure)
}
