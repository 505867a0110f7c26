//! Write transactions: operations that take effect together, at one revision, or not at all.
//!
//! The index is changed in place, while the records wait in a list. A transaction that is refused
//! half-way undoes its changes of the index.

use super::check::MAX_TXN_DEPTH;
use super::codec::MAX_FIELD_BYTES;
use super::engine::{Engine, EngineError, Revision};
use super::operations::Operations;
use super::read::{Failure, View};
use super::record::Record;
use super::types::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, KeyValue, Operation,
    OperationResponse, PutRequest, PutResponse, RequestOp, TxnRequest, TxnResponse,
};
use super::{KvError, Store};

/// A write that is under way.
pub(crate) struct WriteTxn<'a, E: Engine> {
    store: &'a mut Store<E>,
    staged: Vec<Record>,
    /// How many comparisons were evaluated before it began.
    compared: u64,
    done: Operations,
}

impl<E: Engine> Store<E> {
    /// Runs a write, and commits it or rolls it back.
    pub(crate) fn write<T>(
        &mut self,
        run: impl FnOnce(&mut WriteTxn<'_, E>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut txn = WriteTxn { store: self, staged: Vec::new(), compared: 0, done: Operations::default() };
        let outcome = run(&mut txn);
        match outcome {
            Ok(_) => txn.commit()?,
            Err(_) => txn.roll_back()?,
        }
        outcome
    }

    /// Answers a transaction that only reads, and counts its reads.
    pub(crate) fn read_txn(&self, request: &TxnRequest) -> Result<(TxnResponse, u64), Failure> {
        let view = self.view();
        let plan = Plan::of(&view, request, MAX_TXN_DEPTH)?;
        plan.precheck(&view)?;
        let responses = plan.ops.iter().map(|op| match &op.operation {
            Some(Operation::Range(range)) => Ok(OperationResponse::Range(view.range(range)?).into()),
            // Callers check `TxnRequest::is_read_only` first.
            _ => Err(KvError::Unreadable.into()),
        });
        let responses = responses.collect::<Result<Vec<_>, Failure>>()?;
        let reads = plan.compared + responses.len() as u64;
        Ok((TxnResponse { revision: view.revision(), succeeded: plan.succeeded, responses }, reads))
    }
}

impl<E: Engine> WriteTxn<'_, E> {
    fn view(&self) -> View<'_, E> {
        View { staged: &self.staged, ..self.store.view() }
    }

    fn commit(self) -> Result<(), EngineError> {
        self.store.operations += Operations::of_ranges(self.compared).as_txn();
        self.store.operations += self.done.as_txn();
        if self.staged.is_empty() {
            return Ok(());
        }
        let main = self.store.meta.revision + 1;
        self.store.meta.revision = main;
        for (sub, record) in (0..).zip(self.staged) {
            self.store.book.note(&record)?;
            self.store.pending_bytes += record.stored().len();
            if let Some(noted) = &mut self.store.noted {
                noted.push((Revision { main, sub }, record.clone()));
            }
            self.store.pending.push((Revision { main, sub }, record));
        }
        Ok(())
    }

    fn roll_back(self) -> Result<(), EngineError> {
        for record in self.staged.iter().rev() {
            self.store.index.pop(&record.key_value()?.key);
        }
        Ok(())
    }

    /// The place of the next record. (2^32 records don't fit into memory.)
    fn next(&self) -> Revision {
        let sub = u32::try_from(self.staged.len()).expect("a transaction fits into memory");
        Revision { main: self.store.meta.revision + 1, sub }
    }

    pub(crate) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Failure> {
        // Commands were checked before they were proposed; this catches one that was not.
        request.check()?;
        if request.key.len().max(request.value.len()) > MAX_FIELD_BYTES {
            return Err(KvError::RequestTooLarge.into());
        }
        self.store.book.check(request.lease)?;
        let view = self.view();
        let keeps = request.ignore_value || request.ignore_lease;
        let previous = if keeps || request.prev_kv { view.current(&request.key)? } else { None };
        drop(view);
        if keeps && previous.is_none() {
            return Err(KvError::KeyNotFound.into());
        }
        self.done.puts += 1;
        self.done.ranges += u64::from(keeps || request.prev_kv);
        let at = self.next();
        let version = self.store.index.put(&request.key, at);
        let kept = previous.clone().unwrap_or_default();
        let record = Record::put(&KeyValue {
            key: request.key.clone(),
            create_revision: version.create_revision,
            mod_revision: at.main,
            version: version.version,
            value: if request.ignore_value { kept.value } else { request.value.clone() },
            lease: if request.ignore_lease { kept.lease } else { request.lease },
        });
        self.staged.push(record);
        Ok(PutResponse { revision: at.main, prev_kv: previous.filter(|_| request.prev_kv) })
    }

    pub(crate) fn delete_range(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Failure> {
        request.check()?;
        let view = self.view();
        let mut prev_kvs = Vec::new();
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        for (key, version) in view.current_range(&request.key, &request.range_end) {
            keys.push(key.into());
            if request.prev_kv {
                prev_kvs.push(view.load(version.at)?);
            }
        }
        let deleted = i64::try_from(keys.len()).unwrap_or(i64::MAX);
        drop(view);
        self.done.deletes += 1;
        self.done.ranges += u64::from(request.prev_kv);
        keys.iter().for_each(|key| self.delete(key));
        Ok(DeleteRangeResponse { revision: self.view().revision(), deleted, prev_kvs })
    }

    /// Deletes a key because its lease ends.
    pub(crate) fn delete_leased(&mut self, key: &[u8]) {
        self.done.deletes += 1;
        self.delete(key);
    }

    /// Deletes an existing key.
    fn delete(&mut self, key: &[u8]) {
        let at = self.next();
        self.staged.push(Record::tombstone(key));
        self.store.index.delete(key, at);
    }

    pub(crate) fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Failure> {
        let view = self.view();
        let plan = Plan::of(&view, request, MAX_TXN_DEPTH)?;
        plan.precheck(&view)?;
        drop(view);
        self.compared = plan.compared;
        let response = self.execute(&plan)?;
        Ok(TxnResponse { revision: self.view().revision(), ..response })
    }

    /// Executes a plan. The revision in the response is 0, as in that of a nested transaction.
    fn execute(&mut self, plan: &Plan<'_>) -> Result<TxnResponse, Failure> {
        let mut within = plan.within.iter();
        let mut responses = Vec::with_capacity(plan.ops.len());
        for op in plan.ops {
            let response = match op.operation.as_ref().ok_or(KvError::KeyNotFound)? {
                Operation::Range(range) => {
                    self.done.ranges += 1;
                    OperationResponse::Range(self.view().range(range)?)
                }
                Operation::Put(put) => OperationResponse::Put(self.put(put)?),
                Operation::DeleteRange(delete) => OperationResponse::DeleteRange(self.delete_range(delete)?),
                Operation::Txn(_) => {
                    let plan = within.next().expect("a plan has one within for each transaction");
                    OperationResponse::Txn(Box::new(self.execute(plan)?))
                }
            };
            responses.push(response.into());
        }
        Ok(TxnResponse { revision: 0, succeeded: plan.succeeded, responses })
    }
}

