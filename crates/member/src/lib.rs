//! One member of a cluster, without clocks, threads and sockets.
//!
//! What a member decides is here, as functions of messages, times and what is on its disk. The server drives it with
//! threads and real disks. The simulator drives the same code in virtual time, on simulated disks.

mod disk;
mod instruments;
mod machine;
mod state_files;
mod status;

pub use disk::StateDisk;
pub use instruments::Instruments;
pub use machine::{AppliedEntry, KvMachine, check_version};
pub use state_files::{FoundState, NewFile, NewState, StateFiles};
pub use status::{AlarmFacts, ComparisonFacts, Facts, Status};
