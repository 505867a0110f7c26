//! Snapshot files. They are written in pieces under a temporary name, so that a file exists whole or not at all.
//! Every byte that is read is verified.
//!
//! A file consists of a header frame, frames of data, and an end frame. A frame consists of its length (four bytes), a
//! checksum (four bytes; bound to the replica, the snapshot and the frame's number) and its content. The
//! end frame has the length [`END`] and holds the number of data bytes and a checksum over all of them.

use std::io;
use std::sync::Arc;

use bowline_raft::{Index, Position, SnapshotHeader, Term};

use crate::arriving::{Arrival, Arriving};
use crate::codec::{Malformed, Put, Reader};
use crate::disk::{Disk, DiskError, DiskErrorKind, File};
use crate::identity::{Binding, FORMAT_VERSION};

pub(crate) const SNAPSHOT_DIR: &str = "snap";
const MAGIC: &[u8; 8] = b"BOWLNSNP";
/// Bytes of a frame before its content.
pub(crate) const FRAME: usize = 8;
/// Most bytes of data in a frame: the memory that a writer or reader needs.
pub const CHUNK_BYTES: usize = 256 << 10;
/// A header is smaller: it has at most [`bowline_raft::MAX_MEMBERS`] ids twice.
pub(crate) const MAX_HEADER_BYTES: usize = 16 << 10;
/// The length field of an end frame; no data frame is that long.
const END: u32 = u32::MAX;

/// Why a snapshot can't be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The file isn't what was written: no part of it may be used. It is not removed.
    #[error("the snapshot {path} is damaged ({what}): it will be fetched again from another member")]
    Damaged {
        /// Which file.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It is larger than the caller can take.
    #[error("the snapshot {path} has {bytes} bytes or more; at most {limit} are allowed")]
    TooLarge {
        /// Which file.
        path: String,
        /// Its size so far.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// The state for a new snapshot can't be read.
    #[error("the state for the snapshot at {position} can't be read: {reason}")]
    Source {
        /// Position of the snapshot.
        position: Position,
        /// The message of whoever holds the state.
        reason: String,
    },
    /// The disk refused. If it is only full ([`DiskError::is_passing`]), nothing is lost, and the unfinished
    /// file is removed.
    #[error("{0}")]
    Disk(#[from] DiskError),
}

impl SnapshotError {
    /// Whether the file is damaged or missing; if not, the disk itself may be broken.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            SnapshotError::Damaged { .. } => true,
            SnapshotError::Disk(error) => error.is_not_found(),
            SnapshotError::TooLarge { .. } | SnapshotError::Source { .. } => false,
        }
    }

    pub(crate) fn into_disk_error(self) -> DiskError {
        match self {
            SnapshotError::Disk(error) => error,
            other => {
                let (path, reason) = (SNAPSHOT_DIR.to_owned(), other.to_string());
                DiskError { operation: "read", path, kind: DiskErrorKind::Io, reason }
            }
        }
    }
}

/// The snapshot files of a replica. A clone can be used on another thread, but only one may write at a time.
pub struct Snapshots<D: Disk> {
    disk: D,
    binding: Binding,
    lock: Arc<D::Lock>,
}

impl<D: Disk> Clone for Snapshots<D> {
    fn clone(&self) -> Snapshots<D> {
        Snapshots { disk: self.disk.clone(), binding: self.binding, lock: Arc::clone(&self.lock) }
    }
}

/// Path of the snapshot that ends at a position.
pub(crate) fn snapshot_path(position: Position) -> String {
    format!("{SNAPSHOT_DIR}/{:016x}-{:016x}.snap", position.index.0, position.term.0)
}

fn position_of(name: &str) -> Option<Position> {
    let (index, term) = name.strip_suffix(".snap")?.split_once('-')?;
    let number = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten();
    Some(Position::new(Index(number(index)?), Term(number(term)?)))
}

impl<D: Disk> Snapshots<D> {
    /// Removes the files of interrupted writers.
    pub(crate) fn new(disk: D, binding: Binding, lock: Arc<D::Lock>) -> Result<Snapshots<D>, DiskError> {
        for name in disk.list(SNAPSHOT_DIR)? {
            if name.ends_with(".tmp") {
                disk.remove(&format!("{SNAPSHOT_DIR}/{name}"))?;
            }
        }
        disk.make_dir(SNAPSHOT_DIR)?;
        // A killed process may have left the name of a snapshot unsynced, and from now on we rely on it.
        disk.sync_dir(SNAPSHOT_DIR)?;
        Ok(Snapshots { disk, binding, lock })
    }

