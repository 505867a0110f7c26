//! What many watchers and leases cost: the time that puts take, and the memory of the members.
//!
//! `cargo run --release -p bowline-client --example scale -- ENDPOINTS [WATCHERS] [CONNECTIONS] [LEASES] [SECONDS]`
//!
//! ENDPOINTS are those of all members, without `http://`. SECONDS is how long each measurement takes. The leases end
//! together 60 s after the first one was granted, so 60 s must be enough to grant them all.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Clients that put, each waiting for its answer.
const WRITERS: u64 = 64;

/// Clients that grant leases.
const GRANTERS: u64 = 256;

/// When the leases end, after the first one was granted.
const LIFE: Duration = Duration::from_secs(60);

/// How many watchers read history, because they did not take what came.
const SLOW_WATCHERS: &str = "etcd_debugging_mvcc_slow_watcher_total";

/// Pairs of measurements with and without a watcher that does not read.
const PAIRS: usize = 24;

/// The median of `PAIRS` values lies between the values of these ranks with a probability of 95.7 %, whatever their
/// distribution is: the number of values below the median is binomial, with a probability of one half each.
const MEDIAN_BETWEEN: [usize; 2] = [6, 17];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let endpoints = arguments.next().unwrap_or_else(|| "127.0.0.1:2379,127.0.0.1:2381,127.0.0.1:2383".to_owned());
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (watchers, connections, leases, seconds) = (number(10_000)?, number(100)?, number(100_000)?, number(10)?);
    let endpoints = endpoints.split(',').map(str::to_owned).collect();
    let bench = Arc::new(Bench { endpoints, keys: watchers.max(1), time: Duration::from_secs(seconds) });

    let alone = bench.put().await?;
    bench.tell("no watchers, no leases", &alone).await?;
    many_watchers(&bench, watchers, connections.max(1)).await?;
    stalled_watcher(&bench).await?;
    many_leases(&bench, leases).await
}

struct Bench {
    endpoints: Vec<String>,
    /// Number of different keys that are put.
    keys: u64,
    time: Duration,
}

/// The times of puts.
struct Times {
    sorted: Vec<Duration>,
    seconds: f64,
    /// CPU time of all members meanwhile, in seconds.
    cpu: f64,
}

impl Times {
    fn at(&self, share: f64) -> f64 {
        let place = (self.sorted.len() as f64 * share) as usize;
        self.sorted.get(place).or(self.sorted.last()).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }

    fn rate(&self) -> f64 {
        self.sorted.len() as f64 / self.seconds
    }

    /// CPU time of the members for each put, in microseconds.
    fn cost(&self) -> f64 {
        self.cpu * 1e6 / self.sorted.len() as f64
    }
}

impl Bench {
    async fn channel(&self, number: u64) -> Result<Channel, Failure> {
        let endpoint = &self.endpoints[usize::try_from(number)? % self.endpoints.len()];
        Ok(Endpoint::from_shared(format!("http://{endpoint}"))?.tcp_nodelay(true).connect().await?)
    }

    fn key(&self, number: u64) -> String {
        format!("scale/{:06}", number % self.keys)
    }

