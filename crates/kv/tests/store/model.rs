//! The store against a model that keeps a copy of the whole map for each revision.

use std::collections::BTreeMap;

use bowline_kv::store::*;
use bowline_node::raft::Index;
use proptest::prelude::*;
use redb::backends::InMemoryBackend;

use crate::bench::*;

/// A few keys, so that they meet.
const KEYS: [&str; 6] = ["a", "ab", "b", "c", "cc", "d"];

/// A few leases, likewise.
const LEASES: std::ops::RangeInclusive<i64> = 1..=3;

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: usize,
        value: u8,
        prev_kv: bool,
        ignore_value: bool,
        /// One of the leases; `None` for none, or for the one that it has.
        lease: Option<i64>,
        ignore_lease: bool,
    },
    Delete {
        from: usize,
        to: Option<usize>,
        prev_kv: bool,
    },
    Txn {
        compare: (usize, i64),
        then: Vec<Step>,
        otherwise: Vec<Step>,
    },
    Compact {
        back: i64,
    },
    Grant(i64),
    Revoke(i64),
    /// Leases that are believed to be granted so many entries ago.
    Expire(Vec<(i64, u64)>),
    ClusterVersion(u32),
    Alarm {
        member: u64,
        kind: AlarmKind,
        automatic: bool,
        active: bool,
    },
    Range {
        from: usize,
        to: Option<usize>,
        back: i64,
        limit: i64,
    },
    /// Not of the log: what the host does in between.
    Scrub(usize),
    Flush,
    Reopen,
}

