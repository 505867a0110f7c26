//! Checks the store's revisions against real time and against each other.

use std::collections::BTreeMap;
use std::fmt;

use super::{Answer, Operation, Request};

/// A contradiction between revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevisionFault {
    /// An operation was called after another one had returned, but has a lower revision, or is a write with the same
    /// one.
    Backwards {
        /// The operation that had returned.
        earlier: Box<Operation>,
        /// The operation that was called later.
        later: Box<Operation>,
    },
    /// Two writes have the same revision.
    Twice {
        /// One of the writes.
        first: Box<Operation>,
        /// The other write.
        second: Box<Operation>,
    },
    /// A get and the write of its value name different revisions for it.
    Disagree {
        /// The write.
        write: Box<Operation>,
        /// The get.
        get: Box<Operation>,
    },
}

/// Checks revisions against real time, against each other, and against the answers of gets.
pub(super) fn check(history: &[Operation]) -> Result<(), RevisionFault> {
    follow_real_time(history)?;
    let mut writes: BTreeMap<i64, &Operation> = BTreeMap::new();
    let mut values: BTreeMap<(&str, &str), &Operation> = BTreeMap::new();
    for write in history.iter().filter(|operation| operation.has_written()) {
        let Some(revision) = write.revision else { continue };
        if let Some(first) = writes.insert(revision, write) {
            return Err(RevisionFault::Twice { first: Box::new(first.clone()), second: Box::new(write.clone()) });
        }
        if let Request::Put(value) | Request::Swap { value, .. } = &write.request {
            values.insert((&write.key, value), write);
        }
    }
    for get in history {
        let (Answer::Found(Some(value)), Some(revision)) = (&get.answer, get.mod_revision) else { continue };
        if let Some(write) = values.get(&(&*get.key, &**value)).filter(|write| write.revision != Some(revision)) {
            let (write, get) = (Box::new((*write).clone()), Box::new(get.clone()));
            return Err(RevisionFault::Disagree { write, get });
        }
    }
    Ok(())
}

fn follow_real_time(history: &[Operation]) -> Result<(), RevisionFault> {
    let known = |operation: &&Operation| operation.revision.is_some() && operation.ret.is_some();
    let mut by_call: Vec<&Operation> = history.iter().filter(known).collect();
    let mut by_return = by_call.clone();
    by_call.sort_by_key(|operation| operation.call);
    by_return.sort_by_key(|operation| operation.ret);
    let mut returned = by_return.into_iter().peekable();
    let mut highest: Option<&Operation> = None;
    for later in by_call {
        while let Some(earlier) = returned.next_if(|earlier| earlier.ret < Some(later.call)) {
            if highest.is_none_or(|highest| highest.revision < earlier.revision) {
                highest = Some(earlier);
            }
        }
        let Some(earlier) = highest else { continue };
        if later.revision < earlier.revision || (later.has_written() && later.revision == earlier.revision) {
            let (earlier, later) = (Box::new(earlier.clone()), Box::new(later.clone()));
            return Err(RevisionFault::Backwards { earlier, later });
        }
    }
    Ok(())
}

impl fmt::Display for RevisionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, one, other) = match self {
            RevisionFault::Backwards { earlier, later } => ("revisions go backwards", earlier, later),
            RevisionFault::Twice { first, second } => ("two writes have the same revision", first, second),
            RevisionFault::Disagree { write, get } => {
                ("a write and a get disagree on the write's revision", write, get)
            }
        };
        write!(f, "{what}:\n  key {:?} {one}\n  key {:?} {other}", one.key, other.key)
    }
}
