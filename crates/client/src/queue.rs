//! The queue that locks and elections share, as in etcd's package `concurrency`.
//!
//! Who wants a lock creates the key `NAME/LEASE`, attached to its lease, where LEASE is the lease's id in hexadecimal.
//! Among these keys, the one with the lowest create revision holds the lock. Each other waits until the key just before
//! its own is deleted.

use bytes::Bytes;

use super::watch::is_final;
use super::{
    Client, ClientError, Compare, EventKind, Get, Lease, LeaseEnd, Op, OpResponse, PAUSE, SortBy, WatchItem,
    WatchRequest,
};

/// The prefix of all keys of a queue.
pub(crate) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The key that is first in a queue.
pub(crate) fn first(prefix: &Bytes) -> Get {
    Op::get(prefix.clone()).prefix().ascending(SortBy::CreateRevision).limit(1)
}

/// When a key is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Always.
    Queue,
    /// Only if nobody else is in the queue.
    OnlyFirst,
}

/// A key in a queue. It is deleted when this is dropped, in the background.
#[derive(Debug)]
pub(crate) struct Place {
    client: Client,
    lease: Lease,
    prefix: Bytes,
    key: Bytes,
    /// The create revision of the key; 0 as long as it is not known.
    revision: i64,
    /// Whether the key is certainly not there.
    left: bool,
}

impl Place {
    /// Waits for the first place.
    pub(crate) async fn wait_for(
        client: &Client,
        lease: &Lease,
        name: &Bytes,
        value: Bytes,
    ) -> Result<Place, ClientError> {
        let mut place = Place::new(client, lease, name)?;
        if !place.enter(Entry::Queue, value).await? {
            let lost = lease.lost();
            tokio::select! {
                is_first = place.becomes_first() => is_first?,
                _ = lost => {}
            }
        }
        place.check()?;
        Ok(place)
    }

    /// Takes the first place if nobody has one.
    pub(crate) async fn try_first(client: &Client, lease: &Lease, name: &Bytes) -> Result<Option<Place>, ClientError> {
        let mut place = Place::new(client, lease, name)?;
        if place.enter(Entry::OnlyFirst, Bytes::new()).await? {
            place.check()?;
            return Ok(Some(place));
        }
        place.leave().await?;
        Ok(None)
    }

    fn new(client: &Client, lease: &Lease, name: &Bytes) -> Result<Place, ClientError> {
        if name.is_empty() {
            return Err(ClientError::NoName);
        }
        let prefix = prefix(name);
        let key = Bytes::from([&prefix[..], format!("{:x}", lease.id()).as_bytes()].concat());
        if !lease.claim(&key) {
            return Err(ClientError::InUse { key: shown(&key) });
        }
        Ok(Place { client: client.clone(), lease: lease.clone(), prefix, key, revision: 0, left: false })
    }

    /// Creates the key. Returns whether it is the first.
    async fn enter(&mut self, entry: Entry, value: Bytes) -> Result<bool, ClientError> {
        let compare = match entry {
            Entry::Queue => Compare::create_revision(self.key.clone()),
            Entry::OnlyFirst => Compare::create_revision(self.prefix.clone()).prefix(),
        };
        let put = Op::put(self.key.clone(), value).lease(self.lease.id());
        let own = Op::get(self.key.clone()).keys_only();
        // An earlier attempt has created the key, or nobody has. If one is carried out after the key was deleted, the new
        // key makes others wait for the end of the lease, but nobody holds it.
        let txn = self.client.txn().when(compare.eq(0)).repeatable();
        let txn = txn.then(put).then(first(&self.prefix)).or_else(own).or_else(first(&self.prefix));
        let answer = txn.commit().await.map_err(|error| self.without_lease(error))?;
        let created = |response: Option<&OpResponse>| Some(response?.kvs().first()?.create_revision);
        self.revision = if answer.succeeded { answer.revision } else { created(answer.responses.first()).unwrap_or(0) };
        self.left = self.revision == 0;
        Ok(!self.left && created(answer.responses.get(1)) == Some(self.revision))
    }

