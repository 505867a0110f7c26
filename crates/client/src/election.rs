//! Elections.

use std::collections::BTreeMap;

use bowline_api::mvccpb::KeyValue;
use bytes::Bytes;

use super::queue::{self, Place};
use super::{Client, ClientError, Compare, EventKind, Lease, LeaseEnd, WatchEvent, WatchItem, WatchRequest, Watcher};

/// An election: one of the candidates is the leader, and everybody can see its value.
///
/// It works like the elections of etcd's Go package `concurrency`, the Election service and `etcdctl elect`, and together
/// with them: candidates create the keys `NAME/LEASE-ID`, whose values are what they propose, and the one that was created
/// first leads. What [`Lock`](crate::Lock) says about names, about losing the lease and about fencing tokens holds here,
/// too.
///
/// # Example
/// ```no_run
/// use std::time::Duration;
/// use bowline_client::{Client, Election};
///
/// # async fn run() -> Result<(), bowline_client::ClientError> {
/// let mut client = Client::new(&["127.0.0.1:2379"], Duration::from_secs(5))?;
/// let election = Election::new(&client, "scheduler");
/// let lease = client.lease(Duration::from_secs(10)).await?;
/// let mut leadership = election.campaign(&lease, "10.0.0.7:80").await?;
/// leadership.proclaim("10.0.0.7:81").await?;
/// tokio::select! {
///     end = leadership.lost() => eprintln!("not the leader any more: {end}"),
///     _ = tokio::time::sleep(Duration::from_secs(60)) => leadership.resign().await?,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Election {
    client: Client,
    name: Bytes,
}

impl Election {
    /// The election of this name, which must not be empty. It asks the members that `client` knows.
    pub fn new(client: &Client, name: impl Into<Bytes>) -> Election {
        Election { client: client.clone(), name: name.into() }
    }

    /// Waits until this candidate is elected, for as long as that takes, and proclaims `value`. A lease can be a candidate
    /// in many elections, but only once in each.
    ///
    /// If the future is dropped before it is done, as by a time limit, the candidacy is withdrawn in the background.
    ///
    /// # Errors
    /// The lease was lost meanwhile ([`ClientError::NotHeld`]), it is a candidate already ([`ClientError::InUse`]), or a
    /// request failed.
    pub async fn campaign(&self, lease: &Lease, value: impl Into<Bytes>) -> Result<Leadership, ClientError> {
        Ok(Leadership(Place::wait_for(&self.client, lease, &self.name, value.into()).await?))
    }

    /// The leader's key and value; `None` if there is no leader. The key's `create_revision` is the leader's fencing token.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn leader(&self) -> Result<Option<KeyValue>, ClientError> {
        let first = queue::first(&queue::prefix(&self.name));
        Ok(self.client.clone().range(first).await?.kvs.into_iter().next())
    }

    /// Observes what leaders proclaim: first what the present leader has proclaimed last, then everything that comes, in
    /// order.
    #[must_use]
    pub fn observe(&self) -> Observer {
        let prefix = queue::prefix(&self.name);
        Observer { client: self.client.clone(), prefix, candidates: Candidates::default(), watcher: None }
    }
}

/// A candidate that was elected.
///
/// Dropping it resigns in the background. That needs the runtime: use [`Leadership::resign`] before the program ends, or
/// else the others wait until the lease ends.
#[derive(Debug)]
pub struct Leadership(Place);

impl Leadership {
    /// The fencing token: a number that is higher than that of every leader before. It is the create revision of the
    /// [key](Leadership::key). [`Lock`](crate::Lock) says what it is good for.
    #[must_use]
    pub fn fencing_token(&self) -> i64 {
        self.0.revision()
    }

    /// A comparison that holds as long as this candidate leads, for [`Txn::when`](crate::Txn::when).
    #[must_use]
    pub fn compare(&self) -> Compare {
        self.0.compare()
    }

    /// The leader's key.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        self.0.key()
    }

    /// The lease that this candidate leads with.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        self.0.lease()
    }

    /// Whether the lease is not lost. See [`Lock`](crate::Lock) for what this does not say.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0.lease().is_alive()
    }

    /// Waits until the lease is lost, and the leadership with it: see [`Lease::lost`].
    pub fn lost(&self) -> impl Future<Output = LeaseEnd> + Send + use<> {
        self.0.lease().lost()
    }

    /// Proclaims another value, without a new election.
    ///
    /// # Errors
    /// This candidate does not lead any more ([`ClientError::NotHeld`]), or the request failed.
    pub async fn proclaim(&mut self, value: impl Into<Bytes>) -> Result<(), ClientError> {
        self.0.set(value.into()).await
    }

    /// Resigns, so that the next candidate leads. It is harmless to do twice, so it is repeated at other endpoints, and a
    /// leadership that is lost is no error.
    ///
    /// # Errors
    /// See [`ClientError`]. This candidate then leads until the lease ends: see [`Lease::revoke`].
    pub async fn resign(mut self) -> Result<(), ClientError> {
        self.0.leave().await
    }
}