fn some_step() -> impl Strategy<Value = Step> {
    let write = prop_oneof![
        4 => (
            0..KEYS.len(), any::<u8>(), any::<bool>(), prop::bool::weighted(0.2),
            prop::option::weighted(0.4, LEASES), prop::bool::weighted(0.2),
        ).prop_map(|(key, value, prev_kv, ignore_value, lease, ignore_lease)| {
            Step::Put { key, value, prev_kv, ignore_value, lease, ignore_lease }
        }),
        2 => (0..KEYS.len(), prop::option::of(0..KEYS.len()), any::<bool>())
            .prop_map(|(from, to, prev_kv)| Step::Delete { from, to, prev_kv }),
        2 => (0..KEYS.len(), prop::option::of(0..KEYS.len()), -1..6_i64, -1..4_i64)
            .prop_map(|(from, to, back, limit)| Step::Range { from, to, back, limit }),
    ];
    let txn = write.clone().prop_recursive(2, 8, 3, |step| {
        let steps = || prop::collection::vec(step.clone(), 0..3);
        ((0..KEYS.len(), 0..3_i64), steps(), steps()).prop_map(|(compare, then, otherwise)| Step::Txn {
            compare,
            then,
            otherwise,
        })
    });
    prop_oneof![
        6 => write,
        4 => txn,
        1 => (-2..8_i64).prop_map(|back| Step::Compact { back }),
        2 => LEASES.prop_map(Step::Grant),
        1 => LEASES.prop_map(Step::Revoke),
        1 => prop::collection::vec((LEASES, 1..9_u64), 1..3).prop_map(Step::Expire),
        1 => (0..4_u32).prop_map(Step::ClusterVersion),
        3 => some_alarm(),
        1 => (1..5_usize).prop_map(Step::Scrub),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

/// Mostly the end of an alarm, so that more than alarms is tested.
fn some_alarm() -> impl Strategy<Value = Step> {
    let kinds = prop::sample::select(vec![AlarmKind::None, AlarmKind::NoSpace, AlarmKind::Corrupt]);
    (1..=2_u64, kinds, any::<bool>(), prop::bool::weighted(0.25))
        .prop_map(|(member, kind, automatic, active)| Step::Alarm { member, kind, automatic, active })
}

type Map = BTreeMap<Vec<u8>, KeyValue>;

/// The whole map at each revision.
struct Model {
    maps: Vec<(i64, Map)>,
    compacted: i64,
    compactions: usize,
    /// The checksums that the store told before the compactions, of those that leave a key, with their number.
    hashes: Vec<(usize, HashKv)>,
    /// What granted each lease.
    leases: BTreeMap<i64, Index>,
    cluster_version: u32,
    /// The active alarms by member and kind: whether each is automatic.
    alarms: BTreeMap<(u64, i32), bool>,
}

/// What a transaction works on: the map, whether it changed, and the revision that it gets.
struct Draft {
    map: Map,
    written: bool,
    next: i64,
}

impl Model {
    fn new() -> Model {
        let (maps, hashes, leases) = (vec![(1, Map::new())], Vec::new(), BTreeMap::new());
        let alarms = BTreeMap::new();
        Model { maps, compacted: -1, compactions: 0, hashes, leases, cluster_version: 0, alarms }
    }

    fn revision(&self) -> i64 {
        self.maps.last().expect("there is always one").0
    }

    fn is_active(&self, kind: AlarmKind) -> bool {
        self.alarms.keys().any(|(_, active)| *active == i32::from(kind))
    }

    fn refuse_corrupt(&self) -> Result<(), KvError> {
        if self.is_active(AlarmKind::Corrupt) { Err(KvError::Corrupt) } else { Ok(()) }
    }

    /// What a client reads.
    fn read(&self, range: &RangeRequest) -> Result<RangeResponse, KvError> {
        self.refuse_corrupt()?;
        self.range(&self.draft(), range)
    }

    fn alarm(&mut self, request: &AlarmRequest) -> Response {
        let AlarmRequest { member, kind, automatic, active } = *request;
        let before = self.alarms.get(&(member, kind)).copied();
        let changed = match (before, active) {
            _ if kind == i32::from(AlarmKind::None) => None,
            (before, true) => Some(automatic && before != Some(false)),
            (Some(before), false) if before || !automatic => Some(before),
            (_, false) => None,
        };
        if let Some(automatic) = changed {
            self.alarms.remove(&(member, kind));
            if active {
                self.alarms.insert((member, kind), automatic);
            }
        }
        let alarms = changed.map(|automatic| Alarm { member, kind, automatic }).into_iter().collect();
        Response::Alarm(AlarmResponse { revision: self.revision(), alarms })
    }

    /// Whether an operation is a put, or a transaction with one.
    fn puts(op: &RequestOp) -> bool {
        match &op.operation {
            Some(Operation::Put(_)) => true,
            Some(Operation::Txn(txn)) => txn.success.iter().chain(&txn.failure).any(Model::puts),
            _ => false,
        }
    }

    fn refuse_alarmed(&self, command: &Command) -> Result<(), KvError> {
        let needs_space = match command {
            Command::Alarm(_) | Command::ClusterVersion(_) | Command::Member(_) | Command::Compare(_) => return Ok(()),
            Command::Put(_) | Command::LeaseGrant(_) => true,
            Command::Txn(txn) => txn.success.iter().chain(&txn.failure).any(Model::puts),
            _ => false,
        };
        self.refuse_corrupt()?;
        if needs_space && self.is_active(AlarmKind::NoSpace) { Err(KvError::NoSpace) } else { Ok(()) }
    }

    /// A compaction will be applied: its checksum must be this one from then on.
    fn remember(&mut self, compaction: i64, told: Result<HashKv, KvError>) {
        if compaction > self.compacted && compaction <= self.revision() {
            self.compactions += 1;
            let told = told.expect("it is readable until then");
            if self.maps.iter().any(|(revision, map)| *revision == compaction && !map.is_empty()) {
                self.hashes.push((self.compactions, told));
            }
        }
    }

    /// The checksums of the last ten compactions.
    fn kept(&self) -> impl Iterator<Item = HashKv> {
        let kept = self.hashes.iter().filter(|(number, _)| number + 10 > self.compactions);
        kept.map(|(_, hash)| HashKv { revision: self.revision(), ..*hash })
    }

    fn draft(&self) -> Draft {
        Draft {
            map: self.maps.last().expect("there is always one").1.clone(),
            written: false,
            next: self.revision() + 1,
        }
    }

    fn apply(&mut self, index: Index, command: &Command) -> Reply {
        self.refuse_alarmed(command)?;
        let mut draft = self.draft();
        let reply = match command {
            Command::Put(put) => self.put(&mut draft, put).map(Response::Put)?,
            Command::DeleteRange(delete) => Response::DeleteRange(draft.delete(delete)),
            Command::Txn(txn) => {
                let before = self.draft();
                self.check(&before, txn)?;
                let mut response = self.txn(&before, &mut draft, txn)?;
                response.revision = draft.revision();
                Response::Txn(response)
            }
            Command::Compact(CompactionRequest { revision, .. }) => {
                if *revision <= self.compacted {
                    return Err(KvError::Compacted);
                }
                if *revision > self.revision() {
                    return Err(KvError::FutureRevision);
                }
                self.compacted = *revision;
                return Ok(Response::Compact(CompactionResponse { revision: self.revision() }));
            }
            Command::LeaseGrant(LeaseGrantRequest { id, ttl }) => {
                if self.leases.contains_key(id) {
                    return Err(KvError::LeaseExists);
                }
                self.leases.insert(*id, index);
                let (revision, id, ttl) = (self.revision(), *id, *ttl);
                return Ok(Response::LeaseGrant(LeaseGrantResponse { revision, id, ttl }));
            }
            Command::LeaseRevoke(LeaseRevokeRequest { id }) => {
                self.leases.remove(id).ok_or(KvError::LeaseNotFound)?;
                draft.end_lease(*id);
                Response::LeaseRevoke(LeaseRevokeResponse { revision: draft.revision() })
            }
            Command::LeaseExpire(LeaseExpireRequest { leases }) => return Ok(self.expire(leases)),
            Command::ClusterVersion(ClusterVersionRequest { version }) => {
                self.cluster_version = self.cluster_version.max(*version);
                let (revision, version) = (self.revision(), self.cluster_version);
                return Ok(Response::ClusterVersion(ClusterVersionResponse { revision, version }));
            }
            Command::Alarm(alarm) => return Ok(self.alarm(alarm)),
            Command::Member(_) | Command::Compare(_) | Command::Auth(_) => unreachable!("their tests are apart"),
        };
        if draft.written {
            self.maps.push((draft.next, draft.map));
        }
        Ok(reply)
    }

    fn expire(&mut self, leases: &[ExpiredLease]) -> Response {
        let mut expired = 0;
        for ExpiredLease { id, granted_at } in leases {
            if self.leases.get(id) == Some(&Index(*granted_at)) {
                self.leases.remove(id);
                expired += 1;
                let mut draft = self.draft();
                draft.end_lease(*id);
                if draft.written {
                    self.maps.push((draft.next, draft.map));
                }
            }
        }
        Response::LeaseExpire(LeaseExpireResponse { revision: self.revision(), expired })
    }

    fn check_lease(&self, lease: i64) -> Result<(), KvError> {
        if lease == 0 || self.leases.contains_key(&lease) { Ok(()) } else { Err(KvError::LeaseNotFound) }
    }

    fn put(&self, draft: &mut Draft, put: &PutRequest) -> Result<PutResponse, KvError> {
        let old = draft.map.get(&put.key[..]).cloned();
        self.check_lease(put.lease)?;
        if (put.ignore_value || put.ignore_lease) && old.is_none() {
            return Err(KvError::KeyNotFound);
        }
        let new = KeyValue {
            key: put.key.clone(),
            create_revision: old.as_ref().map_or(draft.next, |old| old.create_revision),
            mod_revision: draft.next,
            version: old.as_ref().map_or(1, |old| old.version + 1),
            value: if put.ignore_value { old.clone().expect("checked").value } else { put.value.clone() },
            lease: if put.ignore_lease { old.clone().expect("checked").lease } else { put.lease },
        };
        draft.map.insert(put.key.to_vec(), new);
        draft.written = true;
        Ok(PutResponse { revision: draft.next, prev_kv: old.filter(|_| put.prev_kv) })
    }

    fn branch<'a>(before: &Draft, txn: &'a TxnRequest) -> (bool, &'a [RequestOp]) {
        let holds = txn.compare.iter().all(|compare| {
            let Some(CompareTarget::Version(operand)) = compare.target else { panic!("the model compares versions") };
            before.map.get(&compare.key[..]).map_or(0, |kv| kv.version) > operand
        });
        (holds, if holds { &txn.success } else { &txn.failure })
    }

    /// What is held against the state before the transaction.
    fn check(&self, before: &Draft, txn: &TxnRequest) -> Result<(), KvError> {
        Model::branch(before, txn).1.iter().try_for_each(|op| match &op.operation {
            Some(Operation::Range(range)) if range.revision > self.revision() => Err(KvError::FutureRevision),
            Some(Operation::Range(range)) if range.revision != 0 && range.revision < self.compacted => {
                Err(KvError::Compacted)
            }
            Some(Operation::Put(put))
                if (put.ignore_value || put.ignore_lease) && !before.map.contains_key(&put.key[..]) =>
            {
                Err(KvError::KeyNotFound)
            }
            Some(Operation::Put(put)) => self.check_lease(put.lease),
            Some(Operation::Txn(txn)) => self.check(before, txn),
            _ => Ok(()),
        })
    }

    fn txn(&self, before: &Draft, draft: &mut Draft, txn: &TxnRequest) -> Result<TxnResponse, KvError> {
        let (succeeded, ops) = Model::branch(before, txn);
        let responses = ops.iter().map(|op| {
            Ok(match &op.operation {
                Some(Operation::Range(range)) => OperationResponse::Range(self.range(draft, range)?).into(),
                Some(Operation::Put(put)) => OperationResponse::Put(self.put(draft, put)?).into(),
                Some(Operation::DeleteRange(delete)) => OperationResponse::DeleteRange(draft.delete(delete)).into(),
                Some(Operation::Txn(txn)) => OperationResponse::Txn(Box::new(self.txn(before, draft, txn)?)).into(),
                None => panic!("the model makes none"),
            })
        });
        Ok(TxnResponse { revision: 0, succeeded, responses: responses.collect::<Result<_, KvError>>()? })
    }

    fn range(&self, draft: &Draft, range: &RangeRequest) -> Result<RangeResponse, KvError> {
        if range.revision > draft.revision() {
            return Err(KvError::FutureRevision);
        }
        let at = if range.revision <= 0 { draft.revision() } else { range.revision };
        if at < self.compacted {
            return Err(KvError::Compacted);
        }
        let map = match self.maps.iter().rev().find(|(revision, _)| *revision <= at) {
            Some((_, map)) if at < draft.revision() || !draft.written => map,
            _ => &draft.map,
        };
        let mut kvs: Vec<_> = within(map, &range.key, &range.range_end).cloned().collect();
        let count = kvs.len() as i64;
        let more = range.limit > 0 && count > range.limit;
        if more {
            kvs.truncate(range.limit as usize);
        }
        Ok(RangeResponse { revision: draft.revision(), kvs, more, count })
    }
}

impl Draft {
    fn revision(&self) -> i64 {
        self.next - i64::from(!self.written)
    }

    /// All its keys go at one revision.
    fn end_lease(&mut self, id: i64) {
        let before = self.map.len();
        self.map.retain(|_, kv| kv.lease != id);
        self.written |= self.map.len() < before;
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let old: Vec<_> = within(&self.map, &delete.key, &delete.range_end).cloned().collect();
        self.map.retain(|key, _| !old.iter().any(|old| old.key == key[..]));
        self.written |= !old.is_empty();
        let deleted = old.len() as i64;
        let prev_kvs = if delete.prev_kv { old } else { Vec::new() };
        DeleteRangeResponse { revision: self.revision(), deleted, prev_kvs }
    }
}

fn within<'a>(map: &'a Map, key: &'a [u8], end: &'a [u8]) -> impl Iterator<Item = &'a KeyValue> {
    map.values().filter(move |kv| match end {
        [] => kv.key == key,
        [0] => kv.key >= key,
        _ => kv.key >= key && kv.key < end,
    })
}

