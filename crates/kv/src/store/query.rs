//! Queries of the store, each with the type of its answer. They never leave the process, so they have no encoding.

use std::sync::Arc;

use prost::Message;

use super::auth::{
    AuthBook, AuthListRequest, AuthStatusRequest, Authorized, Check, Guarded, Principal, Role, RoleGetRequest, User,
    UserGetRequest,
};
use super::check::{Limits, check_size};
use super::types::{
    AlarmListRequest, AlarmResponse, HashKv, HashKvRequest, LeaseListRequest, LeaseListResponse, LeaseTimeToLive,
    LeaseTimeToLiveRequest, RangeRequest, RangeResponse, StoreStatus, StoreStatusRequest, TxnRequest, TxnResponse,
};
use super::{Engine, KvError, Operations, Store};

/// A query of the store.
pub trait Query: Guarded + Sized {
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
    fn answer<E: Engine>(query: Authorized<&Self>, store: &Store<E>) -> Result<(Self::Answer, u64), KvError>;
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

    fn answer<E: Engine>(query: Authorized<&Self>, store: &Store<E>) -> Result<(RangeResponse, u64), KvError> {
        store.refuse_corrupt()?;
        query.get().check_fields()?;
        store.settle(store.view().range(query.get())).map(|found| (found, 1))
    }
}

/// Only for a transaction that only reads: see [`TxnRequest::is_read_only`]. Any other is [`KvError::Unreadable`].
impl Query for TxnRequest {
    type Answer = TxnResponse;

    fn check(&self, limits: &Limits) -> Result<(), KvError> {
        self.check_operations(limits)?;
        check_size(self.encoded_len(), limits)
    }

    fn answer<E: Engine>(query: Authorized<&Self>, store: &Store<E>) -> Result<(TxnResponse, u64), KvError> {
        store.refuse_corrupt()?;
        store.settle(store.read_txn(query.get()))
    }
}

impl Query for HashKvRequest {
    type Answer = HashKv;

    fn answer<E: Engine>(query: Authorized<&Self>, store: &Store<E>) -> Result<(HashKv, u64), KvError> {
        store.hash_kv(query.get().revision).map(|hash| (hash, 0))
    }
}

impl Query for StoreStatusRequest {
    type Answer = StoreStatus;

    fn is_quick(&self) -> bool {
        true
    }

    fn answer<E: Engine>(_: Authorized<&Self>, store: &Store<E>) -> Result<(StoreStatus, u64), KvError> {
        Ok((store.status(), 0))
    }
}

impl Query for LeaseTimeToLiveRequest {
    type Answer = LeaseTimeToLive;

    fn is_quick(&self) -> bool {
        !self.keys
    }

    fn answer<E: Engine>(query: Authorized<&Self>, store: &Store<E>) -> Result<(LeaseTimeToLive, u64), KvError> {
        store.refuse_corrupt()?;
        Ok((store.time_to_live(query.get()), 0))
    }
}

impl Query for LeaseListRequest {
    type Answer = LeaseListResponse;

    fn answer<E: Engine>(query: Authorized<&Self>, store: &Store<E>) -> Result<(LeaseListResponse, u64), KvError> {
        store.refuse_corrupt()?;
        Ok((store.list_leases(query.get()), 0))
    }
}

impl Query for AlarmListRequest {
    type Answer = AlarmResponse;

    fn is_quick(&self) -> bool {
        true
    }

    fn answer<E: Engine>(query: Authorized<&Self>, store: &Store<E>) -> Result<(AlarmResponse, u64), KvError> {
        Ok((store.list_alarms(query.get().kind), 0))
    }
}

impl<T: Guarded + Clone> Query for Check<T> {
    type Answer = Authorized<T>;

    fn is_quick(&self) -> bool {
        true
    }

    fn answer<E: Engine>(query: Authorized<&Self>, _: &Store<E>) -> Result<(Self::Answer, u64), KvError> {
        Ok((query.checked(), 0))
    }
}

impl Query for AuthStatusRequest {
    /// The users and roles, from which everybody may be told whether authentication is enabled.
    type Answer = Found<Arc<AuthBook>>;

    fn is_quick(&self) -> bool {
        true
    }

    fn answer<E: Engine>(_: Authorized<&Self>, store: &Store<E>) -> Result<(Self::Answer, u64), KvError> {
        Ok((store.found(Arc::clone(store.auth())), 0))
    }
}

impl Query for AuthListRequest {
    /// The users and roles.
    type Answer = Found<Arc<AuthBook>>;

    fn is_quick(&self) -> bool {
        true
    }

    fn answer<E: Engine>(_: Authorized<&Self>, store: &Store<E>) -> Result<(Self::Answer, u64), KvError> {
        Ok((store.found(Arc::clone(store.auth())), 0))
    }
}

impl Query for UserGetRequest {
    type Answer = Found<User>;

    fn is_quick(&self) -> bool {
        true
    }

    fn answer<E: Engine>(query: Authorized<&Self>, store: &Store<E>) -> Result<(Self::Answer, u64), KvError> {
        let user = store.auth().user(&query.get().name).ok_or(KvError::UserNotFound)?;
        Ok((store.found(user.clone()), 0))
    }
}

impl Query for RoleGetRequest {
    type Answer = Found<Role>;

    fn is_quick(&self) -> bool {
        true
    }

    fn answer<E: Engine>(query: Authorized<&Self>, store: &Store<E>) -> Result<(Self::Answer, u64), KvError> {
        let role = store.auth().role(&query.get().name).ok_or(KvError::RoleNotFound)?;
        Ok((store.found(role.clone()), 0))
    }
}

/// What was found, and the revision for the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// The header's revision: the store's.
    pub revision: i64,
    /// What was found.
    pub found: T,
}

impl<E: Engine> Store<E> {
    fn found<T>(&self, found: T) -> Found<T> {
        Found { revision: self.revision(), found }
    }

    /// Answers a query, if nobody in particular may ask it.
    ///
    /// # Errors
    /// Why it is refused; [`KvError::Stopped`] if there is a [`Store::fault`].
    pub fn ask<Q: Query>(&self, query: &Q) -> Result<Q::Answer, KvError> {
        self.ask_by(&Principal::Anonymous, query).0
    }

    /// Answers a query, if who asks it may do so; also returns the operations that the answer took.
    pub fn ask_by<Q: Query>(&self, by: &Principal, query: &Q) -> (Result<Q::Answer, KvError>, Operations) {
        let answer = || {
            self.refuse_fault()?;
            Q::answer(self.authorize(by, query)?, self)
        };
        match answer() {
            Ok((answer, reads)) => (Ok(answer), Operations::of_ranges(reads).as_txn()),
            Err(error) => (Err(error), Operations::default()),
        }
    }

    /// Reads keys, if nobody in particular may read them.
    ///
    /// # Errors
    /// As [`Store::ask`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        self.ask(request)
    }
}
