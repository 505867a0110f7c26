//! What a host may measure.

use std::fmt;
use std::time::Duration;

use bowline_kv::store::{LeaseChange, Operations};
use bowline_node::raft::NodeId;

/// What a host measures. Nothing that a member does depends on it; without any method, nothing is measured.
pub trait Instruments: fmt::Debug + Send + Sync {
    /// The reading of a stopwatch, to measure how long something takes.
    fn stopwatch(&self) -> Duration {
        Duration::ZERO
    }

    /// The log was synced. It has written `bytes` since the start.
    fn synced(&self, _took: Duration, _bytes: u64) {}

    /// The members remembered more of this member than its disk.
    fn told_of_loss(&self) {}

    /// This leader was late with what was due by more than a heartbeat.
    fn late_heartbeat(&self) {}

    /// There is another leader than before.
    fn leader_changed(&self) {}

    /// A follower has answered a message of this leader.
    fn answered(&self, _by: NodeId, _time: Duration) {}

    /// A command was applied. Its kind is as [`Command::kind_of`](bowline_kv::store::Command::kind_of) tells it.
    fn applied(&self, _kind: u8, _good: bool, _took: Duration) {}

    /// The state has done something.
    fn did(&self, _operations: &Operations) {}

    /// The file of the state was written, with the commands during which that happened.
    fn committed(&self, _took: Duration) {}

    /// A step of removing compacted revisions has removed this many records.
    fn tidied(&self, _removed: u64, _took: Duration) {}

    /// All that a compaction gave up is removed.
    fn compacted(&self, _took: Duration) {}

    /// Whether the state's file is being rewritten.
    fn rewriting(&self, _now: bool) {}

    /// A rewrite of the state's file has come to an end.
    fn rewritten(&self, _took: Duration) {}

    /// A snapshot for a follower was written.
    fn dumped(&self, _took: Duration) {}

    /// Whether a leader's snapshot is being made a state.
    fn restoring(&self, _now: bool) {}

    /// A snapshot has come from a leader.
    fn received(&self, _from: NodeId, _whole: bool) {}

    /// How many leases there are.
    fn leases(&self, _count: u64) {}

    /// A lease was granted, or has ended.
    fn lease_changed(&self, _change: &LeaseChange) {}

    /// This leader has confirmed a renewal.
    fn lease_renewed(&self) {}

    /// This leader has ended leases whose time was over.
    fn leases_ended(&self, _count: u64) {}
}

/// Measures nothing.
impl Instruments for () {}
