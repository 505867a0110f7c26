//! Writing the log: buffering, the layout of batches in segments, and the removal of segments.

use std::collections::VecDeque;
use std::sync::Arc;

use bowline_raft::{Index, Position, SnapshotHeader, Write};

use crate::batch::{self, Place, room_in, sectors_for};
use crate::disk::{Disk, DiskError, DiskErrorKind, File, SECTOR, read_all};
use crate::hard_state::{self, Copies, Slot};
use crate::identity::{Binding, Identity};
use crate::record::{Checkpoint, Record};
use crate::recovery::{MAX_SEGMENT_BYTES, Replay};
use crate::sector::{self, Sector};
use crate::segments::{self, LOG_DIR, segment_path, spare_path};
use crate::state::{State, Suspicion};

/// Sectors that a checkpoint may grow by between planning and writing.
const CHECKPOINT_SLACK: usize = 2;

/// The tunable parts of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a segment: a multiple of 512, from 4 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// Bytes that entries leave free when no other segment is in reserve, so that votes can still be written
    /// when the disk is full; at most half a segment.
    pub reserve_bytes: u64,
    /// How many unused segments are kept for reuse instead of being removed; at least 1.
    pub max_spares: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options::new(64 << 20, 1 << 20, 4)
    }
}

impl Options {
    /// See the fields.
    #[must_use]
    pub fn new(segment_bytes: u64, reserve_bytes: u64, max_spares: usize) -> Options {
        Options { segment_bytes, reserve_bytes, max_spares }
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        let bytes = self.segment_bytes;
        if !(4 << 10..=1 << 30).contains(&bytes) || !bytes.is_multiple_of(SECTOR as u64) {
            return Err(format!("segment_bytes is {bytes}: a multiple of 512 from 4096 to {} is allowed", 1u64 << 30));
        }
        if self.reserve_bytes > bytes / 2 {
            return Err(format!("reserve_bytes is {}: at most half of segment_bytes is allowed", self.reserve_bytes));
        }
        if self.max_spares == 0 {
            return Err("max_spares is 0: at least 1 is needed".to_owned());
        }
        Ok(())
    }

    fn sectors(&self) -> u32 {
        u32::try_from(self.segment_bytes / SECTOR as u64).expect("validated")
    }
}

/// Why something isn't in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The disk is full, or the system lacks file descriptors or memory. The refused write isn't in the log, and
    /// everything else is unchanged: the same call can succeed later.
    #[error("the log has to wait: {0}; nothing is lost meanwhile; {remedy}", remedy = remedy(.0))]
    Passing(DiskError),
    /// An entry is larger than any segment may be.
    #[error("a record of {bytes} bytes is more than the {limit} allowed")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// The disk broke a promise: what is durable is unknown. This log accepts no more writes; the process
    /// must stop, and learns at its next start what is durable.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

fn remedy(error: &DiskError) -> &'static str {
    match error.kind {
        DiskErrorKind::NoSpace => "free some space, or move the data to a larger disk",
        _ => "raise the limits of this process or machine, or stop other programs that use them up",
    }
}

/// The disk broke a promise; see [`LogError::Fatal`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log has failed and must not be used again: {0}; the process has to stop")]
pub struct Fatal(pub String);

/// Figures of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Segments in use.
    pub segments: usize,
    /// Segments in reserve.
    pub spares: usize,
    /// Bytes that entries may still take before a new segment file must be made.
    pub room: u64,
    /// Records that wait for a sync.
    pub pending: usize,
    /// Successful syncs.
    pub syncs: u64,
    /// Bytes of all batches written, with their overhead.
    pub bytes_written: u64,
    /// The last entry, durable or not.
    pub last: Position,
    /// The log starts after this index.
    pub base: Index,
}