/// Which branches a transaction and those nested in it take. This is decided before any operation runs, so a
/// comparison never sees the transaction's own writes.
struct Plan<'a> {
    succeeded: bool,
    /// How many comparisons were evaluated, including those of nested transactions.
    compared: u64,
    ops: &'a [RequestOp],
    /// The plans of the transactions among `ops`, in their order.
    within: Vec<Plan<'a>>,
}

impl<'a> Plan<'a> {
    /// At most `depth` levels are allowed, including this one.
    fn of<E: Engine>(view: &View<'_, E>, request: &'a TxnRequest, depth: usize) -> Result<Plan<'a>, Failure> {
        let depth = depth.checked_sub(1).ok_or(KvError::TooManyOps)?;
        let (mut succeeded, mut compared) = (true, 0);
        for compare in &request.compare {
            compared += 1;
            succeeded = compare.holds(view)?;
            if !succeeded {
                break;
            }
        }
        let ops = if succeeded { &request.success } else { &request.failure };
        let mut within = Vec::new();
        for op in ops {
            if let Some(Operation::Txn(txn)) = &op.operation {
                let plan = Plan::of(view, txn, depth)?;
                compared += plan.compared;
                within.push(plan);
            }
        }
        Ok(Plan { succeeded, compared, ops, within })
    }

    /// Checks the operations against the state before the transaction, whatever earlier operations change.
    fn precheck<E: Engine>(&self, view: &View<'_, E>) -> Result<(), Failure> {
        let mut within = self.within.iter();
        for op in self.ops {
            match &op.operation {
                Some(Operation::Range(range)) if range.revision > view.revision() => {
                    return Err(KvError::FutureRevision.into());
                }
                // Unlike in a range outside a transaction, etcd does not read a negative revision as the latest.
                Some(Operation::Range(range)) if range.revision != 0 && range.revision < view.compacted => {
                    return Err(KvError::Compacted.into());
                }
                Some(Operation::Put(put)) => {
                    let there = || view.current_range(&put.key, &[]).next().is_some();
                    if (put.ignore_value || put.ignore_lease) && !there() {
                        return Err(KvError::KeyNotFound.into());
                    }
                    // The lease comes second here; a put outside a transaction checks it first. Both as in etcd.
                    view.book.check(put.lease)?;
                }
                Some(Operation::Txn(_)) => {
                    within.next().expect("a plan has one within for each transaction").precheck(view)?;
                }
                Some(Operation::Range(_) | Operation::DeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }
}

impl Compare {
    /// Whether it holds for every key of its range. If there is none, all numbers count as 0, and a comparison of
    /// the value fails.
    fn holds<E: Engine>(&self, view: &View<'_, E>) -> Result<bool, Failure> {
        let mut any = false;
        let (result, target) = self.condition()?;
        for (_, version) in view.current_range(&self.key, &self.range_end) {
            any = true;
            let holds = match target {
                CompareTarget::Version(operand) => result.admits(&version.version, operand),
                CompareTarget::Create(operand) => result.admits(&version.create_revision, operand),
                CompareTarget::Mod(operand) => result.admits(&version.at.main, operand),
                CompareTarget::Value(operand) => result.admits(&view.load(version.at)?.value, operand),
                CompareTarget::Lease(operand) => result.admits(&view.load(version.at)?.lease, operand),
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(any
            || match target {
                CompareTarget::Value(_) => false,
                CompareTarget::Version(operand)
                | CompareTarget::Create(operand)
                | CompareTarget::Mod(operand)
                | CompareTarget::Lease(operand) => result.admits(&0, operand),
            })
    }
}

impl CompareResult {
    fn admits<T: Ord>(self, value: &T, operand: &T) -> bool {
        match self {
            CompareResult::Equal => value == operand,
            CompareResult::NotEqual => value != operand,
            CompareResult::Greater => value > operand,
            CompareResult::Less => value < operand,
        }
    }
}
