//! The state machine of the simulated replicas: a production one (the map of the LAN protocol, or the multi-version
//! store of the etcd API, in memory or in a file), which also reports to the oracle what it applied.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use bowline_kv::store::{
    Alarm, CompareStep, Engine, HashKv, Lease, LeaseChange, Members, MemoryEngine, Principal, Record, Response,
    Revision, Store, TxnRequest, encode_reply,
};
use bowline_kv::watch::History;
use bowline_lan::map::{Command, Map};
use bowline_member::{AppliedEntry, Shared};
use bowline_node::{InvalidSnapshot, Recall, StateMachine};
use bowline_raft::Index;
use bowline_storage::SimDisk;
use bytes::Bytes;

use crate::cluster::oracle::{digest, mix};
use crate::cluster::wire::UNKNOWN_FIELD;

/// What one command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    /// The client's operation.
    pub(crate) op: u64,
    /// The command, if the member itself proposed it.
    pub(crate) own: Option<Bytes>,
    /// The operation whose value the key holds now, in a map.
    pub(crate) holds: Option<u64>,
    /// The store's reply.
    pub(crate) reply: Option<Bytes>,
    /// The changes of leases.
    pub(crate) leases: Vec<LeaseChange>,
    /// The records that the store has written.
    pub(crate) writes: Vec<(Revision, Record)>,
    /// A digest over all commands applied so far and their effects.
    pub(crate) digest: u64,
}

/// What a store holds beside its history and its leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rest {
    members: Arc<Members>,
    alarms: Vec<Alarm>,
    version: u32,
}

impl Rest {
    pub(crate) fn of<E: Engine>(store: &Store<E>) -> Rest {
        let (members, alarms) = (Arc::clone(store.members()), store.alarms().collect());
        Rest { members, alarms, version: store.cluster_version() }
    }
}

/// Number of records that one step of removing old revisions inspects; a server does the same between two rounds.
pub(crate) const SCRUB_BUDGET: usize = 8;

/// A production state machine.
#[derive(Debug)]
enum State {
    Map(Map),
    Store(Box<Store<MemoryEngine>>),
    /// A member's store, in a file. The member's workers change it.
    OnDisk(Arc<Shared<SimDisk>>),
}

/// The production state, with a running digest of the commands applied.
#[derive(Debug)]
pub(crate) struct Machine {
    state: State,
    last: u64,
    digest: u64,
    /// What was applied since the oracle last looked.
    news: RefCell<Vec<Applied>>,
    /// Its leases were not taken yet.
    unseen: Cell<bool>,
}

impl Machine {
    /// An empty state: of the multi-version store if `stores`, else of the map.
    pub(crate) fn new(stores: bool) -> Machine {
        let state = match stores {
            true => State::Store(Box::new(empty_store())),
            false => State::Map(Map::default()),
        };
        Machine::at(state, 0, 0)
    }

    fn at(mut state: State, last: u64, digest: u64) -> Machine {
        match &mut state {
            State::Map(_) => {}
            State::Store(store) => store.note_writes(),
            State::OnDisk(_) => {}
        }
        Machine { state, last, digest, news: RefCell::default(), unseen: Cell::new(true) }
    }

    /// A member's store, with the last command in it and the digest after that.
    pub(crate) fn on_disk(store: Arc<Shared<SimDisk>>, (last, digest): (u64, u64)) -> Machine {
        Machine::at(State::OnDisk(store), last, digest)
    }

    /// A member's store was replaced by another one, with this last command in it and the digest after that.
    pub(crate) fn replaced(&mut self, witness: (u64, u64)) {
        (self.last, self.digest) = witness;
        self.unseen.set(true);
    }

    /// A member has applied a command to its store.
    pub(crate) fn note(&mut self, op: u64, own: Option<Bytes>, entry: AppliedEntry) {
        let AppliedEntry { index, response, leases, writes, .. } = entry;
        self.digest = mix(mix(mix(self.digest, index.0), op), digest(&response));
        self.last = index.0;
        let (reply, digest) = (Some(response), self.digest);
        let applied = Applied { index: index.0, op, own, holds: None, reply, leases, writes, digest };
        self.news.borrow_mut().push(applied);
    }

