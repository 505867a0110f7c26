//! A handful of replicas, their hosts, and the network between them.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::time::Duration;

use bowline_raft::{
    Body, Config, Effect, Effects, Entry, Group, Index, Input, InstallSnapshot, Membership, Message, NodeId, PersistId,
    Position, Raft, Session, Time, Token, Write,
};

use super::host::{CoreHost, Work};
use super::invariants::{Before, Invariants};
use super::narrate::{self, Status};
use super::oracle::{Oracle, Request};
use super::simulation::{self, Simulated, Simulation};

pub(crate) type Cluster = Simulation<Raft>;
pub(crate) type Envelope = simulation::Envelope<Message>;

/// What the tests of the core add to the cluster.
#[derive(Default)]
pub(crate) struct CoreCluster {
    configs: BTreeMap<NodeId, Config>,
    /// What the state machines of snapshots contain: everything up to their positions, from index 1.
    contents: BTreeMap<Position, Vec<Entry>>,
    /// Messages that the script keeps from arriving for now.
    pub(crate) delayed: Vec<Envelope>,
    pub(crate) oracle: Oracle,
    pub(crate) invariants: Invariants,
    pub(crate) trace: Vec<String>,
    /// Nobody reads the trace, so no line is written.
    pub(crate) silent: bool,
}

impl Simulated for Raft {
    type Message = Message;
    type Job = (PersistId, Write);
    type Request = Request;
    type Host = CoreHost;
    type Cluster = CoreCluster;

    fn raft(&self) -> &Raft {
        self
    }

    fn forget(host: &mut CoreHost) {
        let (clock, owed, machine) = (host.clock, take(&mut host.owed), take(&mut host.machine));
        *host = CoreHost { clock, owed, machine, ..CoreHost::default() };
    }
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster::empty(CoreCluster::default())
    }
}

impl Cluster {
    /// Founding `voters` and `learners`, then `spares` that wait to be added.
    pub(crate) fn new(voters: u64, learners: u64, spares: u64, config: impl Fn(NodeId) -> Config) -> Cluster {
        let ids = |range: std::ops::RangeInclusive<u64>| range.map(NodeId).collect();
        let group = Group { voters: ids(1..=voters), learners: ids(voters + 1..=voters + learners) };
        let founders = Membership::simple(group);
        let mut cluster = Cluster::default();
        cluster.invariants.founders = founders.clone();
        cluster.contents.insert(Position::ORIGIN, Vec::new());
        for id in (1..=voters + learners + spares).map(NodeId) {
            let membership = (id.0 <= voters + learners).then(|| founders.clone());
            cluster.configs.insert(id, config(id));
            cluster.add_host(id, membership);
            cluster.start(id);
        }
        cluster.watch();
        cluster
    }