/// The write-ahead log of one replica: a single ordered stream of its writes.
///
/// One owner uses it, on a thread of its own: [`Log::append`] buffers, [`Log::sync`] makes everything
/// that was appended durable. Writes that arrive during a sync share the next one.
pub struct Log<D: Disk> {
    disk: D,
    _lock: Arc<D::Lock>,
    identity: Identity,
    options: Options,
    tail: Tail<D::File>,
    copies: Copies<D::File>,
    /// The state after every appended record.
    appended: State,
    /// The state after every record that was written to the disk.
    flushed: State,
    pending: VecDeque<Record>,
    plan: Plan,
    /// Segments before the last, with the log's last index at their end.
    earlier: VecDeque<(u64, Index)>,
    /// Segments that are no longer part of the log; while it is suspect they are kept for an inquiry into the damage.
    dead: Vec<u64>,
    spares: Vec<String>,
    /// The last of the spares, open. Without it the spares don't count: there may be no descriptor to open them.
    ready: Option<Spare<D::File>>,
    next_sequence: u64,
    failed: Option<Fatal>,
    syncs: u64,
    bytes_written: u64,
}

/// The segment that is being written.
struct Tail<F> {
    file: F,
    sequence: u64,
    sectors: u32,
    next: u32,
}

impl<F> Tail<F> {
    /// Bytes of records that fit into the next batch. (A damaged file may end before `next`.)
    fn room(&self) -> usize {
        room_in(self.sectors.saturating_sub(self.next) as usize)
    }
}

/// The space that is left after all pending records; the sync uses no more than planned.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    /// Bytes left in the segment of the last pending record.
    room: usize,
    /// Spares that the plan doesn't use.
    spares: usize,
}

/// A new segment: the content of its checkpoint, and the spare to use.
struct Beginning<'a, F> {
    identity: &'a Identity,
    sequence: u64,
    sectors: u32,
    previous: Option<(u64, u32)>,
    spare: Option<Spare<F>>,
}

/// A segment in reserve that is open already: using it needs no new file descriptor.
struct Spare<F> {
    path: String,
    file: F,
}

/// Begins a new segment with its two checkpoints, each durable before anything follows.
fn begin_segment<D: Disk>(disk: &D, state: &State, new: Beginning<'_, D::File>) -> Result<Tail<D::File>, DiskError> {
    let path = segment_path(new.sequence);
    let file = match new.spare {
        Some(mut spare) => {
            clean(&mut spare, Binding::of(new.identity), new.sequence)?;
            disk.rename(&spare.path, &path)?;
            spare.file.renamed(&path);
            disk.sync_dir(LOG_DIR)?;
            spare.file
        }
        None => segments::make_filled(disk, new.sectors, &format!("{path}.tmp"), &path)?,
    };
    let mut tail = Tail { file, sequence: new.sequence, sectors: new.sectors, next: 0 };
    for _ in 0..2 {
        write_checkpoint(&mut tail, new.identity, new.previous, state)?;
    }
    Ok(tail)
}

/// Overwrites damaged sectors of a spare with zeros. Bits may have flipped in the remains of its earlier use. Once the
/// spare is in use, that would look like the rot of acknowledged data.
fn clean<F: File>(spare: &mut Spare<F>, binding: Binding, sequence: u64) -> Result<(), DiskError> {
    let bytes = read_all(&spare.file, &spare.path, MAX_SEGMENT_BYTES)?;
    let mut cleaned = false;
    for (at, sector) in (0..).zip(bytes.chunks_exact(SECTOR)) {
        if sector::classify(binding, sequence, at, sector) != Sector::Unwritten {
            spare.file.write_at(u64::from(at) * SECTOR as u64, &[0; SECTOR])?;
            cleaned = true;
        }
    }
    if cleaned { spare.file.sync_data() } else { Ok(()) }
}

fn write_checkpoint<F: File>(
    tail: &mut Tail<F>,
    identity: &Identity,
    previous: Option<(u64, u32)>,
    state: &State,
) -> Result<(), DiskError> {
    let checkpoint = Record::Checkpoint(Box::new(Checkpoint::new(*identity, previous, state)));
    let place = Place { binding: Binding::of(identity), segment: tail.sequence, start: tail.next };
    let versions = (state.log_version, state.hard_version);
    let bytes = batch::encode(place, versions, state.last().index, std::iter::once(&checkpoint));
    tail.file.write_at(u64::from(tail.next) * SECTOR as u64, &bytes)?;
    tail.file.sync_data()?;
    tail.next += sectors_in(&bytes);
    Ok(())
}

