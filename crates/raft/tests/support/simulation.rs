//! A small simulated cluster: hosts whose disks lose what is not yet durable, and the network between them.
//!
//! The tests of the core drive it message by message, those of the node in virtual time. Both keep here what
//! they have in common, and add to it what only they need: see [`Simulated`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use bowline_raft::{
    Entry, HardState, Index, Membership, NodeId, PersistId, Position, Raft, Recovered, SnapshotHeader, Time, Token,
    Write,
};
use bowline_sim::spec::Lockstep;

/// A replica that a simulation runs, and what its tests add to the simulation.
pub(crate) trait Simulated {
    /// What replicas send each other.
    type Message;
    /// What a disk is asked to do.
    type Job;
    /// What the tests know of a request until it is answered.
    type Request;
    /// What the tests add to a host.
    type Host: Default;
    /// What the tests add to the cluster.
    type Cluster;

    /// The Raft that this replica runs.
    fn raft(&self) -> &Raft;

    /// Lets the reference model see each step from now on, unless the tests show it each step themselves.
    fn watch(&mut self, _model: &Arc<Mutex<Lockstep>>) {}

    /// Drops what the host had only in memory, in a crash.
    fn forget(_host: &mut Self::Host) {}
}

/// A replica's log as it survives a crash: what its stream of writes has made durable so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogOnDisk {
    pub(crate) hard_state: HardState,
    /// The log starts after this one.
    pub(crate) snapshot: Option<SnapshotHeader>,
    pub(crate) entries: Vec<Entry>,
    /// Where the log may have ended before a part of it was lost.
    pub(crate) suspect: Option<Position>,
}

impl LogOnDisk {
    /// The log of a founding member; without `founders`, of a replica that waits to be added.
    pub(crate) fn founding(founders: Option<Membership>) -> LogOnDisk {
        let snapshot = founders.and_then(|membership| Recovered::founding(membership).snapshot);
        LogOnDisk { snapshot, ..LogOnDisk::default() }
    }

    pub(crate) fn base(&self) -> Position {
        self.snapshot.as_ref().map_or(Position::ORIGIN, |snapshot| snapshot.position)
    }

    pub(crate) fn last(&self) -> Position {
        self.entries.last().map_or(self.base(), Entry::position)
    }

    /// Whether it starts after this position, or has an entry there.
    pub(crate) fn reaches(&self, position: Position) -> bool {
        position == self.base() || self.entries.iter().any(|entry| entry.position() == position)
    }

    /// A write becomes durable.
    pub(crate) fn write(&mut self, write: Write) {
        match write {
            Write::HardState(hard_state) => self.hard_state = hard_state,
            Write::Truncate { from } => self.entries.retain(|entry| entry.index < from),
            Write::Append(entries) => {
                assert_eq!(entries[0].index, self.last().index.next(), "no gap is left on the disk");
                self.entries.extend(entries);
            }
            Write::Suspect { last_possible } => self.suspect = Some(last_possible),
            Write::Repaired => self.suspect = None,
            Write::Snapshot(header) => {
                self.snapshot = Some(header);
                self.entries.clear();
            }
        }
    }

    /// The log starts after a snapshot that has its first entries.
    pub(crate) fn start_after(&mut self, header: SnapshotHeader) {
        self.entries.retain(|entry| entry.index > header.position.index);
        self.snapshot = Some(header);
    }

    /// What a replica starts with. Its state machine has applied everything up to `applied`.
    pub(crate) fn recovered(self, applied: Index) -> Recovered {
        let LogOnDisk { hard_state, snapshot, entries, suspect } = self;
        Recovered { hard_state, snapshot, entries, applied, suspect }
    }
}

/// A message under way.
#[derive(Clone)]
pub(crate) struct Envelope<M> {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) message: M,
    /// When it arrives, unless the test itself delivers it.
    pub(crate) arrives: Time,
}

/// A replica and the machine that it runs on.
pub(crate) struct Host<R: Simulated> {
    pub(crate) id: NodeId,
    /// `None` while it is down.
    pub(crate) replica: Option<R>,
    /// How often it has started.
    pub(crate) starts: u64,
    pub(crate) disk: LogOnDisk,
    /// What the disk has not done yet, in order.
    pub(crate) jobs: VecDeque<R::Job>,
    /// The latest durable write since the start.
    pub(crate) durable: PersistId,
    /// Messages that wait for a write, each with its receiver.
    pub(crate) waiting: Vec<(PersistId, NodeId, R::Message)>,
    /// What the tests add.
    pub(crate) own: R::Host,
}

impl<R: Simulated> Host<R> {
    /// Takes the messages that need not wait any longer.
    pub(crate) fn released(&mut self) -> Vec<(NodeId, R::Message)> {
        let durable = self.durable;
        self.waiting.extract_if(.., |(after, ..)| *after <= durable).map(|(_, to, message)| (to, message)).collect()
    }
}

