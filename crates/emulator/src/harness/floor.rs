//! Measures the latency floor: how long a put takes on this machine, with these sockets, if the
//! replicas do no work.
//!
//! The replica that receives a client's put sends a small message through the emulated LAN to as many
//! others as a majority needs. These echo it at once, and the last echo lets the replica answer the
//! put. With five replicas, these are the four messages that any replicated put costs, without
//! consensus, log or state. They pass through the same loop as in a real run, and at the same rate: an
//! idle processor sleeps and takes time to wake, so at full speed the floor would be too low.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bowline_lan::LanId;
use bowline_lan::message::{Content, Envelope};
use bowline_lan::socket::arguments::Arguments;
use bowline_lan::socket::{Received, ReplicaSocket, SocketError, SocketKind};
use serde_json::{Map, Value};

use super::{HarnessError, Program, RunOptions, SocketChoice, run};
use crate::scenario::{Benchmarks, Scenario};

/// Requests before the measurement, in which the eight clients find their replicas.
const WARM_UP: u64 = 16;

/// How long the measurement may take, not counting the start.
const LONGEST: Duration = Duration::from_secs(3);

/// The longest time between requests: a longer one gives too few samples.
const SLOWEST: Duration = Duration::from_millis(30);

/// The shortest time between requests: with a shorter one, requests could overlap.
const FASTEST: Duration = Duration::from_millis(2);

/// How to measure the floor.
#[derive(Debug, Clone)]
pub struct FloorOptions {
    /// A program that calls [`run_null_replica`] with its command line.
    pub program: Program,
    /// The form of socket that the real run uses.
    pub socket: SocketKind,
    /// How many replicas there are.
    pub replicas: usize,
    /// The time between two requests.
    pub spacing: Duration,
    /// How many requests are measured.
    pub samples: u64,
    /// The same as [`RunOptions::stop`].
    pub stop: Option<Arc<AtomicBool>>,
}

impl FloorOptions {
    /// The number of replicas of a scenario, and about the same time between requests.
    pub fn like(scenario: &Scenario, program: Program, socket: SocketKind) -> FloorOptions {
        let requests = u32::try_from(scenario.requests.max(1)).unwrap_or(u32::MAX);
        let spacing = (scenario.lifetime / requests).clamp(FASTEST, SLOWEST);
        let most = LONGEST.as_micros() / spacing.as_micros();
        FloorOptions {
            program,
            socket,
            replicas: scenario.replicas,
            spacing,
            // At most 1,500 requests with those of the warm-up.
            samples: u64::try_from(most).unwrap_or(u64::MAX) - WARM_UP,
            stop: None,
        }
    }
}

/// How long a put takes if the replicas do no work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// The median of the latencies.
    pub median: Duration,
    /// The 90th percentile of the latencies.
    pub p90: Duration,
    /// How many puts were measured.
    pub samples: usize,
}

impl From<Floor> for crate::report::Floor {
    fn from(floor: Floor) -> crate::report::Floor {
        crate::report::Floor { median: floor.median, samples: floor.samples }
    }
}

/// Measures the floor; takes about three seconds.
///
/// # Errors
///
/// The same as for [`run`]. It also fails if no put was answered.
pub fn measure_floor(options: &FloorOptions) -> Result<Floor, HarnessError> {
    let requests = options.samples + WARM_UP;
    let scenario = Scenario {
        name: "floor".to_owned(),
        lifetime: options.spacing.saturating_mul(u32::try_from(requests).unwrap_or(u32::MAX)),
        replicas: options.replicas,
        requests,
        mix: 0.0,
        start_wait: Duration::from_millis(20),
        end_wait: Duration::from_millis(50),
        drops: 0.0,
        seed: None,
        max_packets: u64::MAX,
        events: Vec::new(),
        benchmarks: Benchmarks::default(),
    };
    let run_options = RunOptions {
        socket: SocketChoice::Only(options.socket),
        stop: options.stop.clone(),
        ..RunOptions::new(scenario, 1, options.program.clone())
    };
    let outcome = run(&run_options, &mut |_| {})?;
    let warm_up = usize::try_from(WARM_UP).unwrap_or(usize::MAX);
    let measured = outcome.record.requests.iter().skip(warm_up);
    let mut latencies: Vec<Duration> = measured.filter_map(|request| Some(request.done? - request.created)).collect();
    latencies.sort_unstable();
    match (latencies.get(latencies.len() / 2), latencies.get(latencies.len() * 9 / 10)) {
        (Some(&median), Some(&p90)) => Ok(Floor { median, p90, samples: latencies.len() }),
        _ => Err(HarnessError::System {
            what: "measure the floor".to_owned(),
            source: std::io::Error::other("no put was answered"),
        }),
    }
}

