//! The replica as a program: its socket, its clock, and nothing that decides.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::Path;
use std::time::{Duration, Instant};

use bowline_node::raft::{ConfigError, Fault, Time};

use crate::message::Envelope;
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
    /// It has seen what must not happen, and goes no further.
    #[error("stopped: {0}")]
    Stopped(Fault),
}

/// What a replica has ignored or lost in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Messages that made no sense to the replica.
    pub ignored: Ignored,
    /// Messages that were lost at its socket.
    pub socket: ReplicaCounters,
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
    // Randomly seeded hashers are the standard library's way to the system's random numbers.
    let seed = options.seed.unwrap_or_else(|| RandomState::new().hash_one(own.value()));
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
            Received::Closed => return Ok(Summary { ignored: replica.ignored(), socket: socket.counters() }),
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
