//! The clients: they read and write, follow redirects, try again, give up, and record their answers. Some order of the
//! operations must explain the recorded history.

use std::collections::{BTreeMap, BTreeSet};

use bowline_checker::registers::{Action, Operation, Options, check};
use bowline_checker::{Verdict, keys};
use bowline_kv::store::{Command, KvError, Lease, LeaseChange, MemoryEngine, Reply, Store, TxnRequest};
use bowline_member::LeaderRequest;
use bowline_node::{Failure, NodeInput, NotDone, Response, StateMachine, StoredSnapshot};
use bowline_raft::{Index, NodeId, ReadKind, Time, Token};
use bytes::Bytes;

use crate::cluster::clock::Moment;
use crate::cluster::context::Context;
use crate::cluster::dice::Dice;
use crate::cluster::event::Event;
use crate::cluster::faults::Fault;
use crate::cluster::host::{Asker, Host};
use crate::cluster::machine::{Applied, Machine, Rest, command_of, empty_store, value_of, writer_of};
use crate::cluster::network::Network;
use crate::cluster::oracle::{Judged, Oracle, Rule, digest};
use crate::cluster::plan::{MILLI, Sabotage, Workload};
use crate::cluster::shape::{Asked, History, Seen, Shape, by_key, reply_of, revision_of, seen};
use crate::cluster::trace::describe_response;
use crate::cluster::watchers::TrueEvents;

/// Maximum size of a value above the limits (K3), in bytes.
const HUGE: u64 = 30_000;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consistency {
    /// It sees every write that was acknowledged before it began.
    Linearizable(ReadKind),
    /// It may see an earlier state, that of the replica that is asked.
    Serializable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write { bytes: usize },
    Read(Consistency),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Open,
    Done,
    Unknown,
    /// It has not taken effect and never will.
    Denied,
}

#[derive(Clone, Debug)]
struct Op {
    client: usize,
    key: u64,
    kind: Kind,
    /// The request to the store, if the state machine is one.
    shape: Shape,
    /// The store's reply, as the client received it.
    told: Option<Bytes>,
    call: Moment,
    ret: Option<Moment>,
    /// When it ended, with any outcome.
    ended: Option<Moment>,
    /// For a read: the operation that wrote the returned value.
    read: Option<u64>,
    attempt: u32,
    /// How often another replica was chosen because the one asked could not help.
    turns: usize,
    /// It waits for its next try. Until then an answer to an earlier try starts no other.
    resting: bool,
    end: End,
    /// Its own dice, so that leaving out this operation changes no other.
    dice: Dice,
}

/// How a replica handles a request.
pub(crate) enum Request {
    /// It takes an input.
    Step(NodeInput),
    /// It has a request of a client that only the leader can serve.
    ToLeader { token: Token, request: LeaderRequest, deadline: Option<Time> },
    /// It answers at once from its own state. `known` entries were committed anywhere when it was asked.
    ReadAtOnce { known: u64 },
}

/// An operation, as the page shows it.
#[derive(Clone, Debug)]
pub(crate) struct OperationSeen {
    pub(crate) number: u64,
    pub(crate) client: usize,
    /// Its key and the value that it writes or read.
    pub(crate) what: String,
    pub(crate) key: String,
    pub(crate) writes: bool,
    pub(crate) call: Moment,
    pub(crate) ended: Option<Moment>,
    /// done, unknown, denied or open.
    pub(crate) end: &'static str,
}

#[derive(Debug)]
pub(crate) struct Clients {
    ops: Vec<Op>,
    done: u64,
    /// By client: the host that it believes to be the leader.
    guess: Vec<usize>,
    /// By key: the operation that wrote its value, after everything applied so far.
    model: Vec<Option<u64>>,
    /// Present if the state machine is a store.
    store: Option<StoreSide>,
    /// The next write is huge.
    pub(crate) huge: bool,
    /// No more operations begin.
    pub(crate) stopped: bool,
}

impl Op {
    fn asked(&self, op: u64) -> Asked {
        let bytes = if let Kind::Write { bytes } = self.kind { bytes } else { 0 };
        Asked { op, key: self.key, bytes, shape: self.shape }
    }
}

/// How many records of states are compared for each command in the log.
const COMPARED_RECORDS: u64 = 256;

