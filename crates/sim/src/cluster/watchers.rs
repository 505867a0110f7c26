//! The watchers (I24). Each is a client with one stream of watches at some replica, served by the hub that a member
//! runs. It reads when it likes, loses its replica, and resumes at any other. What it is sent is compared with the
//! committed log.
//!
//! Watchers only look on: they take their turns after the steps of replicas, and change nothing for anybody else.

use std::collections::BTreeMap;
use std::sync::Arc;

use bowline_kv::store::{AuthBook, EngineError, KeyValue, MemoryEngine, Principal, Record, Revision, Store};
use bowline_kv::watch::{
    Body, Event, EventKind, History, Hub, KeyRange, Message, Portion, PortionLimits, Stream, WatchRequest,
};
use bowline_raft::probe::{Probe, hit};
use bytes::Bytes;

use crate::cluster::context::Context;
use crate::cluster::dice::Dice;
use crate::cluster::host::Host;
use crate::cluster::machine::Machine;
use crate::cluster::oracle::{Judged, Rule};
use crate::cluster::plan::Plan;

/// Maximum number of watching clients.
const MOST_CLIENTS: u64 = 3;
/// Maximum number of watches in a stream.
const MOST_WATCHES: u64 = 3;
/// Bytes of a mailbox: so few that many are full.
const MAILBOX_BYTES: usize = 700;
/// A portion of history is small too, so that there are many.
const PORTION: PortionLimits = PortionLimits { revisions: 4, records: 16, bytes: 2_000 };
/// In the end a client has come to the end of the history after at most this many turns.
const TURNS: usize = 20_000;

/// All events of the committed log, in order, each with the key before it.
#[derive(Debug, Default)]
pub(crate) struct TrueEvents {
    events: Vec<Event>,
    keys: BTreeMap<Bytes, KeyValue>,
    compacted: i64,
}

impl TrueEvents {
    /// Adds what the store that replays the log has written since the last call.
    pub(crate) fn follow(&mut self, replay: &mut Store<MemoryEngine>) {
        for (at, record) in replay.take_writes() {
            let mut event = Event::of(at, &record).expect("the replay has just written it");
            event.prev_kv = match event.kind {
                EventKind::Put => self.keys.insert(event.kv.key.clone(), event.kv.clone()),
                EventKind::Delete => self.keys.remove(&event.kv.key),
            };
            self.events.push(event);
        }
        self.compacted = replay.compacted_revision();
    }

    /// The place of the first event of a revision or of a later one.
    fn place_of(&self, revision: i64) -> usize {
        self.events.partition_point(|event| event.revision() < revision)
    }
}

/// One watch of a client.
#[derive(Debug)]
struct Watch {
    request: WatchRequest,
    range: KeyRange,
    /// Its first revision of interest; 0 until a replica has said which.
    from: i64,
    /// The true events before this place were delivered, or are of no interest.
    place: usize,
    /// It resumes with this revision.
    resume: i64,
}

impl Watch {
    fn drawn(dice: &mut Dice, id: i64, keys: u64, known: i64) -> Watch {
        let bytes = |text: String| Bytes::from(text);
        let key = bytes(format!("k{}", dice.below(keys)));
        let (key, range_end) = match dice.below(4) {
            0 => (key, Bytes::new()),
            1 => (key, Bytes::from_static(b"l")),
            2 => (Bytes::from_static(b"lease"), Bytes::from_static(b"leasf")),
            _ => (Bytes::new(), Bytes::from_static(b"\0")),
        };
        let start = match dice.below(4) {
            0 => 0,
            1 => 1,
            // In the past, or in the future.
            _ => (known - 10 + dice.below(20) as i64).max(1),
        };
        let request = WatchRequest {
            key,
            range_end,
            watch_id: id,
            no_put: dice.percent(10),
            no_delete: dice.percent(10),
            prev_kv: dice.percent(50),
            progress_notify: dice.percent(50),
            start_revision: start,
            fragment: false,
        };
        let range = KeyRange::of(&request.key, &request.range_end).expect("no end is before its key");
        Watch { request, range, from: start, place: 0, resume: start }
    }

    fn wants(&self, event: &Event) -> bool {
        let admitted = match event.kind {
            EventKind::Put => !self.request.no_put,
            EventKind::Delete => !self.request.no_delete,
        };
        admitted && event.revision() >= self.from && self.range.contains(&event.kv.key)
    }