    /// The snapshots in the folder, whole or damaged, by index.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn list(&self) -> Result<Vec<Position>, DiskError> {
        let mut positions: Vec<Position> =
            self.disk.list(SNAPSHOT_DIR)?.iter().filter_map(|name| position_of(name)).collect();
        positions.sort_by_key(|position| (position.index, position.term));
        Ok(positions)
    }

    /// Begins a new snapshot.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, header: &SnapshotHeader) -> Result<SnapshotWriter<D>, SnapshotError> {
        let path = snapshot_path(header.position);
        let temporary = format!("{path}.tmp");
        let mut writer = SnapshotWriter {
            file: Some(self.disk.create(&temporary)?),
            snapshots: self.clone(),
            path,
            temporary,
            seed: self.seed(header.position),
            buffer: Vec::new(),
            frames: 0,
            offset: 0,
            total: 0,
            sum: 0,
        };
        let mut content = Vec::new();
        content.put(MAGIC);
        content.put_u32(FORMAT_VERSION);
        content.put_snapshot_header(header);
        let length = u32::try_from(content.len()).expect("a header is small");
        writer.put_frame(length, &content)?;
        Ok(writer)
    }

    /// Writes a snapshot whose data is in memory.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn store(&self, header: &SnapshotHeader, data: &[u8]) -> Result<(), SnapshotError> {
        let mut writer = self.write(header)?;
        writer.put(data)?;
        writer.finish()
    }

    /// Opens a snapshot and checks its header. The data that is read counts only after the end was reached.
    ///
    /// # Errors
    /// It is damaged, or the disk refuses.
    pub fn open(&self, position: Position) -> Result<SnapshotReader<D::File>, SnapshotError> {
        let path = snapshot_path(position);
        let file = self.disk.open(&path)?;
        let size = file.size()?;
        let seed = self.seed(position);
        let header = SnapshotHeader { position, membership: bowline_raft::Membership::default() };
        let mut reader =
            SnapshotReader { file, path, seed, header, size, frames: 0, offset: 0, data_at: 0, total: 0, sum: 0 };
        let content = match reader.frame(MAX_HEADER_BYTES)? {
            Frame::Content(content) => content,
            Frame::End(_) => return Err(reader.damaged("no header")),
        };
        match decode_header(&content) {
            Ok(header) if header.position == position => reader.header = header,
            _ => return Err(reader.damaged("header")),
        }
        reader.data_at = reader.offset;
        Ok(reader)
    }

    /// Reads a snapshot to its end, to verify it.
    ///
    /// # Errors
    /// It is damaged, or the disk refuses.
    pub fn verify(&self, position: Position) -> Result<SnapshotHeader, SnapshotError> {
        let mut reader = self.open(position)?;
        while reader.next_chunk()?.is_some() {}
        Ok(reader.header)
    }

    /// Reads a snapshot of at most `limit` bytes into memory.
    ///
    /// # Errors
    /// It is damaged or too large, or the disk refuses.
    pub fn load(&self, position: Position, limit: u64) -> Result<(SnapshotHeader, Vec<u8>), SnapshotError> {
        let mut reader = self.open(position)?;
        let mut data = Vec::new();
        while let Some(chunk) = reader.next_chunk()? {
            data.extend_from_slice(&chunk);
            if data.len() as u64 > limit {
                return Err(SnapshotError::TooLarge { path: reader.path, bytes: data.len() as u64, limit });
            }
        }
        Ok((reader.header, data))
    }

    /// Removes the snapshots before `index`, but never the newest. Call it only when the log's record of a
    /// snapshot at `index` is durable.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn prune(&self, index: Index) -> Result<(), DiskError> {
        let mut positions = self.list()?;
        positions.pop();
        let old: Vec<Position> = positions.into_iter().filter(|position| position.index < index).collect();
        if old.is_empty() {
            return Ok(());
        }
        for position in old {
            self.disk.remove(&snapshot_path(position))?;
        }
        self.disk.sync_dir(SNAPSHOT_DIR)
    }

    /// Removes a snapshot; a missing one is no error.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove(&self, position: Position) -> Result<(), DiskError> {
        self.disk.remove(&snapshot_path(position))
    }

    /// Begins to store a snapshot that arrives in pieces. It replaces an earlier one.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn begin_arriving(&self, arrival: Arrival) -> Result<Arriving<D>, DiskError> {
        Arriving::begin(&self.disk, self.binding, arrival)
    }

    /// Finds the pieces of a snapshot that an earlier run of the program received.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn find_arriving(&self) -> Result<Option<Arriving<D>>, DiskError> {
        Arriving::find(&self.disk, self.binding)
    }

    fn seed(&self, position: Position) -> u32 {
        self.binding.at(&[position.index.0, position.term.0])
    }
}

