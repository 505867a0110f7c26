//! What the replicated state machine must offer.

use bowline_raft::Index;
use bytes::Bytes;

/// A deterministic state machine: the same commands in the same order give the same state and the same responses on
/// every replica. It uses no clock, no random source and no randomly seeded map.
pub trait StateMachine: Sized {
    /// Applies the command of the entry at `index`, and returns the response for its client. It is called once for
    /// each committed command, in log order. It must answer an invalid command and not panic: all replicas would
    /// panic.
    fn apply(&mut self, index: Index, command: &[u8]) -> Bytes;

    /// Whether this command was applied, as far as the state can tell. `proposed_at` is the index of the entry that
    /// carried it: a state that remembers everything since then can be sure.
    fn recall(&self, command: &[u8], proposed_at: Index) -> Recall;

    /// The whole state, for a replica that lacks it.
    fn snapshot(&self) -> Bytes;

    /// The state that `snapshot` holds.
    ///
    /// # Errors
    /// The bytes are not a snapshot of this machine.
    fn restore(snapshot: &[u8]) -> Result<Self, InvalidSnapshot>;
}

/// What a state remembers of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recall {
    /// It was applied; this was the response.
    Applied(Bytes),
    /// It was not applied.
    NotApplied,
    /// It is too long ago to tell.
    Forgotten,
}

/// Bytes that are not a snapshot of the state machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a snapshot of this state machine: {0}")]
pub struct InvalidSnapshot(pub String);