fn sectors_in(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len() / SECTOR).expect("a segment is bounded")
}

/// Makes the log of a new folder, and a spare segment.
pub(crate) fn found<D: Disk>(disk: &D, identity: &Identity, state: &State, options: &Options) -> Result<(), DiskError> {
    let sectors = options.sectors();
    begin_segment(disk, state, Beginning { identity, sequence: 1, sectors, previous: None, spare: None })?;
    let spare = spare_path(0);
    segments::make_filled(disk, sectors, &format!("{spare}.tmp"), &spare).map(|_| ())
}

/// Makes a segment for later use, on any thread, while the log is in use.
#[derive(Debug)]
pub struct SpareJob<D> {
    disk: D,
    sectors: u32,
    sequence: u64,
}

impl<D: Disk> SpareJob<D> {
    /// Writes a segment of zeros and syncs it. The log finds it without being told.
    ///
    /// # Errors
    /// The disk refuses. A full disk does no harm yet: the log goes on while it has room.
    pub fn run(self) -> Result<(), DiskError> {
        let path = spare_path(self.sequence);
        segments::make_filled(&self.disk, self.sectors, &format!("{path}.tmp"), &path).map(|_| ())
    }
}

impl<D: Disk> Log<D> {
    /// Continues a log that was read: overwrites a torn batch, begins a new segment if something is lost, and makes
    /// everything that was read durable.
    pub(crate) fn start(
        disk: &D,
        lock: Arc<D::Lock>,
        identity: Identity,
        options: Options,
        replay: Replay,
    ) -> Result<Log<D>, DiskError> {
        let binding = Binding::of(&identity);
        for path in &replay.listing.temporary {
            disk.remove(path)?;
        }
        // A killed process may have left names unsynced, and from now on we rely on them.
        disk.sync_dir(LOG_DIR)?;
        disk.sync_dir("")?;
        let mut flushed = replay.state.clone();
        flushed.suspicion = replay.suspicion();
        let path = segment_path(replay.cut.0);
        let mut file = disk.open(&path)?;
        secure_tail(&mut file, &replay)?;
        let size = file.size()?.min(MAX_SEGMENT_BYTES);
        let sectors = u32::try_from(size / SECTOR as u64).expect("a segment is bounded");
        let tail = Tail { file, sequence: replay.cut.0, sectors, next: replay.cut.1 };
        if replay.copy_is_stale {
            let (version, hard_state) = (flushed.hard_version, flushed.hard_state);
            let copy = Slot { version, hard_state, log_version: flushed.log_version, extent: None };
            hard_state::write_both(disk, binding, &copy)?;
        }
        let next_slot = if replay.copy_is_stale { 0 } else { replay.copies.next };
        let mut log = Log {
            disk: disk.clone(),
            _lock: lock,
            copies: Copies::open(disk, binding, next_slot)?,
            identity,
            tail,
            appended: flushed.clone(),
            flushed,
            pending: VecDeque::new(),
            plan: Plan::default(),
            earlier: replay.earlier.into(),
            dead: replay.dead,
            spares: Vec::new(),
            ready: None,
            next_sequence: replay.listing.highest + 1,
            options,
            failed: None,
            syncs: 0,
            bytes_written: 0,
        };
        log.refresh_spares()?;
        if replay.lost.is_some() || replay.begins_anew {
            let previous = if replay.begins_anew { None } else { Some(replay.cut) };
            if replay.begins_anew {
                log.dead.extend(log.earlier.drain(..).map(|(sequence, _)| sequence).chain([log.tail.sequence]));
            }
            log.roll(log.options.sectors(), previous, !replay.begins_anew)?;
        } else if replay.lacks_second_checkpoint {
            log.write_second_checkpoint(&replay.cut)?;
        }
        log.free_segments()?;
        log.replan();
        if replay.log_lacks_hard_state {
            log.rewrite_hard_state()?;
        }
        Ok(log)
    }

