//! What the workers of a member decide.

use super::{Mutant, remove, replace};

const APPLY: &str = "crates/member/src/apply.rs";
const CONSENSUS: &str = "crates/member/src/consensus.rs";
const LOG: &str = "crates/member/src/log.rs";

/// The mutants. The list knows the first one only.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "StateNotSynced",
        origin: "D1",
        breaks: "The log is compacted although the state that holds its entries is not synced.",
        edits: &[replace(
            APPLY,
            "if room && let Some(header) = self.owed.take() {\n            ",
            "self.commit(|machine| machine.checkpoint(&header))?;",
            "self.commit(KvMachine::flush)?;",
        )],
    },
    Mutant {
        name: "MessagesBeforeSync",
        origin: "members",
        breaks: "Messages that must wait for the disk leave at once.",
        edits: &[replace(
            CONSENSUS,
            "after: Some(_) } => ",
            "round.log.messages.push((to, message))",
            "round.messages.push((to, message))",
        )],
    },
    Mutant {
        name: "LogNotSynced",
        origin: "members",
        breaks: "Writes of the log are reported as durable before they are synced.",
        edits: &[remove(LOG, "let began = self.instruments.stopwatch();\n        ", "self.log.sync()?;")],
    },
];
