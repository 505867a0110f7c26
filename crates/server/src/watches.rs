//! The watches of a member: the hub, and the streams that wait for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline_kv::store::{AuthBook, EngineError, Record, Revision};
use bowline_kv::watch::{Hub, Stream, StreamId};
use tokio::sync::Notify;

use crate::random::random;

/// Bound of what waits for one stream, in bytes. Beyond it, the stream's watchers read history.
const MAILBOX_BYTES: usize = 4 << 20;

/// The hub, shared by the apply thread and the streams. The lock is held only for short changes in memory.
#[derive(Debug)]
pub(crate) struct Watches(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    hub: Hub,
    /// Wakes the task of a stream.
    wakers: BTreeMap<StreamId, Arc<Notify>>,
}

impl Watches {
    /// For a store that has this revision, and these users and roles.
    pub(crate) fn new(revision: i64, auth: &Arc<AuthBook>) -> Watches {
        let hub = Hub::new(revision, auth, MAILBOX_BYTES, random());
        Watches(Mutex::new(Inner { hub, wakers: BTreeMap::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete before the lock is released, even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream. The task that owns it is woken by the other value, whenever there is something to take.
    pub(crate) fn open(&self) -> (Stream, Arc<Notify>) {
        let mut inner = self.lock();
        let stream = Stream::open(&mut inner.hub);
        let waker = Arc::<Notify>::default();
        inner.wakers.insert(stream.id(), Arc::clone(&waker));
        (stream, waker)
    }

    /// Closes a stream.
    pub(crate) fn close(&self, stream: StreamId) {
        let mut inner = self.lock();
        inner.hub.close(stream);
        inner.wakers.remove(&stream);
    }

    /// Calls a function with the hub.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Hub) -> T) -> T {
        change(&mut self.lock().hub)
    }

    /// Distributes the writes of a batch, which has raised the store to `revision` and left these users and roles. To be called before anybody hears
    /// that the batch was applied: a client that then creates a watcher gets only later events.
    ///
    /// # Errors
    /// A record is damaged.
    pub(crate) fn applied<'a>(
        &self,
        writes: impl IntoIterator<Item = &'a (Revision, Record)>,
        revision: i64,
        auth: &Arc<AuthBook>,
    ) -> Result<(), EngineError> {
        let mut inner = self.lock();
        let woken = inner.hub.applied(writes, revision, auth)?;
        inner.wake(&woken);
        Ok(())
    }

    /// A snapshot has replaced the store, which has this revision and these users and roles now.
    pub(crate) fn replaced(&self, revision: i64, auth: &Arc<AuthBook>) {
        let mut inner = self.lock();
        let woken = inner.hub.replaced(revision, auth);
        inner.wake(&woken);
    }
}

impl Inner {
    fn wake(&self, streams: &[StreamId]) {
        streams.iter().filter_map(|stream| self.wakers.get(stream)).for_each(|waker| waker.notify_one());
    }
}
