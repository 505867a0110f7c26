//! Nodes, their disks, and what is between them, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline_node::raft::{
    Config, Group, Index, Membership, NodeId, PersistId, Raft, Random, ReadKind, SnapshotHeader, Time, Token, Write,
};
use bowline_node::{Node, NodeConfig, NodeEffect, NodeInput, NodeMessage, RecoveredNode, Response, StoredSnapshot};
use bowline_sim::spec::Lockstep;
use bytes::Bytes;

use crate::late::{Late, Replica};
use crate::ledger::Ledger;
use crate::simulation::{Envelope, Host, Simulated, Simulation};

/// Longer than any election in an orderly network.
pub(crate) const AN_ELECTION: Duration = Duration::from_secs(3);

pub(crate) type Cluster = Simulation<Replica>;

/// What a disk still has to do.
pub(crate) enum Job {
    Write(PersistId, Write),
    Store(StoredSnapshot),
}

/// Changes a message on its way, or drops it.
type Meddler = Box<dyn FnMut(NodeId, NodeId, &mut NodeMessage) -> bool>;

/// What the tests of the node add to the cluster.
pub(crate) struct NodeCluster {
    pub(crate) now: Time,
    configure: fn(&mut NodeConfig),
    /// How late state machines report at most; without it they do their jobs at once.
    late: Option<Duration>,
    pub(crate) random: Random,
    /// Percentages of messages.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// How long a message takes at most, beside its 100 µs.
    pub(crate) delay: Duration,
    /// How long a write takes.
    pub(crate) disk: Duration,
    pub(crate) meddle: Meddler,
    pub(crate) responses: BTreeMap<Token, Response>,
    pub(crate) halts_expected: bool,
    /// Every message that was sent, in order.
    pub(crate) sent: Vec<(NodeId, NodeId, NodeMessage)>,
    /// Snapshots that replicas have stored, in order.
    pub(crate) stored: Vec<(NodeId, SnapshotHeader)>,
}

impl Simulated for Replica {
    type Message = NodeMessage;
    /// When it is done, and what it is.
    type Job = (Time, Job);
    /// For a read, its kind.
    type Request = Option<ReadKind>;
    /// The snapshots that are durable. The empty ones of founding members are stored nowhere.
    type Host = Vec<StoredSnapshot>;
    type Cluster = NodeCluster;

    fn raft(&self) -> &Raft {
        Replica::raft(self)
    }

    fn watch(&mut self, model: &Arc<Mutex<Lockstep>>) {
        let model = Arc::clone(model);
        self.set_witness(Box::new(move |now, input, effects, raft| {
            // The model keeps the first deviation until it is asked for it.
            let _ = model.lock().unwrap().step(raft, now, input, effects);
        }));
    }
}

impl Host<Replica> {
    /// The latest snapshot that the log has reached, and the entries after it. One that was stored,
    /// but that the log was not yet told of, may not fit to its entries.
    fn recover(&self) -> RecoveredNode {
        let reached = self.own.iter().filter(|snapshot| self.disk.reaches(snapshot.header.position));
        let latest = reached.max_by_key(|snapshot| snapshot.header.position.index);
        let mut log = self.disk.clone();
        if let Some(latest) = latest {
            log.start_after(latest.header.clone());
        }
        RecoveredNode { raft: log.recovered(Index(0)), snapshot: latest.map(|latest| latest.data.clone()) }
    }
}

pub(crate) fn n(id: u64) -> NodeId {
    NodeId(id)
}

impl Cluster {
    /// Replicas 1 to `count`, all voters.
    pub(crate) fn new(count: u64) -> Cluster {
        Cluster::configured(count, 1, |_| {})
    }

    pub(crate) fn configured(count: u64, seed: u64, configure: fn(&mut NodeConfig)) -> Cluster {
        Cluster::with_machines(count, seed, configure, None)
    }