/// The expected state of the store, kept apart from the replicas.
#[derive(Debug)]
struct StoreSide {
    history: History,
    /// A store that replays every command of the log once.
    replay: Store<MemoryEngine>,
    /// What that store has written, for watchers.
    events: TrueEvents,
    /// By identity: the changes of a lease, with the index of each.
    leases: BTreeMap<i64, Vec<(u64, Option<Lease>)>>,
    /// What else the store held, from which index on.
    rest: Vec<(u64, Rest)>,
    /// By operation: the digest of the store's reply; 0 if there is none.
    replies: Vec<u64>,
    /// By key: the value that was seen last.
    seen: Vec<Option<Seen>>,
    /// By client: the highest revision in its answers.
    told: Vec<i64>,
    /// How many more records of states may be compared.
    allowance: u64,
}

impl StoreSide {
    fn new(workload: &Workload) -> StoreSide {
        let mut replay = empty_store();
        replay.note_writes();
        StoreSide {
            history: History::default(),
            replay,
            events: TrueEvents::default(),
            leases: BTreeMap::new(),
            rest: Vec::new(),
            replies: Vec::new(),
            seen: vec![None; workload.keys as usize],
            told: vec![0; workload.clients],
            allowance: 0,
        }
    }

    /// Whether a state that was just stored is to be compared. Each costs its records. The first ones are all compared,
    /// and later, when there are many records, only some: what is wrong in a state stays wrong until the next time.
    fn may_compare(&mut self) -> bool {
        let records = self.replay.revision() - self.replay.compacted_revision().max(0);
        let left = self.allowance.checked_sub(records.unsigned_abs());
        self.allowance = left.unwrap_or(self.allowance);
        left.is_some()
    }

    fn took_effect(&mut self, asked: &Asked, applied: &Applied, oracle: &mut Oracle) -> Judged {
        if oracle.commits.effect_of(applied.op) != Some(applied.index) {
            let what = format!("operation {} takes effect a second time at {}", applied.op, applied.index);
            return Err((Rule::ExactlyOnce, what));
        }
        oracle.fates.took_effect(applied.op)?;
        self.allowance += COMPARED_RECORDS;
        let bytes = applied.reply.as_deref().unwrap_or_default();
        let at = applied.op as usize;
        if self.replies.len() <= at {
            self.replies.resize(at + 1, 0);
        }
        self.replies[at] = digest(bytes);
        let replayed = asked.command().map(|command| self.replay.apply_command(Index(applied.index), &command));
        self.events.follow(&mut self.replay);
        match (reply_of(bytes), replayed) {
            (Some(reply), Some(replayed)) if reply == replayed => {
                self.history.took_effect(asked, &reply).map_err(|what| (Rule::RevisionsCount, what))
            }
            (reply, replayed) => {
                let what = format!("operation {} replies {reply:?}, but {replayed:?} when replayed", applied.op);
                Err((Rule::StatesAreEqual, what))
            }
        }
    }

    /// Checks a command that is no client's.
    fn store_command(&mut self, command: &Command, applied: &Applied) -> Judged {
        self.allowance += COMPARED_RECORDS;
        let replayed = self.replay.apply_command(Index(applied.index), command);
        self.events.follow(&mut self.replay);
        let reply = applied.reply.as_deref().and_then(reply_of);
        if reply.as_ref() != Some(&replayed) || self.replay.lease_changes() != applied.leases {
            let what = format!("{command:?} replies {reply:?}, but {replayed:?} when replayed");
            return Err((Rule::StatesAreEqual, what));
        }
        self.history.went_on(self.replay.revision(), self.replay.compacted_revision());
        self.history.is_full = self.replay.alarms().next().is_some();
        let rest = Rest::of(&self.replay);
        if self.rest.last().is_none_or(|(_, last)| *last != rest) {
            self.rest.push((applied.index, rest));
        }
        for change in &applied.leases {
            let (id, lease) = match change {
                LeaseChange::Granted(lease) => (lease.id, Some(*lease)),
                LeaseChange::Gone(id) => (*id, None),
            };
            self.leases.entry(id).or_default().push((applied.index, lease));
        }
        Ok(())
    }

    /// The leases after the entry at `index`.
    fn leases_at(&self, index: u64) -> Vec<Lease> {
        let at = |changes: &Vec<(u64, Option<Lease>)>| {
            let place = changes.partition_point(|(at, _)| *at <= index);
            changes[..place].last().and_then(|(_, lease)| *lease)
        };
        self.leases.values().filter_map(at).collect()
    }