    /// The next event that it must be sent.
    fn next<'a>(&self, truth: &'a TrueEvents) -> Option<(usize, &'a Event)> {
        let rest = truth.events.iter().enumerate().skip(self.place);
        rest.into_iter().find(|(_, event)| self.wants(event))
    }

    /// A replica sends events, with a revision in the header. It has compacted up to `compacted`.
    fn sent(&mut self, truth: &TrueEvents, events: &[Event], header: i64, compacted: i64) -> Result<(), String> {
        for event in events {
            let Some((place, expected)) = self.next(truth) else {
                return Err(format!("{event:?} is sent, but there is no event any more"));
            };
            let is_same = event.kind == expected.kind && event.kv == expected.kv;
            // The key before may be compacted.
            let may_lack = !self.request.prev_kv || event.revision() - 1 < compacted;
            let has_before = event.prev_kv == expected.prev_kv || may_lack && event.prev_kv.is_none();
            if !is_same || !has_before {
                return Err(format!("{event:?} is sent instead of {expected:?}"));
            }
            self.place = place + 1;
            self.resume = event.revision() + 1;
        }
        let last = self.resume - 1;
        if header < last {
            return Err(format!("the header of an event of revision {last} has {header}"));
        }
        match self.next(truth) {
            Some((_, left)) if left.revision() <= last => Err(format!("revision {last} is split: {left:?} is missing")),
            _ => Ok(()),
        }
    }

    /// A replica says that all events up to a revision were sent.
    fn told(&mut self, truth: &TrueEvents, revision: i64) -> Result<(), String> {
        if let Some((_, missing)) = self.next(truth).filter(|(_, event)| event.revision() <= revision) {
            return Err(format!("progress up to {revision} is told, but {missing:?} was not sent"));
        }
        self.resume = self.resume.max(revision + 1);
        Ok(())
    }

    /// A replica says that the next events are compacted. The watch then begins anew with what is left.
    fn lost(&mut self, truth: &TrueEvents, compact_revision: i64) -> Result<(), String> {
        if self.resume >= compact_revision || compact_revision > truth.compacted {
            let (resume, compacted) = (self.resume, truth.compacted);
            return Err(format!("{compact_revision} is said to be compacted before {resume}, but {compacted} is"));
        }
        hit(Probe::WatchCompacted);
        self.resume = compact_revision;
        self.place = self.place.max(truth.place_of(compact_revision));
        Ok(())
    }

    fn resuming(&self) -> WatchRequest {
        WatchRequest { start_revision: self.resume, ..self.request.clone() }
    }
}

/// What a client does next with its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Take,
    Advance,
    Settle,
}

/// A stream at a replica.
#[derive(Debug)]
struct Connection {
    host: usize,
    /// The run of the replica's process.
    run: u32,
    stream: Stream,
    phase: Phase,
    /// The latest revision in a header.
    header: i64,
}

#[derive(Debug)]
struct Client {
    dice: Dice,
    watches: BTreeMap<i64, Watch>,
    connection: Option<Connection>,
    /// It reads with this chance, in percent, at each of its turns.
    eager: u32,
}

#[derive(Debug)]
pub(crate) struct Watchers {
    clients: Vec<Client>,
    keys: u64,
}

impl Watchers {
    pub(crate) fn new(plan: &Plan) -> Watchers {
        let mut dice = Dice::new(plan.chance(), 0x0a7c_4e50);
        let count = if plan.workload.stores { dice.below(MOST_CLIENTS + 1) } else { 0 };
        let client = |at: u64| {
            let mut dice = Dice::new(plan.chance(), 0x0a7c_4e51 + at);
            let eager = [2, 20, 80][dice.index(3)];
            Client { dice, watches: BTreeMap::new(), connection: None, eager }
        };
        Watchers { clients: (0..count).map(client).collect(), keys: plan.workload.keys }
    }

