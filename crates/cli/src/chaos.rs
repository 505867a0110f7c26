//! `bowline chaos`: tests a real cluster under real faults.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bowline_checker::history::write_history;
use bowline_checker::keys::{self, Operation};
use bowline_emulator::harness::Interrupts;
use clap::Args;

use crate::exit::{Exit, NotRun};
use crate::live::Live;
use members::Members;
use nemesis::Nemesis;
use network::Network;
use once::Puts;
use plan::Plan;
use report::Report;
use watcher::Watcher;
use workload::Record;

mod backups;
mod disk;
mod large;
mod members;
mod nemesis;
mod network;
mod once;
mod plan;
mod power;
mod report;
mod watcher;
mod workload;

/// Time limit for members to become ready at the start.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long clients go on after everything is healed at the end.
const EPILOGUE: Duration = Duration::from_secs(2);

/// Interval of the progress display.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bowline chaos --minutes 2                      three members
  bowline chaos --minutes 30 --nodes 5 --seed 7  a seed repeats its faults
  bowline chaos --only replaced,isolation        members are replaced, some of them cut off
  bowline chaos --minutes 1 --history h.jsonl && bowline check h.jsonl

Members are real processes in a temporary folder, and a proxy carries their traffic. Faults \
strike alone or together: kill -9 of one or all members, loss of power of one or all (on Linux with glibc: what was not \
synced is lost), SIGTERM, SIGSTOP, flipped bits in the logs of a \
minority, network partitions, slow and corrupting links, a full disk (where a small one can be \
mounted), members that lose their data and are replaced, also just after the leadership has moved, leadership \
transfers, large values. The run passes if all histories are linearizable, revisions \
follow real time, no acknowledged write is lost, none is done twice, all members are equal at the end, and backups that \
were taken meanwhile can be restored, the last one with the members' checksum. After a \
failure, the folder and the history are kept.

