//! One stream of watch requests: its watchers, and the messages for its client.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::event::{Event, EventKind, History, KeyRange, PortionLimits};
use super::hub::{Delivery, Hub, Serial, StreamId, Taken};
use super::interest::Interest;
use crate::store::{AuthBook, EngineError, KvError, Principal};

/// A request for a watcher.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchRequest {
    /// The key, or the first key of a range; empty for the first key that there can be.
    pub key: Bytes,
    /// The end of the range, as in a range request.
    pub range_end: Bytes,
    /// The first revision of interest; 0 for those after the watcher's creation.
    pub start_revision: i64,
    /// The number of the watcher in its stream; 0 lets the stream choose.
    pub watch_id: i64,
    /// Send no puts.
    pub no_put: bool,
    /// Send no deletions.
    pub no_delete: bool,
    /// Send each key also as it was before the write.
    pub prev_kv: bool,
    /// Tell now and then how far the watcher has come, while there are no events.
    pub progress_notify: bool,
    /// Large messages may be sent in fragments.
    pub fragment: bool,
}

impl Watcher {
    /// Whether it has begun, and all its events up to a revision of the hub have been taken.
    fn has_come_to(&self, revision: i64) -> bool {
        !self.is_lagging && self.request.start_revision <= revision
    }
}

impl WatchRequest {
    fn admits(&self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
}

/// A message to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The watcher; -1 if it is for none or for all.
    pub watch_id: i64,
    /// The revision in the message's header. It never decreases along a stream, except that it is 0 with
    /// [`Body::Compacted`], as in etcd.
    pub revision: i64,
    /// What it says.
    pub body: Body,
}

/// The content of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The watcher was created.
    Created,
    /// No watcher was created, for this reason, in etcd's words.
    Refused(&'static str),
    /// No watcher was created, because who asked for it may not read the keys.
    Denied(KvError),
    /// The watcher was cancelled, because who asked for it may not read the keys any more.
    Revoked(KvError),
    /// The request was of a kind that is not known. Nothing has changed.
    Unknown,
    /// The watcher was cancelled, as its client asked.
    Cancelled,
    /// The watcher was cancelled, because the events that it would get next are compacted.
    Compacted {
        /// The oldest readable revision.
        compact_revision: i64,
    },
    /// All events of interest of one or more revisions.
    Events {
        /// The events, in order.
        events: Vec<Event>,
        /// Whether the watcher's client accepts fragments.
        fragment: bool,
    },
    /// All events up to the revision in the header were sent: to this watcher, or with -1 to all of the stream.
    Progress,
}

/// The number of a message that is for no watcher.
const NO_WATCHER: i64 = -1;

const DUPLICATE: &str = "mvcc: duplicate watch ID provided on the WatchStream";
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FULL: &str = "bowline: a stream has at most 100000 watchers; use another stream";

/// Most watchers of a stream.
const MAX_WATCHERS: usize = 100_000;

#[derive(Debug)]
struct Watcher {
    serial: Serial,
    /// Who has asked for it.
    by: Principal,
    request: WatchRequest,
    range: KeyRange,
    /// All events before this revision were made messages.
    next: i64,
    /// Whether it reads history, instead of getting events from the mailbox.
    is_lagging: bool,
    /// Whether nothing was sent to it since the last [`Stream::tick`].
    is_quiet: bool,
}

/// One stream. Its owner calls, again and again and in this order, [`Stream::take`], [`Stream::advance`] and
/// [`Stream::settle`] when the client can take more, and [`Stream::next_message`] until there is none.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    watchers: BTreeMap<i64, Watcher>,
    /// The watchers that read history.
    lagging: Interest<i64>,
    lagging_count: usize,
    next_id: i64,
    /// The numbers of the watchers for the client, by their serial numbers.
    ids: BTreeMap<Serial, i64>,
    created: Serial,
    deliveries: VecDeque<Delivery>,
    /// The deliveries up to this revision of the hub were taken.
    taken_through: i64,
    /// The latest revision in a header.
    header: i64,
    messages: VecDeque<Message>,
    progress_wanted: bool,
    /// The events in messages that the hub was not told of.
    sent: u64,
    /// The users and roles by which all watchers were checked last.
    auth: Arc<AuthBook>,
}

