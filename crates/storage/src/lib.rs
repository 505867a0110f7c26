//! Bowline's durable side: the write-ahead log, the identity of a replica, and its snapshot files.
//!
//! All of it stands on a [`Disk`], which is the machine's ([`RealDisk`]) or a simulated one ([`SimDisk`]).
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
//! opened.log.sync()?; // now, and not before, may anybody be told
//! drop(opened);
//! assert_eq!(open(&disk, ClusterId(7), NodeId(1), &options)?.recovery.recovered.entries.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a host does
//!
//! - Its log thread takes all writes that wait, [`Log::append`]s them in their order, calls [`Log::sync`]
//!   once, and then says `Persisted`. Writes that arrive meanwhile share the next sync.
//! - [`LogError::Fatal`], or a failed sync of a snapshot: the process stops. Never again on this handle.
//! - [`Log::admits`] says no: it refuses clients' writes with a clear error and drops leaders' entries (as
//!   if the network had), so that the stream never stands still before a vote. Votes and reads go on.
//! - After each sync it may run [`Log::spare_job`] on another thread, so that no write ever waits for a
//!   segment to be filled with zeros.
//! - A snapshot of its own: [`Snapshots::write`] … [`SnapshotWriter::finish`], then [`Log::compact`] and
//!   [`Log::sync`], then [`Snapshots::prune`]. A leader's: the same, with `Write::Snapshot` for `compact`.
//! - [`Recovery::suspect`]: acknowledged entries may be missing. The core is told by
//!   [`bowline_raft::Recovered::suspect`]: it neither votes nor leads before a leader has repaired it, and
//!   then says so with [`bowline_raft::Write::Repaired`].
//!
//! # The folder
//!
//! | path | what |
//! |---|---|
//! | `identity` | cluster, replica, incarnation, format version; two copies, written last when the folder is made |
//! | `hard-state` | term and vote, in two slots written in turn |
//! | `lock` | held by the process that has the folder open |
//! | `log/<sequence>.seg` | the segments of the log; `log/spare-*` wait for their next use |
//! | `snap/<index>-<term>.snap` | snapshots (the format is told in `snapshot.rs`) |
//! | `snap/arriving` | the pieces of one that is being received (`arriving.rs`) |
//!
//! A host may keep the state machine's state in a file of its own: [`open_with`] is told how far that
//! reaches, and takes it like a snapshot at that index.
//!
//! Every checksum is a CRC32C that begins with a seed made of cluster, replica, incarnation and place: the
//! right bytes in the wrong place, or of another replica, or of an earlier life, don't pass.
//!
//! # A segment
//!
//! Sectors of 512 bytes, the unit that a disk writes whole or not at all. The file is filled with written
//! zeros before its first use, or is an earlier segment under a new sequence number. A sector:
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
//! A *batch* is what one sync makes durable, in sectors of its own: what was acknowledged is never written
//! over. It begins with the length of its records, a CRC32C over all of them, and two counters as of
//! before it: how many records have changed the log, and how many term and vote. Then come the records,
//! each with kind and length: an entry, a truncation, term and vote, a leader's snapshot, the mark of an
//! own one, a suspicion of the peers, the end of one. A batch is durable before the next one is written. An entry that
//! doesn't fit goes to the next segment; one larger than a segment gets a segment of its size.
//!
//! Each segment begins with a *checkpoint*, twice, each synced by itself: the segment before it and where
//! that ends, term and vote, the snapshot under the log, the last position, the counters, and whether the
//! log is suspect. So the segments before it can go as soon as a snapshot covers their entries.
//!
//! # Reading it again
//!
//! The newest segment with a readable checkpoint names the one before it, and so on. A sector is *current*
//! (its checksum is right, and of this segment), *unwritten* (zeros, or right for an earlier use of the
//! file, in both cases also with a few bits flipped, as no written sector comes near them), or *damaged*.
//! What follows the last whole batch decides:
//!
//! | what is there | what it is | what happens |
//! |---|---|---|
//! | only unwritten sectors | the end | - |
//! | some current sectors of the one next batch, the others unwritten | a write that a crash tore; it was never acknowledged | cut: zeros are written over it |
//! | a damaged sector, which no torn write leaves | rot | suspect |
//! | any later batch, whole or not | rot, as it was written after this one was durable | suspect |
//! | damage, and then a whole batch whose counters say that no entry is missing | rot in a checkpoint, or in a vote that the copy knows | repaired |
//! | damage exactly where the copy of term and vote says that a batch of nothing else was | the same, at the end | repaired |
//!
//! Suspect means: the whole prefix is kept, [`Suspicion`] says up to where it reaches and how far the log
//! may have reached, and the log goes on in a new segment whose checkpoint holds the suspicion until
//! `Write::Repaired`; until then no segment is thrown away. A checksum error never means "truncate".
//!
//! Damage in a segment whose entries a snapshot covers takes nothing: then the log is read from a later
//! segment on. And if a whole snapshot reaches beyond the prefix that is left, it takes its place.
//!
//! Term and vote are written to their copy before the log; only where the log says again what it had lost, the copy
//! that told it stays until that is done. Damage in one of the two is repaired from the other; where neither can be
//! trusted the folder is refused ([`OpenError::HardStateLost`]).
//!
//! Before anything that was read is relied on it is made sure of: names and data are synced again, and the
//! last batch is written again first, as after a failed sync the system may show pages that it will never
//! write.
//!
//! What can't be told from a clean end is a disk that loses the very last acknowledged batches as if they had
//! never been written, or that is restored from an old image. Only the peers can notice that: `Write::Suspect`
//! says so ([`bowline_raft::Config::return_check`]).

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
    Crash, Disk, DiskError, DiskErrorKind, File, Injection, Operation, RealDisk, RealFile, RealLock, SECTOR, SimDisk,
    SimFile, SimLock, is_passing, private_options, wait_out,
};
pub use fuzz::fuzz_recovery;
pub use identity::{ClusterId, FORMAT_VERSION, Identity};
pub use label::{Label, NoLabel};
pub use log::{Fatal, Log, LogError, LogStats, Options, SpareJob};
pub use recovery::{Finding, Severity};
pub use snapshot::{CHUNK_BYTES, SnapshotError, SnapshotReader, SnapshotWriter, Snapshots};
pub use state::Suspicion;
pub use store::{KeptState, OpenError, Opened, Recovery, create, open, open_with};