    /// Whether two states are the same. For stores, compares the checksums of their whole histories (HashKV), the leases,
    /// the members and the alarms.
    pub(crate) fn is_same_as(&self, other: &Machine) -> bool {
        match (&self.state, &other.state) {
            (State::Map(map), State::Map(other)) => map == other,
            (State::Map(_), _) | (_, State::Map(_)) => false,
            _ => {
                self.hash(0).is_some()
                    && self.hash(0) == other.hash(0)
                    && self.leases() == other.leases()
                    && self.rest() == other.rest()
            }
        }
    }

    /// The checksum of a store's history up to a revision; 0 means all.
    fn hash(&self, revision: i64) -> Option<HashKv> {
        match &self.state {
            State::Map(_) => None,
            State::Store(store) => store.hash_kv(revision).ok(),
            State::OnDisk(store) => store.read().store().hash_kv(revision).ok(),
        }
    }

    /// Whether a state equals a replay of the commands up to its last one (I16). `replay` has applied all of them, and
    /// maybe more. The two can be compared only if both are compacted to the same revision.
    pub(crate) fn is_replayed_by(&self, replay: &Store<MemoryEngine>) -> bool {
        if matches!(self.state, State::Map(_)) {
            return true;
        }
        let Some(own) = self.hash(0) else { return false };
        let compacted = own.compact_revision;
        if compacted != replay.compacted_revision() {
            return compacted < replay.compacted_revision();
        }
        // Also compares the checksum at the compacted revision.
        let kept = |hash: HashKv| (hash.compact_revision, hash.hash);
        replay.hash_kv_now(own.hash_revision).is_ok_and(|hash| hash.hash == own.hash)
            && self.hash(compacted).map(kept) == replay.hash_kv(compacted).ok().map(kept)
    }

    /// Calls a function with the history of a store.
    pub(crate) fn with_history<T>(&self, ask: impl FnOnce(&dyn History) -> T) -> Option<T> {
        match &self.state {
            State::Map(_) => None,
            State::Store(store) => Some(ask(&**store)),
            State::OnDisk(store) => Some(ask(store.read().store())),
        }
    }

    /// The latest revision of a store.
    pub(crate) fn revision(&self) -> i64 {
        self.with_history(|history| history.revision()).unwrap_or(0)
    }

    /// The oldest readable revision of a store.
    pub(crate) fn compacted_revision(&self) -> i64 {
        self.with_history(|history| history.compacted_revision()).unwrap_or(-1)
    }

    /// Index of the last command, and the digest after it.
    pub(crate) fn witness(&self) -> (u64, u64) {
        (self.last, self.digest)
    }

    /// The leases, in the order of their identities.
    pub(crate) fn leases(&self) -> Vec<Lease> {
        match &self.state {
            State::Map(_) => Vec::new(),
            State::Store(store) => store.leases().copied().collect(),
            State::OnDisk(store) => store.read().leases(),
        }
    }

    /// The leases at the first call, `None` later: changes after it are reported as news.
    pub(crate) fn take_leases(&self) -> Option<Vec<Lease>> {
        self.unseen.replace(false).then(|| self.leases())
    }

    /// The records of a store's members.
    pub(crate) fn members(&self) -> Option<Arc<Members>> {
        match &self.state {
            State::Map(_) => None,
            State::Store(store) => Some(Arc::clone(store.members())),
            State::OnDisk(store) => Some(Arc::clone(store.read().members())),
        }
    }

    /// Whether a mark is due, what a member has still to report, and the latest mark at which all members agreed.
    pub(crate) fn comparison(&self, member: u64) -> Option<(bool, Option<CompareStep>, Index)> {
        fn of<E: Engine>(store: &Store<E>, member: u64) -> (bool, Option<CompareStep>, Index) {
            (store.is_mark_due(), store.report_of(member), store.agreed_at())
        }
        match &self.state {
            State::Map(_) => None,
            State::Store(store) => Some(of(store, member)),
            State::OnDisk(store) => Some(of(store.read().store(), member)),
        }
    }

