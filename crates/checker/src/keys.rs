//! Decides whether what clients saw of a key-value store is linearizable: keys that are put, deleted, read, and
//! set only if they have a certain value.
//!
//! It is the search of Wing and Gong (1993) with Lowe's memory (2017), one key at a time (Herlihy and Wing's
//! locality), over operations that may demand a state and may set one. Put and deletion demand a state too if they
//! returned what was there before. Beside that, what the store itself says about the order is held against it:
//! revisions must follow real time, and belong to one write.
//!
//! [`crate::registers`] decides histories of plain reads and writes, much larger ones and with repeated
//! values. Here every value should be written once (a deletion may happen often): then a write without a known
//! outcome is either never seen, and can be left out, or must have happened before whoever saw it had returned.

mod history;
mod revisions;
mod search;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{MAX_STEPS, Undecided, Verdict};

pub use history::read_history;
pub use revisions::RevisionFault;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Set the key to this value.
    Put(String),
    /// Remove the key.
    Delete,
    /// Set the key to `value` if it has the value `expect`; `None`: if it isn't there.
    Swap {
        /// The value that it must have.
        expect: Option<String>,
        /// The value that it gets.
        value: String,
    },
    /// Read the key.
    Get,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// None: it may have been done, may be done later, or never.
    Unknown,
    /// Done, a put or deletion that was not told what was there before, or a swap that found what it expected.
    Done,
    /// A get, or a swap that found something else: the value that was there. A put or deletion that was done:
    /// the value that was there before.
    Found(Option<String>),
}

/// One operation of one client on one key, as seen from outside. What was refused for certain is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Who asked. For people: the check doesn't depend on it.
    pub client: u64,
    /// Which key.
    pub key: String,
    /// What was asked.
    pub request: Request,
    /// What came back.
    pub answer: Answer,
    /// The store's revision that came with the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// The revision at which the value that a get found was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mod_revision: Option<i64>,
    /// When it was asked, in nanoseconds on a clock that all operations share.
    pub call: u64,
    /// When it was answered, on the same clock; `None` if it never was.
    #[serde(rename = "return")]
    pub ret: Option<u64>,
}

impl Operation {
    /// Whether it has surely changed the store.
    fn has_written(&self) -> bool {
        match (&self.request, &self.answer) {
            (_, Answer::Unknown) | (Request::Get, _) => false,
            (Request::Put(_), _) => true,
            (Request::Delete, answer) => matches!(answer, Answer::Found(Some(_))),
            (Request::Swap { .. }, answer) => *answer == Answer::Done,
        }
    }
}

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No order of a key's operations explains every answer.
    Violation(KeyViolation),
    /// Revisions contradict what was seen.
    Revisions(RevisionFault),
}

/// A key whose operations have no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyViolation {
    /// The key.
    pub key: String,
    /// The operation that could not be placed, however those before it were.
    pub stuck: Operation,
    /// Some that were going on at the same time, or ended shortly before, in the order of their calls.
    pub around: Vec<Operation>,
}

/// How many operations around a violation are told.
const AROUND: usize = 16;

/// Decides whether `history`, in any order, is linearizable, if no key is there at first; and whether its revisions
/// agree with real time and with each other.
pub fn check(history: &[Operation]) -> Verdict<Fault> {
    check_within(history, MAX_STEPS)
}

/// As [`check`], which allows [`MAX_STEPS`] steps over one key, with another bound on them.
pub fn check_within(history: &[Operation], max_steps: u64) -> Verdict<Fault> {
    if let Err(fault) = revisions::check(history) {
        return Verdict::Violation(Fault::Revisions(fault));
    }
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    for (key, operations) in keys {
        let steps = compile(&operations);
        match search::search(&steps, max_steps) {
            search::SearchResult::Linearizable => {}
            search::SearchResult::OutOfSteps => {
                return Verdict::Undecided(Undecided { part: format!("key {key:?}"), max_steps });
            }
            search::SearchResult::Stuck(at) => {
                let stuck = operations[steps[at].origin].clone();
                let around = around(&operations, &stuck);
                return Verdict::Violation(Fault::Violation(KeyViolation { key: key.to_owned(), stuck, around }));
            }
        }
    }
    Verdict::Linearizable
}

/// The last operations that were called before `stuck` had returned.
fn around(operations: &[&Operation], stuck: &Operation) -> Vec<Operation> {
    let until = stuck.ret.unwrap_or(u64::MAX);
    let mut around: Vec<&Operation> = operations.iter().copied().filter(|operation| operation.call <= until).collect();
    around.sort_by_key(|operation| operation.call);
    around.into_iter().rev().take(AROUND).rev().cloned().collect()
}

