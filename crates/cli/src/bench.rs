//! `bowline bench`: measures a cluster under load, or compares two.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use bowline_bench::plan::{Distribution, Length, Plan, Settings, Work};
use bowline_bench::report::{Report, Side};
use bowline_bench::{Bench, BenchError, Now};
use bowline_client::Client;
use bowline_emulator::harness::Interrupts;
use bowline_server::config::{parse_duration, parse_size};
use clap::{Args, Subcommand, ValueEnum};

use crate::client::Cluster;
use crate::exit::{Exit, NotDone};
use crate::live::Live;
use crate::out::{self, remark, tell};
use echo::{Echo, EchoServer};

mod echo;

pub(crate) const EXAMPLES: &str = "Examples:
  bowline bench put                         64 clients for 10 s
  bowline bench get --serializable --clients 256 --connections 8
  bowline bench mixed --reads 90 --distribution zipf --duration 1m --html mixed.html
  bowline bench put --rate 2000             a fixed rate: latencies count from when a put was due
  bowline bench put --requests 100000 --compare 10.0.0.1:2379    two clusters in turn
  bowline bench put --compare echo          what gRPC and this program cost without a store
  bowline bench watch --watchers 100 --streams 10 --json | jq .a.runs[0].measures

`bowline bench put --help` describes all options, and docs/bench.md the output.";

const MORE: &str = "A request that fails is counted by its error, and not sent again. Latencies are those of requests \
that succeed.

Without --rate, each client sends its next request when the last one is answered. With --rate, requests are due at \
fixed times, and the latency counts from then, also if all clients were busy.

Exit codes: 0 measured; 1 all requests of a measurement failed, it was interrupted, or the cluster can't be reached; 2 \
bad input.";

/// How often a pause looks whether it shall end.
const LOOK: Duration = Duration::from_millis(100);

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Sets keys.
    #[command(after_help = MORE)]
    Put(Options),
    /// Reads keys.
    #[command(after_help = MORE)]
    Get {
        /// Read a member's own state, which may be an earlier one.
        #[arg(long)]
        serializable: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Reads ranges of keys.
    #[command(after_help = MORE)]
    Range {
        /// Number of keys of each answer.
        #[arg(long, default_value_t = 100)]
        limit: u64,
        /// Read a member's own state, which may be an earlier one.
        #[arg(long)]
        serializable: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Transactions of one comparison, which holds, and one put.
    #[command(after_help = MORE)]
    Txn(Options),
    /// Linearizable gets and puts, by chance.
    #[command(after_help = MORE)]
    Mixed {
        /// Gets of a hundred requests.
        #[arg(long, default_value_t = 80, value_name = "PERCENT")]
        reads: u64,
        #[command(flatten)]
        options: Options,
    },
    /// Sets keys, and measures the time until each watcher has the event, from when its put began.
    #[command(after_help = MORE)]
    Watch {
        /// Number of watchers, each of all keys: each put is an event for each of them.
        #[arg(long, default_value_t = 10)]
        watchers: u64,
        /// Number of streams that the watchers share. The streams share the connections.
        #[arg(long, default_value_t = 1)]
        streams: u64,
        #[command(flatten)]
        options: Options,
    },
    /// Leases. Each client grants one, keeps it alive once and revokes it, again and again; these are three requests.
    #[command(after_help = MORE)]
    Lease(Options),
    /// Answers each request at once; `--echo` starts it.
    #[command(hide = true)]
    EchoServer(EchoServer),
}

/// Which key comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Keys {
    /// One after the other, again and again.
    Sequential,
    /// Each as often as the others.
    Uniform,
    /// The first ones most often: see --zipf-exponent.
    Zipf,
}

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Number of clients; each has one request open at a time.
    #[arg(long, default_value_t = 64)]
    clients: u64,
    /// Number of HTTP/2 connections that the clients share [default: one for each endpoint]
    #[arg(long)]
    connections: Option<u64>,
    /// Number of threads of this program [default: one for each two processors]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=64))]
    threads: Option<u64>,
    /// Size of a key with its prefix.
    #[arg(long, default_value = "32", value_name = "BYTES", value_parser = size)]
    key_size: u64,
    /// Size of a value, such as 256 or 64KiB.
    #[arg(long, default_value = "256", value_name = "BYTES", value_parser = size)]
    value_size: u64,
    /// Number of different keys.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Which key comes next.
    #[arg(long, value_enum, default_value_t = Keys::Uniform, value_name = "NAME")]
    distribution: Keys,
    /// With --distribution zipf: key n, from 1, comes in proportion to n to the power of minus this [default: 0.99]
    #[arg(long, value_name = "EXPONENT")]
    zipf_exponent: Option<f64>,
    /// How long to measure.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = time)]
    duration: Duration,
    /// Measure so many requests instead.
    #[arg(long, conflicts_with = "duration")]
    requests: Option<u64>,
    /// How long to do the same before, without measuring it.
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = time)]
    warmup: Duration,
    /// Requests that are due in each second [default: as many as are answered]
    #[arg(long)]
    rate: Option<u64>,
    /// Seed of the keys and values.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first bytes of all keys. Unless --keep is given, there must be no such keys, and none stays.
    #[arg(long, default_value = "bench/")]
    prefix: OsString,
    /// Keep the keys. Then keys that are there already may be used, and are overwritten.
    #[arg(long)]
    keep: bool,
    /// Also measure another cluster, of these endpoints, in turn, and compare the two. `echo`: a server that answers
    /// at once and stores nothing.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    compare: Vec<String>,
    /// With --compare: how often each of the two is measured.
    #[arg(long, default_value_t = 3, requires = "compare", value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// With --compare: pause after each measurement.
    #[arg(long, default_value = "1s", requires = "compare", value_name = "TIME", value_parser = time)]
    pause: Duration,
    /// Measure a server that answers at once and stores nothing, in a process of its own: the cost of gRPC, the network
    /// and this program.
    #[arg(long, conflicts_with = "endpoints")]
    echo: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Also write the report as a web page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    cluster: Cluster,
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| "allowed: a size such as 256 or 64KiB".to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "allowed: a time such as 500ms, 10s or 1m".to_owned())
}