/// The command of a step, as a client would send it.
fn command(step: &Step, revision: i64, index: u64) -> Option<Command> {
    Some(match op(step, revision) {
        Some(Operation::Put(put)) => Command::Put(put),
        Some(Operation::DeleteRange(delete)) => Command::DeleteRange(delete),
        Some(Operation::Txn(txn)) => Command::Txn(*txn),
        Some(_) => return None,
        None => match step {
            Step::Compact { back } => {
                Command::Compact(CompactionRequest { revision: revision - back, physical: false })
            }
            Step::Grant(id) => Command::LeaseGrant(LeaseGrantRequest { id: *id, ttl: 10 + *id }),
            Step::Revoke(id) => Command::LeaseRevoke(LeaseRevokeRequest { id: *id }),
            Step::Expire(leases) => {
                let expired = |(id, ago): &(i64, u64)| ExpiredLease { id: *id, granted_at: index.saturating_sub(*ago) };
                let leases = leases.iter().map(expired).collect();
                Command::LeaseExpire(LeaseExpireRequest { leases })
            }
            Step::ClusterVersion(version) => Command::ClusterVersion(ClusterVersionRequest { version: *version }),
            Step::Alarm { member, kind, automatic, active } => {
                let (member, kind, automatic, active) = (*member, (*kind).into(), *automatic, *active);
                Command::Alarm(AlarmRequest { member, kind, automatic, active })
            }
            _ => return None,
        },
    })
}

