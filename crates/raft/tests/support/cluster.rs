//! A handful of replicas, their hosts, and the network between them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bowline_raft::{
    Body, Config, Effect, Effects, Entry, Group, Index, Input, InstallSnapshot, Membership, Message, NodeId, Position,
    Session, Time, Token,
};

use bowline_sim::spec::Lockstep;

use super::host::{Host, Work};
use super::invariants::{Before, Invariants};
use super::narrate::{self, Status};
use super::oracle::Oracle;

/// A message on its way.
#[derive(Clone)]
pub(crate) struct Envelope {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) message: Message,
    /// With a snapshot: what the state machine contains.
    pub(crate) contents: Vec<Entry>,
}

#[derive(Default)]
pub(crate) struct Cluster {
    pub(crate) hosts: BTreeMap<NodeId, Host>,
    pub(crate) network: Vec<Envelope>,
    /// Messages that the script keeps from arriving for now.
    pub(crate) delayed: Vec<Envelope>,
    /// Links that lose everything, each for one direction.
    pub(crate) cut: BTreeSet<(NodeId, NodeId)>,
    pub(crate) oracle: Oracle,
    /// The reference model: each step of each replica must be one of its steps.
    pub(crate) model: Lockstep,
    pub(crate) invariants: Invariants,
    pub(crate) trace: Vec<String>,
    /// Nobody reads the trace, so no line is written.
    pub(crate) silent: bool,
    names: BTreeMap<Token, String>,
    next_token: u64,
}

impl Cluster {
    /// Founding `voters` and `learners`, then `spares` that wait to be added.
    pub(crate) fn new(voters: u64, learners: u64, spares: u64, config: impl Fn(NodeId) -> Config) -> Cluster {
        let ids = |range: std::ops::RangeInclusive<u64>| range.map(NodeId).collect();
        let group = Group { voters: ids(1..=voters), learners: ids(voters + 1..=voters + learners) };
        let founders = Membership::simple(group);
        let mut cluster = Cluster::default();
        cluster.invariants.founders = founders.clone();
        for id in (1..=voters + learners + spares).map(NodeId) {
            let membership = (id.0 <= voters + learners).then(|| founders.clone());
            let host = Host::new(config(id), membership);
            cluster.model.started(host.raft()).unwrap_or_else(|violation| panic!("{violation}"));
            cluster.hosts.insert(id, host);
        }
        cluster
    }

    pub(crate) fn host(&self, id: NodeId) -> &Host {
        &self.hosts[&id]
    }

    pub(crate) fn host_mut(&mut self, id: NodeId) -> &mut Host {
        self.hosts.get_mut(&id).expect("the test names replicas that exist")
    }