    /// Buffers a write of the core. Nothing of it is durable before [`Log::sync`].
    ///
    /// # Errors
    /// [`LogError::Passing`]: the write is refused as a whole; a host that asks [`Log::admits`] first
    /// doesn't see this. [`LogError::Fatal`] also if the write can't follow the ones before it.
    pub fn append(&mut self, write: &Write) -> Result<(), LogError> {
        let records: Vec<Record> = match write {
            Write::HardState(hard_state) => vec![Record::HardState(*hard_state)],
            Write::Truncate { from } => vec![Record::Truncate(*from)],
            Write::Append(entries) => entries.iter().cloned().map(Record::Entry).collect(),
            Write::Snapshot(header) => vec![Record::Snapshot(header.clone())],
            // By now the peers have sent everything that may have been lost.
            Write::Repaired if self.appended.suspicion.is_none() => return self.check().map_err(LogError::from),
            Write::Repaired => vec![Record::Repaired],
            // Only the index is stored: a later start uses the term of its hard state.
            Write::Suspect { last_possible } => {
                let index = last_possible.index;
                vec![Record::Suspect((index <= Index::GREATEST).then_some(index))]
            }
        };
        self.take(records)
    }

    /// Notes that a durable snapshot of the replica's own state machine replaces the entries up
    /// to it. This is durable after the next [`Log::sync`], which also frees unneeded segments.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn compact(&mut self, snapshot: &SnapshotHeader) -> Result<(), LogError> {
        if snapshot.position.index <= self.appended.base_index() {
            return Ok(());
        }
        self.take(vec![Record::Compacted(snapshot.clone())])
    }

    fn take(&mut self, records: Vec<Record>) -> Result<(), LogError> {
        self.check()?;
        self.place(&records)?;
        for record in records {
            if let Err(contradiction) = self.appended.apply(&record) {
                return Err(self.fail(format!("a write can't follow the ones before it: {contradiction}")).into());
            }
            self.pending.push_back(record);
        }
        Ok(())
    }

    /// Makes everything that was appended durable.
    ///
    /// # Errors
    /// [`LogError::Passing`]: nothing is lost, and the same call succeeds when there is room. It happens only
    /// for an entry larger than a segment, or if a file system needs more room to overwrite reserved blocks.
    /// [`LogError::Fatal`]: what is durable is unknown; the process must stop.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.check()?;
        if self.pending.is_empty() {
            return Ok(());
        }
        let done = self.copy_hard_state().and_then(|()| self.flush()).and_then(|()| self.free_segments());
        self.replan();
        match done {
            Ok(()) => {
                self.syncs += 1;
                Ok(())
            }
            // A write or a new file was refused for now, but no sync has failed: the durable part is unchanged,
            // and a retry writes the same sectors again.
            Err(error) if error.is_passing() && error.operation != "sync" => Err(LogError::Passing(error)),
            Err(error) => Err(self.fail(error.to_string()).into()),
        }
    }

    /// Size of its segments, in bytes.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.options.segment_bytes
    }

    /// Whether the log has room for entries of this many bytes. If not, the host refuses clients' writes and drops
    /// leaders' entries, while votes and reads go on. Compaction, which frees segments, or a [`SpareJob`] makes room.
    #[must_use]
    pub fn admits(&self, bytes: u64) -> bool {
        self.failed.is_none() && (self.plan.spares > 0 || self.plan.room as u64 >= bytes + self.options.reserve_bytes)
    }

    /// A job that makes a spare segment before it is needed, to be run on another thread; `None` if there
    /// is a spare. Run one job at a time.
    ///
    /// # Errors
    /// [`LogError::Passing`]: the folder can't be read now; nothing has changed. Or the disk refuses.
    pub fn spare_job(&mut self) -> Result<Option<SpareJob<D>>, LogError> {
        self.check()?;
        // The folder is read only when no spare is known: hosts may call this after each sync.
        if self.ready.is_none() {
            match self.refresh_spares() {
                Err(error) if error.is_passing() => return Err(LogError::Passing(error)),
                refreshed => refreshed.map_err(|error| self.fail(error.to_string()))?,
            }
            self.replan();
        }
        if self.ready.is_some() {
            return Ok(None);
        }
        let sequence = self.take_sequence();
        Ok(Some(SpareJob { disk: self.disk.clone(), sectors: self.options.sectors(), sequence }))
    }

    /// Which entries may be missing; `None` if the log is not suspect.
    #[must_use]
    pub fn suspicion(&self) -> Option<Suspicion> {
        self.appended.suspicion
    }

    /// Figures about the log.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        LogStats {
            segments: self.earlier.len() + self.dead.len() + 1,
            spares: self.ready_spares(),
            room: (self.plan.room as u64).saturating_sub(self.options.reserve_bytes)
                + self.plan.spares as u64 * self.options.segment_bytes,
            pending: self.pending.len(),
            syncs: self.syncs,
            bytes_written: self.bytes_written,
            last: self.appended.last(),
            base: self.appended.base_index(),
        }
    }

    fn check(&self) -> Result<(), Fatal> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, why: String) -> Fatal {
        let fatal = Fatal(why);
        self.failed = Some(fatal.clone());
        fatal
    }
}

