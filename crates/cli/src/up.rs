//! `bowline up` and `bowline down` run a cluster on this machine.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bowline_emulator::harness::Interrupts;
use bowline_server::paste::quote;
use clap::Args;

use crate::cert;
use crate::exit::{Exit, NotDone};
use crate::out::{self, Unprinted, remark, tell};
use probe::Probe;
use supervisor::Supervisor;
use topology::{Topology, is_running};

mod probe;
mod supervisor;
mod topology;

/// The default data folder.
const DATA_DIR: &str = "bowline-data";

/// Time limit for members to become ready, or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Interval between checks of the members.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Args)]
#[command(after_help = "Examples:
  bowline up                           three members; Ctrl-C stops them
  bowline up --detach && bowline down  the same in the background
  bowline up --tls                     with TLS; it makes the certificates
  bowline up --nodes 5 --data-dir /tmp/five --first-port 12379

On a terminal, enter a letter and a member's number: k 2 kills member 2, p 2 pauses or \
resumes it, r 2 starts it again.

Exit codes: 0 stopped; 1 failed; 2 bad input.")]
pub(crate) struct UpCommand {
    /// Number of members of a new cluster.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    nodes: u64,
    /// Data folder of the cluster; created if it does not exist.
    #[arg(long, default_value = DATA_DIR, value_name = "FOLDER")]
    data_dir: PathBuf,
    /// First port of a new cluster. Each member takes two; free ports replace those in use.
    #[arg(long, default_value_t = 2379, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=65518))]
    first_port: u16,
    /// Make a new cluster with TLS, with certificates of its own in the data folder.
    #[arg(long)]
    tls: bool,
    /// Run the members in the background; they log to the data folder.
    #[arg(long)]
    detach: bool,
}

#[derive(Args)]
pub(crate) struct DownCommand {
    /// Data folder of the cluster.
    #[arg(long, default_value = DATA_DIR, value_name = "FOLDER")]
    data_dir: PathBuf,
}

impl UpCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let started = Instant::now();
        let interrupts = Interrupts::watch().context("can't watch for Ctrl-C")?;
        let stop = interrupts.flag();
        let mut topology = Topology::load_or_found(&self.data_dir, self.nodes, self.first_port, self.tls)?;
        if let Some(pid) = topology.running().first() {
            let (folder, down) = (self.data_dir.display(), down(&self.data_dir));
            bail!("a cluster is already running in {folder} (process {pid}); to stop it: {down}");
        }
        if topology.members.len() as u64 != self.nodes {
            remark!(
                "{} holds a cluster of {} members, which starts now; for a new cluster, use another --data-dir",
                self.data_dir.display(),
                topology.members.len()
            );
        }
        for note in topology.check_ports()? {
            remark!("{note}");
        }
        if topology.tls {
            cert::make_local(&topology.certificates())?;
        }
        let mut supervisor = Supervisor::start(&topology, self.detach)?;
        topology.pids = supervisor.pids();
        topology.supervisor = (!self.detach).then(std::process::id);
        topology.save()?;
        let ready = supervisor.wait_until_ready(PATIENCE, &stop);
        if let Err(error) = ready {
            supervisor.stop(PATIENCE);
            return Err(error);
        }
        topology.founded = true;
        topology.save()?;
        supervisor.founded();
        let told = out::after_it_was_done(self.tell(&topology, started.elapsed()));
        if self.detach {
            supervisor.let_go();
            return Ok(told.map(|()| Exit::Passed)?);
        }
        if let Err(error) = told {
            // Members in the foreground are useful even if this can't be printed.
            remark!("{error}");
        }
        supervisor.listen_to_keys();
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
            if supervisor.look_after() {
                topology.pids = supervisor.pids();
                topology.save()?;
            }
        }
        remark!("stopping");
        let all = supervisor.stop(PATIENCE);
        topology.forget_processes()?;
        Ok(Exit::of(all))
    }

    fn tell(&self, topology: &Topology, took: Duration) -> Result<(), Unprinted> {
        let endpoints: Vec<String> = topology.members.iter().map(|member| member.client_address()).collect();
        let leader = Probe::new(topology).ok().and_then(|probe| probe.leader(topology));
        let leader = leader.map_or("not known yet".to_owned(), |id| format!("member {id}"));
        let first = &endpoints[0];
        let stop = if self.detach { "" } else { "Ctrl-C, or: " };
        tell!("\n{} members, ready after {:.1} s", endpoints.len(), took.as_secs_f64())?;
        tell!("  endpoints  {}", endpoints.join(","))?;
        tell!("  leader     {leader}")?;
        tell!("  data       {}", self.data_dir.display())?;
        let (mut exports, mut etcdctl, mut curl) =
            (format!("BOWLINE_ENDPOINTS={}", endpoints.join(",")), String::new(), String::new());
        if let Some(files) = topology.client_files() {
            let [ca, cert, key] = files.map(|file| quote(file.as_os_str()).to_string());
            exports.push_str(&format!(" BOWLINE_CACERT={ca} BOWLINE_CERT={cert} BOWLINE_KEY={key}"));
            etcdctl = format!(" --cacert={ca} --cert={cert} --key={key}");
            curl = format!(" --cacert {ca} --cert {cert} --key {key}");
        }
        tell!("  try        export {exports}")?;
        tell!("             bowline put hello world; bowline status; bowline shell")?;
        tell!("             etcdctl --endpoints={}://{first}{etcdctl} put hello world", topology.scheme())?;
        tell!("             curl{curl} {}://{first}/metrics", topology.scheme())?;
        if !self.detach {
            tell!("  keys       k 2: kill member 2, p 2: pause or resume it, r 2: start it again")?;
        }
        tell!("  stop       {stop}{}\n", down(&self.data_dir))
    }
}

/// The command that stops the cluster of a folder.
fn down(data_dir: &Path) -> String {
    match data_dir.as_os_str() {
        folder if folder == DATA_DIR => "bowline down".to_owned(),
        folder => format!("bowline down --data-dir={}", quote(folder)),
    }
}

impl DownCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let mut topology = Topology::load(&self.data_dir)?
            .with_context(|| format!("there is no cluster in {}", self.data_dir.display()))?;
        let running = topology.running();
        if running.is_empty() {
            tell!("no member is running in {}", self.data_dir.display())?;
            return Ok(Exit::Passed);
        }
        // A supervisor stops its members itself.
        let told = topology.supervisor.filter(|pid| running.contains(pid)).map_or(running.clone(), |pid| vec![pid]);
        for pid in &told {
            topology::tell_to_stop(*pid);
        }
        let until = Instant::now() + PATIENCE;
        while running.iter().any(|pid| is_running(*pid)) {
            if Instant::now() >= until {
                bail!(NotDone(format!("processes still running after {} s: {running:?}", PATIENCE.as_secs())));
            }
            std::thread::sleep(LOOK);
        }
        topology.forget_processes()?;
        out::after_it_was_done(tell!("stopped; the data is in {}", self.data_dir.display()))?;
        Ok(Exit::Passed)
    }
}
