//! Starts, watches and kills the replicas' processes, and waits for them.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use bowline_lan::LanId;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid};

use super::tail::Tail;
use super::{HarnessError, Output, ReplicaExit};

/// The most bytes that are read from one replica's standard error at a time, so that much output
/// hardly delays messages.
const READ_BYTES: usize = 16_384;

/// The processes of all replicas. Dropping it kills the living ones and waits for all.
#[derive(Debug, Default)]
pub(super) struct Children {
    all: Vec<Replica>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Replica {
    id: LanId,
    child: Child,
    pid: Pid,
    /// Becomes readable when the process ends; `None` if the system has no such descriptors.
    pidfd: Option<OwnedFd>,
    words: Words,
    killed: bool,
    status: Option<ExitStatus>,
    /// Whether [`Children::ended`] has reported its end.
    told: bool,
}

#[derive(Debug)]
enum Words {
    Pipe(ChildStderr, Tail),
    File(File),
    /// The pipe has ended.
    Ended(Tail),
}

impl Children {
    /// Starts a replica, in a process group of its own so that its children end with it.
    pub(super) fn start(&mut self, id: LanId, mut command: Command, output: &Output) -> Result<(), std::io::Error> {
        let file = match output {
            Output::Discard => {
                command.stdout(Stdio::null()).stderr(Stdio::piped());
                None
            }
            Output::Files(folder) => {
                let (stdout, stderr) = files(folder, id)?;
                command.stdout(stdout).stderr(stderr.try_clone()?);
                Some(stderr)
            }
        };
        let mut child = command.stdin(Stdio::null()).process_group(0).spawn()?;
        let words = match (file, child.stderr.take()) {
            (Some(file), _) => Words::File(file),
            (None, Some(pipe)) => Words::Pipe(pipe, Tail::default()),
            (None, None) => Words::Ended(Tail::default()),
        };
        let pid = Pid::from_child(&child);
        self.all.push(Replica {
            id,
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty()).ok(),
            child,
            words,
            killed: false,
            status: None,
            told: false,
        });
        if let Some(Words::Pipe(pipe, _)) = self.all.last().map(|replica| &replica.words) {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(())
    }

    /// The descriptors that become readable when a process ends or writes something.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all.iter().flat_map(|replica| {
            let pipe = match &replica.words {
                Words::Pipe(pipe, _) => Some(pipe.as_fd()),
                _ => None,
            };
            let running = replica.status.is_none();
            let pidfd = replica.pidfd.as_ref().filter(|_| running);
            pidfd.map(AsFd::as_fd).into_iter().chain(pipe)
        })
    }

    /// Reads what replicas wrote, so that no replica blocks on a full pipe.
    pub(super) fn listen(&mut self) {
        self.scratch.resize(READ_BYTES, 0);
        for replica in &mut self.all {
            replica.listen(&mut self.scratch);
        }
    }

    /// Waits for processes that have ended, without blocking.
    pub(super) fn reap(&mut self) {
        for replica in &mut self.all {
            if replica.status.is_none() && replica.has_ended() {
                replica.wait();
            }
        }
    }

    /// The replicas that have ended since the last call, killed or not.
    pub(super) fn ended(&mut self) -> Vec<usize> {
        self.reap();
        let replicas = self.all.iter_mut().enumerate();
        let news = replicas.filter(|(_, replica)| replica.status.is_some() && !replica.told);
        news.map(|(index, replica)| {
            replica.told = true;
            index
        })
        .collect()
    }

    /// Kills a replica and its process group. It is waited for later, when it has ended.
    pub(super) fn kill(&mut self, index: usize) {
        self.all[index].kill();
    }

    pub(super) fn was_killed(&self, index: usize) -> bool {
        self.all[index].killed
    }

    pub(super) fn status(&self, index: usize) -> Option<ExitStatus> {
        self.all[index].status
    }

    /// The last lines that a replica wrote to its standard error.
    pub(super) fn last_words(&mut self, index: usize) -> Vec<String> {
        self.scratch.resize(READ_BYTES, 0);
        let replica = &mut self.all[index];
        replica.listen(&mut self.scratch);
        match &mut replica.words {
            Words::Pipe(_, tail) | Words::Ended(tail) => tail.lines(),
            Words::File(file) => Tail::of_file(file).lines(),
        }
    }

    /// Kills all living replicas, waits for all, and returns how each ended.
    pub(super) fn finish(mut self) -> Vec<ReplicaExit> {
        self.end_all();
        let count = self.all.len();
        let words: Vec<Vec<String>> = (0..count).map(|index| self.last_words(index)).collect();
        self.all
            .iter()
            .zip(words)
            .filter_map(|(replica, words)| {
                Some(ReplicaExit {
                    id: replica.id,
                    status: replica.status?,
                    by_itself: !replica.killed,
                    last_words: words.join("\n"),
                })
            })
            .collect()
    }

    fn end_all(&mut self) {
        // Replicas that ended by themselves come first, so that they don't count as killed.
        self.reap();
        for replica in &mut self.all {
            replica.kill();
        }
        for replica in &mut self.all {
            replica.wait();
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.end_all();
    }
}

impl Replica {
    fn kill(&mut self) {
        if self.status.is_none() {
            self.killed = true;
            // If it has just ended, its process id is not reused before it is waited for.
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }

    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(self.pid), options), Ok(Some(_)))
    }

    fn wait(&mut self) {
        if self.status.is_none() {
            let _ = kill_process_group(self.pid, Signal::KILL);
            self.status = self.child.wait().ok();
        }
    }

    fn listen(&mut self, scratch: &mut [u8]) {
        let Words::Pipe(pipe, tail) = &mut self.words else {
            return;
        };
        match pipe.read(scratch) {
            Ok(0) => self.words = Words::Ended(std::mem::take(tail)),
            Ok(length) => tail.push(&scratch[..length]),
            // There is nothing to read now. The end of the process also ends a broken pipe.
            Err(_) => {}
        }
    }
}

fn files(folder: &Path, id: LanId) -> Result<(File, File), std::io::Error> {
    fs::create_dir_all(folder)?;
    let file = |name: &str| {
        File::options().create(true).truncate(true).read(true).write(true).open(folder.join(format!("{id}.{name}")))
    };
    Ok((file("stdout")?, file("stderr")?))
}

/// The error if a replica can't be started: because of the folder for its output, or its program.
pub(super) fn cannot_start(program: String, output: &Output, source: std::io::Error) -> HarnessError {
    match output {
        Output::Files(folder) if !folder.is_dir() => {
            HarnessError::System { what: format!("make the folder {}", folder.display()), source }
        }
        _ => HarnessError::CannotStart { program, source },
    }
}
