//! Nodes, their disks, and what is between them, in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline_node::raft::{
    Config, Group, Index, Membership, NodeId, PersistId, Random, ReadKind, SnapshotHeader, Time, Token, Write,
};
use bowline_node::{Node, NodeConfig, NodeEffect, NodeInput, NodeMessage, RecoveredNode, Response, StoredSnapshot};
use bowline_sim::spec::Lockstep;
use bytes::Bytes;

use crate::late::{Late, Replica};
use crate::ledger::Ledger;
use crate::log_on_disk::LogOnDisk;

/// Longer than any election in an orderly network.
pub(crate) const AN_ELECTION: Duration = Duration::from_secs(3);

/// What is durable. The empty snapshots of founding members are stored nowhere.
#[derive(Clone, Debug)]
struct Disk {
    log: LogOnDisk,
    snapshots: Vec<StoredSnapshot>,
}

impl Disk {
    fn founding(membership: Membership) -> Disk {
        Disk { log: LogOnDisk::founding(Some(membership)), snapshots: Vec::new() }
    }

    fn write(&mut self, write: Write) {
        match &write {
            Write::Repaired | Write::Suspect { .. } => panic!("no disk loses anything"),
            Write::Snapshot(header) => {
                let stored = self.snapshots.iter().any(|snapshot| snapshot.header == *header);
                assert!(stored, "a log never starts after a snapshot that is not durable");
            }
            _ => {}
        }
        self.log.write(write);
    }

    /// The latest snapshot that the log has reached, and the entries after it. One that was stored,
    /// but that the log was not yet told of, may not fit to its entries.
    fn recover(&self) -> RecoveredNode {
        let reached = self.snapshots.iter().filter(|snapshot| self.log.reaches(snapshot.header.position));
        let latest = reached.max_by_key(|snapshot| snapshot.header.position.index);
        let mut log = self.log.clone();
        if let Some(latest) = latest {
            log.start_after(latest.header.clone());
        }
        RecoveredNode { raft: log.recovered(Index(0)), snapshot: latest.map(|latest| latest.data.clone()) }
    }
}

/// What a disk still has to do.
#[derive(Debug)]
enum Job {
    Write(PersistId, Write),
    Store(StoredSnapshot),
}

#[derive(Debug)]
struct Host {
    node: Option<Replica>,
    disk: Disk,
    jobs: VecDeque<(Time, Job)>,
    /// Messages that wait for the disk.
    held: Vec<(PersistId, NodeId, NodeMessage)>,
    durable: PersistId,
    starts: u64,
}

/// Changes a message on its way, or drops it.
type Meddler = Box<dyn FnMut(NodeId, NodeId, &mut NodeMessage) -> bool>;

