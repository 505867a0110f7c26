//! Leases: keys that live as long as somebody keeps them alive.
//!
//! The state machine knows no time. It knows the leases, their times to live, and the keys attached to them. A lease is
//! deleted with all its keys when it is revoked, or when a leader has proposed its end because it expired
//! (see [`Lessor`](super::Lessor)). So the log decides when a lease ends, in the same way on all replicas.

use std::collections::{BTreeMap, BTreeSet};

use bowline_node::raft::Index;

use super::codec::{CodecError, Sink, Source};
use super::engine::{Engine, EngineError};
use super::read::Failure;
use super::record::Record;
use super::types::{ExpiredLease, LeaseExpireRequest, LeaseExpireResponse, LeaseGrantRequest, LeaseGrantResponse};
use super::types::{LeaseListRequest, LeaseListResponse, LeaseRevokeResponse, LeaseTimeToLive, LeaseTimeToLiveRequest};
use super::{KvError, Store};

/// The longest time to live, in seconds, as etcd's.
pub const MAX_LEASE_TTL: i64 = 9_000_000_000;

/// A lease that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Its identity; never 0.
    pub id: i64,
    /// Its time to live in seconds; 1 to [`MAX_LEASE_TTL`].
    pub ttl: i64,
    /// The log entry that granted it. Unlike the identity, it is never used again for another lease.
    pub granted_at: Index,
}

impl Lease {
    /// Whether a store can hold it.
    pub(crate) fn is_valid(&self) -> bool {
        self.id != 0 && (1..=MAX_LEASE_TTL).contains(&self.ttl)
    }

    /// How many bytes a lease takes.
    pub(crate) const BYTES: usize = 24;

    pub(crate) fn write(&self, out: &mut impl Sink) {
        out.i64(self.id);
        out.i64(self.ttl);
        out.u64(self.granted_at.0);
    }

    pub(crate) fn read(source: &mut Source<'_>) -> Result<Lease, CodecError> {
        Ok(Lease { id: source.i64("lease")?, ttl: source.i64("ttl")?, granted_at: Index(source.u64("granted_at")?) })
    }
}

/// A change of the leases, for the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// There is a lease.
    Granted(Lease),
    /// There is no lease of this identity any more.
    Gone(i64),
}

/// The leases, and which keys are attached to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseBook {
    leases: BTreeMap<i64, Held>,
    /// The lease of each attached key.
    attached: BTreeMap<Box<[u8]>, i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    lease: Lease,
    keys: BTreeSet<Box<[u8]>>,
}

impl LeaseBook {
    pub(crate) fn insert(&mut self, lease: Lease) {
        self.leases.insert(lease.id, Held { lease, keys: BTreeSet::new() });
    }

    /// Checks that keys may be attached to this lease: it exists, or it is 0, which means none.
    ///
    /// # Errors
    /// It does not exist.
    pub(crate) fn check(&self, id: i64) -> Result<(), KvError> {
        if id == 0 || self.leases.contains_key(&id) { Ok(()) } else { Err(KvError::LeaseNotFound) }
    }

    pub(crate) fn get(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id).map(|held| &held.lease)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values().map(|held| &held.lease)
    }

    /// The keys of a lease, in order.
    pub(crate) fn keys(&self, id: i64) -> impl Iterator<Item = &[u8]> {
        self.leases.get(&id).into_iter().flat_map(|held| held.keys.iter().map(AsRef::as_ref))
    }

    /// Removes a lease, and detaches its keys.
    fn remove(&mut self, id: i64) {
        let Some(held) = self.leases.remove(&id) else { return };
        for key in &held.keys {
            self.attached.remove(key);
        }
    }

    /// Attaches a key to the lease that its latest record names, or detaches it.
    pub(crate) fn note(&mut self, record: &Record) -> Result<(), EngineError> {
        if self.leases.is_empty() {
            // Without leases, records need not be decoded.
            return Ok(());
        }
        let kv = record.key_value()?;
        let lease = if record.is_tombstone() { 0 } else { kv.lease };
        self.attach(&kv.key, lease);
        Ok(())
    }

    fn attach(&mut self, key: &[u8], lease: i64) {
        let before = self.attached.get(key).copied().unwrap_or(0);
        if before == lease {
            return;
        }
        if let Some(held) = self.leases.get_mut(&before) {
            held.keys.remove(key);
        }
        match self.leases.get_mut(&lease) {
            Some(held) => {
                held.keys.insert(key.into());
                self.attached.insert(key.into(), lease);
            }
            None => drop(self.attached.remove(key)),
        }
    }
}

