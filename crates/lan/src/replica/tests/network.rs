//! A small orderly network of LAN replicas in virtual time, in which a test holds the scissors.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bowline_node::NodeConfig;
use bowline_node::raft::Time;

use crate::lan_id::LanId;
use crate::message::{Content, Envelope};
use crate::profile::Profile;
use crate::replica::LanReplica;

/// How long every message takes.
const DELAY: Duration = Duration::from_micros(50);

/// Longer than any election in an orderly network.
pub(crate) const AN_ELECTION: Duration = Duration::from_secs(8);

pub(crate) struct Network {
    pub(crate) now: Time,
    pub(crate) replicas: Vec<Option<LanReplica>>,
    /// Links that carry nothing, as (from, to).
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// What replicas said to each other, as it was sent.
    pub(crate) said: Vec<Vec<u8>>,
    replies: Vec<Envelope>,
    flying: BTreeMap<(Time, u64), (usize, Vec<u8>)>,
    posted: u64,
}

pub(crate) fn id(number: usize) -> LanId {
    LanId::from_value(number as u16)
}

/// The id of a client.
pub(crate) fn client(number: usize) -> LanId {
    id(0x100 + number)
}

pub(crate) fn get(mid: &str, key: &str) -> Content {
    Content::Get { mid: mid.to_owned(), key: key.to_owned() }
}

pub(crate) fn put(mid: &str, key: &str, value: &str) -> Content {
    Content::Put { mid: mid.to_owned(), key: key.to_owned(), value: value.to_owned() }
}

pub(crate) fn ok(mid: &str, value: Option<&str>) -> Content {
    Content::Ok { mid: mid.to_owned(), value: value.map(str::to_owned) }
}

pub(crate) fn redirect(mid: &str) -> Content {
    Content::Redirect { mid: mid.to_owned() }
}

impl Network {
    pub(crate) fn new(replicas: usize) -> Network {
        Network::tuned(replicas, |_| {})
    }

    /// As [`Network::new`], with the frugal profile changed by `tune`.
    pub(crate) fn tuned(replicas: usize, tune: impl Fn(&mut NodeConfig)) -> Network {
        let ids: Vec<LanId> = (0..replicas).map(id).collect();
        let make = |own: LanId| {
            let peers: Vec<LanId> = ids.iter().copied().filter(|peer| *peer != own).collect();
            let configure = |node| {
                let mut config = Profile::Frugal.config(node, 7 + node.0);
                tune(&mut config);
                config
            };
            LanReplica::new(own, &peers, configure, Time(1)).unwrap()
        };
        Network {
            now: Time(1),
            replicas: ids.iter().map(|own| Some(make(*own))).collect(),
            cut: BTreeSet::new(),
            said: Vec::new(),
            replies: Vec::new(),
            flying: BTreeMap::new(),
            posted: 0,
        }
    }

    /// A network with a leader that everyone follows.
    pub(crate) fn settled(replicas: usize) -> Network {
        let mut network = Network::new(replicas);
        network.pass(AN_ELECTION);
        assert!(network.leader().is_some());
        network
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now.after(span);
        loop {
            let parcel = self.flying.keys().next().map_or(Time::NEVER, |(at, _)| *at);
            let alarm = |(number, replica): (usize, &Option<LanReplica>)| {
                replica.as_ref().map(|replica| (replica.next_deadline(), number))
            };
            let (due, number) = self.replicas.iter().enumerate().filter_map(alarm).min().unwrap();
            if parcel.min(due) > end {
                break;
            }
            self.now = self.now.max(parcel.min(due));
            if parcel <= due {
                let (_, (to, bytes)) = self.flying.pop_first().unwrap();
                self.hand_over(to, &bytes);
            } else {
                let mut said = Vec::new();
                self.replicas[number].as_mut().unwrap().wake(self.now, &mut said);
                self.post(number, said);
            }
        }
        self.now = end;
    }

    /// A replica receives these bytes now.
    pub(crate) fn hand_over(&mut self, to: usize, bytes: &[u8]) {
        let mut said = Vec::new();
        if let Some(replica) = &mut self.replicas[to] {
            replica.receive(self.now, bytes, &mut said);
        }
        self.post(to, said);
    }

    fn post(&mut self, from: usize, said: Vec<Envelope>) {
        for envelope in said {
            let bytes = envelope.encode();
            assert!(bytes.is_ascii(), "{envelope:?}");
            assert_eq!(bytes.iter().position(|byte| *byte == b'\n'), Some(bytes.len() - 1), "one line");
            assert_eq!(envelope.src, id(from));
            assert_eq!(Envelope::parse(&bytes).as_ref(), Ok(&envelope), "what is said can be read");
            match usize::from(envelope.dst.value()) {
                to if to < self.replicas.len() => {
                    self.said.push(bytes.clone());
                    if !self.cut.contains(&(from, to)) {
                        self.posted += 1;
                        self.flying.insert((self.now.after(DELAY), self.posted), (to, bytes));
                    }
                }
                _ => self.replies.push(envelope),
            }
        }
    }

    /// A client's message reaches a replica now.
    pub(crate) fn ask(&mut self, to: usize, from: usize, content: Content) {
        let (src, dst, leader) = (client(from), id(to), LanId::BROADCAST);
        let bytes = Envelope { src, dst, leader, content, spelled_dest: false }.encode();
        self.hand_over(to, &bytes);
    }

    /// Every answer to a request, in order.
    pub(crate) fn answers(&self, from: usize, mid: &str) -> Vec<&Envelope> {
        let to_it = |reply: &&Envelope| reply.dst == client(from) && reply.content.mid() == Some(mid);
        self.replies.iter().filter(to_it).collect()
    }

    /// The answer to a request, which must have exactly one.
    pub(crate) fn answer(&self, from: usize, mid: &str) -> &Envelope {
        let answers = self.answers(from, mid);
        assert_eq!(answers.len(), 1, "{mid} is answered once: {answers:?}");
        answers[0]
    }

    pub(crate) fn replies(&self) -> usize {
        self.replies.len()
    }

    /// The leader that a majority follows.
    pub(crate) fn leader(&self) -> Option<usize> {
        let followed = |number: usize| {
            let by =
                |replica: &&LanReplica| replica.node().raft().leader().is_some_and(|leader| leader.0 == number as u64);
            self.replicas.iter().flatten().filter(by).count() * 2 > self.replicas.len()
        };
        (0..self.replicas.len()).find(|number| self.replicas[*number].is_some() && followed(*number))
    }

    /// The leader, and a replica that follows it.
    pub(crate) fn leader_and_follower(&self) -> (usize, usize) {
        let leader = self.leader().unwrap();
        let follower = (0..self.replicas.len()).find(|n| *n != leader && self.replicas[*n].is_some()).unwrap();
        (leader, follower)
    }

    pub(crate) fn kill(&mut self, number: usize) {
        self.replicas[number] = None;
    }

    /// Cuts a replica off from all others.
    pub(crate) fn isolate(&mut self, number: usize) {
        for other in (0..self.replicas.len()).filter(|other| *other != number) {
            self.cut.extend([(number, other), (other, number)]);
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn replica(&self, number: usize) -> &LanReplica {
        self.replicas[number].as_ref().unwrap()
    }
}
