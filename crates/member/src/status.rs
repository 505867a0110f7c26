//! The status of a replica, published after each round of the raft thread.

use std::sync::Arc;

use bowline_kv::store::{AuthBook, CompareStep, Members};
use bowline_node::raft::{Membership, NodeId, Time};

/// Numbers about a state machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The latest revision.
    pub revision: i64,
    /// The oldest readable revision; -1 if there never was a compaction.
    pub compact_revision: i64,
    /// The compaction up to which all old revisions are removed from the file.
    pub scrubbed_revision: i64,
    /// Number of keys.
    pub keys: u64,
    /// Size of the state's file, in bytes.
    pub db_size: u64,
    /// Bytes of it that are records; the rest is free space or structure of the file.
    pub db_size_in_use: u64,
    /// The version of the cluster; 0 before the members first agreed on one.
    pub cluster_version: u32,
    /// The active alarms.
    pub alarms: AlarmFacts,
    /// The comparison of the members' states.
    pub comparison: ComparisonFacts,
}

/// What is published of the state machine, all as of one moment.
#[derive(Clone, Debug)]
pub struct Published {
    /// Numbers about it.
    pub facts: Facts,
    /// The records of the members.
    pub members: Arc<Members>,
    /// The users and roles.
    pub auth: Arc<AuthBook>,
}

/// How far the comparison of the members' states is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ComparisonFacts {
    /// Whether something was written since the latest mark.
    pub mark_due: bool,
    /// What this member has still to report.
    pub report: Option<CompareStep>,
    /// Index of the latest mark; 0 if there is none.
    pub marked_index: u64,
    /// Index of the latest mark at which all members had the same checksum; 0 if there is none.
    pub agreed_index: u64,
}

/// Which alarms are active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlarmFacts {
    /// Number of alarms.
    pub count: usize,
    /// Whether a member has no space.
    pub no_space: bool,
    /// Whether the members' states differ.
    pub corrupt: bool,
    /// The alarm of this member that it has no space, if it is active: whether the member raised it by itself.
    pub own: Option<bool>,
}

/// The status of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its term.
    pub term: u64,
    /// The leader, if it knows one.
    pub leader: Option<NodeId>,
    /// Whether it is the leader.
    pub is_leader: bool,
    /// The last entry that it knows to be committed.
    pub commit_index: u64,
    /// The last entry that its state machine contains.
    pub applied_index: u64,
    /// The last entry of its log.
    pub last_index: u64,
    /// When it last heard from a leader.
    pub leader_contact: Option<Time>,
    /// The current membership.
    pub membership: Arc<Membership>,
    /// The records of the members.
    pub members: Arc<Members>,
    /// The users and roles.
    pub auth: Arc<AuthBook>,
    /// Number of requests that wait for an answer.
    pub waiting: usize,
    /// Numbers about its state machine.
    pub facts: Facts,
    /// The fault that stopped it, if there was one.
    pub fault: Option<String>,
}