/// Builds a lease book from the leases, and all records in the order of their revisions.
#[derive(Debug, Default)]
pub(crate) struct BookBuilder {
    book: LeaseBook,
    /// For each key, the lease that its latest record names.
    named: BTreeMap<Box<[u8]>, i64>,
}

impl BookBuilder {
    pub(crate) fn insert(&mut self, lease: Lease) {
        self.book.insert(lease);
    }

    /// Notes that the next record of a key names this lease; 0 for none.
    pub(crate) fn name(&mut self, key: &[u8], lease: i64) {
        if lease != 0 {
            self.named.insert(key.into(), lease);
        } else if !self.named.is_empty() {
            self.named.remove(key);
        }
    }

    /// # Errors
    /// An existing key is attached to a missing lease.
    pub(crate) fn build(mut self) -> Result<LeaseBook, EngineError> {
        for (key, lease) in self.named {
            if self.book.check(lease).is_err() {
                let what = format!("a key is attached to lease {lease}, which does not exist");
                return Err(EngineError::new("be trusted", what));
            }
            self.book.attach(&key, lease);
        }
        Ok(self.book)
    }
}

impl<E: Engine> Store<E> {
    /// The leases, in the order of their identities.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.book.iter()
    }

    /// The lease with an identity, if it exists.
    #[must_use]
    pub fn lease(&self, id: i64) -> Option<&Lease> {
        self.book.get(id)
    }

    /// The changes of the leases by the command that was applied last, for a [`Lessor`](super::Lessor).
    #[must_use]
    pub fn lease_changes(&self) -> &[LeaseChange] {
        &self.lease_changes
    }

    pub(crate) fn grant_lease(
        &mut self,
        at: Index,
        request: &LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, Failure> {
        request.check()?;
        let LeaseGrantRequest { id, ttl } = *request;
        if self.book.get(id).is_some() {
            return Err(KvError::LeaseExists.into());
        }
        let lease = Lease { id, ttl, granted_at: at };
        self.book.insert(lease);
        self.change_leases(LeaseChange::Granted(lease));
        Ok(LeaseGrantResponse { revision: self.meta.revision, id, ttl })
    }

    pub(crate) fn revoke_lease(&mut self, id: i64) -> Result<LeaseRevokeResponse, Failure> {
        if self.book.get(id).is_none() {
            return Err(KvError::LeaseNotFound.into());
        }
        self.end_lease(id)?;
        Ok(LeaseRevokeResponse { revision: self.meta.revision })
    }

    /// Ends the leases whose identity still belongs to the same lease.
    pub(crate) fn expire_leases(&mut self, request: &LeaseExpireRequest) -> Result<LeaseExpireResponse, Failure> {
        let mut expired = 0;
        for ExpiredLease { id, granted_at } in &request.leases {
            if self.book.get(*id).is_some_and(|lease| lease.granted_at.0 == *granted_at) {
                self.end_lease(*id)?;
                expired += 1;
            }
        }
        Ok(LeaseExpireResponse { revision: self.meta.revision, expired })
    }

    /// Deletes the keys of a lease, all at one revision, and the lease.
    fn end_lease(&mut self, id: i64) -> Result<(), Failure> {
        let keys: Vec<Box<[u8]>> = self.book.keys(id).map(Into::into).collect();
        self.write(|txn| {
            keys.iter().for_each(|key| txn.delete_leased(key));
            Ok(())
        })?;
        self.book.remove(id);
        self.change_leases(LeaseChange::Gone(id));
        Ok(())
    }

    fn change_leases(&mut self, change: LeaseChange) {
        self.pending_leases.push(change);
        self.lease_changes.push(change);
    }

    pub(crate) fn time_to_live(&self, request: &LeaseTimeToLiveRequest) -> LeaseTimeToLive {
        let keys = || self.book.keys(request.id).map(|key| key.to_vec().into()).collect();
        LeaseTimeToLive {
            revision: self.meta.revision,
            lease: self.book.get(request.id).copied(),
            keys: if request.keys { keys() } else { Vec::new() },
        }
    }

    pub(crate) fn list_leases(&self, request: &LeaseListRequest) -> LeaseListResponse {
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let found = self.book.leases.range(request.from..).take(limit.saturating_add(1));
        let mut leases: Vec<Lease> = found.map(|(_, held)| held.lease).collect();
        let more = leases.len() > limit;
        leases.truncate(limit);
        LeaseListResponse { revision: self.meta.revision, leases, more }
    }
}
