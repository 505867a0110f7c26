//! What the workers of a member decide: its queue, log, state, snapshots, files and leases.

use super::{Mutant, remove, replace};

const APPLY: &str = "crates/member/src/apply.rs";
const CONSENSUS: &str = "crates/member/src/consensus.rs";
const LOG: &str = "crates/member/src/log.rs";
const OPEN: &str = "crates/member/src/open.rs";
const QUEUE: &str = "crates/member/src/queue.rs";

/// The mutants. None but the first is from the list, which knows no threads.
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
    Mutant {
        name: "LeasesOfOldState",
        origin: "members",
        breaks: "After a snapshot the leases of the state before it count on.",
        edits: &[remove(APPLY, "", "outlet.event(Event::LeasesReset(leases));")],
    },
    Mutant {
        name: "TokenUsedTwice",
        origin: "members",
        breaks: "The proposal of the end of leases and the next request have one token.",
        edits: &[remove(
            CONSENSUS,
            "if let Some(request) = self.leases.expired(now, token, blocked) {\n            ",
            "self.next_token = token.0;",
        )],
    },
    Mutant {
        name: "FirstStateChosen",
        origin: "members",
        breaks: "A start uses the first state that it finds, whether it fits the log or not.",
        edits: &[replace(OPEN, "files.choose(states, ", "chosen", "chosen.min(0)")],
    },
    Mutant {
        name: "CompactedBeforeStored",
        origin: "members",
        breaks: "The log is compacted when the state is to be stored, not when it is.",
        edits: &[replace(
            CONSENSUS,
            ") => ",
            "round.apply.push(ApplyJob::Of(apply))",
            "{
                    if let Job::StoreState { header } = &apply {
                        round.log.steps.push(LogStep::Compact(header.clone()));
                    }
                    round.apply.push(ApplyJob::Of(apply))
                }",
        )],
    },
    Mutant {
        name: "PeerBytesKept",
        origin: "members",
        breaks: "What peers have sent counts for the bound of their queue for ever.",
        edits: &[remove(
            QUEUE,
            "",
            "self.peer_bytes -= peers.iter().map(|(_, message)| weight(message)).sum::<usize>();",
        )],
    },
    Mutant {
        name: "RequestBytesKept",
        origin: "members",
        breaks: "What clients have asked counts for the bound of their queue for ever.",
        edits: &[remove(
            QUEUE,
            "",
            "self.request_bytes -= requests.iter().map(|request| request.body.weight()).sum::<usize>();",
        )],
    },
];