    /// Like [`Cluster::configured`]; with `late`, each state machine runs elsewhere and reports at most that late.
    pub(crate) fn with_machines(
        count: u64,
        seed: u64,
        configure: fn(&mut NodeConfig),
        late: Option<Duration>,
    ) -> Cluster {
        let membership = Membership::simple(Group::of_voters((1..=count).map(NodeId)));
        let mut cluster = Cluster::empty(NodeCluster {
            now: Time(1_000_000),
            configure,
            late,
            random: Random::new(seed),
            lost: 0,
            doubled: 0,
            delay: Duration::ZERO,
            disk: Duration::from_micros(200),
            meddle: Box::new(|_, _, _| true),
            responses: BTreeMap::new(),
            halts_expected: false,
            sent: Vec::new(),
            stored: Vec::new(),
        });
        for id in (1..=count).map(NodeId) {
            cluster.add_host(id, Some(membership.clone()));
            cluster.start(id);
        }
        cluster
    }

    /// A replica that knows nobody yet.
    pub(crate) fn add_stranger(&mut self, id: NodeId) {
        self.add_host(id, Some(Membership::default()));
        self.start(id);
    }

    /// Starts a replica with what its disk holds.
    pub(crate) fn start(&mut self, id: NodeId) {
        let NodeCluster { now, configure, late, .. } = self.own;
        self.start_with(id, |host| {
            let mut config = NodeConfig::new(Config::new(host.id, 1_000 * host.starts + host.id.0));
            config.raft.return_check = true;
            configure(&mut config);
            let recovered = host.recover();
            match late {
                Some(late) => Replica::Late(Box::new(Late::new(config, recovered, late, now))),
                None => Replica::Prompt(Box::new(Node::new(config, Ledger::default(), recovered, now).unwrap())),
            }
        });
    }

    /// Whether state machines are elsewhere.
    pub(crate) fn is_late(&self) -> bool {
        self.late.is_some()
    }

    pub(crate) fn node(&self, id: NodeId) -> &Replica {
        self.host(id).replica.as_ref().unwrap()
    }

    pub(crate) fn lines(&self, id: NodeId) -> Vec<String> {
        self.node(id).machine().lines.iter().map(|(_, line)| line.clone()).collect()
    }

    /// Waits for a leader; also returns the others.
    pub(crate) fn elect(&mut self) -> (NodeId, Vec<NodeId>) {
        self.pass(AN_ELECTION);
        let leader = self.leader().expect("an orderly network elects a leader");
        (leader, self.ids().into_iter().filter(|id| *id != leader).collect())
    }

    pub(crate) fn isolate(&mut self, id: NodeId) {
        self.cut_between(&[BTreeSet::from([id])]);
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now.after(span);
        while self.step(end) {}
        self.now = end;
    }

    /// Lets the next thing happen, if that is not after `end`.
    fn step(&mut self, end: Time) -> bool {
        // Of those that arrive at the same time, the one that was sent first.
        let arrivals = self.network.iter().map(|envelope| envelope.arrives).zip(0..);
        let (arrival, place) = arrivals.min().unwrap_or((Time::NEVER, 0));
        let job = |(id, host): (&NodeId, &Host<Replica>)| host.jobs.front().map(|(at, _)| (*at, *id));
        let alarm =
            |(id, host): (&NodeId, &Host<Replica>)| host.replica.as_ref().map(|node| (node.next_deadline(), *id));
        let (job, on) = self.hosts.iter().filter_map(job).min().unwrap_or((Time::NEVER, n(0)));
        let (due, sleeper) = self.hosts.iter().filter_map(alarm).min().unwrap_or((Time::NEVER, n(0)));
        let next = arrival.min(job).min(due);
        if next > end {
            return false;
        }
        self.now = self.now.max(next);
        if arrival == next {
            let Envelope { from, to, message, .. } = self.network.remove(place);
            self.input(to, NodeInput::Receive { from, message });
        } else if job == next {
            self.finish_job(on);
        } else {
            self.input(sleeper, NodeInput::Wake);
        }
        true
    }

    fn finish_job(&mut self, id: NodeId) {
        let host = self.host_mut(id);
        let (_, job) = host.jobs.pop_front().unwrap();
        match job {
            Job::Write(up_to, write) => {
                assert!(!matches!(write, Write::Repaired | Write::Suspect { .. }), "no disk loses anything");
                if let Write::Snapshot(header) = &write {
                    let stored = host.own.iter().any(|snapshot| snapshot.header == *header);
                    assert!(stored, "a log never starts after a snapshot that is not durable");
                }
                self.make_durable(id, up_to, write);
                for (to, message) in self.host_mut(id).released() {
                    self.post(id, to, message);
                }
                self.input(id, NodeInput::Persisted { up_to });
            }
            Job::Store(snapshot) => {
                let header = snapshot.header.clone();
                host.own.push(snapshot);
                self.stored.push((id, header.clone()));
                self.input(id, NodeInput::SnapshotStored { index: header.position.index });
            }
        }
    }

