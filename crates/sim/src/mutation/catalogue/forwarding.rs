//! How members forward requests to the leader.

use super::{Mutant, replace};

const FORWARDING: &str = "crates/member/src/forwarding.rs";
const WIRE: &str = "crates/member/src/forwarding/wire.rs";

/// The mutants, none of which is from the list.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "WritesRepeated",
        origin: "forwarding",
        breaks: "A write whose outcome is unknown is sent to the leader again.",
        edits: &[replace(
            FORWARDING,
            "fn is_harmless_twice(&self) -> bool {\n        ",
            "matches!(self, LeaderRequest::Lease { .. })",
            "true",
        )],
    },
    Mutant {
        name: "LostMeansNotDone",
        origin: "forwarding",
        breaks: "What was on its way when the connection was lost counts as not done.",
        edits: &[replace(
            WIRE,
            "self.open.into_values().map(|reply| (reply, ",
            "Err(Unknown::ConnectionLost.into())",
            "Err(NotDone::Unreachable.into())",
        )],
    },
    Mutant {
        name: "StoppedMeansNotDone",
        origin: "forwarding",
        breaks: "What a leader had begun when it was told to stop counts as not done.",
        edits: &[replace(
            WIRE,
            "Err(Failure::Unknown(Unknown::ConnectionLost | Unknown::Stopped)) => ",
            "Ending::Unknown(Empty {})",
            "Ending::TryAgain(Empty {})",
        )],
    },
    Mutant {
        name: "AnswerOfAnother",
        origin: "forwarding",
        breaks: "An answer of the leader goes to the oldest open request.",
        edits: &[replace(
            WIRE,
            "let (id, answer) = decode_answer(message).ok()?;\n        ",
            "self.open.remove(&id).map(|reply| (reply, answer))",
            "self.open.pop_first().map(|(_, reply)| (reply, answer))",
        )],
    },
    Mutant {
        name: "RenewalOnlyAsked",
        origin: "forwarding",
        breaks: "A forwarded keep-alive only asks how long the lease lives.",
        edits: &[replace(WIRE, "RequestKind::Lease(LeaseQuestion { id: *id, renew: ", "*renew", "false")],
    },
];
