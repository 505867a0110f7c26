//! One replica without I/O: the consensus core, its state machine, and the requests that wait for answers.
//!
//! A [`Node`] joins [`bowline_raft::Raft`] to a [`StateMachine`]. It applies committed entries, answers each client,
//! makes snapshots when the log grows, and brings them in pieces to followers that need one. It consists of a
//! [`Conductor`], which decides all of this and knows no state machine, and an [`Applier`], which does the
//! conductor's [`Job`]s. The LAN replica and the simulator run the node. The server runs the same conductor, but does
//! the jobs on other threads and in files: the code that decides is the same.

mod applier;
mod conductor;
mod failure;
mod held;
mod input;
mod job;
mod machine;
mod message;
mod node;
mod snapshot_transfer;
pub mod wire;

pub use applier::{Applier, recalled};
pub use conductor::Conductor;
pub use failure::{Failure, NotDone, Response, Unknown};
pub use held::HeldSnapshots;
pub use input::{NodeConfig, NodeEffect, NodeInput, RecoveredNode, StoredSnapshot, Witness};
pub use job::{ConductorEffect, Job, Report};
pub use machine::{InvalidSnapshot, Recall, StateMachine};
pub use message::{NodeMessage, Piece, SnapshotChunk, SnapshotChunkReply, SnapshotTransfer};
pub use node::Node;
pub use snapshot_transfer::Incoming;

pub use bowline_raft as raft;