    /// Gives a replica an input now.
    pub(crate) fn input(&mut self, id: NodeId, input: NodeInput) {
        let NodeCluster { now, disk, .. } = self.own;
        let mut effects = Vec::new();
        let Some(replica) = &mut self.host_mut(id).replica else { return };
        replica.handle(now, input, &mut effects);
        if let Some(violation) = self.model.as_ref().and_then(|model| model.lock().unwrap().violation().cloned()) {
            panic!("{violation}");
        }
        for effect in effects {
            let host = self.host_mut(id);
            // One job after the other.
            let done = host.jobs.back().map_or(now, |(done, _)| *done).after(disk);
            match effect {
                NodeEffect::Persist { id, write } => host.jobs.push_back((done, Job::Write(id, write))),
                NodeEffect::StoreSnapshot { snapshot } => host.jobs.push_back((done, Job::Store(snapshot))),
                NodeEffect::Send { to, message, after: Some(after) } if after > host.durable => {
                    host.waiting.push((after, to, message));
                }
                NodeEffect::Send { to, message, .. } => self.post(id, to, message),
                NodeEffect::Respond { token, response } => {
                    // A reader counts the lines.
                    let reads = self.answered(id, token).is_some();
                    let response =
                        response.map(|said| if reads { self.lines(id).len().to_string().into() } else { said });
                    self.responses.insert(token, response);
                }
                NodeEffect::Halt { fault } => {
                    assert!(self.halts_expected, "{id} halts: {fault}");
                }
            }
        }
    }

    fn post(&mut self, from: NodeId, to: NodeId, mut message: NodeMessage) {
        self.sent.push((from, to, message.clone()));
        let arrives = !self.cut.contains(&(from, to)) && self.hosts.contains_key(&to);
        if !arrives || self.chance(self.lost) || !(self.own.meddle)(from, to, &mut message) {
            return;
        }
        let copies = if self.chance(self.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let NodeCluster { now, delay, random, .. } = &mut self.own;
            let arrives = now.after(Duration::from_micros(100) + random.span(Duration::ZERO, *delay));
            self.network.push(Envelope { from, to, message: message.clone(), arrives });
        }
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.random.next_u64() % 100 < percent
    }

    pub(crate) fn write(&mut self, at: NodeId, command: &str) -> Token {
        self.write_until(at, command, None)
    }

    pub(crate) fn write_until(&mut self, at: NodeId, command: &str, deadline: Option<Time>) -> Token {
        let token = self.ask(at, None);
        self.input(at, NodeInput::Write { token, command: Bytes::copy_from_slice(command.as_bytes()), deadline });
        token
    }

    /// Asks for a linearizable read; its answer is how many lines there are.
    pub(crate) fn read(&mut self, at: NodeId, kind: ReadKind) -> Token {
        let token = self.ask(at, Some(kind));
        self.input(at, NodeInput::Read { token, kind, deadline: None });
        token
    }

    /// Asks for an operation, such as a change of the members.
    pub(crate) fn operate(&mut self, at: NodeId, input: impl FnOnce(Token) -> NodeInput) -> Token {
        let token = self.ask(at, None);
        self.input(at, input(token));
        token
    }

    pub(crate) fn response(&self, token: Token) -> Option<&Response> {
        self.responses.get(&token)
    }

    /// Writes `count` commands, one after the other, and waits for each.
    pub(crate) fn fill(&mut self, at: NodeId, name: &str, count: usize) {
        for number in 0..count {
            let token = self.write(at, &format!("{name}{number}"));
            self.pass(Duration::from_millis(5));
            for _ in 0..100 {
                // A state machine that is elsewhere takes its time.
                if self.is_late() && self.response(token).is_none() {
                    self.pass(Duration::from_millis(5));
                }
            }
            assert!(matches!(self.response(token), Some(Ok(_))), "{:?}", self.response(token));
        }
    }

    /// Requests at living replicas that have no answer.
    pub(crate) fn unanswered(&self) -> Vec<Token> {
        self.open.keys().copied().collect()
    }
}
