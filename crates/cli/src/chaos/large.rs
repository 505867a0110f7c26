//! Large values through one member: more than all bounds of its queues together.

use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_client::Client;

/// Bytes of a value.
const VALUE: usize = 1 << 20;

/// Values that are written over again and again, and as many writes at a time.
const KEYS: usize = 4;

/// Bytes that a member must have passed on: twice what waits at most.
pub(super) const AT_LEAST: usize = 129 << 20;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Puts values through the member at `endpoint`, until [`AT_LEAST`] bytes are acknowledged or `limit` is over. Returns
/// how many were. Writes may fail: they can cost the leader its leadership on a busy machine.
pub(super) async fn write(endpoint: &str, limit: Duration) -> usize {
    let until = Instant::now() + limit;
    let each = AT_LEAST.div_ceil(VALUE * KEYS);
    let writers = (0..KEYS).map(|key| {
        let endpoint = endpoint.to_owned();
        tokio::spawn(async move {
            let mut done = 0;
            let Ok(mut client) = Client::new(&[endpoint], PATIENCE) else { return done };
            while done < each && Instant::now() < until {
                let (key, value) = (format!("large/{key}").into(), vec![b'v'; VALUE].into());
                let request = pb::PutRequest { key, value, ..pb::PutRequest::default() };
                match client.put_request(request).await {
                    Ok(_) => done += 1,
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
            done
        })
    });
    let mut written = 0;
    for writer in writers.collect::<Vec<_>>() {
        written += writer.await.expect("a writer does not panic") * VALUE;
    }
    written
}
