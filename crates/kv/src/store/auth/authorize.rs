//! The check: what each request needs, and whether who makes it has that.

use bytes::Bytes;

use super::book::{Access, AuthBook};
use super::principal::{LoggedIn, Principal};
use super::types::{AuthChange, AuthRequest};
use crate::store::leases::LeaseBook;
use crate::store::types::{
    AlarmListRequest, AlarmRequest, DeleteRangeRequest, HashKvRequest, LeaseListRequest, LeaseTimeToLiveRequest,
    MemberChange, MemberRequest, Operation, PutRequest, RangeRequest, StoreStatusRequest, TxnRequest,
};
use crate::store::{Command, Engine, KvError, Store};
use crate::watch::{KeyRange, WatchRequest};

/// A request that its maker may make, as of the moment of the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authorized<T> {
    /// Private, so that only the check can make one.
    request: T,
}

impl<T: Clone> Authorized<&Check<T>> {
    pub(in crate::store) fn checked(&self) -> Authorized<T> {
        Authorized { request: self.request.0.clone() }
    }
}

impl<T> Authorized<T> {
    /// The request.
    pub fn get(&self) -> &T {
        &self.request
    }

    /// The request.
    pub fn into_inner(self) -> T {
        self.request
    }
}

/// Something that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// Its maker has logged in.
    Login,
    /// Its maker has the role root.
    Root,
    /// A member of the cluster makes it.
    Member,
    /// Its maker is this user, or has the role root.
    User(&'a str),
    /// Its maker has this role, or the role root.
    Role(&'a str),
    /// Its maker may read these keys: a key and an end, as in a range request.
    Read(&'a Bytes, &'a Bytes),
    /// Its maker may write these keys, likewise.
    Write(&'a Bytes, &'a Bytes),
}

/// Takes the needs of a request one by one, until one is not satisfied.
type Visit<'c> = &'c mut dyn FnMut(Need<'_>) -> Result<(), KvError>;

/// A request that says what it needs.
pub trait Guarded {
    /// Calls `check` with each need, until one is not satisfied. `leases` says which keys are attached to leases.
    ///
    /// # Errors
    /// That of `check`.
    fn needs(&self, leases: &LeaseBook, check: Visit<'_>) -> Result<(), KvError>;
}

impl<T: Guarded> Guarded for &T {
    fn needs(&self, leases: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        (*self).needs(leases, check)
    }
}

/// Asks whether a request may be made. The answer is the request, authorized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check<T>(pub T);

impl<T: Guarded> Guarded for Check<T> {
    fn needs(&self, leases: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        self.0.needs(leases, check)
    }
}

/// What is asked of a member beyond reading and changing the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// How the member is.
    Status,
    /// Who the members are.
    MemberList,
    /// The remaining time of a lease, without its keys.
    LeaseTime,
    /// A copy of the state.
    Snapshot,
    /// A checksum of the state's file.
    Hash,
    /// A rewrite of the state's file without free space.
    Defragment,
    /// Other members.
    ChangeMembers,
    /// Another leader.
    MoveLeader,
    /// An older version of the cluster.
    Downgrade,
}

/// Whether authentication is enabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthStatusRequest;

/// Asks for a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserGetRequest {
    /// Its name.
    pub name: String,
}

/// Asks for a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleGetRequest {
    /// Its name.
    pub name: String,
}

/// Asks for all users and roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthListRequest;

/// Keeps a lease alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseRenewal {
    /// Its identity.
    pub id: i64,
}

/// An end that means: this key alone.
static ALONE: Bytes = Bytes::new();

impl Guarded for Command {
    fn needs(&self, leases: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        match self {
            Command::Put(put) => put.needs(leases, check),
            Command::DeleteRange(delete) => delete.needs(leases, check),
            Command::Txn(txn) => txn.needs(leases, check),
            Command::Compact(_) => check(Need::Root),
            Command::LeaseGrant(_) => check(Need::Login),
            Command::LeaseRevoke(revoke) => write_keys_of(revoke.id, leases, check),
            Command::LeaseExpire(_) | Command::ClusterVersion(_) | Command::Compare(_) => check(Need::Member),
            Command::Alarm(alarm) => alarm.needs(leases, check),
            Command::Member(request) => request.needs(leases, check),
            Command::Auth(request) => request.needs(leases, check),
        }
    }
}