/// The hosts, the network, and the requests.
pub(crate) struct Simulation<R: Simulated> {
    pub(crate) hosts: BTreeMap<NodeId, Host<R>>,
    /// Messages under way, in the order in which they were sent.
    pub(crate) network: Vec<Envelope<R::Message>>,
    /// Links that lose everything, each for one direction.
    pub(crate) cut: BTreeSet<(NodeId, NodeId)>,
    /// Requests without an answer, and where each was asked.
    pub(crate) open: BTreeMap<Token, (NodeId, R::Request)>,
    tokens: u64,
    /// The reference model, if it watches: each step of each replica must be one of its steps.
    pub(crate) model: Option<Arc<Mutex<Lockstep>>>,
    /// What the tests add. They also reach its fields as if they were the simulation's.
    pub(crate) own: R::Cluster,
}

impl<R: Simulated> Simulation<R> {
    /// A simulation without hosts.
    pub(crate) fn empty(own: R::Cluster) -> Simulation<R> {
        let (hosts, network, cut, open) = (BTreeMap::new(), Vec::new(), BTreeSet::new(), BTreeMap::new());
        Simulation { hosts, network, cut, open, tokens: 0, model: None, own }
    }

    /// Adds the host of a founding member, still down; without `founders`, of a replica that waits to be added.
    pub(crate) fn add_host(&mut self, id: NodeId, founders: Option<Membership>) {
        let (disk, durable) = (LogOnDisk::founding(founders), PersistId(0));
        let (jobs, waiting, own) = (VecDeque::new(), Vec::new(), R::Host::default());
        let host = Host { id, replica: None, starts: 0, disk, jobs, durable, waiting, own };
        self.hosts.insert(id, host);
    }

    pub(crate) fn host(&self, id: NodeId) -> &Host<R> {
        &self.hosts[&id]
    }

    pub(crate) fn host_mut(&mut self, id: NodeId) -> &mut Host<R> {
        self.hosts.get_mut(&id).expect("the test names replicas that exist")
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().collect()
    }

    pub(crate) fn is_up(&self, id: NodeId) -> bool {
        self.host(id).replica.is_some()
    }

    /// The leader of the latest term.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let replicas = self.hosts.values().filter_map(|host| host.replica.as_ref());
        let leaders = replicas.map(R::raft).filter(|raft| raft.is_leader());
        leaders.max_by_key(|raft| raft.term()).map(Raft::id)
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
        let Some(replica) = self.hosts.get_mut(&id).and_then(|host| host.replica.as_mut()) else { return };
        let started = model.lock().expect("the model").started(replica.raft());
        started.unwrap_or_else(|violation| panic!("{violation}"));
        replica.watch(model);
    }

    /// Starts the replica that `make` makes from its host.
    pub(crate) fn start_with(&mut self, id: NodeId, make: impl FnOnce(&mut Host<R>) -> R) {
        let host = self.host_mut(id);
        host.starts += 1;
        host.replica = Some(make(host));
        self.show(id);
    }

    /// Ends a replica: what its disk had not finished is lost, and nobody answers its clients.
    pub(crate) fn crash(&mut self, id: NodeId) {
        let host = self.host_mut(id);
        host.replica = None;
        host.jobs.clear();
        host.waiting.clear();
        host.durable = PersistId(0);
        R::forget(&mut host.own);
        self.open.retain(|_, (at, _)| *at != id);
    }

    /// A write becomes durable, and the reference model is told of it.
    pub(crate) fn make_durable(&mut self, id: NodeId, up_to: PersistId, write: Write) {
        let host = self.host_mut(id);
        assert_eq!(up_to.0, host.durable.0 + 1, "writes come in the order of their ids");
        host.disk.write(write);
        host.durable = up_to;
        if let Some(model) = &self.model {
            model.lock().expect("the model").durable(id, up_to);
        }
    }

    /// A new request at a replica.
    pub(crate) fn ask(&mut self, at: NodeId, request: R::Request) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.open.insert(token, (at, request));
        token
    }

    /// A replica answers a request: at most once, and only where it was asked.
    pub(crate) fn answered(&mut self, by: NodeId, token: Token) -> R::Request {
        let request = self.open.remove(&token).filter(|(at, _)| *at == by);
        request.unwrap_or_else(|| panic!("{by} answers {token:?}, which nobody there waits for")).1
    }

    /// Cuts every link between the groups, in both directions. The replicas in no group form one more group.
    pub(crate) fn cut_between(&mut self, groups: &[BTreeSet<NodeId>]) {
        let ids = self.ids();
        let group_of = |id: &NodeId| groups.iter().position(|group| group.contains(id));
        for from in &ids {
            let others = ids.iter().filter(|to| group_of(from) != group_of(to));
            self.cut.extend(others.map(|to| (*from, *to)));
        }
    }
}

impl<R: Simulated> Deref for Simulation<R> {
    type Target = R::Cluster;

    fn deref(&self) -> &R::Cluster {
        &self.own
    }
}

impl<R: Simulated> DerefMut for Simulation<R> {
    fn deref_mut(&mut self) -> &mut R::Cluster {
        &mut self.own
    }
}