impl BenchCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            BenchCommand::Put(options) => options.run(Work::Put),
            BenchCommand::Get { serializable, options } => options.run(Work::Get { serializable }),
            BenchCommand::Range { limit, serializable, options } => options.run(Work::Range { limit, serializable }),
            BenchCommand::Txn(options) => options.run(Work::Txn),
            BenchCommand::Mixed { reads, options } => options.run(Work::Mixed { reads }),
            BenchCommand::Watch { watchers, streams, options } => options.run(Work::Watch { watchers, streams }),
            BenchCommand::Lease(options) => options.run(Work::Lease),
            BenchCommand::EchoServer(server) => server.run(),
        }
    }
}

/// A server that is measured.
struct Target {
    /// Its name in a comparison.
    name: &'static str,
    client: Client,
    /// Its process, if it is an echo.
    echo: Option<Echo>,
}

impl Options {
    fn settings(&self, work: Work) -> anyhow::Result<Settings> {
        let distribution = match (self.distribution, self.zipf_exponent) {
            (Keys::Zipf, exponent) => Distribution::Zipf { exponent: exponent.unwrap_or(0.99) },
            (_, Some(exponent)) => bail!("--zipf-exponent is {exponent}; allowed: only with --distribution zipf"),
            (Keys::Sequential, None) => Distribution::Sequential,
            (Keys::Uniform, None) => Distribution::Uniform,
        };
        Ok(Settings {
            work,
            clients: self.clients,
            connections: self.connections,
            key_size: self.key_size,
            value_size: self.value_size,
            keys: self.keys,
            distribution,
            length: self.requests.map_or(Length::Time(self.duration), Length::Requests),
            warmup: self.warmup,
            rate: self.rate,
            seed: self.seed,
            prefix: self.prefix.clone().into_vec(),
            keep: self.keep,
            patience: self.cluster.patience(),
        })
    }

    fn compares_with_echo(&self) -> bool {
        self.compare == ["echo"]
    }

    /// One server, or two.
    fn targets(&self) -> anyhow::Result<Vec<Target>> {
        let new = |name, is_echo, endpoints: &dyn Fn() -> anyhow::Result<Client>| {
            let echo = if is_echo { Some(Echo::start(self.value_size)?) } else { None };
            let client = match &echo {
                Some(echo) => Client::new(&[&echo.address], self.cluster.patience())?,
                None => endpoints()?,
            };
            anyhow::Ok(Target { name, client, echo })
        };
        let mut targets = vec![new("A", self.echo, &|| self.cluster.client())?];
        if !self.compare.is_empty() {
            targets.push(new("B", self.compares_with_echo(), &|| self.cluster.client_of(&self.compare))?);
        }
        Ok(targets)
    }

