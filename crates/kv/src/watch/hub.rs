//! The hub: which streams are given which events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bowline_node::raft::Random;

use super::event::{Event, KeyRange};
use super::interest::Interest;
use crate::store::{AuthBook, EngineError, Record, Revision};

/// What a delivery takes in a mailbox, in bytes, beside its events.
const OVERHEAD: usize = 64;

/// The number of a watcher in its stream, which never uses it twice. Its client's number may be used again.
pub(crate) type Serial = u64;

/// Names a stream. A hub never uses a name twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

/// Events of one applied batch for one stream.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The events of the batch, shared by all deliveries.
    pub(crate) batch: Arc<[Event]>,
    /// For each watcher with events, their places in the batch.
    pub(crate) hits: BTreeMap<Serial, Vec<u32>>,
    /// The revision of the hub after the batch.
    pub(crate) revision: i64,
}

impl Delivery {
    fn size(&self) -> usize {
        let of = |places: &Vec<u32>| places.iter().map(|place| self.batch[*place as usize].size() + 4).sum::<usize>();
        self.hits.values().map(of).sum::<usize>() + OVERHEAD
    }
}

/// The content of a mailbox.
#[derive(Debug)]
pub struct Taken {
    /// The deliveries, in order.
    pub(crate) deliveries: VecDeque<Delivery>,
    /// Watchers that are live no longer, for want of room or because a snapshot was installed, each with the revision
    /// of the last delivery that it can have got.
    pub(crate) dropped: BTreeMap<Serial, i64>,
    /// The revision of the hub.
    pub(crate) revision: i64,
    /// The users and roles at that time.
    pub(crate) auth: Arc<AuthBook>,
}

/// How many watches there are, and what they are at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// The open streams.
    pub streams: usize,
    /// The watchers of all streams.
    pub watchers: usize,
    /// Those that read history.
    pub lagging: usize,
    /// The events that wait in mailboxes; one that two watchers get counts twice.
    pub waiting: usize,
    /// The events in messages so far; one that two watchers got counts twice.
    pub sent: u64,
}

#[derive(Debug, Default)]
struct Mailbox {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    dropped: BTreeMap<Serial, i64>,
    /// The live watchers of the stream.
    watchers: BTreeMap<Serial, Live>,
    /// How many other watchers the stream has.
    lagging: usize,
}

#[derive(Debug)]
struct Live {
    range: KeyRange,
    /// It gets events from this revision on.
    from: i64,
}

/// Distributes the events of each applied batch to the mailboxes of streams.
#[derive(Debug)]
pub struct Hub {
    /// All events up to this revision were distributed.
    revision: i64,
    interest: Interest<(StreamId, Serial)>,
    mailboxes: BTreeMap<StreamId, Mailbox>,
    /// Streams that want to know when the hub has reached a revision.
    awaited: BTreeSet<(i64, StreamId)>,
    next_stream: u64,
    /// Most bytes in one mailbox.
    mailbox_bytes: usize,
    /// For trees of ranges.
    seeds: Random,
    /// The events in messages so far.
    sent: u64,
    /// The users and roles: who may watch what.
    auth: Arc<AuthBook>,
}

impl Hub {
    /// A hub for a store that has this revision, and these users and roles. A mailbox holds at most `mailbox_bytes`, but always one delivery.
    /// Clients must not know the seed, which balances the trees of the ranges that they choose.
    #[must_use]
    pub fn new(revision: i64, auth: &Arc<AuthBook>, mailbox_bytes: usize, seed: u64) -> Hub {
        let mut seeds = Random::new(seed);
        let (interest, mailboxes, awaited) = (Interest::new(seeds.next_u64()), BTreeMap::new(), BTreeSet::new());
        let auth = Arc::clone(auth);
        Hub { revision, interest, mailboxes, awaited, next_stream: 0, mailbox_bytes, seeds, sent: 0, auth }
    }

