//! Leases.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bytes::Bytes;
use pb::lease_client::LeaseClient;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::{Code, Response, Status};

use super::{Channel, Client, ClientError, MAX_RESPONSE};

mod keeper;

use keeper::{Keeper, Term};

/// Why a [`Lease`] counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseEnd {
    /// A member has answered that there is no such lease: it has expired, or somebody has revoked it.
    #[error("it has expired or was revoked")]
    Gone,
    /// No renewal was answered within the time to live. The cluster may have ended the lease, or may end it soon.
    #[error("no member has renewed it within its time to live")]
    Unanswered,
    /// The handle was revoked or dropped, so nobody renews the lease any more.
    #[error("its handle was revoked or dropped")]
    Released,
}

/// What the cluster says about a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// The remaining time to live, in whole seconds, rounded down.
    pub remaining: Duration,
    /// The time to live that was granted, and to which each renewal sets the remaining one.
    pub granted: Duration,
    /// The keys that are attached to the lease.
    pub keys: Vec<Bytes>,
}

/// A lease that is kept alive in the background, by a task with a connection of its own.
///
/// The task renews the lease after each third of its time to live. If a member fails, it goes on at another one, as long
/// as the lease may live.
///
/// The handle counts the lease as **lost** when a member says that it has ended, or when the time to live has passed on
/// this machine's monotonic clock since the *sending* of the last renewal that was answered. The cluster counts from the
/// arrival of that renewal, so it ends the lease no earlier. A lost lease stays lost, even if the cluster still has it.
///
/// Clones are handles of the same lease. When the last one is dropped, together with all locks and leaderships that use
/// it, the renewals stop. The lease itself ends when its time to live has passed, and then the cluster deletes its keys.
/// Use [`Lease::revoke`] to end it at once.
///
/// The monotonic clock of some systems (Linux among them) stands still while the machine is suspended. After that, the
/// handle learns of the end only from the next renewal. So protect what matters with a
/// [fencing token](crate::LockGuard::fencing_token).
#[derive(Clone, Debug)]
pub struct Lease {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: i64,
    client: Client,
    term: watch::Receiver<Term>,
    task: JoinHandle<()>,
    /// The keys of locks and elections that the lease has, or waits for.
    claimed: Mutex<BTreeSet<Bytes>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // This also drops the task's stream, and its end of `term`.
        self.task.abort();
    }
}

impl Lease {
    /// The id, which the cluster has chosen.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.shared.id
    }

    /// The time to live: what the cluster granted, which may be more than was asked for.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.shared.term.borrow().ttl()
    }

    /// The lease is lost from this moment on, unless it is renewed before.
    #[must_use]
    pub fn alive_until(&self) -> Instant {
        self.shared.term.borrow().until()
    }

    /// Whether the lease is not lost. It may be lost right after this call: see [`Lease::lost`].
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.end().is_none()
    }

    /// Why the lease is lost; `None` if it is not.
    #[must_use]
    pub fn end(&self) -> Option<LeaseEnd> {
        end_of(&self.shared.term)
    }

    /// Waits until the lease is lost, and says why. The future holds no handle: it ends, too, when the last one is
    /// dropped.
    ///
    /// # Example
    /// ```no_run
    /// # async fn run(lease: bowline_client::Lease) {
    /// let lost = lease.lost();
    /// tokio::spawn(async move { eprintln!("the lease is lost: {}", lost.await) });
    /// # }
    /// ```
    pub fn lost(&self) -> impl Future<Output = LeaseEnd> + Send + use<> {
        let mut term = self.shared.term.clone();
        async move {
            loop {
                term.mark_unchanged();
                if let Some(end) = end_of(&term) {
                    return end;
                }
                let until = term.borrow().until();
                tokio::select! {
                    // If the task is gone, the next turn says so.
                    _ = term.changed() => {}
                    () = tokio::time::sleep_until(until.into()) => {}
                }
            }
        }
    }

    /// Reserves a key in the queue of a lock or an election. Returns whether it was free.
    pub(crate) fn claim(&self, key: &Bytes) -> bool {
        self.claimed().insert(key.clone())
    }

    /// Gives a key back.
    pub(crate) fn unclaim(&self, key: &Bytes) {
        self.claimed().remove(key);
    }

    fn claimed(&self) -> MutexGuard<'_, BTreeSet<Bytes>> {
        // Each change is one step, so a panic leaves nothing half done.
        self.shared.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the cluster says about the lease; `None` if there is no such lease any more.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn time_to_live(&self) -> Result<Option<LeaseStatus>, ClientError> {
        let told = self.shared.client.clone().lease_time_to_live(self.id(), true).await?;
        let seconds = |number: i64| Duration::from_secs(number.max(0).unsigned_abs());
        let status = LeaseStatus { remaining: seconds(told.ttl), granted: seconds(told.granted_ttl), keys: told.keys };
        Ok((told.ttl >= 0).then_some(status))
    }

    /// Ends the lease, which deletes its keys, for all handles. It is harmless to do twice, so it is repeated at other
    /// endpoints, and a lease that has ended before is no error.
    ///
    /// # Errors
    /// See [`ClientError`]. The renewals have stopped nevertheless, so that the lease expires.
    pub async fn revoke(&self) -> Result<(), ClientError> {
        self.shared.task.abort();
        let request = pb::LeaseRevokeRequest { id: self.id() };
        let mut client = self.shared.client.clone();
        let revoked =
            client.read_at(|channel| async move { LeaseClient::new(channel).lease_revoke(request).await }).await;
        match revoked {
            Err(ClientError::Refused { status, .. }) if status.code() == Code::NotFound => Ok(()),
            revoked => revoked.map(drop),
        }
    }
}

