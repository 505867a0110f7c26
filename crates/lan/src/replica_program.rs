//! The replica as a program: its socket, its clock, and nothing that decides.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use bowline_node::raft::{ConfigError, Fault, Time};

use crate::message::{Envelope, MessageError};
use crate::profile::Profile;
use crate::replica::{Ignored, LanReplica};
use crate::socket::arguments::Arguments;
use crate::socket::{Received, ReplicaCounters, ReplicaSocket, SocketError, SocketKind};

/// How to run a replica.
#[derive(Debug, Clone)]
pub struct ReplicaOptions {
    /// Who it is, who the others are, and where its socket is.
    pub arguments: Arguments,
    /// The form of a local socket; `None` finds out by trying.
    pub socket: Option<SocketKind>,
    /// How it is tuned.
    pub profile: Profile,
    /// Seed of its timeouts; `None` draws one from the system.
    pub seed: Option<u64>,
}

/// Why a replica could not run.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// Its socket can't be had or used.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Its configuration is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system has none to draw its seed from.
    #[error("the system has no random numbers: {0}")]
    NoRandomNumbers(getrandom::Error),
    /// It has seen what must not happen, and goes no further.
    #[error("stopped: {0}")]
    Stopped(Fault),
}

/// What a replica has ignored or lost in its life. It is displayed as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Messages that made no sense to the replica.
    pub ignored: Ignored,
    /// What was wrong with the first unreadable one.
    pub first_unreadable: Option<MessageError>,
    /// Messages that were lost at its socket.
    pub socket: ReplicaCounters,
}

impl Summary {
    /// Whether somebody said what could not be understood, or was too long: else all went as it does in any run.
    #[must_use]
    pub fn is_notable(&self) -> bool {
        let Summary { ignored, socket, .. } = self;
        ignored.unreadable + ignored.malformed + socket.oversized + socket.too_long > 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { ignored, socket, first_unreadable } = self;
        let first = first_unreadable.as_ref().map(|error| format!(" (the first: {error})")).unwrap_or_default();
        let counts = [
            (ignored.unreadable, format!("unreadable{first}")),
            (ignored.malformed, "from a replica, which can't have meant it".to_owned()),
            (ignored.foreign, "from or to somebody who has no place here".to_owned()),
            (ignored.repeated, "a request that had come before".to_owned()),
            (socket.oversized, "too long to be received".to_owned()),
            (socket.empty, "empty".to_owned()),
            (socket.too_long, "too long to be sent".to_owned()),
            (socket.dropped, "not sent for lack of room".to_owned()),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let told: Vec<String> = counts.map(|(count, what)| format!("{count} {what}")).collect();
        write!(f, "messages ignored or lost: {}", if told.is_empty() { "none".to_owned() } else { told.join(", ") })
    }
}

/// Runs a replica until its socket closes.
///
/// # Errors
/// When the socket can't be had or used, or the replica has stopped by itself.
pub fn run_replica(options: &ReplicaOptions) -> Result<Summary, ReplicaError> {
    let Arguments { port, own, peers } = &options.arguments;
    let mut socket = match port {
        Some(port) => ReplicaSocket::udp(*port)?,
        None => ReplicaSocket::local(Path::new(own.as_str()), options.socket)?,
    };
    let seed = match options.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(ReplicaError::NoRandomNumbers)?,
    };
    let clock = Clock::start();
    let configure = |id| options.profile.config(id, seed);
    let mut replica = LanReplica::new(*own, peers, configure, clock.now())?;
    if port.is_some() {
        socket.send(&replica.hello().encode())?;
    }
    let mut buffer = Vec::new();
    let mut said = Vec::new();
    loop {
        if let Some(fault) = replica.fault() {
            return Err(ReplicaError::Stopped(fault.clone()));
        }
        let now = clock.now();
        if replica.next_deadline() <= now {
            replica.wake(now, &mut said);
            send_all(&mut socket, &mut said)?;
        }
        let timeout = clock.until(replica.next_deadline());
        match socket.receive(timeout, &mut buffer)? {
            Received::Message(bytes) => {
                replica.receive(clock.now(), bytes, &mut said);
                send_all(&mut socket, &mut said)?;
            }
            Received::Timeout => {}
            Received::Closed => {
                let (ignored, socket) = (replica.ignored(), socket.counters());
                return Ok(Summary { ignored, first_unreadable: replica.first_unreadable().cloned(), socket });
            }
        }
    }
}

fn send_all(socket: &mut ReplicaSocket, said: &mut Vec<Envelope>) -> Result<(), SocketError> {
    for envelope in said.drain(..) {
        socket.send(&envelope.encode())?;
    }
    Ok(())
}

/// The replica's monotonic clock, from its own start.
#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
}

impl Clock {
    fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Starts at one second: a time of zero means "no time" on the wire.
    fn now(self) -> Time {
        Time::ZERO.after(self.start.elapsed() + Duration::from_secs(1))
    }

    fn until(self, deadline: Time) -> Option<Duration> {
        (deadline != Time::NEVER).then(|| deadline.since(self.now()))
    }
}