/// Makes the tail durable. The process before may have died after a failed sync: then what was read may be in
/// memory only, with its pages marked as written, so that another sync would do nothing. So the last batch is
/// written again, with the same bytes, before anything relies on it.
fn secure_tail<F: File>(file: &mut F, replay: &Replay) -> Result<(), DiskError> {
    let offset = |sector: u32| u64::from(sector) * SECTOR as u64;
    if let Some((start, len)) = replay.last_batch {
        let mut bytes = vec![0; len as usize * SECTOR];
        file.read_at(offset(start), &mut bytes)?;
        file.write_at(offset(start), &bytes)?;
    }
    if let Some(torn) = &replay.torn {
        file.write_at(offset(torn.start), &vec![0; torn.len() * SECTOR])?;
    }
    file.sync_data()
}

/// Planning and writing of batches and segments.
impl<D: Disk> Log<D> {
    fn replan(&mut self) {
        // If there is no descriptor for it, the plan has no spares, and no entry is accepted that would need one.
        let _ = self.hold_spare();
        self.plan = Plan { room: self.tail.room(), spares: self.ready_spares() };
        let pending = std::mem::take(&mut self.pending);
        for record in &pending {
            // These records were accepted before, so they don't have to leave the reserve free.
            let _ = self.try_place(record.encoded_len(), 0);
        }
        self.pending = pending;
    }

    /// Plans the room for records, and makes a segment if necessary; all of them or none.
    fn place(&mut self, records: &[Record]) -> Result<(), LogError> {
        let before = self.plan;
        for record in records {
            let bytes = record.encoded_len();
            let limit = MAX_SEGMENT_BYTES / 4;
            if bytes as u64 > limit {
                self.plan = before;
                return Err(LogError::TooLarge { bytes: bytes as u64, limit });
            }
            let spared = match record {
                Record::Entry(_) => usize::try_from(self.options.reserve_bytes).unwrap_or(usize::MAX),
                _ => 0,
            };
            if bytes > self.fresh_room() {
                // The flush makes a segment of its size for it.
                continue;
            }
            while !self.try_place(bytes, spared) {
                if let Err(error) = self.add_spare() {
                    self.plan = before;
                    self.plan.spares = self.ready_spares().min(before.spares);
                    return match error.is_passing() {
                        true => Err(LogError::Passing(error)),
                        false => Err(self.fail(error.to_string()).into()),
                    };
                }
            }
        }
        Ok(())
    }

    fn try_place(&mut self, bytes: usize, spared: usize) -> bool {
        let Plan { room, spares } = self.plan;
        self.plan = if bytes <= room && (spares > 0 || room - bytes >= spared) {
            Plan { room: room - bytes, spares }
        } else if spares > 0 && bytes <= self.fresh_room() {
            Plan { room: self.fresh_room() - bytes, spares: spares - 1 }
        } else {
            return false;
        };
        spared == 0 || self.plan.spares > 0 || self.plan.room >= spared || {
            self.plan = Plan { room, spares };
            false
        }
    }

    /// Bytes of records that surely fit into a new segment.
    fn fresh_room(&self) -> usize {
        let checkpoint = Record::Checkpoint(Box::new(Checkpoint::new(self.identity, None, &self.flushed)));
        let taken = 2 * (sectors_for(checkpoint.encoded_len()) + CHECKPOINT_SLACK);
        room_in((self.options.sectors() as usize).saturating_sub(taken))
    }

