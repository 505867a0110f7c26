//! Explains why a history isn't linearizable, with as few operations as still show the violation.

use std::collections::BTreeMap;
use std::fmt;

use super::register::{INITIAL, Op, Register};
use super::search::{SearchResult, Steps, search};
use super::{Action, Operation};

/// Maximum number of search steps to find fewer operations, over all tries.
const SHRINK_STEPS: u64 = 20_000_000;
/// Maximum number of search steps of one try, for each operation in it. A harder try is given up.
const TRY_STEPS: u64 = 100;
/// Maximum number of characters shown of a key or value.
const SHOWN_CHARS: usize = 64;
/// Maximum number of operations shown.
const SHOWN_OPERATIONS: usize = 40;

/// A proof that a history isn't linearizable. Its `Display` has several lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterViolation {
    /// The register.
    pub key: String,
    /// What is wrong.
    pub reason: Reason,
    /// Operations of that register that are a violation by themselves, in the order of their calls.
    pub operations: Vec<Operation>,
}

/// What is wrong with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// An operation returned before its call, so the history is invalid.
    ReturnsBeforeCall,
    /// A read returned a value that no operation wrote, and that isn't the initial empty string.
    NeverWritten,
    /// A read returned a value that was written, but only by operations that were called after the
    /// read had returned.
    NotYetWritten,
    /// No order of the operations that keeps to their times explains what was read.
    NoOrder,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::ReturnsBeforeCall => "an operation returned before its call",
            Reason::NeverWritten => "a read returned a value that was never written",
            Reason::NotYetWritten => "a read returned a value that was not written yet",
            Reason::NoOrder => "no order of these operations explains what was read",
        })
    }
}

impl RegisterViolation {
    /// Reduces a register's history, which isn't linearizable, to a few operations.
    pub(super) fn explain(key: &str, register: &Register, history: &[Operation]) -> RegisterViolation {
        let (reason, mut ops) = match impossible_read(register) {
            Some(found) => found,
            None => (Reason::NoOrder, shrink(register)),
        };
        ops.sort_by_key(|op| (op.call, op.index));
        RegisterViolation {
            key: key.to_owned(),
            reason,
            operations: ops.iter().map(|op| history[op.index].clone()).collect(),
        }
    }
}

impl fmt::Display for RegisterViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not linearizable: key {}: {}", quoted(&self.key), self.reason)?;
        for operation in self.operations.iter().take(SHOWN_OPERATIONS) {
            write!(f, "\n  {operation}")?;
        }
        match self.operations.len().saturating_sub(SHOWN_OPERATIONS) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more operations"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ns to ", self.call)?;
        match self.ret {
            Some(ret) => write!(f, "{ret} ns")?,
            None => f.write_str("an unknown time")?,
        }
        write!(f, ": client {} ", self.client)?;
        match &self.action {
            Action::Write(value) => write!(f, "writes {}", quoted(value)),
            Action::Read(Some(value)) => write!(f, "reads {}", quoted(value)),
            Action::Read(None) => f.write_str("reads, with an unknown result"),
        }
    }
}

/// Keys and values are untrusted, so they are escaped and truncated.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((cut, _)) => format!("{:?} and {} more bytes", &text[..cut], text.len() - cut),
        None => format!("{text:?}"),
    }
}

/// Finds the simplest violations, which need no search: a read of a value that was not written before the read
/// returned.
fn impossible_read(register: &Register) -> Option<(Reason, Vec<Op>)> {
    let mut first_write: BTreeMap<u32, Op> = BTreeMap::new();
    for op in register.ops.iter().filter(|op| op.is_write) {
        let first = first_write.entry(op.value).or_insert(*op);
        if op.call < first.call {
            *first = *op;
        }
    }
    let reads = register.ops.iter().filter(|op| !op.is_write && op.value != INITIAL);
    for read in reads {
        match first_write.get(&read.value) {
            None => return Some((Reason::NeverWritten, vec![*read])),
            Some(first) if read.ret.is_some_and(|ret| ret < first.call) => {
                return Some((Reason::NotYetWritten, vec![*read, *first]));
            }
            Some(_) => {}
        }
    }
    None
}

/// Leaves out operations as long as the rest isn't linearizable. Each change would keep a linearizable history
/// linearizable, so the rest proves that the whole isn't.
fn shrink(register: &Register) -> Vec<Op> {
    let mut left = SHRINK_STEPS;
    let mut wrong = |ops: &[Op]| {
        let mut steps = Steps::new(left.min(TRY_STEPS * ops.len() as u64));
        let outcome = search(&register.with_ops(ops.to_vec()), &mut steps);
        left = left.saturating_sub(steps.taken() + ops.len() as u64);
        outcome == SearchResult::Stuck
    };
    let mut ops = shortest_prefix(&register.ops, &mut wrong);
    loop {
        let before = ops.len();
        ops = without_groups(ops, |op| Some(op.value), &mut wrong);
        ops = without_groups(ops, |op| (!op.is_write).then_some(op.index), &mut wrong);
        // A write can be left out only if nothing reads its value.
        let read: Vec<u32> = ops.iter().filter(|op| !op.is_write).map(|op| op.value).collect();
        let unread = |op: &Op| (op.is_write && !read.contains(&op.value)).then_some(op.index);
        ops = without_groups(ops, unread, &mut wrong);
        if ops.len() == before {
            return ops;
        }
    }
}

/// The shortest beginning, in time, that is a violation. In it, operations that returned later have an unknown outcome.
fn shortest_prefix(ops: &[Op], wrong: &mut impl FnMut(&[Op]) -> bool) -> Vec<Op> {
    let until = |time: u64| -> Vec<Op> {
        ops.iter()
            .filter(|op| op.call <= time)
            .filter_map(|op| match op.ret {
                Some(ret) if ret > time => op.is_write.then_some(Op { ret: None, ..*op }),
                _ => Some(*op),
            })
            .collect()
    };
    let mut returns: Vec<u64> = ops.iter().filter_map(|op| op.ret).collect();
    returns.sort_unstable();
    returns.dedup();
    let shortest = returns.partition_point(|&time| !wrong(&until(time)));
    match returns.get(shortest) {
        Some(&time) => until(time),
        None => ops.to_vec(),
    }
}

/// Leaves out groups of operations, many at once at first, then fewer. Operations without a group stay.
fn without_groups<G: Ord + Copy>(
    mut ops: Vec<Op>,
    group_of: impl Fn(&Op) -> Option<G>,
    wrong: &mut impl FnMut(&[Op]) -> bool,
) -> Vec<Op> {
    let mut groups: Vec<G> = ops.iter().filter_map(&group_of).collect();
    groups.sort_unstable();
    groups.dedup();
    let mut size = groups.len().div_ceil(2);
    while size > 0 {
        let mut start = 0;
        while start < groups.len() {
            let end = groups.len().min(start + size);
            let chunk = &groups[start..end];
            let goes = |op: &Op| group_of(op).is_some_and(|g| chunk.binary_search(&g).is_ok());
            let fewer: Vec<Op> = ops.iter().filter(|op| !goes(op)).copied().collect();
            if wrong(&fewer) {
                ops = fewer;
                groups.drain(start..end);
            } else {
                start = end;
            }
        }
        size /= 2;
    }
    ops
}
