//! Asks the checker of linearizability about a run.

use bowline_sim::linearizability::{self, Options, Verdict};

use crate::emulation::Record;
use crate::history::{self, Action};
use crate::judge::Linearizability;

/// The history of a run in the checker's own form, for example for a history file.
pub fn checkable(record: &Record) -> Vec<linearizability::Operation> {
    let operations = history::operations(record).into_iter();
    operations
        .map(|operation| linearizability::Operation {
            client: operation.client,
            key: operation.key,
            action: match operation.action {
                Action::Write(value) => linearizability::Action::Write(value),
                Action::Read(value) => linearizability::Action::Read(value),
            },
            call: operation.call,
            ret: operation.ret,
        })
        .collect()
}

/// What the checker says about a run. The keys of the emulated LAN have few concurrent operations,
/// so this takes milliseconds.
pub fn linearizability(record: &Record) -> Linearizability {
    match linearizability::check(&checkable(record), &Options::default()) {
        Verdict::Linearizable => Linearizability::Linearizable,
        Verdict::Violation(violation) => Linearizability::Violated {
            explanation: violation.to_string(),
        },
        Verdict::Undecided(undecided) => Linearizability::Undecided {
            reason: undecided.to_string(),
        },
    }
}