    pub(crate) fn is_up(&self, id: NodeId) -> bool {
        self.host(id).raft.is_some()
    }

    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        if !self.silent {
            self.trace.push(line());
        }
    }

    /// Gives a replica an input and carries out what follows from it, except for what the network,
    /// a held disk or a held state machine keeps back.
    pub(crate) fn feed(&mut self, id: NodeId, input: Input) {
        let silent = self.silent;
        let host = self.hosts.get_mut(&id).expect("the test names replicas that exist");
        let clock = host.clock;
        let Some(raft) = &mut host.raft else { return };
        let before = (!silent).then(|| Status::of(raft));
        let known = Before::of(raft, &input);
        let (led, last) = (raft.is_leader(), raft.log().last());
        let mut effects = Effects::new();
        let watched = self.model.drive(raft, clock, input, &mut effects);
        watched.unwrap_or_else(|violation| panic!("{violation}"));
        let elected = !led && raft.is_leader();
        let lines = before.map(|before| Status::of(raft).changes_since(&before, raft)).unwrap_or_default();
        if elected {
            self.oracle.elected(self.hosts[&id].raft());
        }
        self.invariants.check(&self.hosts, id, &known);
        for line in lines {
            self.say(|| line);
        }
        let mut before = last;
        for effect in effects.drain() {
            self.carry_out(id, effect, &mut before);
        }
        self.oracle.check(&self.hosts[&id]);
        if !self.host(id).disk_held {
            self.sync(id, usize::MAX);
        }
        if !self.host(id).machine_held {
            self.work(id);
        }
    }

    fn carry_out(&mut self, id: NodeId, effect: Effect, before: &mut Position) {
        match effect {
            Effect::Persist { id: at, write } => {
                if let bowline_raft::Write::Truncate { from } = &write {
                    self.oracle.truncated(self.host(id), *from);
                    *before = self.host(id).unsynced_position(from.previous());
                }
                if let bowline_raft::Write::Append(entries) = &write {
                    self.oracle.written(*before, &write);
                    *before = entries.last().map_or(*before, Entry::position);
                }
                let held = if self.host(id).disk_held { " (not synced)" } else { "" };
                self.say(|| format!("{id} writes {}{held}", narrate::write(&write)));
                self.host_mut(id).unsynced.push_back((at, write));
            }
            Effect::Send { to, message, after } => match after.filter(|after| *after > self.host(id).durable) {
                Some(after) => {
                    if self.host(id).disk_held {
                        self.say(|| format!("{id} ⋯ {to} {message} (waits for the disk)"));
                    }
                    self.host_mut(id).parked.push_back((after, to, message));
                }
                None => self.post(Envelope { from: id, to, message, contents: Vec::new() }),
            },
            Effect::Apply { entries } => {
                let last = entries.last().map_or(Position::ORIGIN, Entry::position);
                assert!(self.host(id).disk.holds(last), "{id} applies {last}, which it could still forget (S71)");
                self.host_mut(id).unapplied.push_back(Work::Apply(entries));
            }
            Effect::InstallSnapshot { snapshot } => {
                let durable = self.host(id).disk.base().index >= snapshot.position.index;
                assert!(durable, "{id} installs a snapshot whose mark in the log it could still forget");
                self.host_mut(id).unapplied.push_back(Work::Install(snapshot));
            }
            Effect::Answer { token, outcome } => {
                self.oracle.answered(&self.hosts[&id], token, &outcome);
                let name = self.names.get(&token).cloned().unwrap_or_default();
                self.say(|| format!("{id} answers {name}: {outcome}"));
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
        let contents = host.disk.contents.clone();
        self.invariants.snapshot_names(snapshot.position, &snapshot.membership);
        let body = Body::InstallSnapshot(InstallSnapshot { session, snapshot });
        let message = Message { term: host.raft().term(), body };
        self.post(Envelope { from, to, message, contents });
    }

    fn post(&mut self, envelope: Envelope) {
        let Envelope { from, to, message, .. } = &envelope;
        let host = &self.hosts[from];
        self.oracle.sent(*from, *to, message, &host.disk, host.raft());
        if !self.silent {
            let lost = if self.cut.contains(&(*from, *to)) { " ✗ lost" } else { "" };
            self.trace.push(format!("{from} → {to} {message}{lost}"));
        }
        if self.cut.contains(&(*from, *to)) {
            self.lost(envelope);
        } else {
            self.network.push(envelope);
        }
    }

    /// The sender's host notices when a snapshot can't be brought.
    pub(crate) fn lost(&mut self, envelope: Envelope) {
        if let Body::InstallSnapshot(install) = envelope.message.body {
            let session = install.session;
            self.feed(envelope.from, Input::SnapshotSent { to: envelope.to, session, delivered: false });
        }
    }

    /// A message arrives.
    pub(crate) fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, message, contents } = envelope;
        if !self.is_up(to) {
            self.say(|| format!("{to} is down: {message} from {from} is lost"));
            return self.lost(Envelope { from, to, message, contents });
        }
        let mut delivered = None;
        if let Body::InstallSnapshot(install) = &message.body {
            self.host_mut(to).received.insert(install.snapshot.position, contents);
            delivered = Some(install.session);
        }
        self.feed(to, Input::Receive { from, message });
        if let Some(session) = delivered {
            self.feed(from, Input::SnapshotSent { to, session, delivered: true });
        }
    }

    /// Makes up to `count` writes durable, and lets go what waited for them.
    pub(crate) fn sync(&mut self, id: NodeId, count: usize) {
        let host = self.host_mut(id);
        if host.unsynced.is_empty() || host.raft.is_none() {
            return;
        }
        for _ in 0..count.min(host.unsynced.len()) {
            host.sync_one();
        }
        let durable = host.durable;
        self.model.durable(id, durable);
        while let Some((_, to, message)) = self.host_mut(id).parked.pop_front_if(|(after, ..)| *after <= durable) {
            self.post(Envelope { from: id, to, message, contents: Vec::new() });
        }
        self.feed(id, Input::Persisted { up_to: durable });
    }

    /// Lets the state machine do what it was given.
    pub(crate) fn work(&mut self, id: NodeId) {
        while let Some(work) = self.host_mut(id).unapplied.pop_front() {
            let index = match work {
                Work::Apply(entries) => {
                    self.say(|| format!("{id} applies {}", narrate::entries(&entries)));
                    for entry in entries {
                        assert_eq!(entry.index, self.host(id).applied().next(), "{id} applies in order");
                        self.oracle.applied(id, &entry);
                        self.host_mut(id).machine.push(entry);
                    }
                    self.host(id).applied()
                }
                Work::Install(snapshot) => {
                    self.say(|| format!("{id} installs the snapshot {}", snapshot.position));
                    let contents = self.host(id).received[&snapshot.position].clone();
                    contents.iter().for_each(|entry| self.oracle.applied(id, entry));
                    self.host_mut(id).machine = contents;
                    snapshot.position.index
                }
            };
            self.feed(id, Input::Applied { index });
        }
    }

    /// A new request's name.
    pub(crate) fn token(&mut self, at: NodeId, name: &str, command: Option<&[u8]>) -> Token {
        self.next_token += 1;
        let token = Token(self.next_token);
        self.names.insert(token, name.to_owned());
        self.oracle.opened(token, at, command.map(<[u8]>::to_vec));
        token
    }

    pub(crate) fn crash(&mut self, id: NodeId) {
        self.host_mut(id).crash();
        self.oracle.forget_requests(id);
    }

    /// The disk of a replica that is down loses its log from an index on. Whoever looks at it knows
    /// where the log has ended, or only in which term.
    pub(crate) fn damage(&mut self, id: NodeId, from: Index, end_is_known: bool) -> Position {
        let host = self.host_mut(id);
        assert!(host.raft.is_none(), "it is down");
        let last =
            if end_is_known { host.disk.last() } else { Position::new(Index(u64::MAX), host.disk.hard_state.term) };
        let last_possible = host.disk.suspect.max(Some(last)).expect("there is one");
        host.disk.suspect = Some(last_possible);
        let lost = host.disk.log.entries.iter().filter(|entry| entry.index >= from);
        host.disk.owed.extend(lost.map(Entry::position));
        host.disk.entries.retain(|entry| entry.index < from);
        host.machine.truncate(usize::try_from(from.0 - 1).expect("a short log"));
        self.oracle.damaged(id);
        self.invariants.damaged(id);
        last_possible
    }

    pub(crate) fn restart(&mut self, id: NodeId) {
        self.oracle.restarted(id, &self.hosts[&id].disk);
        self.host_mut(id).start();
        self.model.started(self.hosts[&id].raft()).unwrap_or_else(|violation| panic!("{violation}"));
    }

    pub(crate) fn store_snapshot(&mut self, id: NodeId) -> Option<Index> {
        let index = self.host_mut(id).store_snapshot()?;
        let disk = &self.hosts[&id].disk;
        if let Some(snapshot) = &disk.snapshot {
            self.invariants.snapshot_names(snapshot.position, &snapshot.membership);
        }
        self.feed(id, Input::SnapshotStored { index });
        Some(index)
    }

    /// Cuts every link between the groups, in both directions.
    pub(crate) fn partition(&mut self, groups: &[BTreeSet<NodeId>]) {
        let ids: Vec<NodeId> = self.hosts.keys().copied().collect();
        let group_of = |id: &NodeId| groups.iter().position(|group| group.contains(id));
        for from in &ids {
            for to in ids.iter().filter(|to| group_of(from) != group_of(to)) {
                self.cut.insert((*from, *to));
            }
        }
        let lost = |envelope: &Envelope| self.cut.contains(&(envelope.from, envelope.to));
        let (gone, kept) = std::mem::take(&mut self.network).into_iter().partition(lost);
        self.network = kept;
        let gone: Vec<Envelope> = gone;
        gone.into_iter().for_each(|envelope| self.lost(envelope));
    }

    /// Lets time pass on these hosts' clocks, which run side by side, waking each replica when it
    /// wants to be.
    pub(crate) fn tick(&mut self, ids: &[NodeId], span: Duration, deliver: bool) {
        let start: BTreeMap<NodeId, Time> = ids.iter().map(|id| (*id, self.host(*id).clock)).collect();
        loop {
            let due = |id: &NodeId| {
                let host = &self.hosts[id];
                let due = host.raft.as_ref()?.next_deadline().max(host.clock);
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
            self.host_mut(*id).clock = start.after(passed);
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

    pub(crate) fn leader(&self) -> Option<NodeId> {
        let leaders = self.hosts.values().filter_map(|host| host.raft.as_ref()).filter(|raft| raft.is_leader());
        leaders.max_by_key(|raft| raft.term()).map(bowline_raft::Raft::id)
    }
}

/// A message's name.
pub(crate) fn kind(body: &Body) -> String {
    body.to_string().split(' ').next().expect("a message has a name").to_owned()
}
