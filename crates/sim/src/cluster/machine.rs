//! The state machine of the simulated replicas: a production one (the map of the LAN protocol, or the multi-version
//! store of the etcd API, in memory or in a file), which also reports to the oracle what it applied.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use bowline_kv::store::{
    Alarm, CompareStep, Engine, EngineError, HashKv, KvError, Lease, LeaseChange, Members, MemoryEngine, Record,
    Response, Revision, Store, TxnRequest, encode_reply,
};
use bowline_kv::watch::History;
use bowline_lan::map::{Command, Map};
use bowline_member::KvMachine;
use bowline_node::{InvalidSnapshot, Recall, StateMachine};
use bowline_raft::{Entry, Index, Payload, Term};
use bytes::Bytes;

use crate::cluster::oracle::{digest, mix};

/// What one command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    /// The client's operation.
    pub(crate) op: u64,
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
const SCRUB_BUDGET: usize = 8;
/// After this many entries a store in a file writes out what waits, even if it is little.
const FLUSH_EVERY: u64 = 16;

/// The version of the peer protocol of all simulated programs.
const PROGRAM: u32 = u32::MAX;

/// A production state machine.
#[derive(Debug)]
enum State {
    Map(Map),
    Store(Box<Store<MemoryEngine>>),
    /// A member's store, in a file.
    OnDisk(Box<KvMachine>),
}

/// The production state, with a running digest of the commands applied.
#[derive(Debug)]
pub(crate) struct Machine {
    state: State,
    last: u64,
    digest: u64,
    /// Whether the disk has room for what a store in a file may write.
    room: bool,
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
        Machine { state, last, digest, room: true, news: RefCell::default(), unseen: Cell::new(true) }
    }

    /// A member's store, with the last command in it and the digest after that.
    pub(crate) fn on_disk(store: KvMachine, (last, digest): (u64, u64)) -> Machine {
        Machine::at(State::OnDisk(Box::new(store)), last, digest)
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
            State::OnDisk(store) => store.store().hash_kv(revision).ok(),
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

    /// The history of a store.
    pub(crate) fn history(&self) -> Option<&dyn History> {
        match &self.state {
            State::Map(_) => None,
            State::Store(store) => Some(&**store),
            State::OnDisk(store) => Some(store.store()),
        }
    }

    /// The latest revision of a store.
    pub(crate) fn revision(&self) -> i64 {
        self.history().map_or(0, History::revision)
    }

    /// The oldest readable revision of a store.
    pub(crate) fn compacted_revision(&self) -> i64 {
        self.history().map_or(-1, History::compacted_revision)
    }

    /// Sets the index of the last command, and the digest after it.
    pub(crate) fn set_witness(&mut self, (last, digest): (u64, u64)) {
        (self.last, self.digest) = (last, digest);
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
            State::OnDisk(store) => store.leases(),
        }
    }

    /// The leases at the first call, `None` later: changes after it are reported as news.
    pub(crate) fn take_leases(&self) -> Option<Vec<Lease>> {
        self.unseen.replace(false).then(|| self.leases())
    }

    /// The records of a store's members.
    pub(crate) fn members(&self) -> Option<&Arc<Members>> {
        match &self.state {
            State::Map(_) => None,
            State::Store(store) => Some(store.members()),
            State::OnDisk(store) => Some(store.store().members()),
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
            State::OnDisk(store) => Some(of(store.store(), member)),
        }
    }

    /// The version of a store's cluster.
    pub(crate) fn cluster_version(&self) -> u32 {
        match &self.state {
            State::Map(_) => 0,
            State::Store(store) => store.cluster_version(),
            State::OnDisk(store) => store.store().cluster_version(),
        }
    }

    /// What a store holds beside its history and its leases.
    pub(crate) fn rest(&self) -> Option<Rest> {
        match &self.state {
            State::Map(_) => None,
            State::Store(store) => Some(Rest::of(store)),
            State::OnDisk(store) => Some(Rest::of(store.store())),
        }
    }

    /// Moves what was applied since the last call into `into`.
    pub(crate) fn take_news(&self, into: &mut Vec<Applied>) {
        into.append(&mut self.news.borrow_mut());
    }
}

/// Of a store in a file. Without one there is nothing to do.
impl Machine {
    /// The last applied index, as far as the store knows.
    pub(crate) fn applied(&self) -> Index {
        match &self.state {
            State::OnDisk(store) => store.applied(),
            _ => Index(self.last),
        }
    }

