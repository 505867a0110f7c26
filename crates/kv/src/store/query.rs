//! Queries of the store, each with the type of its answer. They never leave the process, so they have no encoding.

use prost::Message;

use super::check::{Limits, check_size};
use super::types::{
    AlarmListRequest, AlarmResponse, HashKv, HashKvRequest, LeaseListRequest, LeaseListResponse, LeaseTimeToLive,
    LeaseTimeToLiveRequest, RangeRequest, RangeResponse, StoreStatus, StoreStatusRequest, TxnRequest, TxnResponse,
};
use super::{Engine, KvError, Operations, Store};

/// A query of the store.
pub trait Query {
    /// The type of its answer.
    type Answer;

    /// Whether it may be asked.
    ///
    /// # Errors
    /// The first rule that it breaks, in etcd's order.
    fn check(&self, _limits: &Limits) -> Result<(), KvError> {
        Ok(())
    }

    /// Whether the answer takes next to no time, however much the store holds.
    fn is_quick(&self) -> bool {
        false
    }

    /// The answer, and how many ranges were read for it.
    ///
    /// # Errors
    /// As [`Store::ask`].
    fn answer<E: Engine>(&self, store: &Store<E>) -> Result<(Self::Answer, u64), KvError>;
}

impl Query for RangeRequest {
    type Answer = RangeResponse;

    fn check(&self, limits: &Limits) -> Result<(), KvError> {
        self.check_fields()?;
        check_size(self.encoded_len(), limits)
    }

    fn is_quick(&self) -> bool {
        self.range_end.is_empty()
    }

    fn answer<E: Engine>(&self, store: &Store<E>) -> Result<(RangeResponse, u64), KvError> {
        store.range(self).map(|found| (found, 1))
    }
}

/// Only for a transaction that only reads: see [`TxnRequest::is_read_only`]. Any other is [`KvError::Unreadable`].
impl Query for TxnRequest {
    type Answer = TxnResponse;

    fn check(&self, limits: &Limits) -> Result<(), KvError> {
        self.check_operations(limits)?;
        check_size(self.encoded_len(), limits)
    }

    fn answer<E: Engine>(&self, store: &Store<E>) -> Result<(TxnResponse, u64), KvError> {
        store.refuse_fault()?;
        store.refuse_corrupt()?;
        store.settle(store.read_txn(self))
    }
}

impl Query for HashKvRequest {
    type Answer = HashKv;

    fn answer<E: Engine>(&self, store: &Store<E>) -> Result<(HashKv, u64), KvError> {
        store.hash_kv(self.revision).map(|hash| (hash, 0))
    }
}

impl Query for StoreStatusRequest {
    type Answer = StoreStatus;

    fn is_quick(&self) -> bool {
        true
    }

    fn answer<E: Engine>(&self, store: &Store<E>) -> Result<(StoreStatus, u64), KvError> {
        Ok((store.status(), 0))
    }
}

impl Query for LeaseTimeToLiveRequest {
    type Answer = LeaseTimeToLive;

    fn is_quick(&self) -> bool {
        !self.keys
    }

    fn answer<E: Engine>(&self, store: &Store<E>) -> Result<(LeaseTimeToLive, u64), KvError> {
        store.refuse_fault()?;
        store.refuse_corrupt()?;
        Ok((store.time_to_live(self), 0))
    }
}

impl Query for LeaseListRequest {
    type Answer = LeaseListResponse;

    fn answer<E: Engine>(&self, store: &Store<E>) -> Result<(LeaseListResponse, u64), KvError> {
        store.refuse_fault()?;
        store.refuse_corrupt()?;
        Ok((store.list_leases(self), 0))
    }
}

impl Query for AlarmListRequest {
    type Answer = AlarmResponse;

    fn is_quick(&self) -> bool {
        true
    }

    fn answer<E: Engine>(&self, store: &Store<E>) -> Result<(AlarmResponse, u64), KvError> {
        Ok((store.list_alarms(self.kind), 0))
    }
}

impl<E: Engine> Store<E> {
    /// Answers a query.
    ///
    /// # Errors
    /// Why it is refused; [`KvError::Stopped`] if there is a [`Store::fault`].
    pub fn ask<Q: Query>(&self, query: &Q) -> Result<Q::Answer, KvError> {
        self.ask_counting(query).0
    }

    /// As [`Store::ask`]; also returns the operations that the answer took.
    pub fn ask_counting<Q: Query>(&self, query: &Q) -> (Result<Q::Answer, KvError>, Operations) {
        match query.answer(self) {
            Ok((answer, reads)) => (Ok(answer), Operations::of_ranges(reads).as_txn()),
            Err(error) => (Err(error), Operations::default()),
        }
    }

    /// Reads keys.
    ///
    /// # Errors
    /// As [`Store::ask`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        self.refuse_fault()?;
        self.refuse_corrupt()?;
        request.check_fields()?;
        self.settle(self.view().range(request))
    }
}