    /// Whether a state has the same leases, members and alarms as a replay of the log.
    fn has_right_rest(&self, machine: &Machine) -> bool {
        let index = machine.witness().0;
        let place = self.rest.partition_point(|(at, _)| *at <= index);
        let rest = place.checked_sub(1).map_or_else(Rest::default, |place| self.rest[place].1.clone());
        machine.rest() == Some(rest) && self.leases_at(index) == machine.leases()
    }

    /// Checks an answer that leaves a replica. The answer to a write must be the store's reply; the answer to a read
    /// must be true of its revision.
    fn judge_answer(&self, asked: &Asked, writes: bool, bytes: &[u8]) -> Judged {
        let true_of_write = || self.replies.get(asked.op as usize) == Some(&digest(bytes));
        let true_of_read = || reply_of(bytes).is_some_and(|reply| self.history.is_true(asked, &reply));
        if if writes { true_of_write() } else { true_of_read() } {
            return Ok(());
        }
        let what = format!("the answer to operation {} is wrong: {:?}", asked.op, reply_of(bytes));
        Err((Rule::AnswersAreTrue, what))
    }

    /// A client receives an answer. Its linearizable requests must never return an earlier revision than before (I23).
    fn heard(&mut self, client: usize, asked: &Asked, linearizable: bool, reply: &Reply) -> Judged {
        if let Some((key, seen)) = seen(asked, reply) {
            self.seen[key as usize] = seen;
        }
        let Some(revision) = revision_of(reply).filter(|_| linearizable) else { return Ok(()) };
        let earlier = self.told[client];
        self.told[client] = revision.max(earlier);
        if revision >= earlier {
            return Ok(());
        }
        let what = format!("client {client} was told of revision {earlier}, and then of {revision}");
        Err((Rule::RevisionsCount, what))
    }

    /// Draws an operation on the store.
    fn shape(&self, dice: &mut Dice, writes: bool, key: u64, keys: u64) -> Shape {
        let back = dice.below(20) as i64;
        let earlier = (self.history.revision() - back).max(1);
        match (writes, dice.below(100)) {
            (true, 0..50) => Shape::Put,
            (true, 50..62) => Shape::Delete,
            (true, 62..64) => Shape::Clear,
            (true, 64..84) => Shape::Swap(self.seen[key as usize]),
            (true, 84..95) if keys > 1 => Shape::Pair((key + 1 + dice.below(keys - 1)) % keys),
            (true, 95..) => Shape::Compact(earlier),
            (true, _) => Shape::Put,
            (false, 0..60) => Shape::Get,
            (false, 60..75) => Shape::Past(earlier),
            (false, _) => Shape::All,
        }
    }
}

impl Clients {
    pub(crate) fn new(workload: &Workload) -> Clients {
        Clients {
            ops: Vec::new(),
            done: 0,
            guess: vec![0; workload.clients],
            model: vec![None; workload.keys as usize],
            store: workload.stores.then(|| StoreSide::new(workload)),
            huge: false,
            stopped: false,
        }
    }

