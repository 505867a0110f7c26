//! The reference model: Raft as its published specification has it (Ongaro's TLA+, with the correction
//! that `matchIndex` and `commitIndex` never decrease), run in lock-step with the real core.
//!
//! Each call of [`bowline_raft::Raft::handle`] must be one transition of the model or a short
//! composition of some: `UpdateTerm`, `Timeout`, `RequestVote`, `BecomeLeader`, `ClientRequest`,
//! `AppendEntries`, `AdvanceCommitIndex`, the four handlers of messages, `DropStaleResponse`,
//! `Restart`. Messages may be lost and doubled at will: the model remembers what was ever said, not
//! what is on its way. It is extended by what the core adds: the pre-vote, which changes nothing; disks,
//! where a vote or an entry counts when it is durable; snapshots, which replace a prefix of the log;
//! joint consensus, with the quorum of the configuration in force; and leadership transfer, an election
//! without waiting.
//!
//! The model shares no code with the core except for plain values: what a majority is, what a log and a
//! configuration are at each moment it works out for itself. It holds a history of the whole cluster that no replica has, so a wrong step is found
//! when it is taken, and not when it first does harm: a leader that commits must have a quorum of
//! *disks* that hold the entry at that moment.
//!
//! # How to run it beside a cluster
//!
//! - after each [`bowline_raft::Raft::new`]: [`Lockstep::started`];
//! - for each [`bowline_raft::Raft::handle`], with the replica after it, the input and the effects of
//!   this one call: [`Lockstep::step`]; or [`Lockstep::drive`] in place of `handle`;
//! - when writes are on disk, if messages that waited for them may arrive before the replica is told
//!   by [`bowline_raft::Input::Persisted`], or if it may crash in between: [`Lockstep::durable`];
//! - when a removed replica gets an empty disk under its old name: [`Lockstep::replaced`].
//!
//! A crash needs no call. A cluster must be watched from its start, with all its replicas.
//!
//! The cost of a step is a few comparisons; of the log only what was written in the step is compared,
//! and one more entry. What is remembered grows with the entries that the cluster creates.

mod ledger;
mod lockstep;
mod messages;
mod rule;
mod server;
#[cfg(test)]
mod tests;
mod transitions;

pub use lockstep::Lockstep;
pub use rule::{Deviation, Rule};
