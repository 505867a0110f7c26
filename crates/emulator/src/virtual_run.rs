//! Runs a scenario in virtual time: the emulated LAN and real replicas in one thread, with a queue
//! of the messages in transit and no clock but the queue's. One seed decides everything.

use std::collections::BTreeMap;
use std::time::Duration;

use bowline_checker::trace::TraceHash;
use bowline_lan::LanId;
use bowline_lan::message::Envelope;
use bowline_lan::profile::Profile;
use bowline_lan::replica::{Ignored, LanReplica};
use bowline_node::raft::{ConfigError, Time};
use bytes::Bytes;

use crate::Random;
use crate::emulation::{Action, Emulation, ExtraFaults, Note, Record};
use crate::scenario::Scenario;

/// The most steps of one run, far more than any real run has, so that an endless loop is an error.
const MAX_STEPS: u64 = 50_000_000;

/// How messages travel between a replica and the network, one way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Links {
    /// Shortest delay.
    pub delay_min: Duration,
    /// Longest delay.
    pub delay_max: Duration,
    /// Probability that a message between replicas arrives twice.
    pub duplicates: f64,
    /// Probability that a message between replicas is overtaken by later ones.
    pub reorders: f64,
    /// The longest extra delay of an overtaken or duplicated message.
    pub lateness: Duration,
}

impl Default for Links {
    /// Like sockets on one machine: 20 to 60 µs, in order, without duplicates.
    fn default() -> Links {
        Links {
            delay_min: Duration::from_micros(20),
            delay_max: Duration::from_micros(60),
            duplicates: 0.0,
            reorders: 0.0,
            lateness: Duration::from_millis(20),
        }
    }
}

/// The options of a run besides its scenario.
#[derive(Clone, Debug, Default)]
pub struct VirtualOptions {
    /// The seed of everything random.
    pub seed: u64,
    /// The timing of the replicas.
    pub profile: Profile,
    /// How messages travel.
    pub links: Links,
    /// Faults beyond the scenario's.
    pub faults: ExtraFaults,
    /// How many bytes of log a replica retains, if not as in the profile. Snapshots follow at twice that.
    pub retained_bytes: Option<usize>,
}

/// The result of a run.
#[derive(Debug)]
pub struct VirtualOutcome {
    /// Everything that happened, for judging and reporting.
    pub record: Record,
    /// A hash over all messages of the run, in order.
    pub trace_hash: u64,
    /// How many messages each living replica ignored.
    pub ignored: Vec<Ignored>,
    /// The number of steps.
    pub steps: u64,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum VirtualError {
    /// The replicas' configuration is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The run did not end.
    #[error("the run did not end within {MAX_STEPS} steps: it probably loops")]
    TooManySteps,
}

/// A message in transit.
#[derive(Debug)]
enum Parcel {
    ToReplica {
        to: usize,
        bytes: Bytes,
    },
    /// A message, and its encoded form.
    ToNetwork {
        from: usize,
        said: Envelope,
        bytes: Vec<u8>,
    },
}

struct Run {
    emulation: Emulation,
    replicas: Vec<Option<LanReplica>>,
    /// When each replica wants to be woken. Updated only after each of its inputs.
    alarms: Vec<Duration>,
    links: Links,
    /// From this time on, no message is duplicated or overtaken.
    orderly_from: Duration,
    queue: BTreeMap<(Duration, u64), Parcel>,
    parcels: u64,
    /// When the last parcel in each direction arrives. Later ones don't overtake it.
    last_up: Vec<Duration>,
    last_down: Vec<Duration>,
    random: Random,
    trace: TraceHash,
    now: Duration,
}

/// Runs `scenario` to its end and passes each note of the timeline to `observer`.
///
/// # Errors
/// The configuration is out of range, or the run does not end.
pub fn run(
    scenario: Scenario,
    options: VirtualOptions,
    observer: &mut dyn FnMut(Duration, &Note),
) -> Result<VirtualOutcome, VirtualError> {
    let mut run = Run::new(scenario, &options)?;
    let mut steps = 0;
    while run.step(observer) {
        steps += 1;
        if steps > MAX_STEPS {
            return Err(VirtualError::TooManySteps);
        }
    }
    let ignored = run.replicas.iter().flatten().map(LanReplica::ignored).collect();
    Ok(VirtualOutcome { record: run.emulation.into_record(), trace_hash: run.trace.value(), ignored, steps })
}

impl Run {
    fn new(scenario: Scenario, options: &VirtualOptions) -> Result<Run, VirtualError> {
        let emulation = Emulation::new(scenario, options.seed, options.faults.clone());
        let ids = emulation.replica_ids().to_vec();
        let mut random = Random::stream(options.seed, 100);
        let mut replicas = Vec::new();
        for id in &ids {
            let peers: Vec<LanId> = ids.iter().copied().filter(|peer| peer != id).collect();
            let seed = random.next_u64();
            let configure = |node| {
                let mut config = options.profile.config(node, seed);
                if let Some(bytes) = options.retained_bytes {
                    config.raft.max_retained_bytes = bytes;
                    config.snapshot_at_bytes = bytes * 2;
                    config.chunk_bytes = config.chunk_bytes.min(bytes.max(64));
                }
                config
            };
            replicas.push(Some(LanReplica::new(*id, &peers, configure, Time::ZERO)?));
        }
        let count = replicas.len();
        let alarm = |replica: &Option<LanReplica>| replica.as_ref().map_or(Duration::MAX, wakes_at);
        Ok(Run {
            emulation,
            alarms: replicas.iter().map(alarm).collect(),
            replicas,
            links: options.links,
            orderly_from: options.faults.lossless_from.unwrap_or(Duration::MAX),
            queue: BTreeMap::new(),
            parcels: 0,
            last_up: vec![Duration::ZERO; count],
            last_down: vec![Duration::ZERO; count],
            random,
            trace: TraceHash::new(),
            now: Duration::ZERO,
        })
    }