    /// Number of operations begun, and of those done.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.ops.len() as u64, self.done)
    }

    /// The operations, as the page shows them.
    pub(crate) fn seen(&self) -> Vec<OperationSeen> {
        let seen = |(number, op): (usize, &Op)| {
            let what = match (op.kind, op.end == End::Done, op.read) {
                (Kind::Write { .. }, _, _) => format!("k{} := {number}", op.key),
                (Kind::Read(_), true, Some(writer)) => format!("k{} is {writer}", op.key),
                (Kind::Read(_), true, None) => format!("k{} is empty", op.key),
                (Kind::Read(_), false, _) => format!("k{}?", op.key),
            };
            let end = match op.end {
                End::Open => "open",
                End::Done => "done",
                End::Unknown => "unknown",
                End::Denied => "denied",
            };
            let (key, writes) = (format!("k{}", op.key), matches!(op.kind, Kind::Write { .. }));
            let (number, ended) = (number as u64, op.ended);
            OperationSeen { number, client: op.client, what, key, writes, call: op.call, ended, end }
        };
        self.ops.iter().enumerate().map(seen).collect()
    }

    /// Number of open operations, and when the oldest of them began.
    pub(crate) fn open(&self) -> Option<(usize, Moment)> {
        let open: Vec<Moment> = self.ops.iter().filter(|op| op.end == End::Open).map(|op| op.call).collect();
        open.iter().min().map(|oldest| (open.len(), *oldest))
    }

    /// Checks a snapshot that a replica made: it must equal a replay of the log (I16).
    pub(crate) fn judge_snapshot(&mut self, snapshot: &StoredSnapshot) -> Judged {
        let Some(store) = &mut self.store else { return Ok(()) };
        if !store.may_compare() {
            return Ok(());
        }
        let same = Machine::restore(&snapshot.data)
            .is_ok_and(|machine| machine.is_replayed_by(&store.replay) && store.has_right_rest(&machine));
        if same {
            return Ok(());
        }
        let what = format!("a snapshot up to {} differs from a replay of the log", snapshot.header.position);
        Err((Rule::StatesAreEqual, what))
    }

    /// As [`Clients::judge_state`], for a state that a replica makes durable.
    pub(crate) fn judge_stored_state(&mut self, machine: &Machine) -> Result<(), String> {
        let compares = self.store.as_mut().is_some_and(StoreSide::may_compare);
        if compares { self.judge_state(machine) } else { Ok(()) }
    }

    /// Checks a state that a replica starts with: it must equal a replay of the log (I16).
    pub(crate) fn judge_state(&self, machine: &Machine) -> Result<(), String> {
        match &self.store {
            // After a failure of its disk a state can't be judged; the process notices and stops.
            Some(store) if !machine.is_replayed_by(&store.replay) && !machine.is_broken() => {
                Err(format!("its state up to {} differs from a replay of the log", machine.applied()))
            }
            Some(store) if !store.has_right_rest(machine) && !machine.is_broken() => Err(format!(
                "the leases, members or alarms of its state up to {} differ from a replay of the log",
                machine.applied()
            )),
            _ => Ok(()),
        }
    }

    /// All events of the committed log, if the state machine is a store.
    pub(crate) fn true_events(&self) -> Option<&TrueEvents> {
        self.store.as_ref().map(|store| &store.events)
    }

    /// I29: the store has the alarms of the members that have one, and no others.
    pub(crate) fn judge_alarms(&self, alarmed: &BTreeSet<u64>) -> Judged {
        let Some(store) = &self.store else { return Ok(()) };
        if store.replay.alarms().map(|alarm| alarm.member).eq(alarmed.iter().copied()) {
            return Ok(());
        }
        let active: Vec<_> = store.replay.alarms().collect();
        Err((Rule::MembersAreRecorded, format!("the alarms are {active:?} instead of those of {alarmed:?}")))
    }

    /// Whether no lease exists, after everything applied so far.
    pub(crate) fn has_no_lease(&self) -> bool {
        self.store.as_ref().is_none_or(|store| store.replay.leases().next().is_none())
    }

    /// Checks the effect of a command that is no client's, when the first replica applies it.
    pub(crate) fn store_command(&mut self, command: &Command, applied: &Applied) -> Judged {
        self.store.as_mut().map_or(Ok(()), |store| store.store_command(command, applied))
    }

    /// Checks the effect of a command, when the first replica applies it.
    pub(crate) fn took_effect(&mut self, applied: &Applied, oracle: &mut Oracle) -> Judged {
        let Some(op) = self.ops.get(usize::try_from(applied.op).unwrap_or(usize::MAX)) else {
            return Err((Rule::AnswersAreTrue, format!("no client sent the command at {}", applied.index)));
        };
        if let Some(store) = &mut self.store {
            return store.took_effect(&op.asked(applied.op), applied, oracle);
        }
        let holds = &mut self.model[op.key as usize];
        if oracle.commits.effect_of(applied.op) == Some(applied.index) {
            *holds = Some(applied.op);
            oracle.fates.took_effect(applied.op)?;
        }
        if *holds == applied.holds {
            return Ok(());
        }
        let what = format!("after {} key {} holds {:?} instead of {holds:?}", applied.index, op.key, applied.holds);
        Err((Rule::ExactlyOnce, what))
    }
}