/// Runs a replica that does no work, until its socket closes.
///
/// # Errors
///
/// The socket can't be opened or used.
pub fn run_null_replica(arguments: &Arguments) -> Result<(), SocketError> {
    let mut socket = match arguments.port {
        Some(port) => ReplicaSocket::udp(port)?,
        None => ReplicaSocket::local(arguments.own.as_str().as_ref(), None)?,
    };
    let mut replica = NullReplica::new(arguments);
    if arguments.port.is_some() {
        socket.send(&replica.envelope(LanId::BROADCAST, Content::Hello))?;
    }
    let mut buffer = Vec::new();
    loop {
        match socket.receive(None, &mut buffer)? {
            Received::Message(bytes) => {
                for message in replica.handle(bytes) {
                    socket.send(&message)?;
                }
            }
            Received::Timeout => {}
            Received::Closed => return Ok(()),
        }
    }
}

const ASK: &str = "floor-ask";
const ECHO: &str = "floor-echo";

struct NullReplica {
    own: LanId,
    /// The peers that form a majority with this replica.
    helpers: Vec<LanId>,
    /// The client, its `MID` and the number of missing echoes, by the number of the question. It stays
    /// small, because no messages are lost.
    asked: BTreeMap<u64, (LanId, String, usize)>,
    next: u64,
}

impl NullReplica {
    fn new(arguments: &Arguments) -> NullReplica {
        let helpers = arguments.peers.len().div_ceil(2);
        NullReplica {
            own: arguments.own,
            helpers: arguments.peers[..helpers].to_vec(),
            asked: BTreeMap::new(),
            next: 0,
        }
    }

    fn handle(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let Ok(message) = Envelope::parse(bytes) else {
            return Vec::new();
        };
        match message.content {
            Content::Put { mid, .. } | Content::Get { mid, .. } => self.ask(message.src, mid),
            Content::Other { kind, fields } if kind == ASK => {
                let kind = ECHO.to_owned();
                vec![self.envelope(message.src, Content::Other { kind, fields })]
            }
            Content::Other { kind, fields } if kind == ECHO => {
                let number = fields.to_map().get("number").and_then(Value::as_u64);
                number.and_then(|n| self.echoed(n)).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn ask(&mut self, client: LanId, mid: String) -> Vec<Vec<u8>> {
        let number = self.next;
        self.next += 1;
        self.asked.insert(number, (client, mid, self.helpers.len()));
        let fields = Map::from_iter([("number".to_owned(), Value::from(number))]);
        let kind = ASK.to_owned();
        let content = Content::Other { kind, fields: fields.into() };
        let helpers = self.helpers.iter();
        helpers.map(|&to| self.envelope(to, content.clone())).collect()
    }

    /// Counts one more echo. Returns the answer if it was the last.
    fn echoed(&mut self, number: u64) -> Option<Vec<u8>> {
        let (_, _, missing) = self.asked.get_mut(&number)?;
        *missing -= 1;
        if *missing > 0 {
            return None;
        }
        let (client, mid, _) = self.asked.remove(&number)?;
        Some(self.envelope(client, Content::Ok { mid, value: None }))
    }

    fn envelope(&self, dst: LanId, content: Content) -> Vec<u8> {
        let envelope = Envelope { src: self.own, dst, leader: self.own, content, spelled_dest: false };
        envelope.encode()
    }
}
