//! `bowline put`, `get`, `del` and `status`: a client of a cluster.

use std::io::Write as _;
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb::RangeRequest;
use bowline_client::Client;
use bowline_kv::store::prefix_end;
use clap::Args;

use crate::exit::Verdict;

/// Where the cluster is.
#[derive(Args)]
struct Cluster {
    /// Members to ask, with commas between them [default: $BOWLINE_ENDPOINTS, or 127.0.0.1:2379]
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    endpoints: Vec<String>,
    /// How long a request may take, in seconds.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=600), value_name = "SECONDS")]
    timeout: u64,
}

impl Cluster {
    fn client(&self) -> anyhow::Result<Client> {
        let mut endpoints = self.endpoints.clone();
        if endpoints.is_empty() {
            let variable = std::env::var("BOWLINE_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:2379".to_owned());
            endpoints = variable.split(',').map(str::to_owned).collect();
        }
        Ok(Client::new(&endpoints, Duration::from_secs(self.timeout))?)
    }
}

#[derive(Args)]
#[command(after_help = "Exit codes: 0 done, 2 not done, or not known.")]
pub(crate) struct PutCommand {
    key: String,
    value: String,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Args)]
#[command(
    after_help = "Of a single key only the value is printed, as it is; with --prefix, keys and values, a line each.

Exit codes: 0 found, 1 not found, 2 failed."
)]
pub(crate) struct GetCommand {
    key: String,
    /// All keys that begin with KEY.
    #[arg(long)]
    prefix: bool,
    /// Ask one member for what it has, which may be behind.
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Args)]
#[command(after_help = "Prints how many keys were deleted. Exit codes: 0 done, 2 not done, or not known.")]
pub(crate) struct DelCommand {
    key: String,
    /// All keys that begin with KEY.
    #[arg(long)]
    prefix: bool,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Args)]
#[command(after_help = "Exit codes: 0 all of them answer and know a leader, 1 not all, 2 bad input.")]
pub(crate) struct StatusCommand {
    #[command(flatten)]
    cluster: Cluster,
}

impl PutCommand {
    pub(crate) fn run(self) -> anyhow::Result<Verdict> {
        let mut client = self.cluster.client()?;
        let started = Instant::now();
        let revision = wait(client.put(self.key, self.value))??;
        anstream::println!("OK  revision {revision}  {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
        Ok(Verdict::Passed)
    }
}

impl GetCommand {
    pub(crate) fn run(self) -> anyhow::Result<Verdict> {
        let mut client = self.cluster.client()?;
        let range_end = if self.prefix { prefix_end(self.key.as_bytes()) } else { Vec::new().into() };
        // Every key begins with nothing, but none is nothing.
        let key = if self.prefix && self.key.is_empty() { vec![0] } else { self.key.into_bytes() };
        let (key, serializable) = (key.into(), self.local);
        let request = RangeRequest { key, range_end, serializable, ..RangeRequest::default() };
        let found = wait(client.range(request))??;
        let mut out = std::io::stdout().lock();
        for kv in &found.kvs {
            if self.prefix {
                out.write_all(&kv.key)?;
                out.write_all(b"\n")?;
            }
            out.write_all(&kv.value)?;
            out.write_all(b"\n")?;
        }
        Ok(Verdict::of(!found.kvs.is_empty()))
    }
}

impl DelCommand {
    pub(crate) fn run(self) -> anyhow::Result<Verdict> {
        let mut client = self.cluster.client()?;
        let range_end = if self.prefix { prefix_end(self.key.as_bytes()) } else { Vec::new().into() };
        let deleted = wait(client.delete(self.key, range_end))??;
        anstream::println!("{deleted}");
        Ok(Verdict::Passed)
    }
}

impl StatusCommand {
    pub(crate) fn run(self) -> anyhow::Result<Verdict> {
        let mut client = self.cluster.client()?;
        let all = wait(client.status())?;
        let mut well = true;
        anstream::println!(
            "{:<28} {:>6} {:>6} {:>6} {:>10} {:>10}",
            "endpoint",
            "member",
            "leader",
            "term",
            "applied",
            "revision"
        );
        for (endpoint, status) in all {
            match status {
                Ok(status) => {
                    let header = status.header.unwrap_or_default();
                    well &= status.leader != 0;
                    let leader = if status.leader == 0 { "none".to_owned() } else { status.leader.to_string() };
                    let (term, applied) = (status.raft_term, status.raft_applied_index);
                    let (member, revision) = (header.member_id, header.revision);
                    anstream::println!("{endpoint:<28} {member:>6} {leader:>6} {term:>6} {applied:>10} {revision:>10}");
                }
                Err(why) => {
                    well = false;
                    anstream::println!("{endpoint:<28} {why}");
                }
            }
        }
        Ok(Verdict::of(well))
    }
}

/// Waits for an answer, on this thread.
fn wait<T>(answer: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(answer))
}