/// The course of an operation.
impl Clients {
    pub(crate) fn next_operation(&mut self, ctx: &mut Context<'_>, network: &mut Network, client: usize) {
        if self.stopped {
            return;
        }
        let Some(mut dice) = ctx.script.next_operation(ctx.now, client) else { return };
        let workload = &ctx.plan.workload;
        let key = if dice.percent(workload.hot) { 0 } else { dice.below(workload.keys) };
        let kind = if dice.percent(workload.write_percent) {
            let mut bytes = dice.between(workload.value_low, workload.value_high);
            if std::mem::take(&mut self.huge) {
                bytes = dice.between(HUGE / 10, HUGE);
                ctx.coverage.struck(Fault::Huge);
            }
            Kind::Write { bytes: bytes as usize }
        } else if dice.percent(workload.local_percent) {
            Kind::Read(Consistency::Serializable)
        } else if dice.percent(workload.lease_percent) {
            Kind::Read(Consistency::Linearizable(ReadKind::Lease))
        } else {
            Kind::Read(Consistency::Linearizable(ReadKind::Quorum))
        };
        let writes = matches!(kind, Kind::Write { .. });
        let shape = match &self.store {
            Some(store) => store.shape(&mut dice, writes, key, workload.keys),
            None if writes => Shape::Put,
            None => Shape::Get,
        };
        let op = self.ops.len() as u64;
        let (call, end) = (ctx.now, End::Open);
        let (ret, ended, read, attempt, resting) = (None, None, None, 0, false);
        let told = None;
        self.ops.push(Op {
            client,
            key,
            kind,
            shape,
            told,
            call,
            ret,
            ended,
            read,
            attempt,
            turns: 0,
            resting,
            end,
            dice,
        });
        ctx.trace(None, || match kind {
            _ if shape != Shape::Put && shape != Shape::Get => {
                format!("client {client}: does operation {op} on k{key}: {shape:?}, {kind:?}")
            }
            Kind::Write { bytes } => format!("client {client}: writes k{key} := {op} ({bytes} bytes)"),
            Kind::Read(consistency) => format!("client {client}: reads k{key} as operation {op}, {consistency:?}"),
        });
        self.attempt(ctx, network, op);
    }

    /// Sends an operation to a replica, for the first time or again.
    pub(crate) fn attempt(&mut self, ctx: &mut Context<'_>, network: &mut Network, op: u64) {
        let it = &mut self.ops[op as usize];
        if it.end != End::Open {
            return;
        }
        let client = it.client;
        // Random choice may hit removed members again and again, so once a majority is whole, its members are asked in
        // turn.
        let takes_turns = it.attempt > 0 && !ctx.whole.is_empty();
        let anywhere = it.dice.percent(ctx.plan.workload.anywhere_percent) && !takes_turns;
        let host = match (&ctx.whole[..], anywhere) {
            ([], true) => it.dice.index(network.size()),
            (only, true) => only[it.dice.index(only.len())],
            (only, false) if only.is_empty() || only.contains(&self.guess[client]) => self.guess[client],
            (only, false) => only[it.dice.index(only.len())],
        };
        let it = &mut self.ops[op as usize];
        it.attempt += 1;
        it.resting = false;
        let (attempt, writes) = (it.attempt, matches!(it.kind, Kind::Write { .. }));
        let timeout = ctx.plan.workload.timeout;
        ctx.queue.push(ctx.now + timeout, Event::GiveUp { op, attempt });
        // A server's clients use connections, which deliver nothing twice.
        let doubles = self.store.is_none();
        let copies = if doubles && ctx.chances.network.chance(network.plan.doubled / 4) { 2 } else { 1 };
        for _ in 0..copies {
            let arrives = network.client_way(ctx.now, host, &mut ctx.chances.network);
            if let Some(recorder) = &mut ctx.recorder {
                recorder.asked(ctx.now, client, host, op, arrives);
            }
            if let Some(at) = arrives {
                if writes {
                    ctx.oracle.fates.copy_sent(op);
                }
                ctx.queue.push(at, Event::Request { host, op, attempt });
            }
        }
    }