Exit codes: 0 passed; 1 failed, or the report could not be printed; 2 bad input, or the run was \
not completed.")]
pub(crate) struct ChaosCommand {
    /// Duration of the faults, in minutes.
    #[arg(long, default_value_t = 2.0, value_name = "MINUTES")]
    minutes: f64,
    /// Number of members.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=9))]
    nodes: u64,
    /// Seed of the faults and their order [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Let only these faults strike [default: all of them]
    #[arg(long, value_name = "FAULT,...", value_delimiter = ',', value_parser = plan::word)]
    only: Vec<String>,
    /// Print each strike.
    #[arg(short, long)]
    verbose: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Write the clients' history to this file, one operation per line.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

impl ChaosCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        if !(self.minutes > 0.0 && self.minutes <= 1_440.0) {
            anyhow::bail!("--minutes is {}; allowed: more than 0, at most 1440", self.minutes);
        }
        let interrupts = Interrupts::watch().context("can't watch for Ctrl-C").context(NotRun)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.context("can't start threads").context(NotRun)?;
        let seed = self.seed.map_or_else(random_seed, Ok)?;
        let folder = std::env::temp_dir().join(format!("bowline-chaos-{seed}-{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("can't create {}", folder.display()))
            .context(NotRun)?;
        let live = Live::new((self.minutes * 600.0) as u64, self.json);
        live.title(&format!("chaos, seed {seed}"));
        let ran = runtime.block_on(self.chaos(seed, &folder, &live, &interrupts.flag()));
        live.end();
        // Nothing is mounted in the folder any more, so the user can remove it.
        let ran = ran.with_context(|| format!("seed {seed}, folder {}", folder.display()));
        let (mut report, history) = ran.context(NotRun)?;
        let kept = self.keep(&mut report, &history, &folder);
        // Print the verdict first, so that an error in keeping files can't hide it.
        report.tell(self.json)?;
        kept?;
        Ok(Exit::of(report.failures.is_empty()))
    }

    /// The whole run. Violations are in the report; an error means that the run was not completed.
    async fn chaos(
        &self,
        seed: u64,
        folder: &Path,
        live: &Live,
        stop: &AtomicBool,
    ) -> anyhow::Result<(Report, Vec<Operation>)> {
        let small_disk = nemesis::small_disk(folder, self.nodes, live);
        let library = power::library(&self.only, live);
        let token = format!("chaos-{seed}");
        let (mut members, entries) = Members::new(self.nodes, folder, token, library.as_deref())?;
        let endpoints = members.endpoints();
        let ports: Vec<u16> = members.all.iter().map(|member| member.peer_port).collect();
        let network = Network::start(entries, &ports, seed)?;
        for place in 0..members.all.len() {
            members.start(place)?;
        }
        let watcher = Watcher::start(&endpoints)?;
        wait_until_ready(&mut members, &watcher).await?;
        members.founded();
        if library.is_some() && !members.can_lose_power() {
            live.say("no power will be lost: the members have not loaded the library that it takes");
        }
        let record = Arc::new(Record::new());
        let done = Arc::new(AtomicBool::new(false));
        let mut clients = workload::start(&endpoints, seed, &record, &done)?;
        let puts = Arc::new(Puts::default());
        clients.extend(puts.start(&endpoints, &done)?);
        let backups = backups::start(folder, &endpoints, &done);
        let said = (live, self.verbose);
        let mut nemesis = Nemesis::new(members, network, watcher.clone(), Arc::clone(&record), small_disk, seed, said);
        let mut failures = Vec::new();
        let struck = tokio::select! {
            struck = self.strike(&mut nemesis, seed, &record, stop) => struck,
            () = tell(live, &watcher, &record) => Ok(()),
        };
        failures.extend(struck.err().map(|error| format!("{error:#}")));
        let healed = finish(&mut nemesis, &endpoints, (&record, &puts), &done, clients).await;
        // Where healing fails, nobody has told the backups yet that it is over.
        done.store(true, Ordering::Relaxed);
        let equal = healed.map_err(|error| failures.push(format!("{error:#}"))).ok();
        let backups = backups.await.context("the backups' task panicked")?;
        if let Some(equal) = equal {
            live.message("restoring a backup".to_owned());
            let checked = backups::check(folder, &endpoints[0], &backups, equal).await;
            failures.extend(checked.err().map(|error| format!("{error:#}")));
        }
        live.message("checking the history".to_owned());
        let history = record.history();
        failures.extend(keys::check(&history).explanation());
        let (tally, mut leader_gaps) = (record.tally(), nemesis.leader_gaps());
        leader_gaps.sort_unstable();
        let report = Report {
            seed,
            nodes: self.nodes,
            took: record.now(),
            keys: record.keys().len(),
            tally,
            combined: nemesis.combined,
            stopped_when_full: nemesis.stopped_when_full,
            leader_gaps,
            slowest_recovery: nemesis.slowest_recovery,
            equal,
            backups: backups.len() as u64 + 1,
            failures,
            kept: None,
        };
        Ok((report, history))
    }

    /// Carries out the plan until the time is up.
    async fn strike(
        &self,
        nemesis: &mut Nemesis<'_>,
        seed: u64,
        record: &Record,
        stop: &AtomicBool,
    ) -> anyhow::Result<()> {
        let until = Duration::from_secs_f64(self.minutes * 60.0);
        nemesis.wait_until_it_serves().await?;
        if self.only.is_empty() && self.minutes >= 1.0 {
            nemesis.write_large(seed).await;
        }
        for strike in Plan::new(seed, &self.only) {
            if record.now() >= until || stop.load(Ordering::Relaxed) {
                break;
            }
            nemesis.strike(&strike).await?;
        }
        Ok(())
    }

    /// Writes the history, and removes the folder if the run passed.
    fn keep(&self, report: &mut Report, history: &[Operation], folder: &Path) -> anyhow::Result<()> {
        let failed = !report.failures.is_empty();
        let files = [self.history.clone(), failed.then(|| folder.join("history.jsonl"))];
        for path in files.into_iter().flatten() {
            let file = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
            write_history(BufWriter::new(file), history)?;
        }
        if failed {
            report.kept = Some(folder.to_owned());
        } else {
            std::fs::remove_dir_all(folder).with_context(|| format!("can't remove {}", folder.display()))?;
        }
        Ok(())
    }
}

async fn wait_until_ready(members: &mut Members, watcher: &Watcher) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    while watcher.leader().is_none() || watcher.all().iter().any(Option::is_none) {
        members.check(None)?;
        if Instant::now() >= until {
            anyhow::bail!("the members are not ready after {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Displays the progress, forever.
async fn tell(live: &Live, watcher: &Watcher, record: &Record) {
    loop {
        let (now, tally) = (record.now(), record.tally());
        let leader = watcher.leader().map_or("no leader".to_owned(), |place| format!("leader {}", place + 1));
        let message = format!(
            "{:.0} s  {} operations, {} unknown, {} faults ({}), {leader}, longest write gap {:.2} s",
            now.as_secs_f64(),
            tally.operations,
            tally.unknown,
            tally.faults.values().sum::<u64>(),
            report::kinds(&tally.faults),
            tally.longest_gap.as_secs_f64()
        );
        live.step((now.as_secs_f64() * 10.0) as u64, message);
        tokio::time::sleep(LOOK).await;
    }
}

/// Heals everything, lets the clients finish, and compares the members.
async fn finish(
    nemesis: &mut Nemesis<'_>,
    endpoints: &[String],
    (record, puts): (&Record, &Puts),
    done: &AtomicBool,
    clients: Vec<tokio::task::JoinHandle<()>>,
) -> anyhow::Result<(i64, u32)> {
    nemesis.heal()?;
    let served = nemesis.wait_until_it_serves().await;
    tokio::time::sleep(EPILOGUE).await;
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.context("a client panicked")?;
    }
    served?;
    workload::read_all(endpoints, record).await.context("can't read a key at the end")?;
    puts.check(&endpoints[0]).await?;
    nemesis.wait_until_equal().await
}

fn random_seed() -> anyhow::Result<u64> {
    // Short enough to type.
    Ok(getrandom::u64()? % 1_000_000_000)
}
