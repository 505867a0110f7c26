//! Decides whether a history of a key-value store is linearizable. Keys are put, deleted, read, and swapped (set only
//! if they have a given value).
//!
//! It uses the search of Wing and Gong (1993) with Lowe's memory (2017), one key at a time (Herlihy and Wing's
//! locality). An operation may require a state and may set one. A put or deletion also requires a state if it returned
//! the previous value. The revisions are checked too: they must follow real time, and each must belong to one write.
//!
//! [`crate::registers`] checks histories of plain reads and writes; it handles much larger histories and repeated
//! values. Here every value should be written only once (deletions may repeat). Then a write with an unknown outcome
//! either was never seen and can be left out, or it happened before the first operation that saw it returned.

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
    /// Set the key to `value` if it has the value `expect`, or, for `None`, if it doesn't exist.
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
    /// No answer: it may have been done, may be done later, or never.
    Unknown,
    /// Done: a put or deletion whose answer lacks the previous value, or a swap that found what it expected.
    Done,
    /// For a get, or a swap that found something else: the value found. For a put or deletion: the previous value.
    Found(Option<String>),
}

/// One operation of one client on one key, as its client saw it. Operations that were certainly refused are not
/// included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// The client. The check doesn't depend on it.
    pub client: u64,
    /// The key.
    pub key: String,
    /// What was asked.
    pub request: Request,
    /// The answer.
    pub answer: Answer,
    /// The store's revision that came with the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// The revision at which the value found by a get was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mod_revision: Option<i64>,
    /// When it was asked, in nanoseconds on a clock that all operations share.
    pub call: u64,
    /// When it was answered, on the same clock; `None` if it never was.
    #[serde(rename = "return")]
    pub ret: Option<u64>,
}

impl Operation {
    /// Whether it certainly changed the store.
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
    /// Revisions contradict real time or each other.
    Revisions(RevisionFault),
}

/// A key whose operations no order explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyViolation {
    /// The key.
    pub key: String,
    /// The operation that could not be placed in any order of those before it.
    pub stuck: Operation,
    /// Operations that were called before it returned, the last ones, in the order of their calls.
    pub around: Vec<Operation>,
}

/// Maximum number of operations that are shown with a violation.
const AROUND: usize = 16;

/// Decides whether `history`, which may be in any order, is linearizable, and whether its revisions agree with real
/// time and with each other. No key exists at first.
pub fn check(history: &[Operation]) -> Verdict<Fault> {
    check_within(history, MAX_STEPS)
}

/// Like [`check`], but with this bound on the steps per key instead of [`MAX_STEPS`].
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

/// The last operations that were called before `stuck` returned.
fn around(operations: &[&Operation], stuck: &Operation) -> Vec<Operation> {
    let until = stuck.ret.unwrap_or(u64::MAX);
    let mut around: Vec<&Operation> = operations.iter().copied().filter(|operation| operation.call <= until).collect();
    around.sort_by_key(|operation| operation.call);
    around.into_iter().rev().take(AROUND).rev().cloned().collect()
}

/// The state of a key that doesn't exist.
const ABSENT: u32 = 0;

/// An operation as the search sees it. States are small numbers.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// The state that must hold before it.
    demands: Option<u32>,
    /// The state that it sets.
    sets: Option<u32>,
    call: u64,
    /// `None` if it may be left out.
    ret: Option<u64>,
    /// Its place among the key's operations.
    origin: usize,
}

/// Makes the steps of a key's operations, sorted by their calls. Operations that constrain nothing are left out.
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
        // It was answered, so it happened, even if its return time is unknown.
        let known = operation.answer != Answer::Unknown;
        let ret = known.then(|| operation.ret.unwrap_or(u64::MAX));
        steps.push(Step { demands, sets, call: operation.call, ret, origin });
    }
    settle_unknown(&mut steps);
    steps.sort_by_key(|step| (step.call, step.origin));
    steps
}

/// Leaves out writes with an unknown outcome whose value no operation saw: no order needs them. A write whose value was
/// seen happened before the first operation that saw it returned. Neither holds for states that are set more than once,
/// so deletions stay as they are.
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
            let state = step.sets.expect("reads without an answer are left out");
            if let Some(ret) = seen.get(&state).filter(|_| is_single(state)) {
                step.ret = Some((*ret).max(step.call));
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    // A step still without a return was seen by no operation that certainly happened.
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
        writeln!(f, "key {:?} is not linearizable: no order explains\n  {}", self.key, self.stuck)?;
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