    /// A replica has taken a step: its writes, or another state, go to its hub. Then the clients take their turns there.
    pub(crate) fn follow(
        &mut self,
        ctx: &mut Context<'_>,
        it: &mut Host,
        truth: &TrueEvents,
        writes: &[(Revision, Record)],
        replaced: bool,
    ) {
        let Some(node) = it.node.as_ref().filter(|_| !self.clients.is_empty()) else { return };
        let machine = node.machine();
        let (revision, auth) = (machine.revision(), machine.auth());
        let (host, run) = (it.at(), it.run);
        let hub = it.hub.get_or_insert_with(|| Hub::new(revision, &auth, MAILBOX_BYTES, run.into()));
        if replaced {
            if !hub.is_idle() {
                hit(Probe::WatchedStateReplaced);
            }
            hub.replaced(revision, &auth);
        } else if hub.applied(writes, revision, &auth).is_err() {
            return ctx.judge(Err((Rule::WatchesAreComplete, "a record of an applied command is damaged".to_owned())));
        }
        for (number, client) in self.clients.iter_mut().enumerate() {
            let judged = client.turn(machine, hub, truth, (host, run), self.keys);
            let what = |what| format!("watching client {number} at n{}: {what}", host + 1);
            ctx.judge(judged.map_err(|why| (Rule::WatchesAreComplete, what(why))));
        }
    }

    /// Whether some watch has not got to a revision yet.
    pub(crate) fn has_one_before(&self, revision: i64) -> bool {
        let before = |watch: &Watch| (1..revision).contains(&watch.resume);
        self.clients.iter().any(|client| client.watches.values().any(before))
    }

    /// L6: every client comes to the end of a replica's history.
    pub(crate) fn catch_up(&mut self, it: &mut Host, truth: &TrueEvents) -> Judged {
        let at = it.at();
        let (Some(node), Some(hub)) = (&it.node, &mut it.hub) else { return Ok(()) };
        let (host, run) = (at, it.run);
        let named = |number: usize, what: String| format!("watching client {number} at n{}: {what}", host + 1);
        for client in &mut self.clients {
            if client.connection.as_ref().is_none_or(|connection| (connection.host, connection.run) != (host, run)) {
                client.connect(hub, host, run);
            }
        }
        for _ in 0..TURNS {
            for (number, client) in self.clients.iter_mut().enumerate() {
                let judged = client.read(node.machine(), hub, truth);
                judged.map_err(|what| (Rule::WatchesAreComplete, named(number, what)))?;
            }
            let counts = hub.counts();
            if (counts.waiting, counts.lagging) == (0, 0) && self.clients.iter().all(Client::is_at_rest) {
                break;
            }
        }
        for (number, client) in self.clients.iter().enumerate() {
            // The replica may not have applied all of the log yet.
            let here = |event: &Event| event.revision() <= node.machine().revision();
            let left = client.watches.values().find_map(|watch| watch.next(truth).filter(|(_, event)| here(event)));
            if let Some((_, event)) = left {
                return Err((Rule::WatchesCatchUp, named(number, format!("{event:?} is never sent"))));
            }
        }
        Ok(())
    }
}

impl Client {
    /// Takes a turn after a step of a replica.
    fn turn(
        &mut self,
        machine: &Machine,
        hub: &mut Hub,
        truth: &TrueEvents,
        (host, run): (usize, u32),
        keys: u64,
    ) -> Result<(), String> {
        match &self.connection {
            // The process has ended, and took the stream with it.
            Some(connection) if connection.host == host && connection.run != run => self.connection = None,
            Some(connection) if connection.host != host => return Ok(()),
            _ => {}
        }
        if self.connection.is_none() {
            if self.dice.percent(10) {
                self.connect(hub, host, run);
            }
            return Ok(());
        }
        match self.dice.below(200) {
            0 => self.leave(hub),
            1 => self.ask_for_progress(),
            2..5 => self.tick(),
            5 | 6 => self.begin(hub, keys),
            7 => self.cancel(hub),
            _ if self.dice.percent(self.eager) => return self.read(machine, hub, truth),
            _ => {}
        }
        Ok(())
    }

    fn connect(&mut self, hub: &mut Hub, host: usize, run: u32) {
        let mut stream = Stream::open(hub);
        for watch in self.watches.values() {
            if watch.place > 0 {
                hit(Probe::WatchResumed);
            }
            if watch.resume > hub.revision() + 1 {
                hit(Probe::WatchAhead);
            }
            stream.create(hub, &Principal::Anonymous, watch.resuming());
        }
        self.connection = Some(Connection { host, run, stream, phase: Phase::Take, header: 0 });
    }

    fn leave(&mut self, hub: &mut Hub) {
        if let Some(connection) = self.connection.take() {
            hub.close(connection.stream.id());
        }
    }