    /// The version of a store's cluster.
    pub(crate) fn cluster_version(&self) -> u32 {
        match &self.state {
            State::Map(_) => 0,
            State::Store(store) => store.cluster_version(),
            State::OnDisk(store) => store.read().store().cluster_version(),
        }
    }

    /// What a store holds beside its history and its leases.
    pub(crate) fn rest(&self) -> Option<Rest> {
        match &self.state {
            State::Map(_) => None,
            State::Store(store) => Some(Rest::of(store)),
            State::OnDisk(store) => Some(Rest::of(store.read().store())),
        }
    }

    /// Moves what was applied since the last call into `into`.
    pub(crate) fn take_news(&self, into: &mut Vec<Applied>) {
        into.append(&mut self.news.borrow_mut());
    }
}

impl Machine {
    /// The last applied index, as far as the store knows.
    pub(crate) fn applied(&self) -> Index {
        match &self.state {
            State::OnDisk(store) => store.read().applied(),
            State::Map(_) | State::Store(_) => Index(self.last),
        }
    }

    /// The last command that its file holds, maybe not durably; `None` if the state is in memory.
    pub(crate) fn written(&self) -> Option<Index> {
        match &self.state {
            State::OnDisk(store) => Some(store.read().store().written()),
            State::Map(_) | State::Store(_) => None,
        }
    }

    /// Whether its file is being rewritten.
    pub(crate) fn is_rewriting(&self) -> bool {
        matches!(&self.state, State::OnDisk(store) if store.read().store().is_rewriting())
    }

    /// Whether its file can't be read or written any more.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(&self.state, State::OnDisk(store) if store.read().fault().is_some())
    }

    /// The answer to a client that reads a key of the map, or sends this query to the store.
    pub(crate) fn look(&self, key: &str, query: &TxnRequest) -> Bytes {
        match &self.state {
            State::Map(map) => Bytes::copy_from_slice(map.get(key).as_bytes()),
            State::Store(store) => encode_reply(&store.ask(query).map(Response::Txn)),
            State::OnDisk(store) => encode_reply(&store.read().ask(&Principal::Anonymous, query).0.map(Response::Txn)),
        }
    }
}

/// Splits a snapshot into the last command, the digest after it, and the state, which begins with a letter for its
/// kind.
fn parts(snapshot: &[u8]) -> Result<(u64, u64, &[u8]), InvalidSnapshot> {
    let word = |at: usize| {
        let bytes = snapshot.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_le_bytes).ok_or_else(|| InvalidSnapshot("cut short".to_owned()))
    };
    Ok((word(0)?, word(8)?, &snapshot[16..]))
}

pub(crate) fn empty_store() -> Store<MemoryEngine> {
    Store::open(MemoryEngine::default()).expect("an empty memory can be read")
}

/// What a command of the store did.
struct Effect {
    op: u64,
    reply: Bytes,
    leases: Vec<LeaseChange>,
    writes: Vec<(Revision, Record)>,
}

/// Applies a command of the store.
fn apply_to_store(store: &mut Store<MemoryEngine>, index: Index, command: &[u8]) -> Effect {
    let reply = store.apply_bytes(index, command);
    let (leases, writes) = (store.lease_changes().to_vec(), store.take_writes());
    if index.0.is_multiple_of(4) && !store.is_scrubbed(store.compacted_revision()) {
        // The store keeps an error as its fault.
        let _ = store.scrub(SCRUB_BUDGET);
    }
    Effect { op: number_of(command).unwrap_or(u64::MAX), reply, leases, writes }
}

/// Before the number of an operation, behind its command: a field of a fixed size, which the store does not know and
/// ignores.
const NUMBER_TAG: [u8; 3] = [0xc1, 0xa9, 0x07];

/// A command of the store, with the number of its operation.
pub(crate) fn numbered(command: &[u8], op: u64) -> Bytes {
    [command, &NUMBER_TAG, &op.to_le_bytes()].concat().into()
}

/// The number of the operation whose command of the store this is. A member's own commands have none. A later version may
/// have added its own field.
pub(crate) fn number_of(command: &[u8]) -> Option<u64> {
    let command = command.strip_suffix(UNKNOWN_FIELD).unwrap_or(command);
    let (rest, number) = command.split_last_chunk()?;
    rest.ends_with(&NUMBER_TAG).then(|| u64::from_le_bytes(*number))
}