    /// Performs the next step. Returns `false` when the run is over.
    fn step(&mut self, observer: &mut dyn FnMut(Duration, &Note)) -> bool {
        let Some(agenda) = self.emulation.next_deadline() else { return false };
        let parcel = self.queue.first_key_value().map(|((at, _), _)| *at);
        let alarm = self.alarms.iter().copied().zip(0..).min();
        let mut actions = Vec::new();
        let first = alarm.map_or(agenda, |(at, _)| at.min(agenda)).min(parcel.unwrap_or(agenda));
        self.now = self.now.max(first);
        if let Some(parcel) = self.queue.first_entry().filter(|parcel| parcel.key().0 <= self.now) {
            match parcel.remove() {
                Parcel::ToReplica { to, bytes } => {
                    self.trace.number(as_time(self.now).0);
                    self.give(to, |replica, now, said| replica.receive(now, &bytes, said), &mut actions);
                }
                Parcel::ToNetwork { from, said, bytes } => {
                    self.trace.number(from as u64);
                    self.trace.bytes(&bytes);
                    // The network need not parse what this program has just written.
                    let header = said.header(&bytes);
                    debug_assert_eq!(header, Envelope::peek(&bytes), "a message reads as it was meant");
                    self.emulation.receive_read(self.now, from, &bytes, header, &mut actions);
                }
            }
        } else if agenda <= self.now {
            self.emulation.wake(self.now, &mut actions);
        } else if let Some((_, index)) = alarm {
            self.give(index, LanReplica::wake, &mut actions);
        }
        self.carry_out(actions, observer);
        true
    }

    /// Gives a replica an input. A replica that stops by itself counts as dead, like its program.
    fn give(
        &mut self,
        to: usize,
        what: impl FnOnce(&mut LanReplica, Time, &mut Vec<Envelope>),
        actions: &mut Vec<Action>,
    ) {
        let Some(replica) = &mut self.replicas[to] else { return };
        let mut said = Vec::new();
        what(replica, as_time(self.now), &mut said);
        self.alarms[to] = wakes_at(replica);
        let fault = replica.fault().map(ToString::to_string);
        self.post(to, said);
        if let Some(fault) = fault {
            self.bury(to);
            self.emulation.replica_died(self.now, to, fault, actions);
        }
    }

    fn bury(&mut self, replica: usize) {
        self.replicas[replica] = None;
        self.alarms[replica] = Duration::MAX;
    }

    /// Sends the messages of a replica to the network.
    fn post(&mut self, from: usize, said: Vec<Envelope>) {
        for envelope in said {
            let at = self.arrival(Direction::Up, from);
            let bytes = envelope.encode();
            self.enqueue(at, Parcel::ToNetwork { from, said: envelope, bytes });
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>, observer: &mut dyn FnMut(Duration, &Note)) {
        for action in actions {
            match action {
                Action::Deliver { to, bytes, from_client } => {
                    let faulty = !from_client && self.now < self.orderly_from;
                    if faulty && self.random.chance(self.links.duplicates) {
                        let at = self.now + self.lateness();
                        self.enqueue(at, Parcel::ToReplica { to, bytes: bytes.clone() });
                    }
                    let late = faulty && self.random.chance(self.links.reorders);
                    let at = if late { self.now + self.lateness() } else { self.arrival(Direction::Down, to) };
                    self.enqueue(at, Parcel::ToReplica { to, bytes });
                }
                Action::Kill { replica } => self.bury(replica),
                Action::Note(note) => observer(self.now, &note),
            }
        }
    }

    fn enqueue(&mut self, at: Duration, parcel: Parcel) {
        self.parcels += 1;
        self.queue.insert((at, self.parcels), parcel);
    }

    fn lateness(&mut self) -> Duration {
        self.between(self.links.delay_min, self.links.delay_min + self.links.lateness)
    }

    /// When a message that is sent now arrives, in order with the others.
    fn arrival(&mut self, direction: Direction, replica: usize) -> Duration {
        let at = self.now + self.between(self.links.delay_min, self.links.delay_max);
        let last = match direction {
            Direction::Up => &mut self.last_up[replica],
            Direction::Down => &mut self.last_down[replica],
        };
        *last = (*last).max(at);
        *last
    }

    fn between(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let width = as_time(longest.saturating_sub(shortest)).0;
        shortest + Duration::from_nanos(self.random.below(width + 1))
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

fn wakes_at(replica: &LanReplica) -> Duration {
    as_duration(replica.next_deadline())
}

fn as_time(span: Duration) -> Time {
    Time::ZERO.after(span)
}

fn as_duration(time: Time) -> Duration {
    Duration::from_nanos(time.0)
}