fn op(step: &Step, revision: i64) -> Option<Operation> {
    let end = |to: &Option<usize>| bytes(to.map_or("", |to| KEYS.get(to + 1).copied().unwrap_or("\0")));
    let ops = |steps: &[Step]| steps.iter().filter_map(|step| op(step, revision).map(RequestOp::from)).collect();
    Some(match step {
        Step::Put { key, value, prev_kv, ignore_value, lease, ignore_lease } => Operation::Put(PutRequest {
            key: bytes(KEYS[*key]),
            value: if *ignore_value { bytes("") } else { vec![*value].into() },
            prev_kv: *prev_kv,
            ignore_value: *ignore_value,
            lease: lease.filter(|_| !ignore_lease).unwrap_or(0),
            ignore_lease: *ignore_lease,
        }),
        Step::Delete { from, to, prev_kv } => Operation::DeleteRange(DeleteRangeRequest {
            key: bytes(KEYS[*from]),
            range_end: end(to),
            prev_kv: *prev_kv,
        }),
        Step::Range { from, to, back, limit } => Operation::Range(RangeRequest {
            key: bytes(KEYS[*from]),
            range_end: end(to),
            revision: if *back == 0 { 0 } else { revision - back },
            limit: *limit,
            ..RangeRequest::default()
        }),
        Step::Txn { compare, then, otherwise } => Operation::Txn(Box::new(TxnRequest {
            compare: vec![crate::bench::compare(
                KEYS[compare.0],
                CompareResult::Greater,
                CompareTarget::Version(compare.1),
            )],
            success: ops(then),
            failure: ops(otherwise),
        })),
        Step::Compact { .. } | Step::Grant(_) | Step::Revoke(_) | Step::Expire(_) | Step::ClusterVersion(_) => {
            return None;
        }
        Step::Alarm { .. } => return None,
        Step::Scrub(_) | Step::Flush | Step::Reopen => return None,
    })
}