    /// Adds a segment to the reserve: one that a job has made meanwhile, or a new one.
    fn add_spare(&mut self) -> Result<(), DiskError> {
        let (before, counted) = (self.spares.len(), self.ready_spares());
        self.refresh_spares()?;
        if self.spares.len() == before {
            let path = spare_path(self.take_sequence());
            segments::make_filled(&self.disk, self.options.sectors(), &format!("{path}.tmp"), &path)?;
            self.spares.push(path);
        }
        self.hold_spare()?;
        self.plan.spares += self.ready_spares().saturating_sub(counted);
        Ok(())
    }

    /// How many segments in reserve can certainly be used.
    fn ready_spares(&self) -> usize {
        if self.ready.is_some() { self.spares.len() } else { 0 }
    }

    /// Opens the spare that will be used next. If this fails, an open spare stays open.
    fn hold_spare(&mut self) -> Result<(), DiskError> {
        let Some(path) = self.spares.last() else { return Ok(()) };
        if self.ready.as_ref().is_none_or(|ready| ready.path != *path) {
            let file = self.disk.open(path)?;
            self.ready = Some(Spare { path: path.clone(), file });
        }
        Ok(())
    }

    fn take_spare(&mut self) -> Option<Spare<D::File>> {
        let ready = self.ready.take()?;
        self.spares.retain(|path| *path != ready.path);
        Some(ready)
    }

    fn refresh_spares(&mut self) -> Result<(), DiskError> {
        let listing = segments::list(&self.disk)?;
        let mut spares = Vec::new();
        for path in listing.spares {
            // A spare of another size was made with other options.
            if self.spares.contains(&path) || self.disk.size_of(&path)? == self.options.segment_bytes {
                spares.push(path);
            } else {
                self.disk.remove(&path)?;
            }
        }
        self.ready.take_if(|ready| !spares.contains(&ready.path));
        self.spares = spares;
        Ok(())
    }