/// What the leaders of an election proclaim: see [`Election::observe`].
#[derive(Debug)]
pub struct Observer {
    client: Client,
    prefix: Bytes,
    candidates: Candidates,
    watcher: Option<Watcher>,
}

impl Observer {
    /// The next proclamation: the leader's key and value. It waits as long as there is none. It may be called in
    /// `tokio::select!`: nothing is lost if it is cancelled.
    ///
    /// If the members are lost, it resumes. After a compaction it may leave out what was proclaimed before.
    ///
    /// # Errors
    /// A request failed. The next call tries again.
    pub async fn next(&mut self) -> Result<KeyValue, ClientError> {
        loop {
            if let Some(leader) = self.candidates.news() {
                return Ok(leader);
            }
            let Some(watcher) = &mut self.watcher else {
                self.begin().await?;
                continue;
            };
            match watcher.next().await {
                Some(Ok(WatchItem::Events { events, .. })) => self.candidates.apply(events),
                Some(Ok(_)) => {}
                None | Some(Err(ClientError::Compacted { .. })) => self.watcher = None,
                Some(Err(error)) => {
                    self.watcher = None;
                    return Err(error);
                }
            }
        }
    }

    /// Reads all candidates, and watches them from then on.
    async fn begin(&mut self) -> Result<(), ClientError> {
        let read = self.client.range(super::Op::get(self.prefix.clone()).prefix()).await?;
        let next = read.header.map_or(0, |header| header.revision) + 1;
        let request = WatchRequest::prefix(self.prefix.clone()).start_revision(next);
        self.watcher = Some(self.client.watch(request).await?);
        self.candidates.replace(read.kvs);
        Ok(())
    }
}

/// The candidates of an election. It does no I/O.
#[derive(Debug, Default)]
struct Candidates {
    all: BTreeMap<Bytes, KeyValue>,
    /// The fencing token of the leader that was told last, and the revision of its proclamation.
    told: (i64, i64),
}

impl Candidates {
    fn replace(&mut self, kvs: Vec<KeyValue>) {
        self.all = kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
    }

    /// Takes the events of a revision.
    fn apply(&mut self, events: Vec<WatchEvent>) {
        for WatchEvent { kind, kv, .. } in events {
            match kind {
                EventKind::Put => drop(self.all.insert(kv.key.clone(), kv)),
                EventKind::Delete => drop(self.all.remove(&kv.key)),
            }
        }
    }

    /// What the leader has proclaimed, unless that was told before.
    fn news(&mut self) -> Option<KeyValue> {
        let leader = self.all.values().min_by_key(|kv| kv.create_revision)?;
        let proclaimed = (leader.create_revision, leader.mod_revision);
        (std::mem::replace(&mut self.told, proclaimed) != proclaimed).then(|| leader.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, create_revision: i64, mod_revision: i64) -> WatchEvent {
        let kv = KeyValue { key: key.into(), create_revision, mod_revision, ..KeyValue::default() };
        WatchEvent { kind: EventKind::Put, kv, prev_kv: None }
    }

    fn deleted(key: &'static str) -> WatchEvent {
        WatchEvent { kind: EventKind::Delete, ..put(key, 0, 99) }
    }

    #[test]
    fn each_proclamation_of_a_leader_is_told_once() {
        let mut candidates = Candidates::default();
        let mut told = |events: Vec<WatchEvent>| {
            candidates.apply(events);
            let news = candidates.news().map(|kv| (kv.create_revision, kv.mod_revision));
            assert_eq!(candidates.news(), None, "once");
            news
        };
        assert_eq!(told(vec![]), None);
        assert_eq!(told(vec![put("e/b", 2, 2)]), Some((2, 2)));
        assert_eq!(told(vec![put("e/a", 3, 3)]), None, "it waits");
        assert_eq!(told(vec![put("e/a", 3, 4)]), None, "it proclaims nothing");
        assert_eq!(told(vec![put("e/b", 2, 5)]), Some((2, 5)));
        assert_eq!(told(vec![deleted("e/b")]), Some((3, 4)), "the next one leads");
        assert_eq!(told(vec![deleted("e/a")]), None);
        assert_eq!(told(vec![put("e/b", 7, 7)]), Some((7, 7)));
    }
}