impl Guarded for PutRequest {
    fn needs(&self, leases: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(Need::Write(&self.key, &ALONE))?;
        if self.prev_kv {
            check(Need::Read(&self.key, &ALONE))?;
        }
        // Whoever may attach a key to a lease decides how long its other keys live.
        if self.lease == 0 { Ok(()) } else { write_keys_of(self.lease, leases, check) }
    }
}

impl Guarded for DeleteRangeRequest {
    fn needs(&self, _: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(Need::Write(&self.key, &self.range_end))?;
        if self.prev_kv { check(Need::Read(&self.key, &self.range_end)) } else { Ok(()) }
    }
}

impl Guarded for RangeRequest {
    fn needs(&self, _: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(Need::Read(&self.key, &self.range_end))
    }
}

/// Of both branches: the comparisons tell something, whichever is taken.
impl Guarded for TxnRequest {
    fn needs(&self, leases: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(Need::Login)?;
        for compare in &self.compare {
            check(Need::Read(&compare.key, &compare.range_end))?;
        }
        for op in self.success.iter().chain(&self.failure) {
            match &op.operation {
                Some(Operation::Range(range)) => range.needs(leases, check)?,
                Some(Operation::Put(put)) => put.needs(leases, check)?,
                Some(Operation::DeleteRange(delete)) => delete.needs(leases, check)?,
                Some(Operation::Txn(txn)) => txn.needs(leases, check)?,
                None => {}
            }
        }
        Ok(())
    }
}

impl Guarded for WatchRequest {
    fn needs(&self, _: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(Need::Read(&self.key, &self.range_end))
    }
}

impl Guarded for AlarmRequest {
    fn needs(&self, _: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(if self.automatic { Need::Member } else { Need::Root })
    }
}

impl Guarded for MemberRequest {
    fn needs(&self, _: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(match &self.change {
            Some(MemberChange::Adopt(_) | MemberChange::Publish(_)) | None => Need::Member,
            Some(
                MemberChange::Add(_) | MemberChange::Update(_) | MemberChange::Remove(_) | MemberChange::Promote(_),
            ) => Need::Root,
        })
    }
}

impl Guarded for AuthRequest {
    fn needs(&self, _: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(match &self.change {
            Some(AuthChange::Login(_) | AuthChange::RenewHash(_)) | None => Need::Member,
            Some(
                AuthChange::Enable(())
                | AuthChange::Disable(())
                | AuthChange::AddUser(_)
                | AuthChange::DeleteUser(_)
                | AuthChange::ChangePassword(_)
                | AuthChange::GrantRole(_)
                | AuthChange::RevokeRole(_)
                | AuthChange::AddRole(_)
                | AuthChange::DeleteRole(_)
                | AuthChange::GrantPermission(_)
                | AuthChange::RevokePermission(_),
            ) => Need::Root,
        })
    }
}

impl Guarded for Task {
    fn needs(&self, _: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(match self {
            Task::Status | Task::MemberList | Task::LeaseTime => Need::Login,
            Task::Snapshot
            | Task::Hash
            | Task::Defragment
            | Task::ChangeMembers
            | Task::MoveLeader
            | Task::Downgrade => Need::Root,
        })
    }
}

impl Guarded for HashKvRequest {
    fn needs(&self, _: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(Need::Root)
    }
}

impl Guarded for StoreStatusRequest {
    fn needs(&self, _: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(Need::Login)
    }
}

impl Guarded for AlarmListRequest {
    fn needs(&self, _: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(Need::Login)
    }
}

impl Guarded for LeaseRenewal {
    fn needs(&self, leases: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        write_keys_of(self.id, leases, check)
    }
}

impl Guarded for LeaseTimeToLiveRequest {
    fn needs(&self, leases: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        if self.keys { read_keys_of(self.id, leases, check) } else { check(Need::Login) }
    }
}

/// As in etcd, who may not read a key of one of the leases gets no list at all.
impl Guarded for LeaseListRequest {
    fn needs(&self, leases: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(Need::Login)?;
        leases.iter().try_for_each(|lease| read_keys_of(lease.id, leases, check))
    }
}

