//! The queue that locks and elections share, as in etcd's package `concurrency`.
//!
//! Who wants to be first creates the key `NAME/LEASE`, attached to its lease, where LEASE is the lease's id in
//! hexadecimal. Among these keys, the one with the lowest create revision is first. Each other waits until the key just
//! before its own is deleted. It reads and watches these keys as its caller, who needs the permission to read the keys
//! under the name, and to write its own.

use std::time::Duration;

use bowline_kv::store::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, KeyValue, KvError, LeaseRevokeRequest, Operation,
    OperationResponse, Principal, PutRequest, RangeRequest, RangeResponse, SortOrder, SortTarget, TxnRequest,
    TxnResponse, prefix_end,
};
use bowline_kv::watch::{Body, WatchRequest};
use bytes::Bytes;
use tokio::sync::oneshot;
use tonic::{Code, Request, Status};

use super::caller::Caller;
use super::lease::grant_new;
use super::watches::Serving;
use super::{Context, errors};

/// Time to live of a lease that the server makes, in seconds. Nobody keeps it alive unless its client does.
const LEASE_TTL: i64 = 60;

/// How long a call that fails waits until its key is deleted. After that, the deletion goes on without it.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// Who wants to be first.
pub(super) struct Entrant {
    pub(super) name: Bytes,
    /// 0: the server makes a lease.
    pub(super) lease: i64,
    /// The value of the key.
    pub(super) value: Bytes,
    /// The error if the lease ends while it waits.
    pub(super) expired: &'static str,
}

/// Somebody who is first.
pub(super) struct First {
    pub(super) key: Bytes,
    pub(super) lease: i64,
    /// The create revision of the key.
    pub(super) created: i64,
    /// A revision of the store at which the key was the first.
    pub(super) revision: i64,
}

/// A key in a queue.
struct Place {
    context: Context,
    by: Principal,
    prefix: Bytes,
    key: Bytes,
    lease: i64,
    /// Whether the lease was made for this call.
    own_lease: bool,
    expired: &'static str,
    /// The create revision of the key.
    created: i64,
}

/// The range of a queue's keys.
fn keys(name: &[u8]) -> RangeRequest {
    let prefix = [name, b"/"].concat();
    RangeRequest { range_end: prefix_end(&prefix), key: prefix.into(), ..RangeRequest::default() }
}

/// Asks for the first key of a queue.
pub(super) fn first(name: &[u8]) -> RangeRequest {
    RangeRequest {
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        limit: 1,
        ..keys(name)
    }
}

/// Asks for changes of a queue's keys from a revision on.
pub(super) fn changes(name: &[u8], start_revision: i64) -> WatchRequest {
    let RangeRequest { key, range_end, .. } = keys(name);
    WatchRequest { key, range_end, start_revision, ..WatchRequest::default() }
}

/// Whether a key is the one that was created at this revision; with 0, whether there is no such key.
pub(super) fn is(key: &Bytes, created: i64) -> Compare {
    let target = Some(CompareTarget::Create(created));
    Compare { key: key.clone(), result: CompareResult::Equal.into(), target, ..Compare::default() }
}

/// Does this if the key is still the one that was created at this revision.
pub(super) fn guarded(key: &Bytes, created: i64, operation: Operation) -> TxnRequest {
    TxnRequest { compare: vec![is(key, created)], success: vec![operation.into()], failure: Vec::new() }
}

/// Puts a new value, and leaves the lease of the key as it is.
pub(super) fn announcement(key: &Bytes, value: Bytes) -> Operation {
    Operation::Put(PutRequest { key: key.clone(), value, ignore_lease: true, ..PutRequest::default() })
}

/// As in etcd, whose services are clients of its own: they lose the code of this error.
fn of_etcd(status: Status) -> Status {
    if status.message() == KvError::LeaseNotFound.to_string() { Status::unknown(status.message()) } else { status }
}

/// Waits until a key of the caller is the first. If the client goes away meanwhile, or the call fails, the key is deleted.
/// With the metadata `hasleader`, it fails if no leader is known for `leaderless`.
pub(super) async fn wait<T>(
    context: &Context,
    request: &Request<T>,
    entrant: Entrant,
    leaderless: Duration,
) -> Result<First, Status> {
    let by = context.caller(request).await?.principal();
    let insists = context.insists_on_leader(request.metadata());
    let (context, (mut answer, first)) = (context.clone(), oneshot::channel());
    // A task of its own: it goes on when the client goes away, to delete what it has created.
    tokio::spawn(async move {
        let (place, at) = match Place::enter(&context, by, entrant).await {
            Ok(entered) => entered,
            // The client may be gone.
            Err(status) => return drop(answer.send(Err(of_etcd(status)))),
        };
        let outcome = match at {
            At::First { revision, .. } => Ok(revision),
            At::Behind => tokio::select! {
                outcome = place.becomes_first() => outcome,
                status = context.lost_leader(leaderless), if insists => Err(status),
                status = context.stopped() => Err(status),
                () = answer.closed() => Err(Status::cancelled("etcdserver: request canceled")),
            },
        };
        let failed = outcome.is_err();
        if failed {
            let _ = tokio::time::timeout(LEAVE_PATIENCE, place.leave()).await;
        }
        let told = answer.send(outcome.map(|revision| place.first(revision)));
        // Who was first already stays so, whatever becomes of this call.
        if told.is_err() && !failed && !matches!(at, At::First { before: true, .. }) {
            place.leave().await;
        }
    });
    first.await.unwrap_or_else(|_| Err(errors::of_request(bowline_node::Unknown::Stopped.into())))
}

/// Where a key is in its queue.
enum At {
    /// It is the first, and was it before the call or not.
    First {
        before: bool,
        revision: i64,
    },
    Behind,
}

