//! Checks before a request is proposed: rules that need no state.
//!
//! A request that passes may still be refused when it is applied (its revision is compacted, its
//! lease unknown), but then every replica refuses it alike. The limits are those of the server that received
//! the request, so applying a command never depends on them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::types::{
    AlarmKind, AlarmRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, LeaseGrantRequest, Operation,
    PutRequest, RangeRequest, RequestOp, SortOrder, SortTarget, TxnRequest,
};
use super::{Command, KvError, MAX_LEASE_TTL};

/// Most levels of nested transactions. Each is two levels of protobuf messages, and the decoder allows 100 of those.
pub const MAX_TXN_DEPTH: usize = 49;

/// Bounds on requests, as etcd's flags set them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of an encoded command or query (`--max-request-bytes`).
    pub max_request_bytes: usize,
    /// Most operations or comparisons of a transaction, including nested ones (`--max-txn-ops`).
    pub max_txn_ops: usize,
}

impl Default for Limits {
    /// Etcd's limits: 1.5 MiB, 128 operations.
    fn default() -> Limits {
        Limits { max_request_bytes: 3 << 19, max_txn_ops: 128 }
    }
}

impl Command {
    /// Checks whether it may be proposed.
    ///
    /// # Errors
    /// The first rule that it breaks, in etcd's order.
    pub fn check(&self, limits: &Limits) -> Result<(), KvError> {
        match self {
            Command::Put(put) => put.check()?,
            Command::DeleteRange(delete) => delete.check()?,
            Command::Txn(txn) => txn.check_operations(limits)?,
            Command::LeaseGrant(grant) => grant.check()?,
            Command::Alarm(alarm) => alarm.check()?,
            Command::Member(request) => request.check()?,
            Command::Auth(request) => request.check()?,
            Command::Compact(_)
            | Command::LeaseRevoke(_)
            | Command::LeaseExpire(_)
            | Command::ClusterVersion(_)
            | Command::Compare(_) => {}
        }
        check_size(self.encoded_len(), limits)
    }
}

impl RangeRequest {
    /// Whether it follows the rules.
    ///
    /// # Errors
    /// The key is empty, or the order or its target is unknown.
    pub(crate) fn check_fields(&self) -> Result<(), KvError> {
        check_key(&self.key)?;
        self.sorting().map(|_| ())
    }

    /// What the result is sorted by.
    ///
    /// # Errors
    /// The order or its target is unknown.
    pub(crate) fn sorting(&self) -> Result<(SortOrder, SortTarget), KvError> {
        let (order, target) = (SortOrder::try_from(self.sort_order), SortTarget::try_from(self.sort_target));
        Ok((order.map_err(|_| KvError::InvalidSortOption)?, target.map_err(|_| KvError::InvalidSortOption)?))
    }
}

impl PutRequest {
    /// Whether it follows the rules.
    ///
    /// # Errors
    /// The key is empty, or the request has a value or lease and also asks to ignore it.
    pub fn check(&self) -> Result<(), KvError> {
        check_key(&self.key)?;
        if self.ignore_value && !self.value.is_empty() {
            return Err(KvError::ValueProvided);
        }
        if self.ignore_lease && self.lease != 0 {
            return Err(KvError::LeaseProvided);
        }
        Ok(())
    }
}

impl DeleteRangeRequest {
    /// Whether it follows the rules.
    ///
    /// # Errors
    /// The key is empty.
    pub fn check(&self) -> Result<(), KvError> {
        check_key(&self.key)
    }
}

impl TxnRequest {
    /// Whether it and all nested transactions follow the rules, in both branches.
    ///
    /// # Errors
    /// The first rule that is broken, in etcd's order; [`KvError::TooManyOps`] also if transactions are nested
    /// more than [`MAX_TXN_DEPTH`] deep.
    pub(crate) fn check_operations(&self, limits: &Limits) -> Result<(), KvError> {
        self.check_within(limits.max_txn_ops, MAX_TXN_DEPTH)?;
        // Last, because only now is the request known to be small enough for it.
        Writes::of(&self.success)?;
        Writes::of(&self.failure)?;
        Ok(())
    }

    /// At most `ops` operations are allowed here, and `depth` levels, including this one.
    fn check_within(&self, ops: usize, depth: usize) -> Result<(), KvError> {
        let most = self.compare.len().max(self.success.len()).max(self.failure.len());
        let left = ops.checked_sub(most).ok_or(KvError::TooManyOps)?;
        let depth = depth.checked_sub(1).ok_or(KvError::TooManyOps)?;
        self.compare.iter().try_for_each(Compare::check)?;
        self.success.iter().chain(&self.failure).try_for_each(|op| match &op.operation {
            Some(Operation::Range(range)) => range.check_fields(),
            Some(Operation::Put(put)) => put.check(),
            Some(Operation::DeleteRange(delete)) => delete.check(),
            Some(Operation::Txn(txn)) => txn.check_within(left, depth),
            None => Err(KvError::KeyNotFound),
        })
    }
}

impl Compare {
    /// Whether it follows the rules.
    ///
    /// # Errors
    /// The key is empty; or its result or target is unknown, as a comparison that this program does not understand must
    /// not guard a write.
    pub(crate) fn check(&self) -> Result<(), KvError> {
        check_key(&self.key)?;
        self.condition().map(|_| ())
    }