/// The end of a lease. Nobody renews it when the task is gone.
fn end_of(term: &watch::Receiver<Term>) -> Option<LeaseEnd> {
    // The lock is held while the clock is read: a renewal that comes later sees a later time, and is refused, too.
    let known = term.borrow();
    known.end_at(Instant::now()).or_else(|| term.has_changed().is_err().then_some(LeaseEnd::Released))
}

impl Client {
    /// Grants a lease and keeps it alive in the background: see [`Lease`]. `ttl` is rounded up to whole seconds; the
    /// server may grant more, so that the lease outlives an election.
    ///
    /// If the answer is lost, the request is repeated. The first lease, if there is one, has no keys, and expires.
    ///
    /// # Errors
    /// See [`ClientError`].
    ///
    /// # Example
    /// ```no_run
    /// use std::time::Duration;
    /// use bowline_client::{Client, Op};
    ///
    /// # async fn run() -> Result<(), bowline_client::ClientError> {
    /// let mut client = Client::new(&["127.0.0.1:2379", "127.0.0.1:2381"], Duration::from_secs(5))?;
    /// let lease = client.lease(Duration::from_secs(10)).await?;
    /// // The key is there as long as this program runs.
    /// client.put_request(Op::put("workers/7", "10.0.0.7:80").lease(lease.id())).await?;
    /// tokio::select! {
    ///     end = lease.lost() => eprintln!("the key is gone or soon will be: {end}"),
    ///     _ = tokio::time::sleep(Duration::from_secs(60)) => lease.revoke().await?,
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn lease(&mut self, ttl: Duration) -> Result<Lease, ClientError> {
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        let request = pb::LeaseGrantRequest { ttl: i64::try_from(seconds).unwrap_or(i64::MAX), id: 0 };
        let mut sent = Instant::now();
        let granted = self
            .read_at(|channel| {
                sent = Instant::now();
                async move { LeaseClient::new(channel).lease_grant(request).await }
            })
            .await?;
        let (publish, term) = watch::channel(Term::new(sent, granted.ttl));
        let task = tokio::spawn(Keeper::new(self.apart(), granted.id, publish).run());
        let (id, client, claimed) = (granted.id, self.clone(), Mutex::default());
        Ok(Lease { shared: Arc::new(Shared { id, client, term, task, claimed }) })
    }

    /// Grants a lease of at least `ttl` seconds; the response tells how many. With `id` 0, the server chooses the id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lease_grant(&mut self, ttl: i64, id: i64) -> Result<pb::LeaseGrantResponse, ClientError> {
        let request = pb::LeaseGrantRequest { ttl, id };
        self.write_at(|channel| async move { LeaseClient::new(channel).lease_grant(request).await }).await
    }

    /// Revokes a lease and deletes its keys.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lease_revoke(&mut self, id: i64) -> Result<pb::LeaseRevokeResponse, ClientError> {
        let request = pb::LeaseRevokeRequest { id };
        self.write_at(|channel| async move { LeaseClient::new(channel).lease_revoke(request).await }).await
    }

    /// Renews a lease and returns its time to live in seconds; 0 if there is no such lease. It is harmless to do twice,
    /// so it is repeated at other endpoints, as a read.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lease_keep_alive_once(&mut self, id: i64) -> Result<i64, ClientError> {
        self.read_at(|channel| keep_alive_once(channel, id)).await.map(|answer| answer.ttl)
    }

    /// The remaining time to live of a lease in seconds; -1 if there is no such lease. With `keys`, also its keys.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lease_time_to_live(
        &mut self,
        id: i64,
        keys: bool,
    ) -> Result<pb::LeaseTimeToLiveResponse, ClientError> {
        let request = pb::LeaseTimeToLiveRequest { id, keys };
        let ask = |channel| async move {
            LeaseClient::new(channel).max_decoding_message_size(MAX_RESPONSE).lease_time_to_live(request).await
        };
        self.read_at(ask).await
    }

    /// The ids of all leases.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lease_list(&mut self) -> Result<Vec<i64>, ClientError> {
        let ask = |channel| async move {
            let mut client = LeaseClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
            client.lease_leases(pb::LeaseLeasesRequest {}).await
        };
        let list = self.read_at(ask).await?;
        Ok(list.leases.into_iter().map(|lease| lease.id).collect())
    }
}

/// Sends one request on a stream and returns the answer.
async fn keep_alive_once(channel: Channel, id: i64) -> Result<Response<pb::LeaseKeepAliveResponse>, Status> {
    let requests = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
    let mut answers = LeaseClient::new(channel).lease_keep_alive(requests).await?.into_inner();
    let answer = answers.message().await?;
    answer.map(Response::new).ok_or_else(|| Status::unavailable("the stream ended without an answer"))
}
