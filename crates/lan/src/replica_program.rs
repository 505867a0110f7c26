//! Runs a replica as a program: gives it a socket and a clock. All decisions are in [`crate::replica`].

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
    /// The replica's id, the ids of its peers, and its port or socket file.
    pub arguments: Arguments,
    /// The form of a local socket; `None` tries the possible ones.
    pub socket: Option<SocketKind>,
    /// The replica's timing.
    pub profile: Profile,
    /// Seed of the timeouts; `None` draws a seed from the system.
    pub seed: Option<u64>,
}

/// Why a replica could not run.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The socket can't be opened or used.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The configuration is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system can't provide a random seed.
    #[error("the system has no random numbers: {0}")]
    NoRandomNumbers(getrandom::Error),
    /// The replica stopped because it saw a violation of the protocol's rules.
    #[error("stopped: {0}")]
    Stopped(Fault),
}

/// The messages that a replica ignored or lost. It is displayed as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Messages that the replica ignored.
    pub ignored: Ignored,
    /// The error of the first unreadable message.
    pub first_unreadable: Option<MessageError>,
    /// Messages that were lost at its socket.
    pub socket: ReplicaCounters,
}

impl Summary {
    /// Whether a message was unreadable, malformed or too long. The other counts are above zero in normal runs, too.
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
            (ignored.malformed, "malformed, from a replica".to_owned()),
            (ignored.foreign, "unexpected: from or to a wrong id, or of a wrong type".to_owned()),
            (ignored.repeated, "a repeated request".to_owned()),
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
/// The socket can't be opened or used, or the replica stopped because of a fault.
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

/// A monotonic clock that counts from the start of the program.
#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
}

impl Clock {
    fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The clock starts at one second, because a time of zero means "no time" on the wire.
    fn now(self) -> Time {
        Time::ZERO.after(self.start.elapsed() + Duration::from_secs(1))
    }

    fn until(self, deadline: Time) -> Option<Duration> {
        (deadline != Time::NEVER).then(|| deadline.since(self.now()))
    }
}
