//! Supervises the members' processes.

use std::io::{BufRead, BufReader, IsTerminal};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bowline_storage::private_options;
use owo_colors::{AnsiColors, OwoColorize};
use rustix::process::{Signal, kill_process};

use super::LOOK;
use super::probe::Probe;
use super::topology::{Member, Topology, as_pid, tell_to_stop};
use crate::exit::NotDone;
use crate::out::remark;

/// Pause before a member that ended by itself is restarted.
const RESTART_AFTER: Duration = Duration::from_secs(1);

const COLOURS: [AnsiColors; 6] =
    [AnsiColors::Cyan, AnsiColors::Yellow, AnsiColors::Green, AnsiColors::Magenta, AnsiColors::Blue, AnsiColors::Red];

pub(super) struct Supervisor {
    topology: Topology,
    detached: bool,
    processes: Vec<Process>,
    keys: Option<Receiver<String>>,
}

struct Process {
    member: Member,
    child: Option<Child>,
    paused: bool,
    /// When to restart it; `None`: not before the user says so.
    again_at: Option<Instant>,
}

impl Supervisor {
    /// Starts every member.
    pub(super) fn start(topology: &Topology, detached: bool) -> anyhow::Result<Supervisor> {
        let mut supervisor = Supervisor { topology: topology.clone(), detached, processes: Vec::new(), keys: None };
        for member in &topology.members {
            let started = supervisor.spawn(member);
            let child = match started {
                Ok(child) => Some(child),
                Err(error) => {
                    supervisor.stop(RESTART_AFTER);
                    return Err(error);
                }
            };
            supervisor.processes.push(Process { member: member.clone(), child, paused: false, again_at: None });
        }
        Ok(supervisor)
    }

