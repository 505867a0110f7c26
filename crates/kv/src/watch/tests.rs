//! Random writes, compactions, watchers and slow clients: each watcher gets every event once, in order, and whole
//! revisions; what is said of progress is true.

use std::collections::BTreeMap;

use bowline_node::raft::{Index, Random};
use bytes::Bytes;

use super::*;
use crate::store::{
    Command, CompactionRequest, DeleteRangeRequest, KeyValue, MemoryEngine, Operation, Principal, PutRequest, Record,
    RequestOp, Revision, Store, TxnRequest,
};

/// What one watcher has been sent, and what it should be sent.
struct Seen {
    request: WatchRequest,
    range: KeyRange,
    /// The first revision of interest.
    from: i64,
    /// How many of the expected events were sent.
    count: usize,
}

impl Seen {
    fn expects(&self, event: &Event) -> bool {
        let wanted = match event.kind {
            EventKind::Put => !self.request.no_put,
            EventKind::Delete => !self.request.no_delete,
        };
        wanted && event.revision() >= self.from && self.range.contains(&event.kv.key)
    }
}

struct Client {
    stream: Stream,
    watchers: BTreeMap<i64, Seen>,
    header: i64,
    progress: u64,
}

struct Harness {
    random: Random,
    store: Store<MemoryEngine>,
    index: u64,
    hub: Hub,
    /// Applied, but not given to the hub yet.
    held: Vec<(Revision, Record)>,
    /// Every event that there was, with the key before it.
    log: Vec<Event>,
    state: BTreeMap<Bytes, KeyValue>,
    clients: Vec<Client>,
    events: u64,
    compacted: u64,
}

const LIMITS: PortionLimits = PortionLimits { revisions: 3, records: 12, bytes: 4_000 };

