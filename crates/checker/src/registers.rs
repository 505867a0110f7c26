//! Decides whether a history of reads and writes could have come from registers that are
//! accessed one operation at a time: linearizability (Herlihy and Wing, 1990).
//!
//! The search is that of Wing and Gong (*Testing and Verifying Concurrent Objects*, 1993): take any operation that no
//! other finished operation wholly precedes, apply it, and go on; backtrack when stuck. Lowe (*Testing for
//! Linearizability*, 2017) adds a memory of configurations that led nowhere. A history is linearizable if each
//! register's part of it is (Herlihy and Wing's locality; Lowe's and Horn and Kroening's partitioning), so each key is
//! searched on its own.
//!
//! The search also uses that its objects are registers: most of its steps need no alternative. The head of `search.rs`
//! states the rules and why they are sound. As Gibbons and Korach (*Testing Shared Memories*, 1997) showed, registers
//! whose values are all different can be decided in polynomial time, and registers with repeated values can't: the
//! search branches for repeated values only.
//!
//! Two operations whose intervals share just one instant count as concurrent. The verdict is a pure function of the
//! history and the options.

mod history;
mod register;
mod search;
mod violation;
mod witness;

#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::{MAX_STEPS, Undecided, Verdict};
use register::Register;
use search::{SearchResult, Steps};

pub use history::read_history;
pub use violation::{Reason, RegisterViolation};

/// What an operation did to its register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Replaced the register's value by this one.
    Write(String),
    /// Returned the register's value; `None` if the value is unknown, so that the read constrains nothing.
    Read(Option<String>),
}

/// One operation of one client on one register, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// The client. The check doesn't depend on it.
    pub client: u64,
    /// The register.
    pub key: String,
    /// What was asked, and the result of a read.
    #[serde(flatten)]
    pub action: Action,
    /// When it was asked, in nanoseconds on a clock that all operations share.
    pub call: u64,
    /// When it was answered, on the same clock. `None` if its outcome is unknown: such a write may
    /// take effect at any time after its call, or never. A read with a result but without a return
    /// must have happened at some time after its call.
    #[serde(rename = "return")]
    pub ret: Option<u64>,
}

/// How to search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Maximum number of steps of the search over all keys. A step inspects one event, which takes a few nanoseconds.
    /// This also bounds memory (about 30 bytes a step at most).
    pub max_steps: u64,
    /// The order in which writes are believed to have taken effect, as indices into the history; for example the order
    /// of the log. Reads in it are ignored: a log doesn't contain them, and their places follow easily from the order
    /// of the writes. It is only a hint: if it doesn't explain the history, the search looks for another order.
    pub hint: Option<Vec<usize>>,
}

impl Default for Options {
    /// A bound of [`MAX_STEPS`], and no hint.
    fn default() -> Options {
        Options { max_steps: MAX_STEPS, hint: None }
    }
}

/// Decides whether `history`, which may be in any order, is linearizable. Every register starts as the empty string.
///
/// Keys are checked in alphabetical order, and the first that isn't linearizable is reported, with its operations
/// reduced to a small set that is a violation by itself. An operation that returned before its call is a violation too
/// (the recorder's clock is wrong); this is checked first.
pub fn check(history: &[Operation], options: &Options) -> Verdict<RegisterViolation> {
    if let Some(backwards) = history.iter().find(|operation| operation.ret.is_some_and(|ret| ret < operation.call)) {
        return Verdict::Violation(RegisterViolation {
            key: backwards.key.clone(),
            reason: Reason::ReturnsBeforeCall,
            operations: vec![backwards.clone()],
        });
    }
    let mut registers = Register::partition(history);
    if let Some(hint) = &options.hint {
        let orders = witness::order_by_key(history, hint);
        registers.retain(|key, register| {
            let order = orders.get(key).map_or(&[][..], Vec::as_slice);
            !witness::explains(register, order)
        });
    }
    let mut steps = Steps::new(options.max_steps);
    for (key, register) in &registers {
        match search::search(register, &mut steps) {
            SearchResult::Linearizable => {}
            SearchResult::Stuck => {
                return Verdict::Violation(RegisterViolation::explain(key, register, history));
            }
            SearchResult::OutOfSteps => {
                return Verdict::Undecided(Undecided {
                    part: format!("key {} ({} operations)", violation::quoted(key), register.ops.len()),
                    max_steps: options.max_steps,
                });
            }
        }
    }
    Verdict::Linearizable
}
