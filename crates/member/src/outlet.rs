//! What the workers of a member hand to each other.

use bowline_kv::store::EngineError;
use bowline_node::NodeMessage;
use bowline_node::raft::NodeId;

use crate::machine::AppliedEntry;
use crate::queue::Event;
use crate::snapshots::SnapshotJob;
use crate::status::Published;

/// Why something can't be made durable or read any more. Writes may be lost, and the contents of the disk are no longer
/// known. The process must stop, and read the disk when it starts again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);

impl From<EngineError> for Fatal {
    fn from(error: EngineError) -> Fatal {
        Fatal(error.to_string())
    }
}

/// Where a worker puts what comes out of its work, in this order, while it works on.
pub trait Outlet<R> {
    /// An event for the member's consensus.
    fn event(&mut self, event: Event<R>);

    /// A job for the worker of the snapshots. That worker ends after this one.
    fn snapshot_job(&mut self, job: SnapshotJob);

    /// A message to another member.
    fn send(&mut self, to: NodeId, message: NodeMessage);

    /// The state has applied these commands, and this is published of it now. Nobody has heard of that yet: a client that
    /// creates a watcher afterwards gets only later events.
    ///
    /// # Errors
    /// A record that was written is damaged.
    fn applied(&mut self, applied: &[AppliedEntry], published: &Published) -> Result<(), EngineError>;

    /// Another state, of which this is published, has replaced the store.
    fn replaced(&mut self, published: &Published);
}