    /// Puts for as long as one measurement takes.
    async fn put(self: &Arc<Bench>) -> Result<Times, Failure> {
        let until = Instant::now() + self.time;
        self.put_until(move || if Instant::now() < until { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            .await
    }

    /// Puts twice as long. The second half counts.
    async fn put_again(self: &Arc<Bench>) -> Result<Times, Failure> {
        self.put().await?;
        self.put().await
    }

    async fn put_until(
        self: &Arc<Bench>,
        goes_on: impl Fn() -> ControlFlow<()> + Clone + Send + 'static,
    ) -> Result<Times, Failure> {
        let cpu = self.cpu().await?;
        let (start, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let mut tasks: Vec<JoinHandle<Result<Vec<Duration>, Failure>>> = Vec::new();
        for writer in 0..WRITERS {
            let (bench, next, goes_on) = (Arc::clone(self), Arc::clone(&next), goes_on.clone());
            let mut kv = KvClient::new(self.channel(writer).await?);
            tasks.push(tokio::spawn(async move {
                let mut times = Vec::new();
                while goes_on().is_continue() {
                    let key = bench.key(next.fetch_add(1, Ordering::Relaxed)).into();
                    let put = pb::PutRequest { key, value: vec![b'x'; 256].into(), ..pb::PutRequest::default() };
                    let asked = Instant::now();
                    kv.put(put).await?;
                    times.push(asked.elapsed());
                }
                Ok(times)
            }));
        }
        let mut sorted = Vec::new();
        for task in tasks {
            sorted.extend(task.await??);
        }
        sorted.sort_unstable();
        let seconds = start.elapsed().as_secs_f64();
        Ok(Times { sorted, seconds, cpu: self.cpu().await? - cpu })
    }

    /// The values of a metric at all members.
    async fn metric(&self, name: &str) -> Result<Vec<f64>, Failure> {
        let mut values = Vec::new();
        for endpoint in &self.endpoints {
            let mut stream = TcpStream::connect(endpoint).await?;
            let request = format!("GET /metrics HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut page = String::new();
            stream.read_to_string(&mut page).await?;
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            values.push(line.ok_or_else(|| format!("{endpoint} has no metric {name}"))?.trim().parse()?);
        }
        Ok(values)
    }

    async fn cpu(&self) -> Result<f64, Failure> {
        Ok(self.metric("process_cpu_seconds_total").await?.iter().sum())
    }

    async fn tell(&self, what: &str, times: &Times) -> Result<(), Failure> {
        let memory = self.metric("process_resident_memory_bytes").await?;
        let memory: Vec<String> = memory.iter().map(|bytes| format!("{:.0}", bytes / 1048576.0)).collect();
        println!(
            "{what}: {:.0} puts/s, p50 {:.2} ms, p99 {:.2} ms, longest {:.0} ms; members: {:.0} us CPU a put, memory {} MiB",
            times.rate(),
            times.at(0.5),
            times.at(0.99),
            times.at(1.0),
            times.cost(),
            memory.join(", "),
        );
        Ok(())
    }
}

/// An open stream of watches. It ends when this is dropped.
struct Watches {
    _requests: mpsc::UnboundedSender<pb::WatchRequest>,
    messages: Streaming<pb::WatchResponse>,
}

async fn watch(channel: Channel, creations: Vec<pb::WatchCreateRequest>) -> Result<Watches, Failure> {
    let (requests, sent) = mpsc::unbounded_channel();
    let count = creations.len();
    for create in creations {
        requests.send(pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) })?;
    }
    let messages = WatchClient::new(channel).watch(UnboundedReceiverStream::new(sent)).await?.into_inner();
    let mut watches = Watches { _requests: requests, messages };
    for _ in 0..count {
        let created = watches.messages.message().await?.ok_or("the stream has ended")?;
        assert!(created.created && !created.canceled, "a watch was refused: {}", created.cancel_reason);
    }
    Ok(watches)
}

async fn many_watchers(bench: &Arc<Bench>, watchers: u64, connections: u64) -> Result<(), Failure> {
    let (began, events) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut readers = Vec::new();
    for connection in 0..connections {
        let numbers = (0..watchers).filter(|number| number % connections == connection);
        let create = |number| pb::WatchCreateRequest { key: bench.key(number).into(), ..Default::default() };
        let watches = watch(bench.channel(connection).await?, numbers.map(create).collect()).await?;
        let events = Arc::clone(&events);
        readers.push(tokio::spawn(async move {
            // All of it: without its requests, the stream ends.
            let mut watches = watches;
            while let Ok(Some(message)) = watches.messages.message().await {
                events.fetch_add(message.events.len() as u64, Ordering::Relaxed);
            }
        }));
    }
    println!("{watchers} watchers on {connections} connections were made in {:.1} s", began.elapsed().as_secs_f64());
    let times = bench.put().await?;
    let puts = times.sorted.len() as u64;
    let until = Instant::now() + Duration::from_secs(10);
    while events.load(Ordering::Relaxed) < puts && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.tell(&format!("{watchers} watchers, one for each key"), &times).await?;
    println!("    {puts} puts, {} events", events.load(Ordering::Relaxed));
    readers.iter().for_each(JoinHandle::abort);
    Ok(())
}

async fn stalled_watcher(bench: &Arc<Bench>) -> Result<(), Failure> {
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        // The state grows meanwhile, so each of the two comes first in turn. Both come after puts that do not count.
        let first = if pair % 2 == 0 { Some(bench.put_again().await?) } else { None };
        let create = pb::WatchCreateRequest {
            key: "scale/".into(),
            range_end: "scale0".into(),
            prev_kv: true,
            ..Default::default()
        };
        let stalled = watch(bench.channel(0).await?, vec![create]).await?;
        bench.put().await?;
        // Until then, the member fills the buffers of the connection.
        while bench.metric(SLOW_WATCHERS).await?.iter().sum::<f64>() < 1.0 {
            bench.put().await?;
        }
        let with = bench.put().await?;
        bench.tell("a watcher of all keys that does not read", &with).await?;
        drop(stalled);
        let without = match first {
            Some(times) => times,
            None => bench.put_again().await?,
        };
        rates.push(with.rate() / without.rate());
        costs.push(with.cost() / without.cost());
    }
    println!("    with it, in proportion to without, over {PAIRS} pairs:");
    tell_ratios("puts", rates);
    tell_ratios("CPU a put", costs);
    Ok(())
}

fn tell_ratios(what: &str, mut ratios: Vec<f64>) {
    ratios.sort_by(f64::total_cmp);
    let median = (ratios[PAIRS / 2 - 1] + ratios[PAIRS / 2]) / 2.0;
    let [low, high] = MEDIAN_BETWEEN.map(|rank| ratios[rank]);
    println!(
        "    {what}: median {median:.3}, with 95 % confidence {low:.3} to {high:.3}, all {:.3} to {:.3}",
        ratios[0],
        ratios[PAIRS - 1],
    );
}

async fn many_leases(bench: &Arc<Bench>, leases: u64) -> Result<(), Failure> {
    let (first, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut tasks: Vec<JoinHandle<Result<(), Failure>>> = Vec::new();
    for granter in 0..GRANTERS {
        let next = Arc::clone(&next);
        let mut client = LeaseClient::new(bench.channel(granter).await?);
        tasks.push(tokio::spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < leases {
                let ttl = LIFE.saturating_sub(first.elapsed()).as_secs().cast_signed().max(1);
                client.lease_grant(pb::LeaseGrantRequest { ttl, id: 0 }).await?;
            }
            Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    println!("{leases} leases were granted in {:.1} s", first.elapsed().as_secs_f64());
    let times = bench.put().await?;
    bench.tell(&format!("{leases} leases"), &times).await?;
    let present = bench.metric("bowline_leases").await?;
    assert!(
        present.iter().all(|count| *count == leases as f64),
        "{leases} leases were granted, but there are {present:?}"
    );

    let term = term(bench).await?;
    tokio::time::sleep_until((first + LIFE - Duration::from_secs(1)).into()).await;
    let gone = Arc::new(AtomicU64::new(0));
    let (seen, watching) = (Arc::clone(&gone), Arc::clone(bench));
    let counter: JoinHandle<Result<Duration, Failure>> = tokio::spawn(async move {
        let mut began = Instant::now();
        loop {
            let left = watching.metric("bowline_leases").await?;
            if left.iter().all(|count| *count == leases as f64) {
                began = Instant::now();
            }
            if left.iter().all(|count| *count == 0.0) {
                seen.store(1, Ordering::Relaxed);
                return Ok(began.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let until = Instant::now() + LIFE;
    let goes_on = move || match gone.load(Ordering::Relaxed) == 0 && Instant::now() < until {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    };
    let times = bench.put_until(goes_on).await?;
    bench.tell(&format!("while {leases} leases end"), &times).await?;
    let took = counter.await??;
    let kept = if self::term(bench).await? == term { "kept" } else { "changed" };
    println!("    all were gone {:.1} s after the first; the term was {kept}", took.as_secs_f64());
    Ok(())
}

async fn term(bench: &Bench) -> Result<u64, Failure> {
    let mut client = MaintenanceClient::new(bench.channel(0).await?);
    Ok(client.status(pb::StatusRequest {}).await?.into_inner().raft_term)
}