impl Stream {
    /// A new stream of a hub.
    pub fn open(hub: &mut Hub) -> Stream {
        Stream {
            id: hub.open(),
            watchers: BTreeMap::new(),
            lagging: Interest::new(hub.seed()),
            lagging_count: 0,
            next_id: 0,
            ids: BTreeMap::new(),
            created: 0,
            deliveries: VecDeque::new(),
            taken_through: hub.revision(),
            header: hub.revision(),
            messages: VecDeque::new(),
            progress_wanted: false,
            sent: 0,
            auth: Arc::clone(hub.auth()),
        }
    }

    /// Its name in the hub.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// The number of watchers.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.watchers.len()
    }

    /// Whether there is history to read.
    #[must_use]
    pub fn is_lagging(&self) -> bool {
        self.lagging_count > 0
    }

    /// The number of messages that wait.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.messages.len()
    }

    /// The next message.
    pub fn next_message(&mut self) -> Option<Message> {
        self.messages.pop_front()
    }

    #[cfg(test)]
    pub(super) fn messages(&self) -> &VecDeque<Message> {
        &self.messages
    }

    fn say(&mut self, watch_id: i64, revision: i64, body: Body) {
        self.header = self.header.max(revision);
        self.messages.push_back(Message { watch_id, revision: self.header, body });
    }

    /// Creates a watcher, or says why not.
    pub fn create(&mut self, hub: &mut Hub, by: &Principal, request: WatchRequest) {
        let now = hub.revision();
        let refused = |reason| Body::Refused(reason);
        if let Err(error) = hub.auth().authorize_watch(by, &request) {
            return self.say(NO_WATCHER, now, Body::Denied(error));
        }
        let Some(range) = KeyRange::of(&request.key, &request.range_end) else {
            return self.say(NO_WATCHER, now, refused(EMPTY_RANGE));
        };
        if request.start_revision < 0 {
            return self.say(NO_WATCHER, now, refused(COMPACTED));
        }
        if self.watchers.len() >= MAX_WATCHERS {
            return self.say(NO_WATCHER, now, refused(FULL));
        }
        if request.watch_id != 0 && self.watchers.contains_key(&request.watch_id) {
            return self.say(NO_WATCHER, now, refused(DUPLICATE));
        }
        let id = if request.watch_id == 0 { self.free_id() } else { request.watch_id };
        let next = if request.start_revision == 0 { now + 1 } else { request.start_revision };
        self.created += 1;
        let serial = self.created;
        let is_lagging = next <= now;
        if is_lagging {
            self.lagging.insert(&range, id);
            self.lagging_count += 1;
        } else {
            hub.watch(self.id, serial, &range, next);
        }
        self.ids.insert(serial, id);
        let by = by.clone();
        self.watchers.insert(id, Watcher { serial, by, request, range, next, is_lagging, is_quiet: true });
        self.say(id, now, Body::Created);
        self.report(hub);
    }

    /// Tells the hub what it counts.
    fn report(&mut self, hub: &mut Hub) {
        hub.report(self.id, self.lagging_count, std::mem::take(&mut self.sent));
    }

    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Cancels a watcher. As in etcd, nothing happens if there is none with this number.
    pub fn cancel(&mut self, hub: &mut Hub, watch_id: i64) {
        if self.remove(hub, watch_id) {
            self.say(watch_id, hub.revision(), Body::Cancelled);
            self.report(hub);
        }
    }

    /// Answers a request of a kind that is not known.
    pub fn refuse_unknown(&mut self, hub: &Hub) {
        self.say(NO_WATCHER, hub.revision(), Body::Unknown);
    }

    fn remove(&mut self, hub: &mut Hub, watch_id: i64) -> bool {
        let Some(watcher) = self.watchers.remove(&watch_id) else { return false };
        self.ids.remove(&watcher.serial);
        if watcher.is_lagging {
            self.lagging.remove(&watcher.range, watch_id);
            self.lagging_count -= 1;
        } else {
            hub.unwatch(self.id, watcher.serial);
        }
        true
    }

    /// Asks for a message that says up to which revision all events of the stream were sent. It is sent as soon as no
    /// watcher is lagging, and none waits for a future revision.
    pub fn request_progress(&mut self) {
        self.progress_wanted = true;
    }

    /// Sends progress to the watchers that asked for it and were sent nothing since the last call.
    pub fn tick(&mut self) {
        let through = self.taken_through;
        let mut due = Vec::new();
        for (id, watcher) in &mut self.watchers {
            let wants = watcher.request.progress_notify && watcher.has_come_to(through);
            if wants && watcher.is_quiet && self.deliveries.is_empty() && through >= self.header {
                due.push(*id);
            }
            watcher.is_quiet = true;
        }
        for id in due {
            self.say(id, through, Body::Progress);
        }
    }

    /// Takes the content of the stream's mailbox.
    pub fn take(&mut self, hub: &mut Hub) {
        let Taken { deliveries, dropped, revision, auth } = hub.take(self.id);
        self.deliveries.extend(deliveries);
        for (serial, through) in dropped {
            let Some(id) = self.ids.get(&serial) else { continue };
            let watcher = self.watchers.get_mut(id).expect("each serial number is of a watcher");
            // What was distributed after its last delivery is history now.
            watcher.next = watcher.next.max(through.max(self.taken_through) + 1);
            watcher.is_lagging = true;
            self.lagging.insert(&watcher.range, *id);
            self.lagging_count += 1;
        }
        self.taken_through = revision;
        if !Arc::ptr_eq(&self.auth, &auth) {
            self.auth = auth;
            for (id, error) in self.forbidden(&self.auth, |_| true) {
                self.remove(hub, id);
                self.say(id, revision, Body::Revoked(error));
            }
        }
    }

    /// The watchers of a kind whose users may not read the keys any more.
    fn forbidden(&self, auth: &AuthBook, kind: impl Fn(&Watcher) -> bool) -> Vec<(i64, KvError)> {
        let asked = self.watchers.iter().filter(|(_, watcher)| kind(watcher));
        let refused = asked.map(|(id, watcher)| (*id, auth.authorize_watch(&watcher.by, &watcher.request)));
        refused.filter_map(|(id, authorized)| Some((id, authorized.err()?))).collect()
    }

    /// Makes messages of what was taken, and of one portion of history if watchers are lagging.
    ///
    /// # Errors
    /// The store is broken.
    pub fn advance(&mut self, history: &impl History, limits: &PortionLimits) -> Result<(), EngineError> {
        while let Some(delivery) = self.deliveries.pop_front() {
            for (serial, places) in &delivery.hits {
                let Some(id) = self.ids.get(serial) else { continue };
                let events = places.iter().map(|place| &delivery.batch[*place as usize]);
                self.send(*id, events, delivery.revision, history)?;
            }
        }
        self.refuse_compacted(history);
        self.refuse_forbidden(history);
        self.read(history, limits)
    }

    /// Sends events to a watcher, except those that it does not want.
    fn send<'a>(
        &mut self,
        id: i64,
        events: impl Iterator<Item = &'a Event>,
        revision: i64,
        history: &impl History,
    ) -> Result<(), EngineError> {
        let Some(watcher) = self.watchers.get_mut(&id) else { return Ok(()) };
        let Watcher { request, is_quiet, .. } = watcher;
        let mut sent = Vec::new();
        for event in events.filter(|event| request.admits(event.kind)) {
            let mut event = event.clone();
            if request.prev_kv {
                event.prev_kv = history.before(&event.kv.key, event.revision())?;
            }
            sent.push(event);
        }
        if !sent.is_empty() {
            *is_quiet = false;
            self.sent += sent.len() as u64;
            let fragment = request.fragment;
            self.say(id, revision, Body::Events { events: sent, fragment });
        }
        Ok(())
    }

    /// Cancels the lagging watchers whose next events are compacted.
    fn refuse_compacted(&mut self, history: &impl History) {
        let compact_revision = history.compacted_revision();
        let is_lost = |watcher: &Watcher| watcher.is_lagging && watcher.next < compact_revision;
        let lost = self.watchers.iter().filter(|(_, watcher)| is_lost(watcher)).map(|(id, _)| *id);
        for id in lost.collect::<Vec<_>>() {
            self.forget_lagging(id);
            self.messages.push_back(Message { watch_id: id, revision: 0, body: Body::Compacted { compact_revision } });
        }
    }

    /// Cancels the lagging watchers whose users may not read the keys any more: the history may be later than what was
    /// taken from the hub.
    fn refuse_forbidden(&mut self, history: &impl History) {
        let auth = history.auth();
        if Arc::ptr_eq(&self.auth, &auth) {
            return;
        }
        for (id, error) in self.forbidden(&auth, |watcher| watcher.is_lagging) {
            self.forget_lagging(id);
            self.say(id, self.taken_through, Body::Revoked(error));
        }
    }

    fn forget_lagging(&mut self, id: i64) {
        let watcher = self.watchers.remove(&id).expect("it was just found");
        self.ids.remove(&watcher.serial);
        self.lagging.remove(&watcher.range, id);
        self.lagging_count -= 1;
    }

    fn read(&mut self, history: &impl History, limits: &PortionLimits) -> Result<(), EngineError> {
        let lagging = self.watchers.values().filter(|watcher| watcher.is_lagging);
        let Some(from) = lagging.map(|watcher| watcher.next).min() else { return Ok(()) };
        let portion = history.events(from, limits, &mut |key| {
            let mut watchers = 0;
            self.lagging.find(key, &mut |_| watchers += 1);
            watchers
        })?;
        let mut hits: BTreeMap<i64, Vec<&Event>> = BTreeMap::new();
        for event in &portion.events {
            self.lagging.find(&event.kv.key, &mut |id| {
                if self.watchers.get(&id).is_some_and(|watcher| event.revision() >= watcher.next) {
                    hits.entry(id).or_default().push(event);
                }
            });
        }
        let revision = portion.events.last().map_or(0, Event::revision).max(self.taken_through);
        for (id, events) in hits {
            self.send(id, events.into_iter(), revision, history)?;
        }
        for watcher in self.watchers.values_mut().filter(|watcher| watcher.is_lagging) {
            watcher.next = watcher.next.max(portion.through + 1);
        }
        Ok(())
    }

    /// Makes the watchers live that have read all history, and sends progress if it is wanted and true.
    pub fn settle(&mut self, hub: &mut Hub) {
        let now = hub.revision();
        for (id, watcher) in self.watchers.iter_mut().filter(|(_, watcher)| watcher.is_lagging) {
            if watcher.next > now {
                watcher.is_lagging = false;
                self.lagging.remove(&watcher.range, *id);
                self.lagging_count -= 1;
                hub.watch(self.id, watcher.serial, &watcher.range, watcher.next);
            }
        }
        self.report(hub);
        if self.progress_wanted && !self.is_lagging() && self.deliveries.is_empty() {
            let begins = self.watchers.values().map(|watcher| watcher.request.start_revision).max().unwrap_or(0);
            let (through, needed) = (self.taken_through, begins.max(self.header));
            if through >= needed {
                self.progress_wanted = false;
                self.say(NO_WATCHER, through, Body::Progress);
            } else {
                hub.wake_at(self.id, needed);
            }
        }
    }
}