    fn spawn(&self, member: &Member) -> anyhow::Result<Child> {
        let program = std::env::current_exe().context("can't find the path of this program")?;
        let folder = self.topology.member_folder(member);
        let mut command = Command::new(program);
        command
            .arg("serve")
            .args(["--id", &member.id.to_string(), "--listen-client", &member.client_address()])
            .args(["--initial-cluster", &self.topology.initial_cluster(), "--cluster-token", &self.topology.token])
            .arg("--data-dir")
            .arg(&folder)
            // Ctrl-C must reach only the supervisor, which stops the members in order.
            .process_group(0)
            .stdout(Stdio::null());
        for (flag, file) in self.topology.tls_flags() {
            command.arg(flag).arg(file);
        }
        if self.topology.founded {
            command.args(["--initial-cluster-state", "existing"]);
        }
        if self.detached {
            let path = self.topology.folder.join(format!("member-{}.log", member.id));
            let log = private_options().create(true).append(true).open(&path);
            let log = log.with_context(|| format!("can't write {}", path.display()))?;
            command.stdin(Stdio::null()).stderr(log);
        } else {
            // If the supervisor is killed, the pipe closes and the members stop.
            command.arg("--stop-at-eof").stdin(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = command.spawn().with_context(|| format!("can't start member {}", member.id))?;
        if let Some(stderr) = child.stderr.take() {
            show(member.id, stderr);
        }
        Ok(child)
    }

    /// Records that every member has its data folder.
    pub(super) fn founded(&mut self) {
        self.topology.founded = true;
    }

    /// The ids of the running processes.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.processes.iter().filter_map(|process| process.child.as_ref().map(Child::id)).collect()
    }

    /// Waits until every member serves.
    pub(super) fn wait_until_ready(&mut self, patience: Duration, stop: &AtomicBool) -> anyhow::Result<()> {
        let (until, logs) = (Instant::now() + patience, self.where_logs_are());
        let mut waiting: Vec<Member> = self.topology.members.clone();
        let probe = Probe::new(&self.topology)?;
        loop {
            waiting.retain(|member| !probe.is_ready(member));
            if waiting.is_empty() {
                return Ok(());
            }
            for process in &mut self.processes {
                if let Some(status) = process.ended() {
                    bail!(NotDone(format!("member {} ended ({status}); {logs}", process.member.id)));
                }
            }
            if stop.load(Ordering::Relaxed) {
                bail!(NotDone("interrupted".to_owned()));
            }
            if Instant::now() >= until {
                let (id, waited) = (waiting[0].id, patience.as_secs());
                bail!(NotDone(format!("member {id} is not ready after {waited} s")));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn where_logs_are(&self) -> String {
        let folder = self.topology.folder.display();
        if self.detached { format!("see {folder}/member-*.log") } else { "see its log above".to_owned() }
    }

    /// Restarts members that ended and obeys the user's commands. Returns whether the processes changed.
    pub(super) fn look_after(&mut self) -> bool {
        let mut changed = false;
        while let Some(line) = self.keys.as_ref().and_then(|keys| keys.try_recv().ok()) {
            changed |= self.obey(&line);
        }
        for place in 0..self.processes.len() {
            let process = &mut self.processes[place];
            let id = process.member.id;
            if let Some(status) = process.ended() {
                // Bad input would be bad again.
                let hopeless = status.code() == Some(2);
                let what = if hopeless { format!("r {id} starts it again") } else { "restarting it".to_owned() };
                remark!("member {id} ended ({status}); {what}");
                process.again_at = (!hopeless).then(|| Instant::now() + RESTART_AFTER);
                changed = true;
            }
            if process.child.is_none() && process.again_at.is_some_and(|at| at <= Instant::now()) {
                self.restart(place);
                changed = true;
            }
        }
        changed
    }

    fn restart(&mut self, place: usize) {
        let member = self.processes[place].member.clone();
        let started = self.spawn(&member);
        let process = &mut self.processes[place];
        (process.again_at, process.paused) = (None, false);
        match started {
            Ok(child) => process.child = Some(child),
            Err(error) => remark!("{error:#}"),
        }
    }

    /// Reads commands from the terminal, if there is one.
    pub(super) fn listen_to_keys(&mut self) {
        if !std::io::stdin().is_terminal() {
            return;
        }
        let (lines, keys) = channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        self.keys = Some(keys);
    }

    fn obey(&mut self, line: &str) -> bool {
        let mut words = line.split_whitespace();
        let (key, id) = (words.next(), words.next().and_then(|word| word.parse::<u64>().ok()));
        let place = self.processes.iter().position(|process| Some(process.member.id) == id);
        let (Some(key @ ("k" | "p" | "r")), Some(place)) = (key, place) else {
            if key.is_some() {
                remark!("unknown command {line:?}; allowed: k, p or r, and a member's number, such as k 2");
            }
            return false;
        };
        let process = &mut self.processes[place];
        let id = process.member.id;
        match (key, process.child.is_some()) {
            ("k", true) => {
                process.signal(Signal::KILL);
                if let Some(mut child) = process.child.take() {
                    // It was killed, so it ends.
                    let _ = child.wait();
                }
                process.again_at = None;
                remark!("killed member {id}; r {id} starts it again");
            }
            ("p", true) => {
                process.paused = !process.paused;
                process.signal(if process.paused { Signal::STOP } else { Signal::CONT });
                match process.paused {
                    true => remark!("paused member {id}; p {id} resumes it"),
                    false => remark!("resumed member {id}"),
                }
            }
            ("r", false) => self.restart(place),
            ("r", true) => remark!("member {id} is already running"),
            _ => remark!("member {id} is not running"),
        }
        true
    }

    /// Leaves the members running.
    pub(super) fn let_go(self) {
        // Dropping a child does not stop it.
        drop(self.processes);
    }

    /// Stops every member, and kills those that take too long. Returns whether all stopped cleanly.
    pub(super) fn stop(&mut self, patience: Duration) -> bool {
        for process in &mut self.processes {
            process.signal(Signal::CONT);
            process.again_at = None;
            if let Some(child) = &process.child {
                tell_to_stop(child.id());
            }
        }
        let until = Instant::now() + patience;
        let mut well = true;
        for process in &mut self.processes {
            while process.child.is_some() {
                if let Some(status) = process.ended() {
                    well &= status.success();
                } else if Instant::now() >= until {
                    process.signal(Signal::KILL);
                    well = false;
                } else {
                    std::thread::sleep(LOOK);
                }
            }
        }
        well
    }
}

impl Process {
    /// Its exit status, once, after it has ended.
    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.as_ref().and_then(|child| as_pid(child.id())) {
            // The process may have ended already.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Prints a member's log lines, prefixed with its number.
fn show(id: u64, stderr: ChildStderr) {
    let colour = COLOURS[usize::try_from(id - 1).unwrap_or(0) % COLOURS.len()];
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            remark!("{} {line}", format!("{id} |").color(colour));
        }
    });
}
