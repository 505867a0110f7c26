//! Bowline's durable side: the write-ahead log, the identity of a replica, and its snapshot files.
//!
//! All of it uses a [`Disk`]: the machine's ([`RealDisk`]) or a simulated one ([`SimDisk`]).
//! Nothing here has a thread, a clock or a random source.
//!
//! ```
//! use bowline_raft::{Entry, Group, HardState, Index, Membership, NodeId, Payload, Term, Write};
//! use bowline_storage::{ClusterId, Identity, Options, SimDisk, create, open};
//!
//! let disk = SimDisk::new();
//! let identity = Identity { cluster: ClusterId(7), replica: NodeId(1), incarnation: 99 };
//! let founders = Membership::simple(Group::of_voters([NodeId(1)]));
//! let options = Options::new(64 << 10, 4 << 10, 2);
//! create(&disk, &identity, Some(founders), &options)?; // once
//!
//! let mut opened = open(&disk, ClusterId(7), NodeId(1), &options)?; // at every start
//! opened.log.append(&Write::HardState(HardState { term: Term(1), voted_for: Some(NodeId(1)) }))?;
//! let entry = Entry { index: Index(1), term: Term(1), payload: Payload::Blank };
//! opened.log.append(&Write::Append(vec![entry]))?;
//! opened.log.sync()?; // only after this may the host tell anybody
//! drop(opened);
//! assert_eq!(open(&disk, ClusterId(7), NodeId(1), &options)?.recovery.recovered.entries.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a host does
//!
//! - Its log thread takes all waiting writes, [`Log::append`]s them in order, calls [`Log::sync`]
//!   once, and then reports `Persisted`. Writes that arrive meanwhile share the next sync.
//! - On [`LogError::Fatal`], or a failed sync of a snapshot, the process stops. It never uses the handle again.
//! - When [`Log::admits`] returns false, it refuses clients' writes with a clear error and drops leaders' entries
//!   (as if the network had lost them), so that entries without room never block a vote. Votes and reads go on.
//! - After each sync it may run [`Log::spare_job`] on another thread, so that no write ever waits while a
//!   segment is filled with zeros.
//! - For its own snapshot it calls [`Snapshots::write`] … [`SnapshotWriter::finish`], then [`Log::compact`] and
//!   [`Log::sync`], then [`Snapshots::prune`]. For a leader's snapshot, `Write::Snapshot` replaces `compact`.
//! - [`Recovery::suspect`] means that acknowledged entries may be missing. The core learns of it from
//!   [`bowline_raft::Recovered::suspect`]. It neither votes nor leads until a leader has repaired it; then it
//!   writes [`bowline_raft::Write::Repaired`].
//!
//! # The folder
//!
//! | path | what |
//! |---|---|
//! | `identity` | cluster, replica, incarnation, format version; two copies, written last when the folder is made |
//! | `hard-state` | term and vote, in two slots written in turn |
//! | `lock` | held by the process that has the folder open |
//! | `log/<sequence>.seg` | the segments of the log; `log/spare-*` are reserves for later use |
//! | `snap/<index>-<term>.snap` | snapshots (format: see `snapshot.rs`) |
//! | `snap/arriving` | the pieces of a snapshot that is being received (`arriving.rs`) |
//!
//! A host may keep the state machine's state in a file of its own. It tells [`open_with`] which index that state
//! has reached, and the state counts like a snapshot at that index.
//!
//! Every checksum is a CRC32C whose seed is made of cluster, replica, incarnation and place. So the right bytes
//! in the wrong place, of another replica, or of an earlier incarnation don't pass.
//!
//! # A segment
//!
//! A segment consists of sectors of 512 bytes, the unit that a disk writes whole or not at all. Its file was filled
//! with zeros before its first use, or is an earlier segment under a new sequence number. A sector:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | CRC32C of the rest, seeded with identity and sector number |
//! | 4..8 | a constant with many ones |
//! | 8..16 | sequence number of the segment |
//! | 16..20, 20..24 | first sector and number of sectors of the batch |
//! | 24..32 | last index of the log after the batch |
//! | 32..512 | its part of the batch |
//!
//! A *batch* is what one sync makes durable. It has sectors of its own, so acknowledged data is never overwritten.
//! It begins with the length of its records, a CRC32C over all of them, and two counters with their values
//! before the batch: how many records have changed the log, and how many have changed term and vote. Then come the
//! records, each with kind and length: an entry, a truncation, term and vote, a leader's snapshot, the mark of the
//! replica's own snapshot, a suspicion raised by the peers, or the end of a suspicion. A batch is durable before the
//! next one is written. An entry that doesn't fit goes to the next segment; one larger than a segment gets a segment
//! of its size.
//!
//! Each segment begins with two copies of a *checkpoint*, each synced by itself. It holds the segment before it and
//! where that ends, term and vote, the snapshot under the log, the last position, the counters, and whether the
//! log is suspect. So earlier segments can be removed as soon as a snapshot covers their entries.
//!
//! # Reading it again
//!
//! The newest segment with a readable checkpoint names the one before it, and so on. A sector is *current*
//! (valid, and of this segment), *unwritten* (zeros, or valid for an earlier use of the file; in both cases also with
//! a few flipped bits, since no sector written in this use can look like that), or *damaged*.
//! What follows the last whole batch decides:
//!
//! | what is there | what it is | what happens |
//! |---|---|---|
//! | only unwritten sectors | the end | - |
//! | some current sectors of the one next batch, the others unwritten | a write that a crash tore; it was never acknowledged | cut: zeros are written over it |
//! | a damaged sector, which no torn write leaves | rot | suspect |
//! | any later batch, whole or not | rot, as it was written after this one was durable | suspect |
//! | damage, and then a whole batch whose counters say that no entry is missing | rot in a checkpoint, or in a vote that the copy also holds | repaired |
//! | damage exactly where, by the copy of term and vote, a batch held nothing else | the same, at the end | repaired |
//!
//! Suspect means: the whole prefix is kept, and [`Suspicion`] says where it ends and how far the log
//! may have reached. The log goes on in a new segment whose checkpoint holds the suspicion until
//! `Write::Repaired`; until then no segment is removed. A checksum error never means "truncate".
//!
//! Damage in a segment whose entries a snapshot covers loses nothing: the log is then read from a later
//! segment. If a whole snapshot reaches beyond the prefix that is left, it replaces that prefix.
//!
//! Term and vote are written to their copy before the log. There is one exception: when the log gets back a vote that
//! only the copy still held, the copy stays as it is until the log has it. Damage in one of the two is repaired from
//! the other; where neither can be trusted, the folder is refused ([`OpenError::HardStateLost`]).
//!
//! What was read is made durable before anything relies on it: names are synced, and the last batch is written again
//! and synced. After a failed sync the system may show pages that it will never write.
//!
//! Two losses look like a clean end: a disk loses the very last acknowledged batches as if they had
//! never been written, or is restored from an old image. Only the peers can notice that; `Write::Suspect`
//! records it ([`bowline_raft::Config::return_check`]).

mod arriving;
mod batch;
mod codec;
mod disk;
mod fuzz;
mod hard_state;
mod identity;
mod label;
mod log;
mod record;
mod recovery;
mod scan;
mod sector;
mod segments;
mod snapshot;
mod state;
mod store;

pub use arriving::{Arrival, Arriving, Pieces};
pub use disk::{
    Chooser, Crash, Disk, DiskError, DiskErrorKind, File, Injection, Keep, Operation, RealDisk, RealFile, RealLock,
    SECTOR, SimDisk, SimFile, SimLock, is_passing, pieces, private_options, wait_out,
};
pub use fuzz::fuzz_recovery;
pub use identity::{ClusterId, FORMAT_VERSION, Identity};
pub use label::{Label, NoLabel};
pub use log::{Fatal, Log, LogError, LogStats, Options, SpareJob};
pub use recovery::{Finding, Severity};
pub use snapshot::{CHUNK_BYTES, SnapshotError, SnapshotReader, SnapshotWriter, Snapshots};
pub use state::Suspicion;
pub use store::{KeptState, OpenError, Opened, Recovery, create, create_with_snapshot, identity, open, open_with};