/// The value that an operation writes: its number, padded with dots to the size.
pub(crate) fn value_of(op: u64, bytes: usize) -> String {
    let mut value = op.to_string();
    value.extend(std::iter::repeat_n('.', bytes.saturating_sub(value.len())));
    value
}

/// The operation that wrote this value; `None` for the initial, empty value.
pub(crate) fn writer_of(value: &str) -> Option<u64> {
    value.trim_end_matches('.').parse().ok()
}

/// The operation and the key of a command, parsed without copying. The state machine has checked it already.
fn parse(command: &[u8]) -> Option<(u64, &str)> {
    let mut rest = std::str::from_utf8(command).ok()?;
    let mut field = || {
        let (length, tail) = rest.split_once(':')?;
        let (text, tail) = tail.split_at_checked(length.parse().ok()?)?;
        rest = tail.strip_prefix(',')?;
        Some(text)
    };
    let (_kind, origin, key) = (field()?, field()?, field()?);
    Some((origin.parse().ok()?, key))
}

impl StateMachine for Machine {
    fn apply(&mut self, index: Index, command: &[u8]) -> Bytes {
        let (mut leases, mut writes) = (Vec::new(), Vec::new());
        let (op, holds, response, did) = match &mut self.state {
            State::Map(map) => {
                let response = map.apply(index, command);
                let (op, holds) = match parse(command) {
                    Some((op, key)) => (op, writer_of(map.get(key))),
                    None => (u64::MAX, None),
                };
                (op, holds, response, holds.unwrap_or(u64::MAX))
            }
            State::Store(store) => {
                let effect = apply_to_store(store, index, command);
                let (op, reply) = (effect.op, effect.reply);
                (leases, writes) = (effect.leases, effect.writes);
                assert!(store.fault().is_none(), "a memory can be written");
                let did = digest(&reply);
                (op, None, reply, did)
            }
            State::OnDisk(_) => unreachable!("the member's workers change it"),
        };
        self.digest = mix(mix(mix(self.digest, index.0), op), did);
        self.last = index.0;
        let reply = (!matches!(self.state, State::Map(_))).then(|| response.clone());
        self.news.borrow_mut().push(Applied {
            index: index.0,
            op,
            own: None,
            holds,
            reply,
            leases,
            writes,
            digest: self.digest,
        });
        response
    }

    fn recall(&self, command: &[u8], proposed_at: Index) -> Recall {
        match &self.state {
            State::Map(map) => map.recall(command, proposed_at),
            State::Store(store) => store.recall(command, proposed_at),
            // Like a server's state machine.
            State::OnDisk(_) => Recall::Forgotten,
        }
    }

    fn snapshot(&self) -> Bytes {
        let mut out = Vec::new();
        out.extend_from_slice(&self.last.to_le_bytes());
        out.extend_from_slice(&self.digest.to_le_bytes());
        let (kind, state) = match &self.state {
            State::Map(map) => (b'm', map.snapshot()),
            State::Store(store) => (b's', store.snapshot()),
            State::OnDisk(_) => unreachable!("the member's workers make its snapshots"),
        };
        out.push(kind);
        out.extend_from_slice(&state);
        out.into()
    }

    fn restore(snapshot: &[u8]) -> Result<Machine, InvalidSnapshot> {
        let (last, digest, state) = parts(snapshot)?;
        let state = match state {
            [b'm', map @ ..] => State::Map(Map::restore(map)?),
            [b's', store @ ..] => State::Store(Box::new(<Store<MemoryEngine> as StateMachine>::restore(store)?)),
            _ => return Err(InvalidSnapshot("neither a map nor a store".to_owned())),
        };
        Ok(Machine::at(state, last, digest))
    }
}

/// The command of an operation. Its number is the origin, so that a second try changes nothing.
pub(crate) fn command_of(op: u64, key: &str, bytes: usize) -> Bytes {
    Command::Put { origin: op.to_string(), key: key.to_owned(), value: value_of(op, bytes) }.encode()
}