    /// What is compared, and how the comparison must come out.
    ///
    /// # Errors
    /// [`KvError::Unreadable`]: its result or target is unknown.
    pub(crate) fn condition(&self) -> Result<(CompareResult, &CompareTarget), KvError> {
        let result = CompareResult::try_from(self.result).map_err(|_| KvError::Unreadable)?;
        Ok((result, self.target.as_ref().ok_or(KvError::Unreadable)?))
    }
}

impl LeaseGrantRequest {
    /// Whether it follows the rules.
    ///
    /// # Errors
    /// The time to live is too long. Or it is not positive, or the identity is 0: only a bug in a server can cause
    /// these two.
    pub fn check(&self) -> Result<(), KvError> {
        if self.ttl > MAX_LEASE_TTL {
            return Err(KvError::LeaseTtlTooLarge);
        }
        if self.id == 0 || self.ttl < 1 { Err(KvError::Unreadable) } else { Ok(()) }
    }
}

impl AlarmRequest {
    /// Whether it follows the rules.
    ///
    /// # Errors
    /// Its kind is unknown: only a bug in a server can cause this.
    pub fn check(&self) -> Result<(), KvError> {
        AlarmKind::try_from(self.kind).map(|_| ()).map_err(|_| KvError::Unreadable)
    }
}

fn check_key(key: &[u8]) -> Result<(), KvError> {
    if key.is_empty() { Err(KvError::EmptyKey) } else { Ok(()) }
}

pub(crate) fn check_size(bytes: usize, limits: &Limits) -> Result<(), KvError> {
    if bytes > limits.max_request_bytes { Err(KvError::RequestTooLarge) } else { Ok(()) }
}

/// The keys that a list of operations may write, including nested transactions.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletions: Intervals,
}

impl<'a> Writes<'a> {
    /// Collects the writes of a branch.
    ///
    /// # Errors
    /// [`KvError::DuplicateKey`] if it would put a key twice, or put a key that it also deletes. Deleting
    /// twice is allowed. So is writing a key in both branches of a nested transaction, since only
    /// one of them is executed.
    fn of(branch: &'a [RequestOp]) -> Result<Writes<'a>, KvError> {
        let mut writes = Writes::default();
        for op in branch {
            if let Some(Operation::DeleteRange(delete)) = &op.operation {
                writes.deletions.add(&delete.key, &delete.range_end);
            }
        }
        for op in branch {
            if let Some(Operation::Txn(txn)) = &op.operation {
                let mut within = Writes::of(&txn.success)?;
                within.join(Writes::of(&txn.failure)?);
                // Etcd's rule is asymmetric: a nested put may not overlap a deletion of this level or of an earlier
                // nested transaction, but a later deletion may overlap the put.
                if shares_key(&writes.puts, &within.puts) || writes.deletions.meet(&within.puts) {
                    return Err(KvError::DuplicateKey);
                }
                writes.join(within);
            }
        }
        for op in branch {
            if let Some(Operation::Put(put)) = &op.operation
                && (writes.deletions.contain(&put.key) || !writes.puts.insert(&put.key))
            {
                return Err(KvError::DuplicateKey);
            }
        }
        Ok(writes)
    }

    /// Adds the smaller set to the larger one, so that a deep chain of transactions stays cheap.
    fn join(&mut self, mut other: Writes<'a>) {
        if other.puts.len() > self.puts.len() {
            std::mem::swap(&mut self.puts, &mut other.puts);
        }
        self.puts.append(&mut other.puts);
        if other.deletions.0.len() > self.deletions.0.len() {
            std::mem::swap(&mut self.deletions, &mut other.deletions);
        }
        for (start, end) in other.deletions.0 {
            self.deletions.insert(start, end);
        }
    }
}

fn shares_key(one: &BTreeSet<&[u8]>, other: &BTreeSet<&[u8]>) -> bool {
    let (few, many) = if one.len() < other.len() { (one, other) } else { (other, one) };
    few.iter().any(|key| many.contains(key))
}

/// Disjoint intervals of keys: start to end, the end excluded.
#[derive(Default)]
struct Intervals(BTreeMap<Vec<u8>, Vec<u8>>);

impl Intervals {
    /// Adds the keys that a deletion covers. An empty range covers nothing. As in etcd, neither does
    /// a range whose end means "every key from here on".
    fn add(&mut self, key: &[u8], range_end: &[u8]) {
        if range_end.is_empty() {
            let mut next = key.to_vec();
            next.push(0);
            self.insert(key.to_vec(), next);
        } else if range_end > key {
            self.insert(key.to_vec(), range_end.to_vec());
        }
    }

    fn insert(&mut self, mut start: Vec<u8>, mut end: Vec<u8>) {
        // Merges all intervals that touch it. Each was added only once, so this is cheap overall.
        while let Some((other_start, other_end)) = self.0.range(..=end.clone()).next_back() {
            if *other_end < start {
                break;
            }
            let other_start = other_start.clone();
            let other_end = self.0.remove(&other_start).expect("it was just found");
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.0.insert(start, end);
    }

    fn contain(&self, key: &[u8]) -> bool {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        self.0.range::<[u8], _>(up_to).next_back().is_some_and(|(_, end)| key < end.as_slice())
    }

    fn meet(&self, keys: &BTreeSet<&[u8]>) -> bool {
        if keys.len() < self.0.len() {
            return keys.iter().any(|key| self.contain(key));
        }
        self.0.iter().any(|(start, end)| keys.range(start.as_slice()..end.as_slice()).next().is_some())
    }
}
