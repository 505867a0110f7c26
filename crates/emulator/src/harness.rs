//! The emulated LAN in real time: starts any replica program, connects its sockets to an
//! [`Emulation`](crate::emulation::Emulation), and gives it the time.
//!
//! This is the only part of the LAN with a clock. One thread waits for all sockets and processes at
//! once, and hands on every message as soon as it is read.
//!
//! **The start.** All replicas are started, then the harness waits until each has connected; on UDP
//! that means until it was heard of. Only then the run's time begins; what was said before is
//! delivered first. With [`SocketChoice::Auto`] the program is started with UDP arguments, and if
//! no replica is heard of within [`RunOptions::patience`], or one ends before, it is started again
//! with a local packet socket, then with a local stream socket.
//!
//! **The end.** All processes are killed and waited for, and the temporary folder is removed: also
//! after errors and panics, and on Ctrl-C if the caller watches [`Interrupts`].

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

/// How long replicas have to connect, unless the caller says otherwise.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(3);

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// What happens.
    pub scenario: Scenario,
    /// What decides everything random; the scenario's own `seed` is not looked at.
    pub seed: u64,
    /// Faults beyond those of the scenario.
    pub extra: ExtraFaults,
    /// What each replica runs.
    pub program: Program,
    /// Over which form of socket.
    pub socket: SocketChoice,
    /// What becomes of what replicas print.
    pub output: Output,
    /// How long replicas have to connect, [`DEFAULT_PATIENCE`] if in doubt.
    pub patience: Duration,
    /// When this becomes true, the run ends within a quarter of a second with
    /// [`HarnessError::Interrupted`].
    pub stop: Option<Arc<AtomicBool>>,
}

impl RunOptions {
    /// Everything but the scenario, its seed and the program as it usually is.
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

/// What becomes of what replicas print.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Output {
    /// Nothing, but the last lines of each standard error are shown if the replica dies by itself.
    #[default]
    Discard,
    /// It goes to the files `<id>.stdout` and `<id>.stderr` in this folder, which is made if need
    /// be; older files of these names are replaced.
    Files(PathBuf),
}

/// What an observer is told during a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// The replicas are being started with this form of socket.
    Starting(SocketKind),
    /// With this form of socket the program does not work, for this reason; the next is tried.
    Unsuitable(SocketKind, &'a HarnessError),
    /// All replicas are there, and time begins.
    Started(SocketKind),
    /// Where the run stands; about five times a second.
    Progress(&'a Progress),
    /// Something happened at this time.
    Note(Duration, &'a Note),
}

/// What a run leaves.
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
    /// What was lost at the harness's sockets.
    pub counters: SwitchCounters,
    /// The most that the harness was late for a planned moment: far above a millisecond, the machine
    /// is too busy for the latencies to mean much.
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
    /// The last lines of its standard error, for a human: escaped, and a few kilobytes at most.
    pub last_words: String,
}

/// Why a run could not be done. The first line says it; lines after it are a replica's last words.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// The program is not there, or is none.
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
        /// What it wrote at last, with a newline in front of each line.
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
        /// What the first of them wrote at last, with a newline in front of each line.
        last_words: String,
    },
    /// No form of socket suits the program.
    #[error("{program} works with no form of socket:\n{attempts}")]
    NoFormSuits {
        /// The command line.
        program: String,
        /// What went wrong with each.
        attempts: String,
    },
    /// The harness's own sockets failed.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Something else that the system refused.
    #[error("can't {what}: {source}")]
    System {
        /// What was tried.
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
/// `observer` is called from the same thread, so it should be quick: a millisecond that it takes is
/// a millisecond that no message is delivered.
///
/// # Errors
///
/// See [`HarnessError`]. That replicas fail during the run is no error but a result.
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
