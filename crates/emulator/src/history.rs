//! Converts a run to a history of operations for the linearizability checker.
//!
//! Each attempt is an operation, because each may take effect: a put that was answered twice with
//! `fail` and then with `ok` was sent three times.

use std::time::Duration;

use bowline_checker::Verdict;
use bowline_checker::registers::{self, Action, Operation, Options};

use crate::emulation::{AnswerKind, Attempt, Record};
use crate::judge::Linearizability;

/// Checks whether the history of all clients is linearizable, within the checker's default bound.
pub fn check(record: &Record) -> Linearizability {
    match registers::check(&operations(record), &Options::default()) {
        Verdict::Linearizable => Linearizability::Linearizable,
        Verdict::Violation(violation) => Linearizability::Violated { explanation: violation.to_string() },
        Verdict::Undecided(undecided) => Linearizability::Undecided { reason: undecided.to_string() },
    }
}

/// The history of all clients.
///
/// A redirected attempt is omitted, because it must have had no effect. A failed or unanswered put
/// may still take effect at any time. Reads without a result are omitted, because they prove nothing.
pub fn operations(record: &Record) -> Vec<Operation> {
    let attempts = record.attempts.iter();
    attempts.filter_map(|attempt| operation(record, attempt)).collect()
}

fn operation(record: &Record, attempt: &Attempt) -> Option<Operation> {
    // An attempt without a receiver was never sent.
    attempt.to?;
    let request = &record.requests[attempt.request];
    let (done, read) = match attempt.answer.as_ref().map(|a| (&a.outcome, a.at)) {
        Some((AnswerKind::Ok { value }, at)) => (Some(at), value.clone()),
        Some((AnswerKind::Redirect, _)) => return None,
        Some((AnswerKind::Fail { .. }, _)) | None => (None, None),
    };
    let action = match &request.value {
        Some(written) => Action::Write(written.clone()),
        None => Action::Read(Some(read?)),
    };
    Some(Operation {
        client: request.client as u64,
        key: request.key.clone(),
        action,
        call: nanoseconds(attempt.sent),
        ret: done.map(nanoseconds),
    })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("a run lasts two days, the type 584 years")
}