    /// Starts a replica with what its disk holds.
    fn start(&mut self, id: NodeId) {
        let config = self.configs[&id].clone();
        let contents = self.contents[&self.host(id).disk.base()].clone();
        self.start_with(id, |host| host.recover(config, &contents));
    }

    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        if !self.silent {
            self.trace.push(line());
        }
    }

    /// Gives a replica an input and carries out what follows from it, except for what the network,
    /// a held disk or a held state machine keeps back.
    pub(crate) fn feed(&mut self, id: NodeId, input: Input) {
        let host = self.hosts.get_mut(&id).expect("the test names replicas that exist");
        let clock = host.own.clock;
        let Some(raft) = &mut host.replica else { return };
        let before = (!self.own.silent).then(|| Status::of(raft));
        let known = Before::of(raft, &input);
        let (led, last) = (raft.is_leader(), raft.log().last());
        let mut effects = Effects::new();
        let model = self.model.as_ref().expect("the model watches");
        let watched = model.lock().expect("the model").drive(raft, clock, input, &mut effects);
        watched.unwrap_or_else(|violation| panic!("{violation}"));
        let lines = before.map(|before| Status::of(raft).changes_since(&before, raft)).unwrap_or_default();
        if !led && raft.is_leader() {
            self.own.oracle.elected(raft);
        }
        self.own.invariants.check(&self.hosts, id, &known);
        self.trace.extend(lines);
        let mut before = last;
        for effect in effects.drain() {
            self.carry_out(id, effect, &mut before);
        }
        self.own.oracle.check(&self.hosts[&id]);
        if !self.host(id).own.disk_held {
            self.sync(id, usize::MAX);
        }
        if !self.host(id).own.machine_held {
            self.work(id);
        }
    }

    fn carry_out(&mut self, id: NodeId, effect: Effect, before: &mut Position) {
        match effect {
            Effect::Persist { id: at, write } => {
                if let Write::Truncate { from } = &write {
                    self.own.oracle.truncated(&self.hosts[&id], *from);
                    *before = self.host(id).unsynced_position(from.previous());
                }
                if let Write::Append(entries) = &write {
                    self.oracle.written(*before, &write);
                    *before = entries.last().map_or(*before, Entry::position);
                }
                let held = if self.host(id).own.disk_held { " (not synced)" } else { "" };
                self.say(|| format!("{id} writes {}{held}", narrate::write(&write)));
                self.host_mut(id).jobs.push_back((at, write));
            }
            Effect::Send { to, message, after: Some(after) } if after > self.host(id).durable => {
                if self.host(id).own.disk_held {
                    self.say(|| format!("{id} ⋯ {to} {message} (waits for the disk)"));
                }
                self.host_mut(id).waiting.push((after, to, message));
            }
            Effect::Send { to, message, .. } => self.post(id, to, message),
            Effect::Apply { entries } => {
                let last = entries.last().map_or(Position::ORIGIN, Entry::position);
                assert!(self.host(id).holds(last), "{id} applies {last}, which it could still forget (S71)");
                self.host_mut(id).own.unapplied.push_back(Work::Apply(entries));
            }
            Effect::InstallSnapshot { snapshot } => {
                let durable = self.host(id).disk.base().index >= snapshot.position.index;
                assert!(durable, "{id} installs a snapshot whose mark in the log it could still forget");
                self.host_mut(id).own.unapplied.push_back(Work::Install(snapshot));
            }
            Effect::Answer { token, outcome } => {
                let request = self.answered(id, token);
                self.own.oracle.answered(&self.hosts[&id], &request, &outcome);
                self.say(|| format!("{id} answers {}: {outcome}", request.name));
            }
            Effect::FetchSnapshot { to, session } => self.send_snapshot(id, to, session),
            Effect::Halt { fault } => {
                assert!(!self.silent, "{id} halts: {fault}");
                self.say(|| format!("{id} halts: {fault}"));
            }
        }
    }

    fn send_snapshot(&mut self, from: NodeId, to: NodeId, session: Session) {
        let host = self.host(from);
        let snapshot = host.disk.snapshot.clone().expect("a log is compacted only under a snapshot");
        let term = host.raft().term();
        self.invariants.snapshot_names(snapshot.position, &snapshot.membership);
        let body = Body::InstallSnapshot(InstallSnapshot { session, snapshot });
        self.post(from, to, Message { term, body });
    }

    fn post(&mut self, from: NodeId, to: NodeId, message: Message) {
        let host = &self.hosts[&from];
        self.own.oracle.sent(from, to, &message, &host.disk, host.raft());
        let cut = self.cut.contains(&(from, to));
        self.say(|| format!("{from} → {to} {message}{}", if cut { " ✗ lost" } else { "" }));
        let envelope = Envelope { from, to, message, arrives: Time::NEVER };
        if cut {
            self.lost(envelope);
        } else {
            self.network.push(envelope);
        }
    }

    /// The sender's host notices when a snapshot can't be brought.
    pub(crate) fn lost(&mut self, envelope: Envelope) {
        if let Body::InstallSnapshot(install) = &envelope.message.body {
            let session = install.session;
            self.feed(envelope.from, Input::SnapshotSent { to: envelope.to, session, delivered: false });
        }
    }

    /// A message arrives.
    pub(crate) fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, .. } = envelope;
        if !self.is_up(to) {
            self.say(|| format!("{to} is down: {} from {from} is lost", envelope.message));
            return self.lost(envelope);
        }
        let mut delivered = None;
        if let Body::InstallSnapshot(install) = &envelope.message.body {
            self.host_mut(to).own.received.insert(install.snapshot.position);
            delivered = Some(install.session);
        }
        self.feed(to, Input::Receive { from, message: envelope.message });
        if let Some(session) = delivered {
            self.feed(from, Input::SnapshotSent { to, session, delivered: true });
        }
    }

    /// Makes up to `count` writes durable, and lets go what waited for them.
    pub(crate) fn sync(&mut self, id: NodeId, count: usize) {
        let host = self.host_mut(id);
        let oldest = host.jobs.drain(..count.min(host.jobs.len())).collect::<Vec<_>>();
        if oldest.is_empty() {
            return;
        }
        for (up_to, write) in oldest {
            let host = self.host_mut(id);
            match &write {
                Write::Repaired => host.own.owed.clear(),
                Write::Snapshot(header) => assert!(host.own.received.contains(&header.position), "it was received"),
                _ => {}
            }
            self.make_durable(id, up_to, write);
        }
        for (to, message) in self.host_mut(id).released() {
            self.post(id, to, message);
        }
        let durable = self.host(id).durable;
        self.feed(id, Input::Persisted { up_to: durable });
    }

    /// Lets the state machine do what it was given.
    pub(crate) fn work(&mut self, id: NodeId) {
        while let Some(work) = self.host_mut(id).own.unapplied.pop_front() {
            let index = match work {
                Work::Apply(entries) => {
                    self.say(|| format!("{id} applies {}", narrate::entries(&entries)));
                    for entry in entries {
                        assert_eq!(entry.index, self.host(id).applied().next(), "{id} applies in order");
                        self.oracle.applied(id, &entry);
                        self.host_mut(id).own.machine.push(entry);
                    }
                    self.host(id).applied()
                }
                Work::Install(snapshot) => {
                    self.say(|| format!("{id} installs the snapshot {}", snapshot.position));
                    assert!(self.host(id).own.received.contains(&snapshot.position), "it was received");
                    let contents = self.contents[&snapshot.position].clone();
                    contents.iter().for_each(|entry| self.oracle.applied(id, entry));
                    self.host_mut(id).own.machine = contents;
                    snapshot.position.index
                }
            };
            self.feed(id, Input::Applied { index });
        }
    }

    /// A new request, with its name and its command, if it has one.
    pub(crate) fn token(&mut self, at: NodeId, name: &str, command: Option<&[u8]>) -> Token {
        let request = self.oracle.request(name, command);
        self.ask(at, request)
    }

    /// The disk of a replica that is down loses its log from an index on. Whoever looks at it knows
    /// where the log has ended, or only in which term.
    pub(crate) fn damage(&mut self, id: NodeId, from: Index, end_is_known: bool) -> Position {
        let host = self.host_mut(id);
        assert!(host.replica.is_none(), "it is down");
        let last =
            if end_is_known { host.disk.last() } else { Position::new(Index(u64::MAX), host.disk.hard_state.term) };
        let last_possible = host.disk.suspect.max(Some(last)).expect("there is one");
        host.disk.suspect = Some(last_possible);
        let lost = host.disk.entries.iter().filter(|entry| entry.index >= from);
        host.own.owed.extend(lost.map(Entry::position));
        host.disk.entries.retain(|entry| entry.index < from);
        host.own.machine.truncate(usize::try_from(from.0 - 1).expect("a short log"));
        self.oracle.damaged(id);
        self.invariants.damaged(id);
        last_possible
    }

    pub(crate) fn restart(&mut self, id: NodeId) {
        self.own.oracle.restarted(&self.hosts[&id]);
        self.start(id);
    }

    /// Stores a snapshot of the state machine as it is. Returns its index.
    pub(crate) fn store_snapshot(&mut self, id: NodeId) -> Option<Index> {
        let host = self.hosts.get_mut(&id)?;
        let index = host.applied();
        let header = host.raft().snapshot_header(index)?;
        if index <= host.disk.base().index || index > host.disk.last().index {
            return None;
        }
        self.own.invariants.snapshot_names(header.position, &header.membership);
        let known = self.own.contents.entry(header.position).or_insert_with(|| host.own.machine.clone());
        assert_eq!(known, &host.own.machine, "two snapshots at {} differ", header.position);
        host.disk.start_after(header);
        self.feed(id, Input::SnapshotStored { index });
        Some(index)
    }

    /// Cuts every link between the groups. What is under way there is lost.
    pub(crate) fn partition(&mut self, groups: &[BTreeSet<NodeId>]) {
        self.cut_between(groups);
        let gone = self.network.extract_if(.., |envelope| self.cut.contains(&(envelope.from, envelope.to)));
        let gone: Vec<Envelope> = gone.collect();
        gone.into_iter().for_each(|envelope| self.lost(envelope));
    }

    /// Lets time pass on these hosts' clocks, which run side by side, waking each replica when it
    /// wants to be.
    pub(crate) fn tick(&mut self, ids: &[NodeId], span: Duration, deliver: bool) {
        let start: BTreeMap<NodeId, Time> = ids.iter().map(|id| (*id, self.host(*id).own.clock)).collect();
        loop {
            let due = |id: &NodeId| {
                let host = &self.hosts[id];
                let due = host.replica.as_ref()?.next_deadline().max(host.own.clock);
                Some((due.since(start[id]), *id)).filter(|(passed, _)| *passed <= span)
            };
            let Some((passed, id)) = ids.iter().filter_map(due).min() else { break };
            self.set_clocks(&start, passed);
            self.feed(id, Input::Wake);
            if deliver {
                self.deliver_all();
            }
        }
        self.set_clocks(&start, span);
    }

    fn set_clocks(&mut self, start: &BTreeMap<NodeId, Time>, passed: Duration) {
        for (id, start) in start {
            self.host_mut(*id).own.clock = start.after(passed);
        }
    }

    /// Delivers what is on its way, and what follows from it, until nothing is.
    pub(crate) fn deliver_all(&mut self) {
        for _ in 0..100_000 {
            if self.network.is_empty() {
                return;
            }
            let envelope = self.network.remove(0);
            self.say(|| format!("{} ← {} {}", envelope.to, envelope.from, kind(&envelope.message.body)));
            self.deliver(envelope);
        }
        panic!("the messages never end");
    }
}

/// A message's name.
pub(crate) fn kind(body: &Body) -> String {
    body.to_string().split(' ').next().expect("a message has a name").to_owned()
}