    fn ask_for_progress(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.stream.request_progress();
        }
    }

    fn tick(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.stream.tick();
        }
    }

    /// Begins another watch.
    fn begin(&mut self, hub: &mut Hub, keys: u64) {
        let id = 1 + self.dice.below(MOST_WATCHES) as i64;
        let Some(connection) = self.connection.as_mut().filter(|_| !self.watches.contains_key(&id)) else { return };
        let watch = Watch::drawn(&mut self.dice, id, keys, hub.revision());
        connection.stream.create(hub, &Principal::Anonymous, watch.request.clone());
        self.watches.insert(id, watch);
    }

    fn cancel(&mut self, hub: &mut Hub) {
        let id = 1 + self.dice.below(MOST_WATCHES) as i64;
        if let Some(connection) = &mut self.connection {
            connection.stream.cancel(hub, id);
        }
    }

    /// Does the next part of reading, as a member's task does it: other steps may come in between.
    fn read(&mut self, machine: &Machine, hub: &mut Hub, truth: &TrueEvents) -> Result<(), String> {
        let Some(Connection { stream, phase, .. }) = &mut self.connection else { return Ok(()) };
        match phase {
            Phase::Take => {
                stream.take(hub);
                *phase = Phase::Advance;
            }
            Phase::Advance => {
                // A replica that can't read its state stops, and its streams with it.
                if stream.advance(machine, &PORTION).is_err() {
                    self.leave(hub);
                    return Ok(());
                }
                *phase = Phase::Settle;
            }
            Phase::Settle => {
                stream.settle(hub);
                *phase = Phase::Take;
            }
        }
        let mut messages = Vec::new();
        messages.extend(std::iter::from_fn(|| stream.next_message()));
        if stream.is_lagging() {
            hit(Probe::WatchLagged);
        }
        messages.into_iter().try_for_each(|message| self.hear(message, machine, hub, truth))
    }

    /// Whether what it has taken is read.
    fn is_at_rest(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| connection.phase == Phase::Take)
    }

    fn hear(&mut self, message: Message, machine: &Machine, hub: &mut Hub, truth: &TrueEvents) -> Result<(), String> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let Message { watch_id, revision, body } = message;
        if let Body::Compacted { compact_revision } = body {
            let watch = self.watches.get_mut(&watch_id).ok_or("a watch that nobody has is compacted")?;
            watch.lost(truth, compact_revision)?;
            connection.stream.create(hub, &Principal::Anonymous, watch.resuming());
            return Ok(());
        }
        if revision < connection.header || revision > machine.revision() {
            let (header, applied) = (connection.header, machine.revision());
            return Err(format!("the header goes from {header} to {revision}, and the replica has applied {applied}"));
        }
        connection.header = revision;
        match body {
            Body::Created => {
                let watch = self.watches.get_mut(&watch_id).ok_or("a watch that nobody asked for is created")?;
                if watch.from == 0 {
                    watch.from = revision + 1;
                    watch.resume = revision + 1;
                }
                Ok(())
            }
            Body::Cancelled => self.watches.remove(&watch_id).map(|_| ()).ok_or("nobody cancelled it".to_owned()),
            Body::Events { events, .. } => {
                let watch = self.watches.get_mut(&watch_id).ok_or("a watch that nobody has gets events")?;
                watch.sent(truth, &events, revision, machine.compacted_revision())
            }
            Body::Progress => {
                let of = |id: &i64| watch_id == -1 || *id == watch_id;
                let mut told = self.watches.iter_mut().filter(|(id, _)| of(id));
                told.try_for_each(|(_, watch)| watch.told(truth, revision))
            }
            Body::Unknown => Err("a request is not known".to_owned()),
            Body::Refused(why) => Err(format!("a watch is refused: {why}")),
            Body::Denied(error) | Body::Revoked(error) => Err(format!("a watch is not permitted: {error}")),
            Body::Compacted { .. } => Ok(()),
        }
    }
}

impl History for Machine {
    fn revision(&self) -> i64 {
        Machine::revision(self)
    }

    fn compacted_revision(&self) -> i64 {
        Machine::compacted_revision(self)
    }

    fn auth(&self) -> Arc<AuthBook> {
        self.with_history(|it| it.auth()).unwrap_or_default()
    }

    fn events(
        &self,
        from: i64,
        limits: &PortionLimits,
        watchers: &mut dyn FnMut(&[u8]) -> usize,
    ) -> Result<Portion, EngineError> {
        self.with_history(|it| it.events(from, limits, watchers)).unwrap_or_else(|| Ok(Portion::default()))
    }

    fn before(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, EngineError> {
        self.with_history(|it| it.before(key, revision)).unwrap_or(Ok(None))
    }
}
