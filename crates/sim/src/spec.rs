//! The reference model: Raft as in its published specification (Ongaro's TLA+, with the correction that `matchIndex`
//! and `commitIndex` never decrease), run in lockstep with the real core.
//!
//! Each call of [`bowline_raft::Raft::handle`] must be one transition of the model or a short sequence of transitions:
//! `UpdateTerm`, `Timeout`, `RequestVote`, `BecomeLeader`, `ClientRequest`, `AppendEntries`, `AdvanceCommitIndex`, the
//! four handlers of messages, `DropStaleResponse`, `Restart`. Messages may be lost or doubled: the model remembers what
//! was ever sent, not what is on its way. It is extended by what the core adds: the pre-vote, which changes nothing;
//! disks, where a vote or an entry counts when it is durable; snapshots, which replace a prefix of the log; joint
//! consensus, with the quorum of the configuration in force; and leadership transfer, an election without waiting.
//!
//! The model shares only plain values with the core. It computes majorities, logs and configurations by itself. It has
//! a history of the whole cluster, which no replica has. So it finds a wrong step when it is taken, not when it first
//! does harm: for example, when a leader commits an entry, a quorum of *disks* must hold it at that moment.
//!
//! # How to run it beside a cluster
//!
//! - after each [`bowline_raft::Raft::new`]: [`Lockstep::started`];
//! - for each [`bowline_raft::Raft::handle`], with the replica after it, the input and the effects of
//!   this one call: [`Lockstep::step`]; or [`Lockstep::drive`] in place of `handle`;
//! - when writes are on disk, if messages that waited for them may arrive before the replica's
//!   [`bowline_raft::Input::Persisted`], or if it may crash in between: [`Lockstep::durable`];
//! - when a removed replica gets an empty disk under its old name: [`Lockstep::replaced`].
//!
//! A crash needs no call. A cluster must be watched from its start, with all its replicas.
//!
//! A step costs a few comparisons: of the log, only what the step wrote and one more entry are compared. The model's
//! memory grows with the entries that the cluster creates.

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
