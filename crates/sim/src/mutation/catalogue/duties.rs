//! What a member does on its own: its record, the steps to the records, compaction; and the rewrite of its state's file.

use super::{Mutant, remove, replace};

const ATTEMPT: &str = "crates/member/src/duties/attempt.rs";
const COMPACTOR: &str = "crates/member/src/duties/compactor.rs";
const CONFIGURATION: &str = "crates/member/src/duties/configuration.rs";
const REWRITE: &str = "crates/kv/src/store/rewrite.rs";
const SHRINK: &str = "crates/member/src/shrink.rs";

/// The mutants.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "WrittenOnce",
        origin: "duties",
        breaks: "What a member writes on its own is not written again after a failure.",
        edits: &[remove(
            ATTEMPT,
            "fn ended(&mut self, now: Time) -> Option<T> {\n        ",
            "self.is_under_way = false;",
        )],
    },
    Mutant {
        name: "RefusedStepForgotten",
        origin: "duties",
        breaks: "A step to the records that was not possible is not tried again.",
        edits: &[replace(CONFIGURATION, "Next::Pause => ", "now.after(RETRY)", "Time::NEVER")],
    },
    Mutant {
        name: "FollowerCompacts",
        origin: "duties",
        breaks: "A member that does not lead compacts automatically.",
        edits: &[replace(COMPACTOR, "if ", "!view.is_leader", "false")],
    },
    Mutant {
        name: "RewrittenWithoutLabel",
        origin: "duties",
        breaks: "A rewritten file does not say which part of the log it holds.",
        edits: &[replace(
            REWRITE,
            "",
            "rewrite.engine.checkpoint(Some(&self.engine.label()?))?;",
            "rewrite.engine.checkpoint(None)?;",
        )],
    },
    Mutant {
        name: "RewrittenNameNotSynced",
        origin: "duties",
        breaks: "The name of a rewritten file is not made durable before the file is used.",
        edits: &[remove(
            SHRINK,
            "return Ok(Err(error.into()));\n    }\n    ",
            "file.sync_name().map_err(|error| Fatal(format!(\"can't sync the folder of the state: {error}\")))?;",
        )],
    },
];
