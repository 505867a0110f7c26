//! The log that is being written: what is buffered, where it goes, and when a segment may go.

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
    /// Bytes that entries leave free when no further segment is in reserve, so that votes can be written
    /// when the disk is full: at most half a segment.
    pub reserve_bytes: u64,
    /// Most segments that are kept for the next use instead of being removed; at least 1.
    pub max_spares: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options::new(64 << 20, 1 << 20, 4)
    }
}

impl Options {
    /// These bytes of a segment, bytes in reserve, and spares: see the fields.
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
    /// The disk is full, or the system lacks file descriptors or memory. What was refused isn't in the log,
    /// everything else is as it was: the same call will do once that has passed.
    #[error("the log waits: {0}; {remedy}: nothing is lost meanwhile", remedy = remedy(.0))]
    Passing(DiskError),
    /// An entry is larger than any segment may be.
    #[error("a record of {bytes} bytes is more than the {limit} allowed")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// The disk broke a promise: what is durable is unknown. This log takes nothing any more; the process
    /// must stop, and find out at its next start.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

fn remedy(error: &DiskError) -> &'static str {
    match error.kind {
        DiskErrorKind::NoSpace => "free some space, or move the data to a larger disk",
        _ => "raise the limits of this process or machine, or stop what else takes them",
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
    /// Bytes that entries may still take without a new segment.
    pub room: u64,
    /// Records that wait for a sync.
    pub pending: usize,
    /// Successful syncs.
    pub syncs: u64,
    /// Bytes written, with all overhead, without what segments are filled with.
    pub bytes_written: u64,
    /// The last entry, durable or not.
    pub last: Position,
    /// The log starts after this index.
    pub base: Index,
}

/// The write-ahead log of one replica: the one ordered stream of its writes.
///
/// One owner drives it, on a thread of its own: [`Log::append`] buffers, [`Log::sync`] makes everything
/// that was appended durable. Requests that arrive during a sync share the next one.
pub struct Log<D: Disk> {
    disk: D,
    _lock: Arc<D::Lock>,
    identity: Identity,
    options: Options,
    tail: Tail<D::File>,
    copies: Copies<D::File>,
    /// With everything that was appended.
    appended: State,
    /// With everything that is on its way to the disk or there.
    flushed: State,
    pending: VecDeque<Record>,
    plan: Plan,
    /// Segments before the last, with the log's last index at their end.
    earlier: VecDeque<(u64, Index)>,
    /// Segments of no use, but for an inquiry into what was damaged.
    dead: Vec<u64>,
    spares: Vec<String>,
    /// The last of the spares. Without it the others can't be counted on: there may be no descriptor for them.
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
    /// Bytes of records that the next batch may have. A damaged file may end early.
    fn room(&self) -> usize {
        room_in(self.sectors.saturating_sub(self.next) as usize)
    }
}

/// How what is pending will be laid out: the sync does no worse than this.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    /// Bytes left in the segment that the plan has come to.
    room: usize,
    /// Spares that it has not used.
    spares: usize,
}

/// What a new segment begins with, and where it comes from.
struct Beginning<'a, F> {
    identity: &'a Identity,
    sequence: u64,
    sectors: u32,
    previous: Option<(u64, u32)>,
    spare: Option<Spare<F>>,
}

/// A segment in reserve that is open already: taking it in use needs no file descriptor.
struct Spare<F> {
    path: String,
    file: F,
}

/// Puts a new segment in place, with its two checkpoints, each durable before anything follows.
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

/// Bits may have flipped in what a spare still holds of its earlier use. Once it is in use, that can't be told
/// from the rot of something that was acknowledged: so it is made zeros before.
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

/// Makes a segment for later use, on any thread, while the log goes on.
#[derive(Debug)]
pub struct SpareJob<D> {
    disk: D,
    sectors: u32,
    sequence: u64,
}

impl<D: Disk> SpareJob<D> {
    /// Writes a segment of zeros and syncs it. The log finds it by itself.
    ///
    /// # Errors
    /// The disk refuses. A full one is no harm yet: the log goes on while it has room.
    pub fn run(self) -> Result<(), DiskError> {
        let path = spare_path(self.sequence);
        segments::make_filled(&self.disk, self.sectors, &format!("{path}.tmp"), &path).map(|_| ())
    }
}

impl<D: Disk> Log<D> {
    /// Goes on with a log that was read: cuts what was torn, sets a mark where something is lost, and makes
    /// sure that whatever will be relied on is really on the disk.
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
        // Names that a killed process has left unsynced would be relied on from now on.
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
    /// [`LogError::Passing`]: the write is refused as a whole; a host that sees [`Log::admits`] refuse
    /// beforehand never gets here. [`LogError::Fatal`] also if the write can't follow the ones before it.
    pub fn append(&mut self, write: &Write) -> Result<(), LogError> {
        let records: Vec<Record> = match write {
            Write::HardState(hard_state) => vec![Record::HardState(*hard_state)],
            Write::Truncate { from } => vec![Record::Truncate(*from)],
            Write::Append(entries) => entries.iter().cloned().map(Record::Entry).collect(),
            Write::Snapshot(header) => vec![Record::Snapshot(header.clone())],
            // The core knows that the peers have brought everything that may have been lost.
            Write::Repaired if self.appended.suspicion.is_none() => return self.check().map_err(LogError::from),
            Write::Repaired => vec![Record::Repaired],
            // Its term is that of the term and vote: that of a later start, then.
            Write::Suspect { last_possible } => {
                let index = last_possible.index;
                vec![Record::Suspect((index <= Index::GREATEST).then_some(index))]
            }
        };
        self.take(records)
    }