    /// A request arrives at a replica. Returns what the replica is to do with it, if it can do anything.
    pub(crate) fn request(&mut self, ctx: &mut Context<'_>, it: &mut Host, op: u64, attempt: u32) -> Option<Request> {
        let (asked, kind) = (&self.ops[op as usize], self.ops[op as usize].kind);
        let (key, writes) = (format!("k{}", asked.key), matches!(kind, Kind::Write { .. }));
        let refusal = if it.node.is_none() {
            // The process is down, so the connection is refused.
            Some(Failure::not_leader(None))
        } else if it.paused {
            it.wait(Event::Request { host: it.at(), op, attempt });
            return None;
        } else {
            (writes && !it.disk.has_room()).then(|| Failure::overloaded("room on the disk"))
        };
        if let Some(failure) = refusal {
            if writes {
                ctx.oracle.fates.copy_gone(op);
            }
            ctx.after(MILLI, Event::Answer { op, attempt, response: Err(failure) });
            return None;
        }
        ctx.trace(Some(it.at()), || format!("is asked for operation {op}, try {attempt}"));
        let known = ctx.oracle.commits.len();
        let stale = ctx.plan.sabotage == Some(Sabotage::StaleReads);
        let deadline = it.deadline(ctx);
        let input = match kind {
            Kind::Read(consistency) if stale || consistency == Consistency::Serializable => {
                return Some(Request::ReadAtOnce { known });
            }
            Kind::Read(Consistency::Serializable) => unreachable!("it is read at once"),
            Kind::Read(Consistency::Linearizable(kind)) => {
                NodeInput::Read { token: it.token(Asker::Client { op, attempt, known }), kind, deadline }
            }
            Kind::Write { bytes } => {
                let of_store = self.store.as_ref().and_then(|_| asked.asked(op).encode());
                let command = of_store.unwrap_or_else(|| command_of(op, &key, bytes));
                NodeInput::Write { token: it.token(Asker::Client { op, attempt, known }), command, deadline }
            }
        };
        Some(Request::Step(input))
    }

    /// What a read asks for: a key of the map, and a query of the store. `None` for a write.
    pub(crate) fn query(&self, op: u64) -> Option<(String, TxnRequest)> {
        let it = &self.ops[op as usize];
        matches!(it.kind, Kind::Read(_)).then(|| (format!("k{}", it.key), it.asked(op).query()))
    }

    /// A replica replies. Checks the reply, and sends it to the client.
    pub(crate) fn replied(
        &mut self,
        ctx: &mut Context<'_>,
        network: &mut Network,
        it: &Host,
        (op, attempt, known): (u64, u32, u64),
        response: Response,
    ) {
        let (kind, host) = (self.ops[op as usize].kind, it.at());
        ctx.trace(Some(host), || format!("replies to operation {op}: {}", describe_response(&response)));
        if let (Some(store), Ok(bytes)) = (&self.store, &response) {
            let asked = self.ops[op as usize].asked(op);
            ctx.judge(store.judge_answer(&asked, matches!(kind, Kind::Write { .. }), bytes));
        }
        match (&response, kind) {
            (Ok(_), Kind::Write { .. }) => {
                if ctx.oracle.commits.effect_of(op).is_none() {
                    let what = format!("n{} says that operation {op} is done, but it is not", host + 1);
                    ctx.judge(Err((Rule::AnswersAreTrue, what)));
                }
            }
            (Ok(value), Kind::Read(consistency)) => {
                let applied = it.node.as_ref().map_or(0, |node| node.raft().last_applied().0);
                if matches!(consistency, Consistency::Linearizable(_)) && applied < known {
                    let what = format!("n{} answers read {op} as of {applied}; {known} was committed", host + 1);
                    ctx.judge(Err((Rule::ReadsSeeWhatWasCommitted, what)));
                }
                if self.store.is_none() {
                    self.judge_value(ctx, op, value, applied);
                }
            }
            (Err(Failure::Unknown(_)), _) | (_, Kind::Read(_)) => {}
            (Err(Failure::NotDone(_)), Kind::Write { .. }) => ctx.oracle.fates.copy_gone(op),
        }
        let arrives = network.client_way(ctx.now, host, &mut ctx.chances.network);
        if let Some(recorder) = &mut ctx.recorder {
            recorder.replied(ctx.now, (self.ops[op as usize].client, host, op), &response, arrives);
        }
        if let Some(at) = arrives {
            ctx.queue.push(at, Event::Answer { op, attempt, response });
        }
    }

    /// Checks that a value is complete and was written by then.
    fn judge_value(&self, ctx: &mut Context<'_>, op: u64, value: &[u8], applied: u64) {
        let Ok(text) = std::str::from_utf8(value) else { return };
        let writer = writer_of(text);
        let whole = match writer.and_then(|writer| Some((writer, self.ops.get(writer as usize)?.kind))) {
            Some((writer, Kind::Write { bytes })) => {
                let by_then = ctx.oracle.commits.effect_of(writer).is_some_and(|at| at <= applied);
                by_then && value_of(writer, bytes) == text
            }
            Some((_, Kind::Read(_))) => false,
            None => text.is_empty(),
        };
        if !whole {
            let what = format!("read {op} returns {:?}, which was not written by then", text.get(..20).unwrap_or(text));
            ctx.judge(Err((Rule::AnswersAreTrue, what)));
        }
    }