/// Everybody may know: a client can't find out otherwise whether it has to log in.
impl Guarded for AuthStatusRequest {
    fn needs(&self, _: &LeaseBook, _: Visit<'_>) -> Result<(), KvError> {
        Ok(())
    }
}

impl Guarded for UserGetRequest {
    fn needs(&self, _: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(Need::User(&self.name))
    }
}

impl Guarded for RoleGetRequest {
    fn needs(&self, _: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(Need::Role(&self.name))
    }
}

impl Guarded for AuthListRequest {
    fn needs(&self, _: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
        check(Need::Root)
    }
}

fn write_keys_of(lease: i64, leases: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
    check(Need::Login)?;
    leases.keys(lease).try_for_each(|key| check(Need::Write(&Bytes::copy_from_slice(key), &ALONE)))
}

fn read_keys_of(lease: i64, leases: &LeaseBook, check: Visit<'_>) -> Result<(), KvError> {
    check(Need::Login)?;
    leases.keys(lease).try_for_each(|key| check(Need::Read(&Bytes::copy_from_slice(key), &ALONE)))
}

impl AuthBook {
    /// Authorizes a request, if who makes it may make it now.
    ///
    /// # Errors
    /// Nobody has logged in, the user has to log in again, or the permission is missing.
    pub(crate) fn authorize<T: Guarded>(
        &self,
        by: &Principal,
        request: T,
        leases: &LeaseBook,
    ) -> Result<Authorized<T>, KvError> {
        if self.is_enabled() && *by != Principal::Member {
            request.needs(leases, &mut |need| self.satisfies(by, need))?;
        }
        Ok(Authorized { request })
    }

    /// Authorizes a request for a watcher, if who makes it may read the keys now.
    ///
    /// # Errors
    /// As for any request.
    pub(crate) fn authorize_watch<'a>(
        &self,
        by: &Principal,
        request: &'a WatchRequest,
    ) -> Result<Authorized<&'a WatchRequest>, KvError> {
        self.authorize(by, request, &LeaseBook::default())
    }

    /// Authorizes a task, if who asks for it may do so now.
    ///
    /// # Errors
    /// As for any request.
    pub fn authorize_task(&self, by: &Principal, task: Task) -> Result<Authorized<Task>, KvError> {
        self.authorize(by, task, &LeaseBook::default())
    }

    /// # Errors
    /// It does not satisfy the need.
    fn satisfies(&self, by: &Principal, need: Need<'_>) -> Result<(), KvError> {
        let (user, access) = self.logged_in(by)?;
        let permitted = match need {
            Need::Login => true,
            Need::Root => access.root,
            Need::Member => false,
            Need::User(name) => access.root || user == name,
            Need::Role(name) => access.root || self.user(user).is_some_and(|user| user.has(name)),
            Need::Read(key, range_end) => access.root || covers(&access.reads, key, range_end),
            Need::Write(key, range_end) => access.root || covers(&access.writes, key, range_end),
        };
        if permitted { Ok(()) } else { Err(KvError::PermissionDenied) }
    }

    /// The user who makes a request, and what it may do.
    ///
    /// # Errors
    /// There is none, or it has to log in again.
    fn logged_in<'a>(&'a self, by: &'a Principal) -> Result<(&'a str, &'a Access), KvError> {
        let Principal::User(LoggedIn { user, at }) = by else { return Err(KvError::UserEmpty) };
        let (Some(record), Some(access)) = (self.user(user), self.access(user)) else {
            return Err(KvError::PermissionDenied);
        };
        if *at < record.since.max(self.valid_from()) {
            return Err(KvError::InvalidAuthToken);
        }
        Ok((user, access))
    }
}

/// A range without keys needs nothing.
fn covers(granted: &super::ranges::KeySet, key: &Bytes, range_end: &Bytes) -> bool {
    KeyRange::of(key, range_end).is_none_or(|range| granted.covers(&range))
}

impl<E: Engine> Store<E> {
    /// Authorizes a request, if who makes it may make it now.
    ///
    /// # Errors
    /// Nobody has logged in, the user has to log in again, or the permission is missing.
    pub(in crate::store) fn authorize<T: Guarded>(&self, by: &Principal, request: T) -> Result<Authorized<T>, KvError> {
        self.meta.auth.authorize(by, request, &self.book)
    }
}