fn alarms<E: Engine>(store: &Store<E>) -> BTreeMap<(u64, i32), bool> {
    store.alarms().map(|Alarm { member, kind, automatic }| ((member, kind), automatic)).collect()
}

/// One store on each kind of engine, which must never differ, and the model.
fn follow<E: Engine>(steps: &[Step], engine: E, reopen: impl Fn(Store<E>) -> E) -> Result<Vec<u8>, TestCaseError> {
    let mut model = Model::new();
    let mut store = Store::open(engine).expect("the engine works");
    for (index, step) in (1..).zip(steps) {
        match step {
            Step::Scrub(budget) => drop(store.scrub(*budget).expect("the engine works")),
            Step::Flush => store.flush().expect("the engine works"),
            Step::Reopen => {
                store.checkpoint().expect("the engine works");
                let (keys, hash) = (store.len(), store.hash_kv(0));
                store = Store::open(reopen(store)).expect("the engine works");
                prop_assert_eq!((store.len(), store.hash_kv(0)), (keys, hash));
            }
            _ => {}
        }
        if let Some(command) = command(step, model.revision(), index) {
            // What the server would not propose gets no further, and the model knows nothing of it.
            if command.check(&Limits::default()).is_ok() {
                let at = Index(index);
                if let (Command::Compact(CompactionRequest { revision, .. }), Ok(())) =
                    (&command, model.refuse_corrupt())
                {
                    let revision = *revision;
                    model.remember(revision, store.hash_kv(revision));
                }
                prop_assert_eq!(store.apply_command(at, &command), model.apply(at, &command), "{:?}", command);
            }
        }
        if let Some(Operation::Range(range)) = op(step, model.revision()) {
            prop_assert_eq!(store.range(&range), model.read(&range), "{:?}", range);
        }
        let now = model.draft();
        prop_assert_eq!(store.range(&everything()), model.read(&everything()));
        prop_assert_eq!((store.revision(), store.len()), (model.revision(), now.map.len() as u64));
        prop_assert_eq!(store.cluster_version(), model.cluster_version);
        prop_assert_eq!(alarms(&store), model.alarms.clone());
        for hash in model.kept() {
            prop_assert_eq!(store.hash_kv(hash.hash_revision), Ok(hash));
        }
        let leases: Vec<_> = store.leases().map(|lease| (lease.id, lease.granted_at)).collect();
        prop_assert_eq!(leases, model.leases.iter().map(|(id, at)| (*id, *at)).collect::<Vec<_>>());
        for id in LEASES {
            let found = store.ask(&LeaseTimeToLiveRequest { id, keys: true }).map(|found| found.keys);
            let attached = || now.map.values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect();
            prop_assert_eq!(found, model.refuse_corrupt().map(|()| attached()));
        }
    }
    for at in model.compacted.max(1)..=model.revision() {
        let range = RangeRequest { revision: at, ..everything() };
        prop_assert_eq!(store.range(&range), model.read(&range));
    }
    let mut snapshot = Vec::new();
    store
        .dump()
        .and_then(|dump| dump.write_to(&mut snapshot).map_err(|error| EngineError::new("dump", error)))
        .expect("the engine works");
    let restored = Store::restore_from(MemoryEngine::default(), &mut &snapshot[..]).expect("it is one");
    prop_assert_eq!(restored.cluster_version(), model.cluster_version);
    prop_assert_eq!(alarms(&restored), model.alarms.clone());
    for hash in model.kept() {
        prop_assert_eq!(restored.hash_kv(hash.hash_revision), Ok(hash));
    }
    Ok(snapshot)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_store_in_memory_is_the_model(steps in prop::collection::vec(some_step(), 1..60)) {
        follow(&steps, MemoryEngine::default(), |store| store.engine().clone())?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_store_in_redb_is_the_model_and_has_the_same_snapshot(steps in prop::collection::vec(some_step(), 1..40)) {
        let folder = tempfile::tempdir().expect("there is room");
        let path = folder.path().join("kv.redb");
        let engine = RedbEngine::open(&path, 1 << 20).expect("there is room");
        let on_disk = follow(&steps, engine, |store| {
            drop(store);
            RedbEngine::open(&path, 1 << 20).expect("the file is whole")
        })?;
        let in_memory = follow(&steps, MemoryEngine::default(), |store| store.engine().clone())?;
        prop_assert_eq!(on_disk, in_memory);
    }
}

#[test]
fn redb_runs_on_any_backend() {
    let step = Step::Put { key: 1, value: 2, prev_kv: true, ignore_value: false, lease: None, ignore_lease: false };
    let steps = [step, Step::Flush, Step::Scrub(1)];
    let engine = RedbEngine::with_backend(InMemoryBackend::new(), 1 << 20).expect("memory does not fail");
    follow(&steps, engine, |_| unreachable!("it is not opened again")).expect("it is the model");
}