impl Place {
    /// Creates the key, if the lease has none in this queue yet.
    async fn enter(context: &Context, by: Principal, entrant: Entrant) -> Result<(Place, At), Status> {
        let Entrant { name, lease, value, expired } = entrant;
        let caller = context.on_behalf_of(by.clone());
        let own_lease = lease == 0;
        let lease = if own_lease { grant_new(&caller, LEASE_TTL).await?.id } else { lease };
        let prefix = keys(&name).key;
        let key = Bytes::from([&prefix[..], format!("{lease:x}").as_bytes()].concat());
        let place = Place { context: context.clone(), by, prefix, key, lease, own_lease, expired, created: 0 };
        let entered = place.create(&name, value).await;
        if entered.is_err() && own_lease {
            // If this fails, the lease ends by itself.
            let _ = caller.write(LeaseRevokeRequest { id: lease }).await;
        }
        let (created, at) = entered?;
        Ok((Place { created, ..place }, at))
    }

    /// Returns the create revision of the key too.
    async fn create(&self, name: &[u8], value: Bytes) -> Result<(i64, At), Status> {
        let (key, caller) = (&self.key, self.caller());
        let put = PutRequest { key: key.clone(), value: value.clone(), lease: self.lease, ..PutRequest::default() };
        let own = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let first = || Operation::Range(RangeRequest { keys_only: true, ..first(name) }).into();
        let enter = TxnRequest {
            compare: vec![is(key, 0)],
            success: vec![Operation::Put(put).into(), first()],
            failure: vec![Operation::Range(own).into(), first()],
        };
        let mut before = true;
        let answer = match caller.write(enter.clone()).await {
            // Perhaps the leader is gone, and perhaps it has created the key: that would be found now.
            Err(status) if status.code() == Code::Unavailable => {
                before = false;
                caller.write(enter).await?
            }
            written => written?,
        };
        let own = if answer.succeeded { None } else { kv_of(&answer, 0) };
        let created = own.map_or(answer.revision, |kv| kv.create_revision);
        if own.is_some_and(|kv| kv.value != value) {
            // The key is from an earlier call, which had another value.
            let announced = caller.write(guarded(key, created, announcement(key, value))).await?;
            if !announced.succeeded {
                return Err(Status::unknown(self.expired));
            }
        }
        let is_first = kv_of(&answer, 1).is_some_and(|kv| kv.create_revision == created);
        let revision = answer.revision;
        Ok((created, if is_first { At::First { before: before && own.is_some(), revision } } else { At::Behind }))
    }

    fn caller(&self) -> Caller<'_> {
        self.context.on_behalf_of(self.by.clone())
    }

    fn first(&self, revision: i64) -> First {
        First { key: self.key.clone(), lease: self.lease, created: self.created, revision }
    }

    /// Waits until no key with a lower create revision is left. Returns a revision at which that was so.
    ///
    /// # Errors
    /// The key is gone, for example because its lease has ended; or its owner may not read the queue any more.
    async fn becomes_first(&self) -> Result<i64, Status> {
        loop {
            let (before, revision) = self.look().await?;
            let Some(before) = before else { return Ok(revision) };
            self.changed(before, revision + 1).await?;
        }
    }

    /// The key just before this one, and the revision at which it was.
    async fn look(&self) -> Result<(Option<Bytes>, i64), Status> {
        let before = RangeRequest {
            key: self.prefix.clone(),
            range_end: prefix_end(&self.prefix),
            max_create_revision: self.created - 1,
            sort_order: SortOrder::Descend.into(),
            sort_target: SortTarget::Create.into(),
            limit: 1,
            keys_only: true,
            ..RangeRequest::default()
        };
        let own = RangeRequest { key: self.key.clone(), keys_only: true, ..RangeRequest::default() };
        let success = vec![Operation::Range(before).into(), Operation::Range(own).into()];
        let answer = self.caller().read(TxnRequest { success, ..TxnRequest::default() }, false).await?;
        if kv_of(&answer, 1).is_none_or(|own| own.create_revision != self.created) {
            return Err(Status::unknown(self.expired));
        }
        Ok((kv_of(&answer, 0).map(|kv| kv.key.clone()), answer.revision))
    }

    /// Waits until a key or the own one is deleted, at this revision or later.
    async fn changed(&self, before: Bytes, start_revision: i64) -> Result<(), Status> {
        let mut watches = Serving::new(self.context.clone(), self.by.clone());
        for key in [before, self.key.clone()] {
            watches.create(WatchRequest { key, start_revision, no_put: true, ..WatchRequest::default() });
        }
        loop {
            match watches.message().await?.body {
                // What was in the history that is gone is seen when it looks again.
                Body::Events { .. } | Body::Compacted { .. } => return Ok(()),
                Body::Denied(error) | Body::Revoked(error) => return Err(errors::of_store(error)),
                _ => {}
            }
        }
    }

    /// Deletes the key, and no later one of the same name. If that fails, the key is deleted when its lease ends.
    async fn leave(&self) {
        let caller = self.caller();
        if self.own_lease {
            let _ = caller.write(LeaseRevokeRequest { id: self.lease }).await;
        } else {
            let delete = DeleteRangeRequest { key: self.key.clone(), ..DeleteRangeRequest::default() };
            let _ = caller.write(guarded(&self.key, self.created, Operation::DeleteRange(delete))).await;
        }
    }
}

/// The first key in an answer to a transaction.
fn kv_of(answer: &TxnResponse, place: usize) -> Option<&KeyValue> {
    match &answer.responses.get(place)?.response {
        Some(OperationResponse::Range(RangeResponse { kvs, .. })) => kvs.first(),
        _ => None,
    }
}
