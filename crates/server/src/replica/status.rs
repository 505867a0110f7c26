//! What a replica tells of itself, after each round of its thread.

use std::sync::Arc;

use bowline_node::raft::{Membership, NodeId, Time};

/// Numbers about a state machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The latest revision.
    pub revision: i64,
    /// The oldest readable revision; -1 if there never was a compaction.
    pub compact_revision: i64,
    /// Everything that compactions up to this revision gave up is removed.
    pub scrubbed_revision: i64,
    /// Keys that are there.
    pub keys: u64,
    /// Bytes that the state takes on its disk.
    pub db_size: u64,
    /// Bytes of it that are records, the others being free or what holds them together.
    pub db_size_in_use: u64,
    /// The version of the peer protocol that every member speaks; 0 before they first agreed on one.
    pub cluster_version: u32,
}

/// How a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its term.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Whether it leads itself.
    pub is_leader: bool,
    /// The last committed entry that it knows of.
    pub commit_index: u64,
    /// The last entry that its state machine contains.
    pub applied_index: u64,
    /// The last entry of its log.
    pub last_index: u64,
    /// When it last heard a leader.
    pub leader_contact: Option<Time>,
    /// The configuration in force.
    pub membership: Arc<Membership>,
    /// Requests that wait for their answer.
    pub waiting: usize,
    /// Its state machine.
    pub facts: Facts,
    /// Why it has stopped, if it has.
    pub fault: Option<String>,
}
