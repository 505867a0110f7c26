//! Asks as fast as so many clients can, each waiting for its answer, and says how fast that was, how long the answers
//! took, and the longest time in which none came.
//!
//! `cargo run --release -p bowline-client --example load -- ENDPOINTS [CLIENTS] [SECONDS] [VALUE_BYTES] [OPERATION]`
//!
//! OPERATION is `put`, `get` or `serializable-get`; those who get find what was put before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb::kv_client::KvClient;
use bowline_api::etcdserverpb::{PutRequest, RangeRequest};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

#[derive(Clone, Copy, Debug)]
enum Operation {
    Put,
    Get { serializable: bool },
}

impl Operation {
    async fn run(self, kv: &mut KvClient<Channel>, key: String, value: &[u8]) -> Result<(), Status> {
        let key = key.into();
        match self {
            Operation::Put => {
                let put = PutRequest { key, value: value.to_vec().into(), ..PutRequest::default() };
                kv.put(put).await.map(drop)
            }
            Operation::Get { serializable } => {
                kv.range(RangeRequest { key, serializable, ..RangeRequest::default() }).await.map(drop)
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let endpoints = arguments.next().unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (clients, seconds, value_bytes) = (number(64)?, number(10)?, number(256)?);
    let operation = match arguments.next().as_deref() {
        None | Some("put") => Operation::Put,
        Some("get") => Operation::Get { serializable: false },
        Some("serializable-get") => Operation::Get { serializable: true },
        Some(other) => return Err(format!("OPERATION is {other:?}; allowed: put, get, serializable-get").into()),
    };
    let mut channels = Vec::new();
    for endpoint in endpoints.split(',') {
        // A connection that breaks is made again by itself.
        channels.push(Endpoint::from_shared(format!("http://{endpoint}"))?.tcp_nodelay(true).connect_lazy());
    }
    let start = Instant::now();
    let until = start + Duration::from_secs(seconds);
    let (last, gap) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for client in 0..clients {
        let channel = channels[usize::try_from(client)? % channels.len()].clone();
        let (last, gap) = (Arc::clone(&last), Arc::clone(&gap));
        let value = vec![b'x'; usize::try_from(value_bytes)?];
        tasks.push(tokio::spawn(async move {
            let (mut kv, mut took, mut errors) = (KvClient::new(channel), Vec::new(), 0_u64);
            while Instant::now() < until {
                let key = format!("load/{client}/{}", took.len() % 1_000);
                let asked = Instant::now();
                if operation.run(&mut kv, key, &value).await.is_ok() {
                    took.push(asked.elapsed());
                    let now = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
                    let before = last.fetch_max(now, Ordering::Relaxed);
                    gap.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
                } else {
                    errors += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            (took, errors)
        }));
    }
    let (mut took, mut errors) = (Vec::new(), 0);
    for task in tasks {
        let (times, failed) = task.await?;
        took.extend(times);
        errors += failed;
    }
    took.sort_unstable();
    let rate = took.len() as f64 / start.elapsed().as_secs_f64();
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let gap = gap.load(Ordering::Relaxed) as f64 / 1e3;
    println!(
        "{clients} clients, {value_bytes} B: {rate:.0} answers/s, p50 {:.2} ms, p99 {:.2} ms, longest {:.1} ms; {errors} errors; \
         longest time without an answer {gap:.0} ms",
        at(0.5),
        at(0.99),
        at(0.999_999),
    );
    Ok(())
}
