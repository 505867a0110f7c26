//! One member of a cluster, without clocks, threads and sockets.
//!
//! What a member decides is here, as functions of messages, times and what is on its disk. The server drives it with
//! threads and real disks. The simulator drives the same code in virtual time, on simulated disks.
//!
//! A member has four workers, which hand each other jobs and events:
//!
//! ```text
//!  clients ──▶ Queue ──▶ Consensus ──▶ LogWorker ──▶ disk
//!  peers   ──▶   ▲           │   └─▶ peers  └─▶ peers (what waited for the disk)
//!                │           ▼
//!                │      ApplyWorker (the state)   SnapshotWorker (files) ──▶ peers (pieces)
//!                └───────────┴───── events ────────────┘
//! ```
//!
//! A read waits until the state is recent enough, then reads it without these workers.

mod apply;
mod consensus;
mod disk;
mod duties;
mod forwarding;
mod instruments;
mod lease_time;
mod leases;
mod log;
mod machine;
mod open;
mod outlet;
mod queue;
mod rewriting;
mod shared;
mod shrink;
mod snapshots;
mod state_files;
mod status;
mod workers;

pub use apply::{ApplyJob, ApplyWorker};
pub use consensus::{Consensus, Round};
pub use disk::StateDisk;
pub use duties::{Action, Duties, Duty, DutySettings, Peers, Quota, View, own_alarm};
pub use forwarding::{Arrived, Attempt, Calls, LeaderRequest, ToLeader, encode_answer, fuzz_message, pause, receive};
pub use instruments::Instruments;
pub use lease_time::LeaseTime;
pub use log::{LogJob, LogStep, LogWorker, MAX_JOBS};
pub use machine::{AppliedEntry, KvMachine, check_version};
pub use open::{OpenedMember, State, open};
pub use outlet::{Fatal, Outlet};
pub use queue::{Event, MAX_REQUESTS, Portion, Queue, QueueBytes, Request, RequestBody, entries_bytes, weight};
pub use shared::Shared;
pub use snapshots::{SnapshotJob, SnapshotWorker};
pub use state_files::{FoundState, NewFile, NewState, StateFiles};
pub use status::{AlarmFacts, ComparisonFacts, Facts, Published, Status};
pub use workers::{Settings, Workers};
