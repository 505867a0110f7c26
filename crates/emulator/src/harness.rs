//! The emulated LAN in real time: starts any replica program, connects its sockets to an
//! [`Emulation`](crate::emulation::Emulation), and gives it the time.
//!
//! This is the only part of the emulator with a clock. One thread waits for all sockets and processes,
//! and forwards every message as soon as it is read.
//!
//! **The start.** The harness starts all replicas and waits until each has connected; on UDP, until
//! each has sent a message. Then the run's time begins, and the messages sent before are delivered
//! first. With [`SocketChoice::Auto`], the program is started with UDP arguments. If no replica
//! connects within [`RunOptions::patience`], or one ends before it connects, the program is started
//! again with a local packet socket, then with a local stream socket.
//!
//! **The end.** All processes are killed and waited for, and the temporary folder is removed. This also
//! happens after errors and panics, and on Ctrl-C if the caller watches [`Interrupts`].

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bowline_lan::LanId;
use bowline_lan::socket::{SocketError, SocketKind};

use crate::emulation::{ExtraFaults, Note, Progress, Record};
use crate::scenario::Scenario;
use crate::switch::SwitchCounters;

mod children;
mod driver;
mod floor;
mod interrupts;
mod program;
mod socket_choice;
mod tail;

pub use floor::{Floor, FloorOptions, measure_floor, run_null_replica};
pub use interrupts::Interrupts;
pub use program::Program;
pub use socket_choice::{SocketChoice, SocketChoiceError};

use driver::Session;

/// The default time that replicas have to connect.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(3);

/// The options of a run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The scenario.
    pub scenario: Scenario,
    /// The seed of everything random. The scenario's own `seed` is ignored.
    pub seed: u64,
    /// Faults beyond those of the scenario.
    pub extra: ExtraFaults,
    /// The program of each replica.
    pub program: Program,
    /// The form of socket.
    pub socket: SocketChoice,
    /// Where the replicas' output goes.
    pub output: Output,
    /// How long replicas have to connect; the default is [`DEFAULT_PATIENCE`].
    pub patience: Duration,
    /// When this becomes true, the run ends within a quarter of a second with
    /// [`HarnessError::Interrupted`].
    pub stop: Option<Arc<AtomicBool>>,
}

impl RunOptions {
    /// Default options for a scenario, a seed and a program.
    pub fn new(scenario: Scenario, seed: u64, program: Program) -> RunOptions {
        RunOptions {
            scenario,
            seed,
            extra: ExtraFaults::default(),
            program,
            socket: SocketChoice::Auto,
            output: Output::Discard,
            patience: DEFAULT_PATIENCE,
            stop: None,
        }
    }

    fn stopped(&self) -> bool {
        let stop = self.stop.as_deref();
        stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

/// Where the replicas' output goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Output {
    /// Output is discarded, but the last lines of standard error are shown if a replica dies by itself.
    #[default]
    Discard,
    /// Output goes to the files `<id>.stdout` and `<id>.stderr` in this folder. The folder is created
    /// if it does not exist; older files with these names are replaced.
    Files(PathBuf),
}

/// An event that is reported to the observer during a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// The replicas are being started with this form of socket.
    Starting(SocketKind),
    /// The program does not work with this form of socket, for this reason. The next form is tried.
    Unsuitable(SocketKind, &'a HarnessError),
    /// The replicas are connected, and the run's time begins.
    Started(SocketKind),
    /// The progress of the run, about five times a second.
    Progress(&'a Progress),
    /// Something happened at this time.
    Note(Duration, &'a Note),
}

/// The result of a run.
#[derive(Debug)]
pub struct RunOutcome {
    /// Everything that happened.
    pub record: Record,
    /// The form of socket that was used.
    pub socket: SocketKind,
    /// How each replica's process ended.
    pub exits: Vec<ReplicaExit>,
    /// Replicas that had not connected when the run began.
    pub silent: Vec<LanId>,
    /// Messages that were lost at the harness's sockets.
    pub counters: SwitchCounters,
    /// How late the harness was at most for a scheduled time. Far above a millisecond, the machine is
    /// too busy for reliable latencies.
    pub lateness: Duration,
}

/// How a replica's process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaExit {
    /// The replica.
    pub id: LanId,
    /// How it ended.
    pub status: ExitStatus,
    /// Whether it ended without being killed by the harness.
    pub by_itself: bool,
    /// The last lines of its standard error, for people: without control characters, and a few
    /// kilobytes at most.
    pub last_words: String,
}

/// Why a run could not be done. The first line is the reason; further lines are the last output of a
/// replica, or the reasons for each form of socket.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// The program can't be started.
    #[error("can't start {program}: {source}")]
    CannotStart {
        /// Its command line.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// A replica's process ended before it had connected.
    #[error("replica {id} ended before it connected to its {kind} socket: {status}{last_words}")]
    DiedAtStart {
        /// The replica.
        id: LanId,
        /// The form of socket that it should have used.
        kind: SocketKind,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its standard error, each after a newline.
        last_words: String,
    },
    /// No replica connected in time.
    #[error("no replica connected to its {kind} socket within {patience:?}: {program}{last_words}")]
    NobodyConnected {
        /// The form of socket that they should have used.
        kind: SocketKind,
        /// How long they had.
        patience: Duration,
        /// The command line.
        program: String,
        /// The last lines of the first replica's standard error, each after a newline.
        last_words: String,
    },
    /// The program works with no form of socket.
    #[error("{program} works with no form of socket:\n{attempts}")]
    NoFormSuits {
        /// The command line.
        program: String,
        /// What went wrong with each form.
        attempts: String,
    },
    /// The harness's own sockets failed.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Another operation of the system failed.
    #[error("can't {what}: {source}")]
    System {
        /// The operation.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// The caller's [`RunOptions::stop`] became true.
    #[error("stopped")]
    Interrupted,
}

impl HarnessError {
    pub(super) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> HarnessError {
        let what = what.into();
        move |source| HarnessError::System { what, source }
    }

    /// Whether another form of socket may help.
    fn is_about_the_form(&self) -> bool {
        matches!(self, HarnessError::DiedAtStart { .. } | HarnessError::NobodyConnected { .. })
    }
}

/// Runs a scenario in real time and returns what happened; the judgement is the caller's.
///
/// `observer` is called from the same thread, so it should be quick: no message is delivered
/// while it runs.
///
/// # Errors
///
/// See [`HarnessError`]. A replica that fails during the run is a result, not an error.
pub fn run(options: &RunOptions, observer: &mut dyn FnMut(Event<'_>)) -> Result<RunOutcome, HarnessError> {
    let kinds = options.socket.kinds();
    let mut attempts = Vec::new();
    for &kind in &kinds {
        observer(Event::Starting(kind));
        match Session::start(options, kind) {
            Ok(session) => {
                observer(Event::Started(kind));
                return session.drive(options, observer);
            }
            Err(error) if kinds.len() > 1 && error.is_about_the_form() => {
                observer(Event::Unsuitable(kind, &error));
                attempts.push(format!("{kind}: {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    Err(HarnessError::NoFormSuits { program: options.program.to_string(), attempts: attempts.join("\n") })
}