    /// A seed for a tree of ranges.
    pub(crate) fn seed(&mut self) -> u64 {
        self.seeds.next_u64()
    }

    /// The revision up to which events were distributed.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The users and roles.
    pub(crate) fn auth(&self) -> &Arc<AuthBook> {
        &self.auth
    }

    /// Whether no watcher is live.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.interest.is_empty()
    }

    /// How many watches there are, and what they are at. Takes time in proportion to what waits.
    #[must_use]
    pub fn counts(&self) -> WatchCounts {
        let mut counts = WatchCounts { streams: self.mailboxes.len(), sent: self.sent, ..WatchCounts::default() };
        for mailbox in self.mailboxes.values() {
            counts.watchers += mailbox.watchers.len() + mailbox.lagging;
            counts.lagging += mailbox.lagging;
            let hits = mailbox.deliveries.iter().flat_map(|delivery| delivery.hits.values());
            counts.waiting += hits.map(Vec::len).sum::<usize>();
        }
        counts
    }

    /// A stream says how many of its watchers read history, and how many events it has sent since it last said that.
    pub(crate) fn report(&mut self, stream: StreamId, lagging: usize, sent: u64) {
        self.sent += sent;
        if let Some(mailbox) = self.mailboxes.get_mut(&stream) {
            // It does not know yet of those that were dropped since it took its mailbox.
            mailbox.lagging = lagging + mailbox.dropped.len();
        }
    }

    /// Adds a stream.
    pub fn open(&mut self) -> StreamId {
        let stream = StreamId(self.next_stream);
        self.next_stream += 1;
        self.mailboxes.insert(stream, Mailbox::default());
        stream
    }

    /// Removes a stream and its watchers.
    pub fn close(&mut self, stream: StreamId) {
        self.awaited.retain(|(_, waiting)| *waiting != stream);
        if let Some(mailbox) = self.mailboxes.remove(&stream) {
            forget(&mut self.interest, stream, &mailbox.watchers);
        }
    }

    /// Distributes the writes of a batch that has raised the store to `revision` and left these users and roles. Returns
    /// the streams that have something to take now. No watcher gets an event of the batch if its user may not read the
    /// keys after the batch.
    ///
    /// # Errors
    /// A record is damaged.
    pub fn applied<'a>(
        &mut self,
        writes: impl IntoIterator<Item = &'a (Revision, Record)>,
        revision: i64,
        auth: &Arc<AuthBook>,
    ) -> Result<Vec<StreamId>, EngineError> {
        self.revision = self.revision.max(revision);
        let mut woken = self.reached();
        if !Arc::ptr_eq(&self.auth, auth) {
            self.auth = Arc::clone(auth);
            // Each stream looks which of its watchers may go on.
            woken.extend(self.mailboxes.keys());
        }
        let mut writes = writes.into_iter().peekable();
        if writes.peek().is_none() || self.interest.is_empty() {
            return Ok(woken.into_iter().collect());
        }
        let events = writes.map(|(at, record)| Event::of(*at, record));
        let batch: Arc<[Event]> = events.collect::<Result<_, EngineError>>()?;
        let mut hits: BTreeMap<StreamId, BTreeMap<Serial, Vec<u32>>> = BTreeMap::new();
        for (place, event) in (0..).zip(batch.iter()) {
            self.interest.find(&event.kv.key, &mut |(stream, watcher)| {
                let live = self.mailboxes.get(&stream).and_then(|mailbox| mailbox.watchers.get(&watcher));
                if live.is_some_and(|live| event.revision() >= live.from) {
                    hits.entry(stream).or_default().entry(watcher).or_default().push(place);
                }
            });
        }
        woken.extend(hits.keys());
        for (stream, hits) in hits {
            self.deliver(stream, Delivery { batch: Arc::clone(&batch), hits, revision });
        }
        Ok(woken.into_iter().collect())
    }

    /// The streams that have waited for the hub's revision.
    fn reached(&mut self) -> BTreeSet<StreamId> {
        let mut reached = BTreeSet::new();
        while let Some((revision, stream)) = self.awaited.first().copied().filter(|(at, _)| *at <= self.revision) {
            self.awaited.remove(&(revision, stream));
            reached.insert(stream);
        }
        reached
    }

    /// Wakes a stream when the hub has reached a revision.
    pub(crate) fn wake_at(&mut self, stream: StreamId, revision: i64) {
        self.awaited.insert((revision, stream));
    }

    fn deliver(&mut self, stream: StreamId, delivery: Delivery) {
        let Some(mailbox) = self.mailboxes.get_mut(&stream) else { return };
        let size = delivery.size();
        if mailbox.bytes > 0 && mailbox.bytes + size > self.mailbox_bytes {
            return self.break_off(stream);
        }
        mailbox.bytes += size;
        mailbox.deliveries.push_back(delivery);
    }

    /// The store was replaced by a snapshot that has this revision, and these users and roles: the events in between can only be read from it.
    /// Returns all streams: each of them may have something to read.
    pub fn replaced(&mut self, revision: i64, auth: &Arc<AuthBook>) -> Vec<StreamId> {
        self.auth = Arc::clone(auth);
        self.revision = self.revision.max(revision);
        self.awaited.clear();
        let streams: Vec<StreamId> = self.mailboxes.keys().copied().collect();
        streams.iter().for_each(|stream| self.break_off(*stream));
        streams
    }

    /// Removes all watchers of a stream, which then read history.
    fn break_off(&mut self, stream: StreamId) {
        let Some(mailbox) = self.mailboxes.get_mut(&stream) else { return };
        let watchers = std::mem::take(&mut mailbox.watchers);
        mailbox.lagging += watchers.len();
        let through = mailbox.deliveries.back().map_or(0, |delivery| delivery.revision);
        mailbox.dropped.extend(watchers.keys().map(|watcher| (*watcher, through)));
        forget(&mut self.interest, stream, &watchers);
    }

    /// Takes what is in the mailbox of a stream.
    pub fn take(&mut self, stream: StreamId) -> Taken {
        let Some(mailbox) = self.mailboxes.get_mut(&stream) else {
            let (deliveries, dropped) = (VecDeque::new(), BTreeMap::new());
            return Taken { deliveries, dropped, revision: self.revision, auth: Arc::clone(&self.auth) };
        };
        mailbox.bytes = 0;
        let (deliveries, dropped) = (std::mem::take(&mut mailbox.deliveries), std::mem::take(&mut mailbox.dropped));
        Taken { deliveries, dropped, revision: self.revision, auth: Arc::clone(&self.auth) }
    }

    /// Makes a watcher live: it gets events from the revision `from` on, which must be later than the hub's.
    pub(crate) fn watch(&mut self, stream: StreamId, watcher: Serial, range: &KeyRange, from: i64) {
        debug_assert!(from > self.revision, "earlier events are history");
        let Some(mailbox) = self.mailboxes.get_mut(&stream) else { return };
        self.interest.insert(range, (stream, watcher));
        mailbox.watchers.insert(watcher, Live { range: range.clone(), from });
    }

    /// Removes a live watcher, if it is there.
    pub(crate) fn unwatch(&mut self, stream: StreamId, watcher: Serial) {
        let live = self.mailboxes.get_mut(&stream).and_then(|mailbox| mailbox.watchers.remove(&watcher));
        if let Some(Live { range, .. }) = live {
            self.interest.remove(&range, (stream, watcher));
        }
    }
}

fn forget(interest: &mut Interest<(StreamId, Serial)>, stream: StreamId, watchers: &BTreeMap<Serial, Live>) {
    for (watcher, live) in watchers {
        interest.remove(&live.range, (stream, *watcher));
    }
}