/// The state of a key that isn't there.
const ABSENT: u32 = 0;

/// An operation as the search sees it. States are small numbers.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// The state that it must meet.
    demands: Option<u32>,
    /// The state that it leaves.
    sets: Option<u32>,
    call: u64,
    /// `None`: it may be left out.
    ret: Option<u64>,
    /// Its place among the key's operations.
    origin: usize,
}

/// The steps of a key's operations, by their calls. Those that constrain nothing are left out.
fn compile(operations: &[&Operation]) -> Vec<Step> {
    let mut numbers: BTreeMap<Option<&str>, u32> = BTreeMap::from([(None, ABSENT)]);
    let mut steps = Vec::with_capacity(operations.len());
    for (origin, operation) in operations.iter().enumerate() {
        let mut number = |state| {
            let new = u32::try_from(numbers.len()).expect("fewer states than operations in memory");
            *numbers.entry(state).or_insert(new)
        };
        let (sets, expects) = match &operation.request {
            Request::Put(value) => (Some(number(Some(value.as_str()))), None),
            Request::Delete => (Some(ABSENT), None),
            Request::Swap { expect, value } => (Some(number(Some(value.as_str()))), Some(number(expect.as_deref()))),
            Request::Get => (None, None),
        };
        let is_swap = expects.is_some();
        let (demands, sets) = match &operation.answer {
            Answer::Unknown if sets.is_none() => continue,
            Answer::Unknown | Answer::Done => (expects, sets),
            Answer::Found(state) => (Some(number(state.as_deref())), sets.filter(|_| !is_swap)),
        };
        // Something was answered, so it happened, even if nobody knows when.
        let known = operation.answer != Answer::Unknown;
        let ret = known.then(|| operation.ret.unwrap_or(u64::MAX));
        steps.push(Step { demands, sets, call: operation.call, ret, origin });
    }
    settle_unknown(&mut steps);
    steps.sort_by_key(|step| (step.call, step.origin));
    steps
}

/// Writes without a known outcome whose value nobody has seen are left out: no order needs them. One whose value was
/// seen has happened, before the first who saw it had returned. Neither holds for states that are set more than
/// once, so deletions stay as they are.
fn settle_unknown(steps: &mut Vec<Step>) {
    let mut writers: BTreeMap<u32, usize> = BTreeMap::new();
    for state in steps.iter().filter_map(|step| step.sets) {
        *writers.entry(state).or_default() += 1;
    }
    let is_single = |state: u32| state != ABSENT && writers.get(&state) == Some(&1);
    loop {
        let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
        for step in steps.iter() {
            if let (Some(state), Some(ret)) = (step.demands, step.ret) {
                let first = seen.entry(state).or_insert(ret);
                *first = ret.min(*first);
            }
        }
        let mut changed = false;
        for step in steps.iter_mut().filter(|step| step.ret.is_none()) {
            let state = step.sets.expect("what only reads and has no answer is left out");
            if let Some(ret) = seen.get(&state).filter(|_| is_single(state)) {
                step.ret = Some((*ret).max(step.call));
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    // Nobody who is sure to have happened has seen what is still without a return; at most others of its kind have.
    steps.retain(|step| step.ret.is_some() || !step.sets.is_some_and(is_single));
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Violation(violation) => violation.fmt(f),
            Fault::Revisions(fault) => fault.fmt(f),
        }
    }
}

impl fmt::Display for KeyViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key {:?} is not linearizable; no order explains\n  {}", self.key, self.stuck)?;
        write!(f, "after")?;
        for operation in &self.around {
            write!(f, "\n  {operation}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |nanos: u64| nanos as f64 / 1e6;
        let ret = self.ret.map_or("?".to_owned(), |ret| format!("{:.3}", millis(ret)));
        let (client, call) = (self.client, millis(self.call));
        write!(f, "[{call:.3} to {ret} ms] client {client}: ")?;
        match &self.request {
            Request::Put(value) => write!(f, "put {value}")?,
            Request::Delete => write!(f, "delete")?,
            Request::Swap { expect, value } => write!(f, "swap {} for {value}", state(expect.as_deref()))?,
            Request::Get => write!(f, "get")?,
        }
        match &self.answer {
            Answer::Unknown => write!(f, ": unknown")?,
            Answer::Done => write!(f, ": done")?,
            Answer::Found(found) => write!(f, ": found {}", state(found.as_deref()))?,
        }
        if let Some(revision) = self.revision {
            write!(f, ", revision {revision}")?;
        }
        Ok(())
    }
}

fn state(value: Option<&str>) -> &str {
    value.unwrap_or("nothing")
}