pub(crate) struct Cluster {
    pub(crate) now: Time,
    hosts: BTreeMap<NodeId, Host>,
    configure: fn(&mut NodeConfig),
    /// How late state machines report at most; without it they do their jobs at once.
    late: Option<Duration>,
    flying: BTreeMap<(Time, u64), (NodeId, NodeId, NodeMessage)>,
    posted: u64,
    pub(crate) random: Random,
    pub(crate) cut: BTreeSet<(NodeId, NodeId)>,
    /// Percentages of messages.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// How long a message takes at most, beside its 100 µs.
    pub(crate) delay: Duration,
    /// How long a write takes.
    pub(crate) disk: Duration,
    pub(crate) meddle: Meddler,
    pub(crate) responses: BTreeMap<Token, Response>,
    asked: BTreeMap<Token, NodeId>,
    reads: BTreeSet<Token>,
    tokens: u64,
    pub(crate) halts_expected: bool,
    /// Every message that was sent, in order.
    pub(crate) sent: Vec<(NodeId, NodeId, NodeMessage)>,
    /// Snapshots that replicas have stored, in order.
    pub(crate) stored: Vec<(NodeId, SnapshotHeader)>,
    /// The reference model, if it watches.
    model: Option<Arc<Mutex<Lockstep>>>,
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
        let mut cluster = Cluster {
            now: Time(1_000_000),
            hosts: BTreeMap::new(),
            configure,
            late,
            flying: BTreeMap::new(),
            posted: 0,
            random: Random::new(seed),
            cut: BTreeSet::new(),
            lost: 0,
            doubled: 0,
            delay: Duration::ZERO,
            disk: Duration::from_micros(200),
            meddle: Box::new(|_, _, _| true),
            responses: BTreeMap::new(),
            asked: BTreeMap::new(),
            reads: BTreeSet::new(),
            tokens: 0,
            halts_expected: false,
            sent: Vec::new(),
            stored: Vec::new(),
            model: None,
        };
        for id in (1..=count).map(NodeId) {
            cluster.add(id, Disk::founding(membership.clone()));
        }
        cluster
    }

    /// Holds every step from now on against the reference model. For a cluster that has just begun, in
    /// which no message is forged.
    pub(crate) fn watch(&mut self) {
        self.model = Some(Arc::default());
        self.ids().into_iter().for_each(|id| self.show(id));
    }

    /// Shows the model a replica that has just started.
    fn show(&mut self, id: NodeId) {
        let Some(model) = &self.model else { return };
        let node = self.hosts.get_mut(&id).unwrap().node.as_mut().unwrap();
        model.lock().unwrap().started(node.raft()).unwrap_or_else(|violation| panic!("{violation}"));
        let model = Arc::clone(model);
        node.set_witness(Box::new(move |now, input, effects, raft| {
            // The model keeps the first deviation until it is asked for it.
            let _ = model.lock().unwrap().step(raft, now, input, effects);
        }));
    }

    /// A replica that knows nobody yet.
    pub(crate) fn add_stranger(&mut self, id: NodeId) {
        let disk = Disk::founding(Membership::default());
        self.add(id, disk);
    }

    fn add(&mut self, id: NodeId, disk: Disk) {
        let durable = PersistId(0);
        let host = Host { node: None, disk, jobs: VecDeque::new(), held: Vec::new(), durable, starts: 0 };
        self.hosts.insert(id, host);
        self.start(id);
    }

    /// Starts a replica with what its disk holds.
    pub(crate) fn start(&mut self, id: NodeId) {
        let (now, host) = (self.now, self.hosts.get_mut(&id).unwrap());
        host.starts += 1;
        let mut config = NodeConfig::new(Config::new(id, 1_000 * host.starts + id.0));
        config.raft.return_check = true;
        (self.configure)(&mut config);
        let recovered = host.disk.recover();
        host.node = Some(match self.late {
            Some(late) => Replica::Late(Box::new(Late::new(config, recovered, late, now))),
            None => Replica::Prompt(Box::new(Node::new(config, Ledger::default(), recovered, now).unwrap())),
        });
        self.show(id);
    }

    /// Ends a replica: what its disk had not finished is lost, and nobody answers its clients.
    pub(crate) fn crash(&mut self, id: NodeId) {
        let host = self.hosts.get_mut(&id).unwrap();
        host.node = None;
        host.jobs.clear();
        host.held.clear();
        host.durable = PersistId(0);
        let responses = &self.responses;
        self.asked.retain(|token, at| *at != id || responses.contains_key(token));
    }

    pub(crate) fn is_up(&self, id: NodeId) -> bool {
        self.hosts[&id].node.is_some()
    }

    /// Whether state machines are elsewhere.
    pub(crate) fn is_late(&self) -> bool {
        self.late.is_some()
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().collect()
    }

    pub(crate) fn node(&self, id: NodeId) -> &Replica {
        self.hosts[&id].node.as_ref().unwrap()
    }

    pub(crate) fn lines(&self, id: NodeId) -> Vec<String> {
        self.node(id).machine().lines.iter().map(|(_, line)| line.clone()).collect()
    }

    /// The leader of the latest term.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let nodes = self.hosts.values().filter_map(|host| host.node.as_ref());
        let leaders = nodes.filter(|node| node.raft().is_leader());
        leaders.max_by_key(|node| node.raft().term()).map(|node| node.raft().id())
    }

    /// Waits for a leader; also returns the others.
    pub(crate) fn elect(&mut self) -> (NodeId, Vec<NodeId>) {
        self.pass(AN_ELECTION);
        let leader = self.leader().expect("an orderly network elects a leader");
        (leader, self.ids().into_iter().filter(|id| *id != leader).collect())
    }

    pub(crate) fn isolate(&mut self, id: NodeId) {
        for other in self.ids().into_iter().filter(|other| *other != id) {
            self.cut.extend([(id, other), (other, id)]);
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now.after(span);
        while self.step(end) {}
        self.now = end;
    }

    /// Lets the next thing happen, if that is not after `end`.
    fn step(&mut self, end: Time) -> bool {
        let parcel = self.flying.keys().next().map_or(Time::NEVER, |(at, _)| *at);
        let job = |(id, host): (&NodeId, &Host)| host.jobs.front().map(|(at, _)| (*at, *id));
        let alarm = |(id, host): (&NodeId, &Host)| host.node.as_ref().map(|node| (node.next_deadline(), *id));
        let (job, on) = self.hosts.iter().filter_map(job).min().unwrap_or((Time::NEVER, n(0)));
        let (due, sleeper) = self.hosts.iter().filter_map(alarm).min().unwrap_or((Time::NEVER, n(0)));
        let next = parcel.min(job).min(due);
        if next > end {
            return false;
        }
        self.now = self.now.max(next);
        if parcel == next {
            let (_, (from, to, message)) = self.flying.pop_first().unwrap();
            self.input(to, NodeInput::Receive { from, message });
        } else if job == next {
            self.finish_job(on);
        } else {
            self.input(sleeper, NodeInput::Wake);
        }
        true
    }

    fn finish_job(&mut self, id: NodeId) {
        let host = self.hosts.get_mut(&id).unwrap();
        let (_, job) = host.jobs.pop_front().unwrap();
        match job {
            Job::Write(up_to, write) => {
                assert_eq!(up_to.0, host.durable.0 + 1, "writes come in the order of their ids");
                host.disk.write(write);
                host.durable = up_to;
                if let Some(model) = &self.model {
                    model.lock().unwrap().durable(id, up_to);
                }
                for (_, to, message) in host.held.extract_if(.., |(after, ..)| *after <= up_to).collect::<Vec<_>>() {
                    self.post(id, to, message);
                }
                self.input(id, NodeInput::Persisted { up_to });
            }
            Job::Store(snapshot) => {
                let header = snapshot.header.clone();
                host.disk.snapshots.push(snapshot);
                self.stored.push((id, header.clone()));
                self.input(id, NodeInput::SnapshotStored { index: header.position.index });
            }
        }
    }

    /// Gives a replica an input now.
    pub(crate) fn input(&mut self, id: NodeId, input: NodeInput) {
        let (now, disk) = (self.now, self.disk);
        let mut effects = Vec::new();
        let host = self.hosts.get_mut(&id).unwrap();
        let Some(node) = &mut host.node else { return };
        node.handle(now, input, &mut effects);
        if let Some(violation) = self.model.as_ref().and_then(|model| model.lock().unwrap().violation().cloned()) {
            panic!("{violation}");
        }
        for effect in effects {
            let host = self.hosts.get_mut(&id).unwrap();
            // One job after the other.
            let done = host.jobs.back().map_or(now, |(done, _)| *done).after(disk);
            match effect {
                NodeEffect::Persist { id, write } => host.jobs.push_back((done, Job::Write(id, write))),
                NodeEffect::StoreSnapshot { snapshot } => host.jobs.push_back((done, Job::Store(snapshot))),
                NodeEffect::Send { to, message, after: Some(after) } if after > host.durable => {
                    host.held.push((after, to, message));
                }
                NodeEffect::Send { to, message, .. } => self.post(id, to, message),
                NodeEffect::Respond { token, response } => {
                    assert_eq!(self.asked.get(&token), Some(&id), "only what was asked here is answered");
                    // A reader counts the lines.
                    let reads = self.reads.contains(&token);
                    let response =
                        response.map(|said| if reads { self.lines(id).len().to_string().into() } else { said });
                    let earlier = self.responses.insert(token, response);
                    assert_eq!(earlier, None, "each request is answered once");
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
        if !arrives || self.chance(self.lost) || !(self.meddle)(from, to, &mut message) {
            return;
        }
        let copies = if self.chance(self.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            self.posted += 1;
            let late = self.random.span(Duration::ZERO, self.delay);
            let at = self.now.after(Duration::from_micros(100) + late);
            self.flying.insert((at, self.posted), (from, to, message.clone()));
        }
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.random.next_u64() % 100 < percent
    }

    fn token(&mut self, at: NodeId) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.asked.insert(token, at);
        token
    }

    pub(crate) fn write(&mut self, at: NodeId, command: &str) -> Token {
        self.write_until(at, command, None)
    }

    pub(crate) fn write_until(&mut self, at: NodeId, command: &str, deadline: Option<Time>) -> Token {
        let token = self.token(at);
        self.input(at, NodeInput::Write { token, command: Bytes::copy_from_slice(command.as_bytes()), deadline });
        token
    }

    /// Asks for a linearizable read; its answer is how many lines there are.
    pub(crate) fn read(&mut self, at: NodeId, kind: ReadKind) -> Token {
        let token = self.token(at);
        self.reads.insert(token);
        self.input(at, NodeInput::Read { token, kind, deadline: None });
        token
    }

    /// Asks for an operation, such as a change of the members.
    pub(crate) fn operate(&mut self, at: NodeId, input: impl FnOnce(Token) -> NodeInput) -> Token {
        let token = self.token(at);
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
        self.asked.keys().filter(|token| !self.responses.contains_key(token)).copied().collect()
    }
}
