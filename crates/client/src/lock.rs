//! Locks.

use bytes::Bytes;

use super::queue::Place;
use super::{Client, ClientError, Compare, Lease, LeaseEnd};

/// A lock: at most one holder at a time, as long as the holders respect it.
///
/// It works like the mutex of etcd's Go package `concurrency`, the Lock service and `etcdctl lock`, and together with
/// them: contenders create the keys `NAME/LEASE-ID`, which have no value, and the one that was created first holds the
/// lock. So they get the lock in the order in which they asked for it. A name must not begin with another lock's name
/// and a slash: the holder of `a/b` is also in the queue of `a`.
///
/// # Locks are advisory
///
/// A holder that loses its lease loses the lock, and may not notice it in time: its thread may be suspended just then,
/// or its message to a third party may be late. The cluster can't prevent that. So nobody else should rely on the lock
/// alone:
///
/// - In the cluster itself, write in transactions with [`LockGuard::compare`], which fail when the lock is lost.
/// - To any other system, send the [fencing token](LockGuard::fencing_token) along. A later holder always has a higher
///   one; the other system must refuse a request with a lower token than it has seen.
/// - Stop working when [`LockGuard::lost`] says so.
///
/// # Example
/// ```no_run
/// use std::time::Duration;
/// use bowline_client::{Client, Lock, Op};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let mut client = Client::new(&["127.0.0.1:2379", "127.0.0.1:2381"], Duration::from_secs(5))?;
/// let lease = client.lease(Duration::from_secs(10)).await?;
/// let guard = Lock::new(&client, "reports").acquire(&lease).await?;
/// println!("got it, with the fencing token {}", guard.fencing_token());
/// // This is done only if the lock is still held then.
/// let written = client.txn().when(guard.compare()).then(Op::put("report", "...")).commit().await?;
/// if !written.succeeded {
///     return Err("the lock is lost".into());
/// }
/// guard.release().await?;
/// lease.revoke().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Lock {
    client: Client,
    name: Bytes,
}

impl Lock {
    /// The lock of this name, which must not be empty. It asks the members that `client` knows.
    pub fn new(client: &Client, name: impl Into<Bytes>) -> Lock {
        Lock { client: client.clone(), name: name.into() }
    }

    /// Waits until the lock is held, for as long as that takes. A lease can hold many locks, but each only once.
    ///
    /// If the future is dropped before it is done, as by a time limit, the key is deleted in the background.
    ///
    /// # Errors
    /// The lease was lost meanwhile ([`ClientError::NotHeld`]), it has the lock already ([`ClientError::InUse`]), or a
    /// request failed.
    pub async fn acquire(&self, lease: &Lease) -> Result<LockGuard, ClientError> {
        Ok(LockGuard(Place::wait_for(&self.client, lease, &self.name, Bytes::new()).await?))
    }

    /// Takes the lock if nobody holds it or waits for it; else returns `None`, without waiting.
    ///
    /// # Errors
    /// As for [`Lock::acquire`].
    pub async fn try_acquire(&self, lease: &Lease) -> Result<Option<LockGuard>, ClientError> {
        Ok(Place::try_first(&self.client, lease, &self.name).await?.map(LockGuard))
    }
}

/// A lock that is held.
///
/// Dropping it releases the lock in the background. That needs the runtime: use [`LockGuard::release`] before the program
/// ends, or else others wait until the lease ends.
#[derive(Debug)]
pub struct LockGuard(Place);

impl LockGuard {
    /// The fencing token: a number that is higher than that of every holder before. It is the create revision of the
    /// [key](LockGuard::key). [`Lock`] says what it is good for.
    #[must_use]
    pub fn fencing_token(&self) -> i64 {
        self.0.revision()
    }

    /// A comparison that holds as long as the lock is held, for [`Txn::when`](crate::Txn::when): the create revision of
    /// the key equals the fencing token.
    #[must_use]
    pub fn compare(&self) -> Compare {
        self.0.compare()
    }

    /// The key that stands for the holder.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        self.0.key()
    }

    /// The lease that the lock is held with.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        self.0.lease()
    }

    /// Whether the lease is not lost. See [`Lock`] for what this does not say.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.lease().is_alive()
    }

    /// Waits until the lease is lost, and the lock with it: see [`Lease::lost`].
    pub fn lost(&self) -> impl Future<Output = LeaseEnd> + Send + use<> {
        self.0.lease().lost()
    }

    /// Releases the lock. It is harmless to do twice, so it is repeated at other endpoints, and a lock that is lost is no
    /// error.
    ///
    /// # Errors
    /// See [`ClientError`]. The lock is then held until the lease ends: see [`Lease::revoke`].
    pub async fn release(mut self) -> Result<(), ClientError> {
        self.0.leave().await
    }
}
