//! Reads, leases, answers and leadership transfer (8; thesis 3.10, 6.4).

use super::{Mutant, insert, remove, replace};

const CONFIG: &str = "crates/raft/src/config.rs";
const RAFT: &str = "crates/raft/src/raft.rs";
const READ: &str = "crates/raft/src/read.rs";
const REPLICATION: &str = "crates/raft/src/replication.rs";
const REQUESTS: &str = "crates/raft/src/requests.rs";
const TRANSFER: &str = "crates/raft/src/leadership_transfer.rs";

/// The mutants, in the order of their origins.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "ReadWithoutQuorum",
        origin: "52",
        breaks: "A leader answers reads without asking anyone.",
        edits: &[replace(
            READ,
            "let under_lease = ",
            "kind == ReadKind::Lease && self.lease_is_valid(leader, self.now)",
            "true",
        )],
    },
    Mutant {
        name: "ReadRoundIgnored",
        origin: "53, S64",
        breaks: "Any answer confirms the latest round of reads (etcd-io/raft#397).",
        edits: &[replace(
            REPLICATION,
            "let (sent_at, round) = ",
            "(reply.sent_at, reply.round)",
            "(reply.sent_at, newest_round)",
        )],
    },
    Mutant {
        name: "BatchedReadsShareIndex",
        origin: "54",
        breaks: "Reads that wait together share the first one's index (tikv#7971).",
        edits: &[replace(
            READ,
            "let index = ",
            "self.commit_index",
            "leader.reads.waiting.front().map_or(self.commit_index, |first| first.index)",
        )],
    },
    Mutant {
        name: "ReadBeforeApplied",
        origin: "55",
        breaks: "A read is served before the state machine has reached its index.",
        edits: &[replace(READ, "self.requests.readable(token, index, ", "self.applying.applied()", "index")],
    },
    Mutant {
        name: "ReadBeforeTermCommit",
        origin: "S63",
        breaks: "A new leader serves reads from a commit index that may be old (etcd#7331, tikv#6340).",
        edits: &[replace(READ, "let term_committed = ", "self.commit_index >= leader.term_start", "true")],
    },
    Mutant {
        name: "LeaseWithoutDriftBound",
        origin: "56, S68",
        breaks: "A lease lasts twice the drift bound too long.",
        edits: &[replace(
            CONFIG,
            "",
            "self.clock_drift.shorten(self.election_timeout_min)",
            "self.election_timeout_min * 2 - self.clock_drift.shorten(self.election_timeout_min)",
        )],
    },
    Mutant {
        name: "LeaseFromReceipt",
        origin: "S67",
        breaks: "A lease is counted from the arrival of an answer instead of the sending of its question.",
        edits: &[replace(REPLICATION, "let (sent_at, round) = ", "(reply.sent_at, reply.round)", "(now, reply.round)")],
    },
    Mutant {
        name: "LeaseKeptDuringTransfer",
        origin: "57, S66",
        breaks: "A lease survives the order to stand for election (openraft#1748, etcd#12704).",
        edits: &[replace(TRANSFER, "leader.lease_void = ", "true", "false")],
    },
    Mutant {
        name: "ReadsDroppedOnStepDown",
        origin: "S65",
        breaks: "Reads that wait at a leader are forgotten when it steps down (etcd#9566).",
        edits: &[remove(RAFT, "", "self.refuse_waiting_reads(*leader, out);")],
    },
    Mutant {
        name: "SuccessIgnoringTerm",
        origin: "59",
        breaks: "A proposal is answered with success when anything is applied at its index.",
        edits: &[replace(REQUESTS, "let outcome = if ", "log.contains(position)", "true")],
    },
    Mutant {
        name: "TransferNeverCleared",
        origin: "S60",
        breaks: "A failed transfer of the leadership never ends (hashicorp#696).",
        edits: &[
            replace(
                REPLICATION,
                "let transfer = ",
                "leader.transfer.as_ref().map_or(Time::NEVER, |transfer| transfer.due())",
                "Time::NEVER",
            ),
            insert(
                TRANSFER,
                "pub(crate) fn on_transfer_deadline(&mut self, out: &mut Effects) {\n        ",
                "return self.advance_transfer(out);",
            ),
        ],
    },
];