    /// Returns when no key with a lower create revision is left. Members that fail are waited for: the lease says how long
    /// that makes sense.
    async fn becomes_first(&mut self) -> Result<(), ClientError> {
        loop {
            match self.look().await {
                Ok(None) => return Ok(()),
                // What was in the history that was removed is seen in the next turn.
                Ok(Some(_)) | Err(ClientError::Compacted { .. }) => {}
                Err(error) if is_final(&error) => return Err(error),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Looks for the key just before this one, and waits until it is deleted; `None` if there is no such key.
    async fn look(&mut self) -> Result<Option<()>, ClientError> {
        let before = Op::get(self.prefix.clone()).prefix().create_revisions(0..=self.revision - 1).keys_only();
        let before = before.descending(SortBy::CreateRevision).limit(1);
        let own = Op::get(self.key.clone()).keys_only();
        let answer = self.client.txn().then(before).then(own).commit().await?;
        let kv = |place: usize| answer.responses.get(place).and_then(|response| response.kvs().first());
        if kv(1).is_none_or(|own| own.create_revision != self.revision) {
            self.has_left();
            return Err(self.not_held("its key was deleted"));
        }
        let Some(before) = kv(0) else { return Ok(None) };
        let request = WatchRequest::key(before.key.clone()).only(EventKind::Delete);
        let mut watcher = self.client.watch(request.start_revision(answer.revision + 1)).await?;
        while let Some(item) = watcher.next().await {
            if let WatchItem::Events { .. } = item? {
                break;
            }
        }
        Ok(Some(()))
    }

    /// Deletes the key, and no later one of the same name. It is harmless to do twice.
    pub(crate) async fn leave(&mut self) -> Result<(), ClientError> {
        if !self.left {
            delete(&mut self.client, &self.key, self.revision).await?;
        }
        self.has_left();
        Ok(())
    }

    /// The key is certainly gone. Only then may the lease have another one of this name: a deletion must not meet a new
    /// holder.
    fn has_left(&mut self) {
        self.left = true;
        self.lease.unclaim(&self.key);
    }

    /// Whether the key is still the one that was created.
    pub(crate) fn compare(&self) -> Compare {
        holds(&self.key, self.revision)
    }

    pub(crate) fn key(&self) -> &Bytes {
        &self.key
    }

    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Sets the value, unless the key is another one by now.
    pub(crate) async fn set(&mut self, value: Bytes) -> Result<(), ClientError> {
        self.check()?;
        let (compare, put) = (self.compare(), Op::put(self.key.clone(), value).lease(self.lease.id()));
        // Not repeatable: a member that holds an attempt back could undo a later one.
        let answer = self.client.txn().when(compare).then(put).commit().await;
        let answer = answer.map_err(|error| self.without_lease(error))?;
        if answer.succeeded { Ok(()) } else { Err(self.not_held("its key was deleted")) }
    }

    /// # Errors
    /// The lease is lost.
    fn check(&self) -> Result<(), ClientError> {
        self.lease.end().map_or(Ok(()), |end| Err(self.not_held(&format!("its lease is lost: {end}"))))
    }

    /// The error of a put whose lease has ended.
    fn without_lease(&self, error: ClientError) -> ClientError {
        match &error {
            ClientError::Refused { status, .. } if status.code() == tonic::Code::NotFound => {
                self.not_held(&format!("its lease is lost: {}", status.message()))
            }
            _ => error,
        }
    }

    fn not_held(&self, why: &str) -> ClientError {
        ClientError::NotHeld { key: shown(&self.key), why: why.to_owned() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let has_ended = matches!(self.lease.end(), Some(LeaseEnd::Gone | LeaseEnd::Released));
        // Without a runtime, the key is deleted when the lease ends.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.left || has_ended {
            return;
        }
        let (mut client, lease, key, revision) =
            (self.client.clone(), self.lease.clone(), self.key.clone(), self.revision);
        runtime.spawn(async move {
            // If this fails, the key is deleted when the lease ends, and until then the lease can't have another one.
            if delete(&mut client, &key, revision).await.is_ok() {
                lease.unclaim(&key);
            }
        });
    }
}

/// Deletes the key that was created at this revision; 0 if that is not known.
async fn delete(client: &mut Client, key: &Bytes, revision: i64) -> Result<(), ClientError> {
    let txn = client.txn().then(Op::delete(key.clone()));
    // Without a comparison, a member that holds an attempt back could delete a later key.
    let txn = if revision == 0 { txn } else { txn.when(holds(key, revision)).repeatable() };
    txn.commit().await.map(drop)
}

/// Whether the key is the one that was created at this revision.
fn holds(key: &Bytes, revision: i64) -> Compare {
    Compare::create_revision(key.clone()).eq(revision)
}

/// A key for an error.
fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