pub(crate) fn checksum(seed: u32, frame: u64, length: u32, content: &[u8]) -> u32 {
    let seed = crc32c::crc32c_append(seed, &frame.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &length.to_le_bytes()), content)
}

fn decode_header(content: &[u8]) -> Result<SnapshotHeader, Malformed> {
    let mut reader = Reader::new(content);
    if reader.bytes(8, "snapshot")? != MAGIC || reader.u32("version")? != FORMAT_VERSION {
        return Err(Malformed("snapshot"));
    }
    let header = reader.snapshot_header()?;
    reader.end("snapshot")?;
    Ok(header)
}

/// Writes a snapshot. If it is dropped before [`SnapshotWriter::finish`], it removes its file.
pub struct SnapshotWriter<D: Disk> {
    snapshots: Snapshots<D>,
    file: Option<D::File>,
    path: String,
    temporary: String,
    seed: u32,
    buffer: Vec<u8>,
    frames: u64,
    offset: u64,
    total: u64,
    sum: u32,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Adds data, in pieces of any size.
    ///
    /// # Errors
    /// The disk refuses; the writer must not be used any more.
    pub fn put(&mut self, mut data: &[u8]) -> Result<(), SnapshotError> {
        while !data.is_empty() {
            let (taken, rest) = data.split_at(data.len().min(CHUNK_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(taken);
            data = rest;
            if self.buffer.len() == CHUNK_BYTES {
                self.put_buffer()?;
            }
        }
        Ok(())
    }

    fn put_buffer(&mut self) -> Result<(), SnapshotError> {
        let content = std::mem::take(&mut self.buffer);
        self.total += content.len() as u64;
        self.sum = crc32c::crc32c_append(self.sum, &content);
        self.put_frame(u32::try_from(content.len()).expect("at most CHUNK_BYTES"), &content)?;
        self.buffer = content;
        self.buffer.clear();
        Ok(())
    }

    fn put_frame(&mut self, length: u32, content: &[u8]) -> Result<(), SnapshotError> {
        let mut frame = Vec::with_capacity(FRAME + content.len());
        frame.put_u32(length);
        frame.put_u32(checksum(self.seed, self.frames, length, content));
        frame.put(content);
        self.file.as_mut().expect("open until it is finished").write_at(self.offset, &frame)?;
        self.frames += 1;
        self.offset += frame.len() as u64;
        Ok(())
    }

    /// Makes the snapshot durable under its name. It replaces an earlier one of the same position.
    ///
    /// # Errors
    /// The disk refuses. If a sync failed, the process must stop.
    pub fn finish(mut self) -> Result<(), SnapshotError> {
        if !self.buffer.is_empty() {
            self.put_buffer()?;
        }
        let mut end = Vec::new();
        end.put_u64(self.total);
        end.put_u32(self.sum);
        self.put_frame(END, &end)?;
        let mut file = self.file.take().expect("open until it is finished");
        let finished = file.sync_data().and_then(|()| self.snapshots.disk.rename(&self.temporary, &self.path));
        if finished.is_err() {
            self.file = Some(file);
        }
        finished?;
        self.snapshots.disk.sync_dir(SNAPSHOT_DIR)?;
        Ok(())
    }
}

impl<D: Disk> Drop for SnapshotWriter<D> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // If this fails too, the next start removes it.
            let _ = self.snapshots.disk.remove(&self.temporary);
        }
    }
}

/// Reads a snapshot, a piece at a time.
pub struct SnapshotReader<F> {
    file: F,
    path: String,
    seed: u32,
    header: SnapshotHeader,
    size: u64,
    frames: u64,
    offset: u64,
    /// Where the first frame of data begins.
    data_at: u64,
    total: u64,
    sum: u32,
}