    fn run(self, work: Work) -> anyhow::Result<Exit> {
        if (self.echo || self.compares_with_echo()) && matches!(work, Work::Watch { .. } | Work::Lease) {
            bail!("an echo answers no {}; allowed: put, get, range, txn, mixed", work.name());
        }
        if self.pause > Duration::from_secs(3600) {
            bail!("--pause is {:?}; allowed: 0s to 1h", self.pause);
        }
        let settings = self.settings(work)?;
        // Nothing is started for options that are refused.
        Plan::new(settings.clone(), 1)?;
        let targets = self.targets()?;
        let endpoints = targets.iter().map(|target| target.client.endpoints().count()).max();
        let plan = Plan::new(settings, endpoints.unwrap_or(1))?;
        let interrupts = Interrupts::watch().context("can't watch for Ctrl-C")?;
        let stop = interrupts.flag();
        let report = self.runtime()?.block_on(self.measure(plan, targets, &stop));
        let (report, cleaned) = report?;
        if self.json {
            tell!("{}", report.json())?;
        } else {
            out::print(report.text())?;
        }
        if let Some(file) = &self.html {
            std::fs::write(file, report.html()).with_context(|| format!("can't write {}", file.display()))?;
        }
        cleaned?;
        Ok(Exit::of(!report.failed()))
    }

    /// One thread costs less than several that share the work.
    fn runtime(&self) -> anyhow::Result<tokio::runtime::Runtime> {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let threads = self.threads.unwrap_or((processors / 2).clamp(1, 64));
        let mut builder = match threads {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        builder.worker_threads(threads as usize).enable_all().build().context("can't start threads")
    }

    /// Measures all servers, and removes the keys whatever happens. The second result says whether that was done.
    async fn measure(
        &self,
        plan: Plan,
        targets: Vec<Target>,
        stop: &AtomicBool,
    ) -> anyhow::Result<(Report, anyhow::Result<()>)> {
        let (mut benches, mut sides) = (Vec::new(), Vec::new());
        let compares = targets.len() > 1;
        let named = |name: &'static str, error| if compares { told(error).context(name) } else { told(error) };
        for target in &targets {
            let connected = Bench::connect(&plan, target.client.clone()).await;
            let bench = connected.map_err(|error| named(target.name, error))?;
            let version = target.echo.is_none().then(|| bench.version().to_owned());
            sides.push(Side { endpoints: bench.endpoints().to_vec(), version, runs: Vec::new() });
            benches.push((target.name, bench));
        }
        let date = SystemTime::now();
        let live = Live::wide(1_000);
        let measured = self.rounds(&plan, &mut benches, &mut sides, &live, stop).await;
        live.end();
        let mut cleaned = Ok(());
        for (name, bench) in &mut benches {
            let done = bench.clean().await.map_err(|error| named(name, error).context("can't remove the keys"));
            cleaned = cleaned.and(done);
        }
        if let (Err(_), Err(left)) = (&measured, &cleaned) {
            remark!("{left:#}");
        }
        measured?;
        let program = format!("bowline {}", env!("CARGO_PKG_VERSION"));
        Ok((Report { plan, program, date, sides }, cleaned))
    }

    /// Fills and measures; each of two servers is the first one in turn.
    async fn rounds(
        &self,
        plan: &Plan,
        benches: &mut [(&'static str, Bench)],
        sides: &mut [Side],
        live: &Live,
        stop: &AtomicBool,
    ) -> anyhow::Result<()> {
        let compares = benches.len() > 1;
        let work = plan.settings().work.name();
        let mut show = |now: &Now| live.step((now.share * 1_000.0) as u64, now.to_string());
        for (name, bench) in benches.iter_mut() {
            live.title(&if compares { format!("{work} {name}") } else { work.to_owned() });
            bench.fill(&mut show, stop).await.map_err(told)?;
        }
        let rounds = if compares { self.rounds } else { 1 };
        for turn in 0..rounds as usize * benches.len() {
            let (round, place) = (turn / benches.len(), turn % benches.len());
            let place = if round % 2 == 1 { benches.len() - 1 - place } else { place };
            let (name, bench) = &benches[place];
            if compares {
                live.title(&format!("{work} {name} {}/{rounds}", round + 1));
            }
            let run = bench.measure(&mut show, stop).await.map_err(told)?;
            let interrupted = run.interrupted();
            sides[place].runs.push(run);
            if interrupted {
                break;
            }
            if turn + 1 < rounds as usize * benches.len() {
                live.step(1_000, "pause".to_owned());
                let until = Instant::now() + self.pause;
                while Instant::now() < until && !stop.load(Ordering::Relaxed) {
                    tokio::time::sleep(until.saturating_duration_since(Instant::now()).min(LOOK)).await;
                }
            }
        }
        Ok(())
    }
}

fn told(error: BenchError) -> anyhow::Error {
    match error {
        BenchError::Client(error) => error.into(),
        error => NotDone(error.to_string()).into(),
    }
}
