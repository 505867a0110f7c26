//! One replica, pure: the consensus core, the state machine that it feeds, and who waits for what.
//!
//! A [`Node`] joins [`bowline_raft::Raft`] to a [`StateMachine`]. It applies what is committed, gives
//! each client its answer, makes snapshots when the log grows, and brings them in pieces to
//! followers that need one. The LAN replica, the simulator and the server all run this same code;
//! what they do with its [`NodeEffect`]s is all that differs.

mod machine;
mod node;
mod snapshots;

pub use machine::{InvalidSnapshot, Recall, StateMachine};
pub use node::{Consistency, Node, NodeConfig, NodeEffect, NodeInput, NodeMessage, RecoveredNode, Response, Witness};
pub use snapshots::{SnapshotChunk, SnapshotChunkReply, StoredSnapshot};

pub use bowline_raft as raft;
