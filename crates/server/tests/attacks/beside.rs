//! A cluster that is attacked, and an honest client that measures how it fares.

use std::time::{Duration, Instant};

use bowline_api::etcdserverpb::kv_client::KvClient;
use tokio::sync::{Mutex, MutexGuard};
use tonic::transport::Channel;

use crate::harness::{Cluster, get, http, put, values};

/// Only one attack at a time: the others would be part of what is measured.
static ALONE: Mutex<()> = Mutex::const_new(());

/// How long an attack may take.
pub(crate) const ATTACK: Duration = Duration::from_secs(5);

/// Bytes of memory that an attack may cost, those of its own clients included.
const MEMORY: u64 = 512 << 20;

/// Pairs of a put and a get of one measurement.
const PAIRS: usize = 100;

/// Measurements during an attack. One that is good is enough: a busy machine can spoil some.
const MEASUREMENTS: usize = 5;

/// Times below this bound are never too long.
const FLOOR: Duration = Duration::from_millis(50);

/// A cluster of three members, and what was true before the attack.
pub(crate) struct Attacked {
    pub(crate) cluster: Cluster,
    pub(crate) leader: u64,
    client: KvClient<Channel>,
    quiet: Duration,
    term: u64,
    memory: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Attacked {
    /// Starts it with these settings, and measures it.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Attacked {
        let alone = ALONE.lock().await;
        // Timeouts that a busy machine keeps: an election during an attack has no other cause.
        let settings: Vec<_> =
            [("election_min", "2s"), ("election_max", "4s")].iter().chain(settings).copied().collect();
        let cluster = Cluster::start(3, &settings);
        let leader = cluster.leader_of_all().await;
        let mut client = cluster.client(leader).await;
        let quiet = slow_of(&mut client).await;
        let term = cluster.server(leader).replica().status().term;
        Attacked { cluster, leader, client, quiet, term, memory: memory(), _alone: alone }
    }

    /// Checks that the honest client is served, that no member was elected, and that memory is bounded.
    pub(crate) async fn stands(&mut self) {
        let bound = (self.quiet * 10).max(FLOOR);
        let mut seen = Vec::new();
        while seen.last().is_none_or(|slow| *slow > bound) {
            assert!(seen.len() < MEASUREMENTS, "the slowest of a hundred took {seen:?}, and {:?} before", self.quiet);
            seen.push(slow_of(&mut self.client).await);
        }
        for id in 1..=3 {
            assert_eq!(self.cluster.server(id).replica().status().term, self.term, "member {id}");
        }
        let grown = memory().saturating_sub(self.memory);
        assert!(grown < MEMORY, "it took {grown} bytes");
    }

    /// How often the member that leads says that a limit was reached.
    pub(crate) async fn reached(&self, limit: &str) -> u64 {
        let text = http(self.cluster.server(self.leader).client_address(), "GET /metrics").await;
        let name = format!("bowline_limit_reached_total{{limit=\"{limit}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
        value.unwrap_or_else(|| panic!("{name} is not in {text}"))
    }
}

/// The second slowest of all requests of a measurement: their 99th percentile.
async fn slow_of(client: &mut KvClient<Channel>) -> Duration {
    let mut times = Vec::with_capacity(2 * PAIRS);
    for number in 0..PAIRS {
        let value = number.to_string();
        let began = Instant::now();
        client.put(put("honest", &value)).await.expect("written");
        times.push(began.elapsed());
        let began = Instant::now();
        let read = client.range(get("honest")).await.expect("read");
        times.push(began.elapsed());
        assert_eq!(values(read.get_ref()), [value]);
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Bytes of memory that this process uses, members and clients. 0 where the system does not say it.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}