    /// Notes that a snapshot of the own state machine, which is durable, takes the place of the entries up
    /// to it. Durable with the next [`Log::sync`], which then also frees the segments that nobody needs.
    ///
    /// # Errors
    /// As of [`Log::append`].
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
    /// [`LogError::Passing`]: nothing is lost, the same call will do when there is room. It happens only
    /// for an entry larger than a segment, and where a file system needs room to write what is reserved.
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
            // A write or a new file was refused for now, and no sync has failed: what is there stays as it is,
            // and the same sectors are written again.
            Err(error) if error.is_passing() && error.operation != "sync" => Err(LogError::Passing(error)),
            Err(error) => Err(self.fail(error.to_string()).into()),
        }
    }

    /// Whether entries of so many bytes may be taken: if not, the host refuses clients' writes and drops
    /// leaders' entries, while votes and reads go on. Segments that compaction frees, or a [`SpareJob`],
    /// bring it back.
    #[must_use]
    pub fn admits(&self, bytes: u64) -> bool {
        self.failed.is_none() && (self.plan.spares > 0 || self.plan.room as u64 >= bytes + self.options.reserve_bytes)
    }

    /// What to run, on another thread, so that the next segment is there when it is needed; `None` if there
    /// is one. One at a time.
    ///
    /// # Errors
    /// [`LogError::Passing`]: it can't be told now; nothing has changed. Or the disk refuses.
    pub fn spare_job(&mut self) -> Result<Option<SpareJob<D>>, LogError> {
        self.check()?;
        // The folder is looked at only when none is known: this may be asked after each sync.
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

    /// Why entries may be missing, if they may.
    #[must_use]
    pub fn suspicion(&self) -> Option<Suspicion> {
        self.appended.suspicion
    }

    /// Figures.
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

/// Makes sure of the tail. A process may have died after a sync that failed: then what was read is in
/// memory only, the pages are marked as written, and another sync would do nothing. So the last batch is
/// written again, with the same bytes, before it is relied on.
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

/// How records get to their places.
impl<D: Disk> Log<D> {
    fn replan(&mut self) {
        // Without a descriptor for it there is none that can be counted on: no entry is taken that would need it.
        let _ = self.hold_spare();
        self.plan = Plan { room: self.tail.room(), spares: self.ready_spares() };
        let pending = std::mem::take(&mut self.pending);
        for record in &pending {
            // What was placed before stays placed, whatever it takes.
            let _ = self.try_place(record.encoded_len(), 0);
        }
        self.pending = pending;
    }

    /// Finds room for records, making a segment if need be; all of them or none.
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
                // It gets a segment of its own when it is written.
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

    /// One more segment in reserve: one that a job has made meanwhile, or a new one.
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

    /// How many segments in reserve can be counted on.
    fn ready_spares(&self) -> usize {
        if self.ready.is_some() { self.spares.len() } else { 0 }
    }

    /// Opens the spare that will be used next. One that is open stays so if this fails.
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
            // One of another size comes from other options.
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

    /// A sequence number that no file has: what an earlier use of a file holds must look older.
    fn take_sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence - 1
    }

    /// The second copy of term and vote, durable before the log says the same.
    fn copy_hard_state(&mut self) -> Result<(), DiskError> {
        if self.appended.hard_version == self.flushed.hard_version {
            return Ok(());
        }
        let bytes: usize = self.pending.iter().map(Record::encoded_len).sum();
        let len = u32::try_from(sectors_for(bytes)).unwrap_or(u32::MAX);
        let fits = bytes <= self.tail.room();
        self.write_copy(fits.then_some((self.tail.sequence, self.tail.next, len)))
    }

    /// A copy of what was appended, which is all of the batch at `extent`.
    fn write_copy(&mut self, extent: Option<(u64, u32, u32)>) -> Result<(), DiskError> {
        let State { hard_version: version, hard_state, log_version, .. } = self.appended;
        self.copies.write(&Slot { version, hard_state, log_version, extent })?;
        self.copies.sync()
    }

    /// Writes what is pending: as few batches as segments allow, each durable before the next begins, so
    /// that a batch with a valid one after it was certainly whole once.
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

    /// Goes on in a new segment.
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
        // The first one ends where the log would go on; it is copied with its place changed.
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

    /// The log says again what only the copy said, so that there are two of it. The copy that names this batch
    /// comes last: until then the one that is there tells what the damaged sectors held, should the power fail.
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

    /// Recycles the segments that a durable snapshot makes superfluous. While something is suspect
    /// nothing is thrown away.
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