enum Frame {
    Content(Vec<u8>),
    End(Vec<u8>),
}

impl<F: File> SnapshotReader<F> {
    /// The snapshot's header.
    #[must_use]
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// The next piece, of at most [`CHUNK_BYTES`]; `None` when the whole snapshot was read and is valid.
    ///
    /// # Errors
    /// It is damaged: the data read so far must not be used. Or the disk refuses.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, SnapshotError> {
        match self.frame(CHUNK_BYTES)? {
            Frame::Content(content) => {
                self.total += content.len() as u64;
                self.sum = crc32c::crc32c_append(self.sum, &content);
                Ok(Some(content))
            }
            Frame::End(end) => {
                let mut reader = Reader::new(&end);
                let named = (reader.u64("total"), reader.u32("checksum"));
                if named != (Ok(self.total), Ok(self.sum)) || self.offset != self.size {
                    return Err(self.damaged("its end doesn't fit its content"));
                }
                Ok(None)
            }
        }
    }

    /// The rest of the data as a stream; any failure to read it is an error of kind `InvalidData`.
    pub fn into_reader(self) -> impl io::Read {
        SnapshotStream { reader: self, chunk: Vec::new(), taken: 0 }
    }

    /// Reads a part of the data. Checks only the frames that hold it.
    ///
    /// # Errors
    /// It is damaged there, or ends too early; or the disk refuses.
    pub fn read_at(&self, mut offset: u64, length: usize) -> Result<Vec<u8>, SnapshotError> {
        let mut data = Vec::with_capacity(length.min(CHUNK_BYTES));
        while data.len() < length {
            let (number, within) = (offset / CHUNK_BYTES as u64, (offset % CHUNK_BYTES as u64) as usize);
            let at =
                number.checked_mul((FRAME + CHUNK_BYTES) as u64).and_then(|frames| frames.checked_add(self.data_at));
            let frame = at.map(|at| self.frame_at(number + 1, at, CHUNK_BYTES)).transpose()?;
            let Some(Frame::Content(content)) = frame else { return Err(self.damaged("it ends too early")) };
            let rest = content.get(within..).filter(|rest| !rest.is_empty());
            let rest = rest.ok_or_else(|| self.damaged("it ends too early"))?;
            let taken = rest.len().min(length - data.len());
            data.extend_from_slice(&rest[..taken]);
            offset += taken as u64;
        }
        Ok(data)
    }

    fn frame(&mut self, most: usize) -> Result<Frame, SnapshotError> {
        let frame = self.frame_at(self.frames, self.offset, most)?;
        let (Frame::Content(content) | Frame::End(content)) = &frame;
        self.frames += 1;
        self.offset += (FRAME + content.len()) as u64;
        Ok(frame)
    }

    fn frame_at(&self, number: u64, offset: u64, most: usize) -> Result<Frame, SnapshotError> {
        let left = self.size.saturating_sub(offset);
        let mut prefix = [0; FRAME];
        if left < FRAME as u64 {
            return Err(self.damaged("it ends too early"));
        }
        self.file.read_at(offset, &mut prefix)?;
        let half = |at: usize| u32::from_le_bytes(prefix[at..at + 4].try_into().expect("four bytes"));
        let (length, sum) = (half(0), half(4));
        let bytes = if length == END { 12 } else { length as usize };
        if bytes > most || bytes as u64 > left - FRAME as u64 {
            return Err(self.damaged("a length is out of range"));
        }
        let mut content = vec![0; bytes];
        self.file.read_at(offset + FRAME as u64, &mut content)?;
        if sum != checksum(self.seed, number, length, &content) {
            return Err(self.damaged("a checksum is wrong"));
        }
        Ok(if length == END { Frame::End(content) } else { Frame::Content(content) })
    }

    fn damaged(&self, what: &'static str) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.clone(), what }
    }
}

/// A snapshot's data as a stream.
struct SnapshotStream<F> {
    reader: SnapshotReader<F>,
    chunk: Vec<u8>,
    taken: usize,
}

impl<F: File> io::Read for SnapshotStream<F> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.chunk.len() {
            let next = self.reader.next_chunk();
            let next = next.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            let Some(chunk) = next else { return Ok(0) };
            (self.chunk, self.taken) = (chunk, 0);
        }
        let count = out.len().min(self.chunk.len() - self.taken);
        out[..count].copy_from_slice(&self.chunk[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}
