//! One replica, pure: the consensus core, the state machine that it feeds, and who waits for what.
//!
//! A [`Node`] joins [`bowline_raft::Raft`] to a [`StateMachine`]. It applies what is committed, gives
//! each client its answer, makes snapshots when the log grows, and brings them in pieces to
//! followers that need one. It consists of a [`Conductor`], which decides all of this and knows no state
//! machine, and an [`Applier`], which does what the conductor wants of one. The LAN replica and the
//! simulator run the node; the server runs the same conductor, and does its [`Job`]s on other threads and
//! in files. What is decided is the same code.

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
