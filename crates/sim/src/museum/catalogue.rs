//! The seeded bugs that are not in the core's museum, and why.

/// A bug of the catalogue that is no mutant of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Its number in the catalogue of seeded bugs, or its S-number.
    pub number: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Why there is no mutant for it.
    pub why: &'static str,
}

const fn absent(number: &'static str, name: &'static str, why: &'static str) -> Absent {
    Absent { number, name, why }
}

const LOG: &str = "a bug of the durable log, which is not built yet";
const SESSIONS: &str = "a bug of client sessions, which are not built yet";
const WATCH: &str = "a bug of watches, which are not built yet";

/// Every bug of the catalogue without a mutant here.
pub const NOT_IN_THE_CORE: &[Absent] = &[
    absent("28", "heartbeat-commit-not-clamped", "no bug here: a follower never commits beyond what it verified (I12)"),
    absent("31", "fsync-error-retried", LOG),
    absent("32", "no-dir-fsync-after-rename", LOG),
    absent("33", "torn-tail-accepted", LOG),
    absent("34", "crc-error-in-middle-truncates-rest", LOG),
    absent("35", "hard-state-and-log-torn", LOG),
    absent("36", "overwritten-suffix-resurrected-on-restart", LOG),
    absent("39", "record-not-bound-to-position", LOG),
    absent("43", "snapshot-without-sessions", SESSIONS),
    absent(
        "46",
        "chunks-of-two-snapshots-mixed",
        "a bug of the node's transfers: for the world, which runs whole nodes",
    ),
    absent("51", "wiped-node-votes-with-old-id", "a bug of the host, which must give a wiped replica a new identity"),
    absent("58", "session-dedupe-lost-on-leader-change", SESSIONS),
    absent("60", "watch-gap-at-compaction", WATCH),
    absent("61", "duplicate-after-resume", WATCH),
    absent("62", "progress-before-events", WATCH),
    absent("63", "local-clock-in-apply", "a bug of the state machine, which gets no clock"),
    absent("64", "HashMap-order-in-apply", "a bug of the state machine: for the world, which compares state hashes"),
];
