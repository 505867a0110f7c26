//! The eight clients: their requests, the replicas that they ask, and what they know.

use std::collections::BTreeMap;
use std::time::Duration;

use super::record::{Operation, Request};
use crate::Random;

/// How many clients there are.
pub const CLIENTS: usize = 8;

/// How often a request may be bounced before its client pauses before each new attempt.
pub const FREE_BOUNCES: u32 = 64;

#[derive(Debug, Clone)]
pub(super) struct Clients {
    random: Random,
    mix: f64,
    clients: Vec<Client>,
}

#[derive(Debug, Clone, Default)]
struct Client {
    /// The leader that its last reply named.
    leader: Option<usize>,
    /// How many `MID`s it has counted.
    mids: u64,
    /// Every key that it has ever asked to write.
    own: Vec<String>,
    /// The keys in `acknowledged`, in the order in which they came.
    readable: Vec<String>,
    /// The last acknowledged value of each key.
    acknowledged: BTreeMap<String, String>,
}

impl Clients {
    pub(super) fn new(mix: f64, random: Random) -> Clients {
        Clients { random, mix, clients: vec![Client::default(); CLIENTS] }
    }

    /// A new request of a random client.
    pub(super) fn invent(&mut self, now: Duration) -> Request {
        let index = self.random.below(CLIENTS as u64) as usize;
        // Every random number is drawn in every case, so that the replicas' answers change later
        // requests as little as possible.
        let wants_get = self.random.chance(self.mix);
        let wants_new = self.random.chance(0.5);
        let fresh = [self.random.next_u64(), self.random.next_u64()];
        let client = &mut self.clients[index];
        let (operation, key, value) = match self.random.pick(&client.readable) {
            Some(key) if wants_get => (Operation::Get, key.clone(), None),
            _ => {
                let key = match self.random.pick(&client.own) {
                    Some(own) if !wants_new => own.clone(),
                    _ => {
                        let key = format!("{:016X}", fresh[0]);
                        client.own.push(key.clone());
                        key
                    }
                };
                (Operation::Put, key, Some(format!("{:016X}", fresh[1])))
            }
        };
        Request { client: index, operation, key, value, created: now, bounces: 0, done: None, expected: None }
    }

    /// A `MID`: 64 random bits, which the caller must check to be new, or the next number of the client.
    pub(super) fn new_mid(&mut self, client: usize, counted: bool) -> String {
        let client = &mut self.clients[client];
        client.mids += u64::from(counted);
        format!("{:016X}", if counted { client.mids } else { self.random.next_u64() })
    }

    /// The leader that this client knows, if that replica lives.
    pub(super) fn leader(&self, client: usize, alive: &[bool]) -> Option<usize> {
        self.clients[client].leader.filter(|&leader| alive[leader])
    }

    /// The receiver of a request: the known leader, else a random living replica.
    pub(super) fn target(&mut self, client: usize, alive: &[bool]) -> Option<usize> {
        self.leader(client, alive).or_else(|| {
            let living: Vec<usize> = (0..alive.len()).filter(|&r| alive[r]).collect();
            self.random.pick(&living).copied()
        })
    }

    /// Remembers the leader that a reply named.
    pub(super) fn learn_leader(&mut self, client: usize, leader: Option<usize>) {
        self.clients[client].leader = leader;
    }

    pub(super) fn forget_leaders(&mut self) {
        for client in &mut self.clients {
            client.leader = None;
        }
    }

    /// Remembers that a put was acknowledged.
    pub(super) fn acknowledge(&mut self, client: usize, key: &str, value: &str) {
        let client = &mut self.clients[client];
        let before = client.acknowledged.insert(key.to_owned(), value.to_owned());
        if before.is_none() {
            client.readable.push(key.to_owned());
        }
    }

    /// The value of the last put to the key that the client saw acknowledged.
    pub(super) fn acknowledged(&self, client: usize, key: &str) -> Option<&str> {
        self.clients[client].acknowledged.get(key).map(String::as_str)
    }
}

/// How long a client pauses before it resends a request that was bounced this often.
///
/// The protocol says "at once", and the first bounces follow it. But a cluster without a leader that
/// redirects everything at the speed of a loopback socket would have no processor time left for its
/// election. No request is ever dropped.
pub(super) fn pause(bounces: u32) -> Duration {
    match bounces {
        0..=FREE_BOUNCES => Duration::ZERO,
        65..=256 => Duration::from_millis(10),
        _ => Duration::from_millis(100),
    }
}