    /// Returns a sequence number that no file has had: the remains of a file's earlier use must have a lower one.
    fn take_sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence - 1
    }

    /// Writes the second copy of term and vote, which must be durable before the log's own record.
    fn copy_hard_state(&mut self) -> Result<(), DiskError> {
        if self.appended.hard_version == self.flushed.hard_version {
            return Ok(());
        }
        let bytes: usize = self.pending.iter().map(Record::encoded_len).sum();
        let len = u32::try_from(sectors_for(bytes)).unwrap_or(u32::MAX);
        let fits = bytes <= self.tail.room();
        self.write_copy(fits.then_some((self.tail.sequence, self.tail.next, len)))
    }

    /// Writes a copy of the appended hard state. `extent` is the batch that will hold everything pending, or holds it.
    fn write_copy(&mut self, extent: Option<(u64, u32, u32)>) -> Result<(), DiskError> {
        let State { hard_version: version, hard_state, log_version, .. } = self.appended;
        self.copies.write(&Slot { version, hard_state, log_version, extent })?;
        self.copies.sync()
    }

    /// Writes the pending records in as few batches as segments allow. Each is durable before the next begins, so
    /// a batch that is followed by a valid one was certainly whole once.
    fn flush(&mut self) -> Result<(), DiskError> {
        while !self.pending.is_empty() {
            let room = self.tail.room();
            let mut bytes = 0;
            let mut after = self.flushed.clone();
            let fitting = self.pending.iter().take_while(|record| {
                bytes += record.encoded_len();
                bytes <= room
            });
            let mut count = 0;
            for record in fitting {
                after.apply(record).expect("it was applied when it was appended");
                count += 1;
            }
            if count == 0 {
                let least = sectors_for(self.pending[0].encoded_len());
                let previous = Some((self.tail.sequence, self.tail.next));
                self.roll(self.sectors_with(least), previous, true)?;
                continue;
            }
            self.write_batch(count, after)?;
        }
        Ok(())
    }

    /// Sectors of a new segment that a batch of `least` sectors fits into.
    fn sectors_with(&self, least: usize) -> u32 {
        let checkpoint = Record::Checkpoint(Box::new(Checkpoint::new(self.identity, Some((0, 0)), &self.flushed)));
        let needed = least + 2 * sectors_for(checkpoint.encoded_len());
        self.options.sectors().max(u32::try_from(needed).expect("records are bounded"))
    }

    fn write_batch(&mut self, count: usize, after: State) -> Result<(), DiskError> {
        let binding = Binding::of(&self.identity);
        let place = Place { binding, segment: self.tail.sequence, start: self.tail.next };
        let versions = (self.flushed.log_version, self.flushed.hard_version);
        let bytes = batch::encode(place, versions, after.last().index, self.pending.iter().take(count));
        self.tail.file.write_at(u64::from(self.tail.next) * SECTOR as u64, &bytes)?;
        self.tail.file.sync_data()?;
        self.tail.next += sectors_in(&bytes);
        self.bytes_written += bytes.len() as u64;
        self.pending.drain(..count);
        self.flushed = after;
        Ok(())
    }

    /// Continues the log in a new segment; `keep` says whether the segment before it stays part of the log.
    fn roll(&mut self, sectors: u32, previous: Option<(u64, u32)>, keep: bool) -> Result<(), DiskError> {
        let normal = sectors == self.options.sectors();
        if normal && self.ready.is_none() {
            self.refresh_spares()?;
            self.hold_spare()?;
        }
        let spare = if normal { self.take_spare() } else { None };
        let sequence = self.take_sequence();
        let new = Beginning { identity: &self.identity, sequence, sectors, previous, spare };
        let tail = begin_segment(&self.disk, &self.flushed, new)?;
        let before = std::mem::replace(&mut self.tail, tail);
        if keep {
            self.earlier.push_back((before.sequence, self.flushed.last().index));
        }
        Ok(())
    }

    fn write_second_checkpoint(&mut self, cut: &(u64, u32)) -> Result<(), DiskError> {
        // The log was cut right after the first checkpoint: its copy goes there.
        let previous = self.read_first_checkpoint(cut)?;
        write_checkpoint(&mut self.tail, &self.identity, previous, &self.flushed)
    }

    fn read_first_checkpoint(&self, cut: &(u64, u32)) -> Result<Option<(u64, u32)>, DiskError> {
        let mut bytes = vec![0; cut.1 as usize * SECTOR];
        self.tail.file.read_at(0, &mut bytes)?;
        let place = Place { binding: Binding::of(&self.identity), segment: cut.0, start: 0 };
        let first = batch::decode(place, &bytes).and_then(|batch| batch.records.into_iter().next());
        Ok(if let Some(Record::Checkpoint(checkpoint)) = first { checkpoint.previous } else { None })
    }

    /// Writes a hard state that only the copy held to the log, so that there are two again. The copy is rewritten
    /// last: if the power fails before, the old copy still says what the damaged sectors held.
    fn rewrite_hard_state(&mut self) -> Result<(), DiskError> {
        let record = Record::HardState(self.appended.hard_state);
        self.appended.apply(&record).expect("the same term follows itself");
        let len = u32::try_from(sectors_for(record.encoded_len())).expect("it is small");
        self.pending.push_back(record);
        self.flush()?;
        self.write_copy(Some((self.tail.sequence, self.tail.next - len, len)))?;
        self.replan();
        Ok(())
    }

    /// Recycles the segments that a durable snapshot covers. While the log is suspect, no segment is
    /// removed.
    fn free_segments(&mut self) -> Result<(), DiskError> {
        if self.flushed.suspicion.is_some() {
            return Ok(());
        }
        let mut free = std::mem::take(&mut self.dead);
        while self.earlier.front().is_some_and(|(_, last)| *last <= self.flushed.base_index()) {
            free.extend(self.earlier.pop_front().map(|(sequence, _)| sequence));
        }
        if free.is_empty() {
            return Ok(());
        }
        for sequence in free {
            let path = segment_path(sequence);
            let fits =
                self.spares.len() < self.options.max_spares && self.disk.size_of(&path)? == self.options.segment_bytes;
            if fits {
                let spare = spare_path(sequence);
                self.disk.rename(&path, &spare)?;
                self.spares.push(spare);
            } else {
                self.disk.remove(&path)?;
            }
        }
        self.disk.sync_dir(LOG_DIR)
    }
}