    /// A reply arrives at its client.
    pub(crate) fn answered(
        &mut self,
        ctx: &mut Context<'_>,
        network: &Network,
        op: u64,
        attempt: u32,
        response: Response,
    ) {
        let it = &self.ops[op as usize];
        if it.end != End::Open {
            return;
        }
        let (client, current) = (it.client, it.attempt == attempt && !it.resting);
        match response {
            Ok(value) => {
                self.done += 1;
                self.done(ctx, op, value);
                self.finish(ctx, op, End::Done);
            }
            Err(Failure::NotDone(NotDone::NotLeader { leader })) if current => {
                match leader {
                    Some(NodeId(leader)) if (leader as usize) <= network.size() => {
                        self.guess[client] = leader as usize - 1;
                    }
                    _ => self.ask_another(&ctx.whole, network, op),
                }
                self.try_again(ctx, op);
            }
            Err(Failure::Unknown(_)) if current => {
                self.ask_another(&ctx.whole, network, op);
                self.try_again_if_safe(ctx, op);
            }
            _ if current => {
                // A replica that is no longer a member waits for a leader and may refuse further reads.
                if !ctx.whole.is_empty() {
                    self.ask_another(&ctx.whole, network, op);
                }
                self.try_again(ctx, op);
            }
            _ => {}
        }
    }

    pub(crate) fn give_up(&mut self, ctx: &mut Context<'_>, network: &Network, op: u64, attempt: u32) {
        let it = &self.ops[op as usize];
        if it.end == End::Open && it.attempt == attempt && !it.resting {
            self.ask_another(&ctx.whole, network, op);
            self.try_again_if_safe(ctx, op);
        }
    }

    /// Records the answer of a finished operation.
    fn done(&mut self, ctx: &mut Context<'_>, op: u64, value: Bytes) {
        let it = &mut self.ops[op as usize];
        let linearizable = !matches!(it.kind, Kind::Read(Consistency::Serializable));
        let (client, asked) = (it.client, it.asked(op));
        let Some(store) = &mut self.store else {
            it.read = std::str::from_utf8(&value).ok().and_then(writer_of);
            return;
        };
        let judged = reply_of(&value).map_or(Ok(()), |reply| store.heard(client, &asked, linearizable, &reply));
        it.told = Some(value);
        ctx.judge(judged);
    }

    /// Tries again after a try with an unknown outcome, unless that could apply a write twice. A map recognises a
    /// repeated write by its origin; a store doesn't, so its clients never send a write twice.
    fn try_again_if_safe(&mut self, ctx: &mut Context<'_>, op: u64) {
        let writes = matches!(self.ops[op as usize].kind, Kind::Write { .. });
        if writes && self.store.is_some() { self.give_up_on(ctx, op) } else { self.try_again(ctx, op) }
    }

    /// Chooses another replica, because the one asked last can't help.
    fn ask_another(&mut self, whole: &[usize], network: &Network, op: u64) {
        let it = &mut self.ops[op as usize];
        let (client, turn) = (it.client, it.turns);
        it.turns += 1;
        self.guess[client] = match whole {
            [] => it.dice.index(network.size()),
            // In turn, because some of them may no longer be members.
            only => only[turn % only.len()],
        };
    }

    fn try_again(&mut self, ctx: &mut Context<'_>, op: u64) {
        let it = &self.ops[op as usize];
        // Once a majority is whole, clients don't give up.
        if it.attempt < ctx.plan.workload.tries || !ctx.whole.is_empty() {
            ctx.coverage.struck(Fault::Retry);
            let it = &mut self.ops[op as usize];
            let at = ctx.now + it.dice.between(MILLI, ctx.plan.settings.heartbeat);
            it.resting = true;
            ctx.queue.push(at, Event::Try { op });
            return;
        }
        self.give_up_on(ctx, op);
    }