impl Harness {
    fn new(seed: u64) -> Harness {
        let mut store = Store::open(MemoryEngine::default()).expect("it is empty");
        store.note_writes();
        let mut hub = Hub::new(store.revision(), store.auth(), 1_500, seed);
        let clients = (0..3).map(|_| Client {
            stream: Stream::open(&mut hub),
            watchers: BTreeMap::new(),
            header: 0,
            progress: 0,
        });
        let clients = clients.collect();
        Harness {
            random: Random::new(seed),
            store,
            index: 0,
            hub,
            held: Vec::new(),
            log: Vec::new(),
            state: BTreeMap::new(),
            clients,
            events: 0,
            compacted: 0,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    fn key(&mut self) -> Bytes {
        let length = 1 + self.below(2);
        (0..length).map(|_| b'a' + u8::try_from(self.below(3)).expect("small")).collect::<Vec<_>>().into()
    }

    fn operation(&mut self) -> RequestOp {
        let key = self.key();
        let operation = if self.below(4) == 0 {
            let range_end = if self.below(3) == 0 { Bytes::from_static(b"c") } else { Bytes::new() };
            Operation::DeleteRange(DeleteRangeRequest { key, range_end, ..DeleteRangeRequest::default() })
        } else {
            let value = vec![b'v'; usize::try_from(self.below(40)).expect("small")].into();
            Operation::Put(PutRequest { key, value, ..PutRequest::default() })
        };
        RequestOp { operation: Some(operation) }
    }

    fn write(&mut self) {
        let command = if self.below(12) == 0 {
            let revision = self.store.revision() - i64::try_from(self.below(6)).expect("small");
            Command::Compact(CompactionRequest { revision, ..CompactionRequest::default() })
        } else {
            let mut success = Vec::new();
            for _ in 0..1 + self.below(3) {
                success.push(self.operation());
            }
            Command::Txn(TxnRequest { success, ..TxnRequest::default() })
        };
        self.index += 1;
        // A compaction of what is compacted, or two puts of one key in a transaction, may be refused.
        let _ = self.store.apply_command(Index(self.index), &command);
        for (at, record) in self.store.take_writes() {
            let event = Event::of(at, &record).expect("it is whole");
            let before = match event.kind {
                EventKind::Put => self.state.insert(event.kv.key.clone(), event.kv.clone()),
                EventKind::Delete => self.state.remove(&event.kv.key),
            };
            // A key that this transaction wrote before had another value at the revision before.
            let earlier = self
                .log
                .iter()
                .rev()
                .find(|other| other.kv.key == event.kv.key && other.revision() == event.revision());
            let prev_kv = earlier.map_or(before, |earlier| earlier.prev_kv.clone());
            self.held.push((at, record));
            self.log.push(Event { prev_kv, ..event });
        }
        if self.below(3) == 0 {
            self.store.scrub(3).expect("memory does not fail");
        }
    }

    fn publish(&mut self) {
        let writes = std::mem::take(&mut self.held);
        if self.below(40) == 0 {
            // As if a snapshot had brought them.
            self.hub.replaced(self.store.revision(), self.store.auth());
        } else {
            self.hub.applied(&writes, self.store.revision(), self.store.auth()).expect("they are whole");
        }
    }

    fn create(&mut self, client: usize) {
        let (key, now) = (self.key(), self.hub.revision());
        let range_end = [Bytes::new(), Bytes::new(), Bytes::from_static(b"\0"), Bytes::from_static(b"bb")];
        let range_end = range_end[usize::try_from(self.below(4)).expect("small")].clone();
        let start_revision = match self.below(3) {
            0 => 0,
            1 => (now - i64::try_from(self.below(20)).expect("small")).max(1),
            _ => now + i64::try_from(self.below(4)).expect("small"),
        };
        let request = WatchRequest {
            key,
            range_end,
            start_revision,
            watch_id: i64::try_from(self.below(6)).expect("small"),
            no_put: self.below(8) == 0,
            no_delete: self.below(8) == 0,
            prev_kv: self.below(2) == 0,
            progress_notify: self.below(2) == 0,
            fragment: false,
        };
        let Client { stream, watchers, .. } = &mut self.clients[client];
        let existed = request.watch_id != 0 && watchers.contains_key(&request.watch_id);
        stream.create(&mut self.hub, &Principal::Anonymous, request.clone());
        let range = KeyRange::of(&request.key, &request.range_end);
        let Some(Message { watch_id, body, .. }) = stream.messages().back().cloned() else { panic!("no answer") };
        match range {
            Some(range) if !existed => {
                assert_eq!(body, Body::Created);
                let from = if start_revision == 0 { now + 1 } else { start_revision };
                assert!(watchers.insert(watch_id, Seen { request, range, from, count: 0 }).is_none());
            }
            _ => assert!(matches!(body, Body::Refused(_)) && watch_id == -1, "{body:?}"),
        }
    }

    fn poll(&mut self, client: usize) {
        let Client { stream, .. } = &mut self.clients[client];
        stream.take(&mut self.hub);
        stream.advance(&self.store, &LIMITS).expect("memory does not fail");
        stream.settle(&mut self.hub);
        while let Some(message) = self.clients[client].stream.next_message() {
            self.receive(client, message);
        }
    }

    fn receive(&mut self, client: usize, message: Message) {
        let Client { watchers, header, progress, .. } = &mut self.clients[client];
        let Message { watch_id, revision, body } = message;
        if !matches!(body, Body::Compacted { .. }) {
            assert!(revision >= *header, "{revision} after {header}");
            *header = revision;
        }
        match body {
            Body::Created | Body::Refused(_) | Body::Denied(_) | Body::Revoked(_) | Body::Unknown | Body::Cancelled => {
            }
            Body::Compacted { compact_revision } => {
                self.compacted += 1;
                let seen = watchers.remove(&watch_id).expect("it was there");
                let mut left = self.log.iter().filter(|event| seen.expects(event)).skip(seen.count);
                // Nothing was sent of what is compacted, and nothing was lost without need.
                assert!(left.next().is_none_or(|next| next.revision() <= self.store.revision()));
                assert!(compact_revision <= self.store.compacted_revision());
            }
            Body::Events { events, .. } => {
                let Some(seen) = watchers.get_mut(&watch_id) else { return };
                for event in &events {
                    let mut left = self.log.iter().filter(|event| seen.expects(event)).skip(seen.count);
                    let expected = left.next().expect("nothing was written that is not expected");
                    assert_eq!((event.kind, &event.kv), (expected.kind, &expected.kv), "watcher {watch_id}");
                    let compacted = event.revision() - 1 < self.store.compacted_revision();
                    match (seen.request.prev_kv, &event.prev_kv) {
                        (true, None) if compacted => {}
                        (true, prev_kv) => assert_eq!(prev_kv, &expected.prev_kv, "{event:?}"),
                        (false, prev_kv) => assert_eq!(prev_kv, &None),
                    }
                    assert!(event.revision() <= revision, "the header is behind an event");
                    seen.count += 1;
                    self.events += 1;
                }
                let last = events.last().expect("there is one").revision();
                let left = self.log.iter().filter(|event| seen.expects(event)).skip(seen.count);
                assert_eq!(left.filter(|event| event.revision() == last).count(), 0, "a revision was split");
            }
            Body::Progress => {
                *progress += 1;
                for (id, seen) in watchers.iter().filter(|(id, _)| watch_id == -1 || **id == watch_id) {
                    let mut left = self.log.iter().filter(|event| seen.expects(event)).skip(seen.count);
                    assert!(left.all(|event| event.revision() > revision), "{id} lacks events up to {revision}");
                    assert!(seen.request.start_revision <= revision);
                }
            }
        }
    }

    fn step(&mut self) {
        let client = usize::try_from(self.below(3)).expect("small");
        match self.below(20) {
            0..9 => self.write(),
            9..13 => self.publish(),
            13 => self.create(client),
            14 => {
                let id = i64::try_from(self.below(8)).expect("small");
                let Client { stream, watchers, .. } = &mut self.clients[client];
                watchers.remove(&id);
                stream.cancel(&mut self.hub, id);
            }
            15 => self.clients[client].stream.request_progress(),
            16 => self.clients[client].stream.tick(),
            // One client is slow.
            _ if client > 0 || self.below(20) == 0 => self.poll(client),
            _ => {}
        }
    }

    /// In the end everybody gets everything.
    fn finish(&mut self) {
        self.publish();
        for client in 0..3 {
            self.clients[client].stream.request_progress();
            for _ in 0..2_000 {
                self.poll(client);
            }
            assert!(!self.clients[client].stream.is_lagging());
            for (id, seen) in &self.clients[client].watchers {
                let expected = self.log.iter().filter(|event| seen.expects(event)).count();
                assert_eq!(seen.count, expected, "watcher {id} of {client}");
            }
        }
        let counts = self.hub.counts();
        assert_eq!(counts.watchers, self.clients.iter().map(|client| client.stream.len()).sum::<usize>());
        assert_eq!((counts.lagging, counts.waiting), (0, 0), "all have come to the end");
        for client in &self.clients {
            self.hub.close(client.stream.id());
        }
        assert!(self.hub.is_idle(), "nothing of a stream stays");
    }
}

#[test]
fn every_watcher_gets_every_event_once_in_order() {
    let (mut events, mut compacted, mut progress) = (0, 0, 0);
    for seed in 0..300 {
        let mut harness = Harness::new(seed);
        for _ in 0..400 {
            harness.step();
        }
        harness.finish();
        events += harness.events;
        compacted += harness.compacted;
        progress += harness.clients.iter().map(|client| client.progress).sum::<u64>();
    }
    assert!(events > 20_000 && compacted > 100 && progress > 500, "{events} {compacted} {progress}");
}
