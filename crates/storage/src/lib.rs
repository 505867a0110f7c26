//! Bowline's durable side: the write-ahead log, the identity of a replica, and its snapshot files.

mod batch;
mod codec;
mod disk;
mod fuzz;
mod hard_state;
mod identity;
mod log;
mod record;
mod recovery;
mod scan;
mod sector;
mod segments;
mod snapshot;
mod state;
mod store;

pub use disk::{
    Crash, Disk, DiskError, DiskErrorKind, File, Injection, Operation, RealDisk, RealFile, RealLock, SECTOR, SimDisk,
    SimFile, SimLock,
};
pub use fuzz::fuzz_recovery;
pub use identity::{ClusterId, FORMAT_VERSION, Identity};
pub use log::{Fatal, Log, LogError, LogStats, Options, SpareJob};
pub use recovery::{Finding, Verdict};
pub use snapshot::{CHUNK_BYTES, SnapshotError, SnapshotReader, SnapshotWriter, Snapshots};
pub use state::Suspicion;
pub use store::{OpenError, Opened, Recovery, create, open};
