//! Bowline's consensus core: Raft (Ongaro and Ousterhout, 2014; Ongaro's thesis, 2014) as a pure
//! state machine.
//!
//! It only decides: it has no clock, socket, file, thread or source of randomness. A host hands it one [`Input`] at a
//! time, with the current time, and carries out the [`Effects`] in their order:
//!
//! ```
//! use bowline_raft::{Config, Effect, Effects, Group, Input, Membership, NodeId, Raft, Recovered, Time};
//!
//! let me = NodeId(1);
//! let founders = Membership::simple(Group::of_voters([me]));
//! let mut raft = Raft::new(Config::new(me, 42), Recovered::founding(founders), Time::ZERO)?;
//!
//! // Nothing happens before the deadline: then this single voter stands for election.
//! let mut effects = Effects::new();
//! raft.handle(raft.next_deadline(), Input::Wake, &mut effects);
//! let Some(Effect::Persist { id, .. }) = effects.drain().next() else { panic!("its vote is written first") };
//! assert!(!raft.is_leader(), "its own vote counts when it is durable");
//! raft.handle(raft.next_deadline(), Input::Persisted { up_to: id }, &mut effects);
//! assert!(raft.is_leader());
//! # Ok::<(), bowline_raft::ConfigError>(())
//! ```
//!
//! Where to find what the paper says: elections in `election.rs` (5.2, 5.4.1), log replication in
//! `replication.rs` (5.3) with a peer's state in `progress.rs`, commitment in `commit.rs` (5.4.2),
//! membership in `membership.rs` and `reconfigure.rs` (6), snapshots in `snapshot.rs` (7), reads in
//! `read.rs` (8), leadership transfer in `leadership_transfer.rs` (thesis 3.10). The paper doesn't treat a disk that
//! loses what was persisted: that is in `damage.rs` and `returning.rs`. Only `quorum.rs` knows what a majority is.

mod commit;
mod config;
mod damage;
mod effect;
mod election;
mod explain;
mod leadership_transfer;
mod log;
mod membership;
mod message;
mod persistence;
pub mod probe;
mod progress;
mod quorum;
mod raft;
mod random;
mod read;
mod reconfigure;
mod replication;
mod requests;
mod rest;
mod returning;
mod role;
mod snapshot;
mod types;

pub use config::{Config, ConfigError, DriftBound};
pub use effect::{Effect, Effects, Fault, HardState, Input, Outcome, ReadKind, Refusal, Write};
pub use explain::{Explanation, PeerExplanation, RoleExplanation, Uncommitted};
pub use log::{ENTRY_OVERHEAD, Entry, Log, Payload};
pub use membership::{Group, MAX_MEMBERS, Membership, MembershipChange, MembershipError, MembershipHistory};
pub use message::{
    AppendEntries, AppendEntriesReply, AppendOutcome, Body, Found, InstallSnapshot, Message, SnapshotHeader,
};
pub use progress::Pause;
pub use quorum::{Quorum, VoteResult, majority};
pub use raft::{Raft, Recovered};
pub use random::Random;
pub use types::{Index, NodeId, PersistId, Position, Round, Session, Term, Time, Token};
