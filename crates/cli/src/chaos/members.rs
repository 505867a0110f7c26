//! The members: processes of this program.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bowline_emulator::Random;
use rustix::process::{Pid, Signal, kill_process};

use super::power::Unsynced;

/// Log size at which members make a snapshot; small, so that they make many.
const SNAPSHOT_BYTES: &str = "512KiB";

/// What a member says that stops because its disk is full.
const NO_SPACE: &str = "No space left on device";

/// Time limit for a member to stop in good order, and the interval between looks.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);

/// A member.
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) client_port: u16,
    pub(super) peer_port: u16,
    pub(super) folder: PathBuf,
    /// The address by which the others reach it: that of the proxy.
    pub(super) peer_url: String,
    /// Whether it is a founding member, and not one that took the place of another.
    founding: bool,
    log: PathBuf,
    /// `None` if no power can be lost.
    unsynced: Option<Unsynced>,
    child: Option<Child>,
    paused: bool,
    /// It was told to stop in good order.
    stopping: bool,
}

impl Member {
    pub(super) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?));
        if let Some(pid) = pid {
            // The process may have ended already.
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills the process. Returns whether it was running.
    pub(super) fn kill(&mut self) -> bool {
        self.signal(Signal::KILL);
        (self.paused, self.stopping) = (false, false);
        match self.child.take() {
            Some(mut child) => child.wait().is_ok(),
            None => false,
        }
    }

    /// Tells the process to stop in good order, with SIGTERM. Returns whether it was running.
    pub(super) fn stop(&mut self) -> bool {
        let runs = self.is_running() && !self.paused && !self.stopping;
        if runs {
            self.signal(Signal::TERM);
            self.stopping = true;
        }
        runs
    }

    /// Waits until a process that was told to stop has ended, which must be without an error.
    fn wait_for_stop(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + STOP_PATIENCE;
        while self.stopping {
            self.look_whether_it_stopped()?;
            if Instant::now() >= until {
                bail!("member {} does not stop within {} s after SIGTERM", self.id, STOP_PATIENCE.as_secs());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Takes note that a process has ended that was told to stop.
    fn look_whether_it_stopped(&mut self) -> anyhow::Result<()> {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        let Some(status) = ended.filter(|_| self.stopping) else { return Ok(()) };
        (self.child, self.stopping) = (None, false);
        let words = self.last_words();
        if !status.success() && !words.contains(NO_SPACE) {
            bail!("member {} failed when it was told to stop ({status}):\n  {words}", self.id);
        }
        Ok(())
    }

    /// Stops the process with SIGSTOP. Returns whether it was running.
    pub(super) fn pause(&mut self) -> bool {
        let runs = self.is_running() && !self.paused && !self.stopping;
        if runs {
            self.signal(Signal::STOP);
            self.paused = true;
        }
        runs
    }

    pub(super) fn go_on(&mut self) {
        if self.paused {
            self.signal(Signal::CONT);
            self.paused = false;
        }
    }

    /// Loses the power of a member whose process was killed. Returns what it lost; `None` if that can't be done.
    pub(super) fn lose_power(&self, random: &mut Random) -> anyhow::Result<Option<String>> {
        let Some(unsynced) = &self.unsynced else { return Ok(None) };
        let lost = unsynced.lose(random).with_context(|| format!("can't lose the power of member {}", self.id))?;
        Ok(Some(lost.to_string()))
    }

    /// Takes for durable what a member has written whose process was killed: its disk is about to be changed by another
    /// hand, and a loss of power would otherwise undo parts of that.
    pub(super) fn settle(&self) -> anyhow::Result<()> {
        self.unsynced.as_ref().map_or(Ok(()), Unsynced::settle)
    }

    /// The last lines of its log.
    fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n  ")
    }
}

/// All members.
pub(super) struct Members {
    pub(super) all: Vec<Member>,
    /// The value of `--initial-cluster`: the addresses of the proxy.
    cluster: String,
    token: String,
    founded: bool,
}

impl Members {
    /// Makes members with their own ports, not started yet, and the proxy's listeners, one for each member.
    /// `library`: what records their unsynced writes.
    pub(super) fn new(
        count: u64,
        folder: &Path,
        token: String,
        library: Option<&Path>,
    ) -> anyhow::Result<(Members, Vec<TcpListener>)> {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free");
        let port = |listener: &TcpListener| Ok::<u16, anyhow::Error>(listener.local_addr()?.port());
        // The listeners stay open until all ports are chosen, so that no port is chosen twice.
        let (mut entries, mut held, mut all, mut cluster) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for id in 1..=count {
            let (entry, client, peer) = (listen()?, listen()?, listen()?);
            let peer_url = format!("http://127.0.0.1:{}", port(&entry)?);
            cluster.push(format!("{id}={peer_url}"));
            let data = folder.join(format!("member-{id}")).join("data");
            let record = folder.join(format!("member-{id}-unsynced"));
            all.push(Member {
                id,
                client_port: port(&client)?,
                peer_port: port(&peer)?,
                unsynced: library.map(|library| Unsynced::new(library, &data, record)),
                folder: data,
                peer_url,
                founding: true,
                log: folder.join(format!("member-{id}.log")),
                child: None,
                paused: false,
                stopping: false,
            });
            entries.push(entry);
            held.extend([client, peer]);
        }
        Ok((Members { all, cluster: cluster.join(","), token, founded: false }, entries))
    }

    pub(super) fn endpoints(&self) -> Vec<String> {
        self.all.iter().map(|member| format!("127.0.0.1:{}", member.client_port)).collect()
    }

    /// Records that all folders exist: one that is missing later is lost, not new.
    pub(super) fn founded(&mut self) {
        self.founded = true;
    }

    /// Whether the power of members can be lost, now that all of them have started.
    pub(super) fn can_lose_power(&self) -> bool {
        self.all.iter().all(|member| member.unsynced.as_ref().is_some_and(Unsynced::is_recorded))
    }

    /// Deletes the data of a member that does not run.
    pub(super) fn wipe(&self, place: usize) -> anyhow::Result<()> {
        self.all[place].settle()?;
        let folder = &self.all[place].folder;
        fs::remove_dir_all(folder).with_context(|| format!("can't delete {}", folder.display()))
    }

    /// Has a new member with this id in a place from now on.
    pub(super) fn replace(&mut self, place: usize, id: u64) {
        self.all[place].id = id;
        self.all[place].founding = false;
    }

    /// Starts a member unless it is running.
    pub(super) fn start(&mut self, place: usize) -> anyhow::Result<()> {
        let member = &mut self.all[place];
        member.wait_for_stop()?;
        if member.is_running() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&member.log)?;
        let program = std::env::current_exe().context("can't find the path of this program")?;
        let mut command = Command::new(program);
        command
            .arg("serve")
            .args(["--listen-client", &format!("127.0.0.1:{}", member.client_port)])
            .args(["--listen-peer", &format!("127.0.0.1:{}", member.peer_port)])
            .args(["--cluster-token", &self.token])
            .args(["--snapshot-bytes", SNAPSHOT_BYTES])
            .arg("--data-dir")
            .arg(&member.folder)
            // If this process is killed, the pipe closes and the members stop.
            .arg("--stop-at-eof")
            // Ctrl-C must reach only this process, which stops the members.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(unsynced) = &member.unsynced {
            unsynced.record(&mut command);
        }
        if member.founding {
            command.args(["--id", &member.id.to_string(), "--initial-cluster", &self.cluster]);
        } else {
            // It finds its id by its address.
            let named = self.cluster.split(',').map(|member| format!("m{member}")).collect::<Vec<_>>().join(",");
            command.args(["--name", &format!("m{}", place + 1), "--initial-cluster", &named]);
        }
        if self.founded {
            command.args(["--initial-cluster-state", "existing"]);
        }
        member.child = Some(command.spawn().with_context(|| format!("can't start member {}", member.id))?);
        Ok(())
    }

    /// Fails if a member ended that was not killed. The member `full`, whose disk is full, may stop, which is no
    /// violation. Returns the last lines of each member that did.
    pub(super) fn check(&mut self, full: Option<usize>) -> anyhow::Result<Vec<String>> {
        let mut stopped = Vec::new();
        for (place, member) in self.all.iter_mut().enumerate() {
            member.look_whether_it_stopped()?;
            let ended = member.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            let Some(status) = ended else { continue };
            (member.child, member.stopping) = (None, false);
            let words = member.last_words();
            if Some(place) != full || !words.contains(NO_SPACE) {
                bail!("member {} ended unexpectedly ({status}):\n  {words}", member.id);
            }
            stopped.push(words);
        }
        Ok(stopped)
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for member in &mut self.all {
            member.kill();
        }
    }
}