    fn give_up_on(&mut self, ctx: &mut Context<'_>, op: u64) {
        let it = &self.ops[op as usize];
        let denied = match it.kind {
            Kind::Write { .. } => ctx.oracle.fates.give_up(op),
            Kind::Read(_) => true,
        };
        if !denied {
            ctx.coverage.struck(Fault::Unknown);
        }
        self.finish(ctx, op, if denied { End::Denied } else { End::Unknown });
    }

    fn finish(&mut self, ctx: &mut Context<'_>, op: u64, end: End) {
        ctx.trace(None, || format!("client: operation {op} ends: {end:?}"));
        let it = &mut self.ops[op as usize];
        it.ret = (end == End::Done).then_some(ctx.now);
        it.ended = Some(ctx.now);
        it.end = end;
        let client = it.client;
        let after_pause = ctx.now + it.dice.waiting(ctx.plan.workload.pause);
        if let Some(at) = ctx.script.next_start(client, after_pause, ctx.now) {
            ctx.queue.push(at, Event::Next { client });
        }
    }
}

/// The check of the history.
impl Clients {
    /// Checks that some order explains what the clients were told.
    pub(crate) fn check_history(&self, ctx: &mut Context<'_>) {
        if self.store.is_some() {
            return self.check_keys(ctx);
        }
        let (history, hint) = self.history(ctx);
        let options = Options { hint: Some(hint), ..Options::default() };
        let wrong = check(&history, &options).explanation();
        ctx.judge(wrong.map_or(Ok(()), |wrong| Err((Rule::Linearizable, wrong))));
    }

    /// Checks the history of a store, key by key, and its revisions against real time.
    fn check_keys(&self, ctx: &mut Context<'_>) {
        let mut history = Vec::new();
        for (number, op) in self.ops.iter().enumerate() {
            let local = matches!(op.kind, Kind::Read(Consistency::Serializable));
            // A write with an unknown outcome that no replica applied has not happened. Nobody can have seen it. (If
            // all of them counted as possible, the search could take too long.)
            let writes = matches!(op.kind, Kind::Write { .. });
            let idle = writes && op.told.is_none() && ctx.oracle.commits.effect_of(number as u64).is_none();
            if op.end == End::Denied || local || idle {
                continue;
            }
            let reply = op.told.as_deref().and_then(reply_of);
            if reply == Some(Err(KvError::NoSpace)) {
                continue;
            }
            let revision = reply.as_ref().and_then(revision_of);
            let parts = by_key(&op.asked(number as u64), reply.as_ref(), ctx.plan.workload.keys);
            for (at, (key, request, answer)) in parts.into_iter().enumerate() {
                // One revision for each operation, however many keys it has.
                let revision = revision.filter(|_| at == 0);
                let (client, key, mod_revision) = (op.client as u64, format!("k{key}"), None);
                let (call, ret) = (op.call, op.ret);
                history.push(keys::Operation { client, key, request, answer, revision, mod_revision, call, ret });
            }
        }
        let judged = match keys::check(&history) {
            Verdict::Linearizable => Ok(()),
            Verdict::Violation(fault) => Err((Rule::Linearizable, format!("{fault:?}"))),
            Verdict::Undecided(undecided) => Err((Rule::Linearizable, undecided.to_string())),
        };
        ctx.judge(judged);
    }

    /// Every operation that may have taken effect, and the order of the writes in the log.
    fn history(&self, ctx: &Context<'_>) -> (Vec<Operation>, Vec<usize>) {
        let mut history = Vec::new();
        let mut place = vec![None; self.ops.len()];
        let names: Vec<String> = (0..ctx.plan.workload.keys).map(|key| format!("k{key}")).collect();
        for (number, op) in self.ops.iter().enumerate() {
            let action = match (op.kind, &op.end) {
                (Kind::Read(Consistency::Serializable), _) | (_, End::Denied) => continue,
                (Kind::Write { .. }, _) => Action::Write(number.to_string()),
                (Kind::Read(_), End::Done) => {
                    Action::Read(Some(op.read.map_or(String::new(), |writer| writer.to_string())))
                }
                (Kind::Read(_), _) => continue,
            };
            place[number] = Some(history.len());
            let key = names[op.key as usize].clone();
            history.push(Operation { client: op.client as u64, key, action, call: op.call, ret: op.ret });
        }
        let order = ctx.oracle.commits.order().iter();
        let hint = order.filter_map(|(_, op)| place.get(*op as usize).copied().flatten()).collect();
        (history, hint)
    }
}