    /// Sets whether what waits may be written.
    pub(crate) fn set_room(&mut self, room: bool) {
        self.room = room;
    }

    /// Passes over an entry that is not a command.
    pub(crate) fn pass_over(&mut self, entry: &Entry) {
        if let State::OnDisk(store) = &mut self.state {
            store.apply(std::slice::from_ref(entry), &(), PROGRAM);
        }
    }

    /// The member's store, if the state is in a file.
    pub(crate) fn in_file(&mut self) -> Option<&mut KvMachine> {
        match &mut self.state {
            State::OnDisk(store) => Some(store),
            State::Map(_) | State::Store(_) => None,
        }
    }

    /// The answer to a client that reads a key of the map, or sends this query to the store.
    pub(crate) fn look(&self, key: &str, query: &TxnRequest) -> Bytes {
        match &self.state {
            State::Map(map) => Bytes::copy_from_slice(map.get(key).as_bytes()),
            State::Store(store) => encode_reply(&store.ask(query).map(Response::Txn)),
            State::OnDisk(store) => encode_reply(&store.ask(query).0.map(Response::Txn)),
        }
    }

    /// Why it can't go on, if it can't.
    pub(crate) fn fault(&self) -> Option<&EngineError> {
        match &self.state {
            State::OnDisk(store) => store.fault(),
            _ => None,
        }
    }
}

/// Splits a snapshot into the last command, the digest after it, and the state, which begins with a letter for its
/// kind.
pub(crate) fn parts(snapshot: &[u8]) -> Result<(u64, u64, &[u8]), InvalidSnapshot> {
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

/// Applies a command of the store, which follows the number of its operation.
fn apply_to_store(store: &mut Store<MemoryEngine>, index: Index, command: &[u8]) -> Effect {
    let Some((number, command)) = command.split_first_chunk() else {
        let reply = encode_reply(&Err(KvError::Unreadable));
        return Effect { op: u64::MAX, reply, leases: Vec::new(), writes: Vec::new() };
    };
    let reply = store.apply_bytes(index, command);
    let (leases, writes) = (store.lease_changes().to_vec(), store.take_writes());
    if index.0.is_multiple_of(4) && !store.is_scrubbed(store.compacted_revision()) {
        // The store keeps an error as its fault.
        let _ = store.scrub(SCRUB_BUDGET);
    }
    Effect { op: u64::from_le_bytes(*number), reply, leases, writes }
}

/// The number of an operation, and its command as a member gets it.
fn entry_of(index: Index, command: &[u8]) -> (u64, Entry) {
    let (op, command) = match command.split_first_chunk() {
        Some((number, command)) => (u64::from_le_bytes(*number), command),
        // The store refuses it.
        None => (u64::MAX, command),
    };
    let payload = Payload::Command(Bytes::copy_from_slice(command));
    (op, Entry { index, term: Term(0), payload })
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
            State::OnDisk(store) => {
                let (op, entry) = entry_of(index, command);
                let applied = store.apply(&[entry], &(), PROGRAM).pop().expect("it is a command");
                let reply = applied.response;
                (leases, writes) = (applied.leases, applied.writes);
                // The store keeps an error as its fault.
                if self.room && index.0.is_multiple_of(4) && store.is_untidy() {
                    let _ = store.tidy(SCRUB_BUDGET, &());
                }
                if self.room && index.0.is_multiple_of(FLUSH_EVERY) {
                    let _ = store.flush();
                }
                if store.fault().is_some() {
                    // The effect is not reported, because the state must not be used any more.
                    return reply;
                }
                let did = digest(&reply);
                (op, None, reply, did)
            }
        };
        self.digest = mix(mix(mix(self.digest, index.0), op), did);
        self.last = index.0;
        let reply = (!matches!(self.state, State::Map(_))).then(|| response.clone());
        self.news.borrow_mut().push(Applied { index: index.0, op, holds, reply, leases, writes, digest: self.digest });
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
            State::OnDisk(store) => {
                let mut out = Vec::new();
                // A dump that fails gives an empty snapshot, which nobody accepts.
                let written = store.dump().map(|dump| dump.write_to(&mut out));
                (b's', if matches!(written, Ok(Ok(_))) { out.into() } else { Bytes::new() })
            }
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
