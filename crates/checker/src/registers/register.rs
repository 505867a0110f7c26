//! One register's part of a history, with its values replaced by small numbers.

use std::collections::BTreeMap;

use super::{Action, Operation};

/// The number of the value that a register starts with: the empty string.
pub(super) const INITIAL: u32 = 0;

/// An operation that constrains its register.
#[derive(Clone, Copy, Debug)]
pub(super) struct Op {
    pub(super) is_write: bool,
    /// Written or read; less than [`Register::values`].
    pub(super) value: u32,
    pub(super) call: u64,
    /// `None` only for writes.
    pub(super) ret: Option<u64>,
    /// Its place in the whole history.
    pub(super) index: usize,
}

impl Op {
    pub(super) fn is_read_of(&self, value: u32) -> bool {
        !self.is_write && self.value == value
    }
}

/// The operations on one key.
#[derive(Clone, Debug)]
pub(super) struct Register {
    pub(super) ops: Vec<Op>,
    /// How many different values there are, the initial one included.
    pub(super) values: usize,
}

impl Register {
    /// Splits a history by key, and leaves out the reads whose results are unknown: they can be placed anywhere.
    pub(super) fn partition(history: &[Operation]) -> BTreeMap<&str, Register> {
        let mut indices: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, operation) in history.iter().enumerate() {
            indices.entry(&operation.key).or_default().push(index);
        }
        indices.into_iter().map(|(key, indices)| (key, Register::compile(history, &indices))).collect()
    }

    fn compile(history: &[Operation], indices: &[usize]) -> Register {
        let mut numbers = BTreeMap::from([("", INITIAL)]);
        let mut ops = Vec::with_capacity(indices.len());
        for &index in indices {
            let operation = &history[index];
            let (is_write, value, ret) = match &operation.action {
                Action::Write(value) => (true, value, operation.ret),
                // Its result is known, so it happened, even if its return time is unknown.
                Action::Read(Some(value)) => (false, value, operation.ret.or(Some(u64::MAX))),
                Action::Read(None) => continue,
            };
            let new = u32::try_from(numbers.len()).expect("fewer values than operations in memory");
            ops.push(Op { is_write, value: *numbers.entry(value).or_insert(new), call: operation.call, ret, index });
        }
        Register { ops, values: numbers.len() }
    }

    /// The same register with only these operations.
    pub(super) fn with_ops(&self, ops: Vec<Op>) -> Register {
        Register { ops, values: self.values }
    }

    /// Every call and return in time order, calls first at equal times: (time, whether it is a return, operation).
    pub(super) fn events(&self) -> Vec<(u64, bool, usize)> {
        let mut events = Vec::with_capacity(self.ops.len() * 2);
        for (at, op) in self.ops.iter().enumerate() {
            events.push((op.call, false, at));
            if let Some(ret) = op.ret {
                events.push((ret, true, at));
            }
        }
        events.sort_unstable();
        events
    }
}
