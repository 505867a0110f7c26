//! A snapshot that arrives in pieces, in a file that survives a restart.
//!
//! The file holds frames, like a snapshot file: the first says what arrives and from whom, and each other frame is a
//! piece. Nothing is synced: after a crash the frames before the first broken one count, and the
//! sender goes on from there.

use std::io::{self, Read};

use bowline_raft::{NodeId, Session, SnapshotHeader, Term};

use crate::codec::{Malformed, Put, Reader};
use crate::disk::{Disk, DiskError, File};
use crate::identity::{Binding, FORMAT_VERSION};
use crate::snapshot::{FRAME, MAX_HEADER_BYTES, SNAPSHOT_DIR, checksum};

const MAGIC: &[u8; 8] = b"BOWLNARR";
const NAME: &str = "arriving";
/// Largest piece; no message between replicas holds as much.
const MAX_PIECE_BYTES: usize = 64 << 20;
/// Seeds the checksums, so that frames of a snapshot file don't pass here.
const PLACE: u64 = u64::from_le_bytes(*MAGIC);

/// What arrives, and in which transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Who sends it.
    pub from: NodeId,
    /// The leader's term.
    pub term: Term,
    /// The leader's name for the transfer.
    pub session: Session,
    /// The snapshot's header.
    pub header: SnapshotHeader,
    /// Bytes of the whole snapshot.
    pub total: u64,
}

/// The file of a snapshot that arrives.
pub struct Arriving<D: Disk> {
    disk: D,
    file: D::File,
    seed: u32,
    arrival: Arrival,
    frames: u64,
    offset: u64,
    /// Where the first piece begins.
    start: u64,
    received: u64,
}

fn path() -> String {
    format!("{SNAPSHOT_DIR}/{NAME}")
}

fn encode(arrival: &Arrival) -> Vec<u8> {
    let mut content = Vec::new();
    content.put(MAGIC);
    content.put_u32(FORMAT_VERSION);
    content.put_u64(arrival.from.0);
    content.put_u64(arrival.term.0);
    content.put_u64(arrival.session.0);
    content.put_u64(arrival.total);
    content.put_snapshot_header(&arrival.header);
    content
}

fn decode(content: &[u8]) -> Result<Arrival, Malformed> {
    let mut reader = Reader::new(content);
    if reader.bytes(8, "arriving snapshot")? != MAGIC || reader.u32("version")? != FORMAT_VERSION {
        return Err(Malformed("arriving snapshot"));
    }
    let (from, term) = (NodeId(reader.u64("sender")?), Term(reader.u64("term")?));
    let (session, total) = (Session(reader.u64("session")?), reader.u64("total")?);
    let arrival = Arrival { from, term, session, header: reader.snapshot_header()?, total };
    reader.end("arriving snapshot")?;
    Ok(arrival)
}

impl<D: Disk> Arriving<D> {
    /// Begins a new file, which replaces an earlier one.
    pub(crate) fn begin(disk: &D, binding: Binding, arrival: Arrival) -> Result<Arriving<D>, DiskError> {
        let content = encode(&arrival);
        let file = disk.create(&path())?;
        let mut arriving = Arriving {
            disk: disk.clone(),
            file,
            seed: binding.at(&[PLACE]),
            arrival,
            frames: 0,
            offset: 0,
            start: 0,
            received: 0,
        };
        arriving.put_frame(&content)?;
        arriving.start = arriving.offset;
        Ok(arriving)
    }

    /// Finds the file of an earlier run of the program; `None` if there is none with a valid first frame.
    pub(crate) fn find(disk: &D, binding: Binding) -> Result<Option<Arriving<D>>, DiskError> {
        let file = match disk.open(&path()) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let seed = binding.at(&[PLACE]);
        let (mut frames, mut offset) = (0, 0);
        let first = read_frame(&file, seed, frames, offset, MAX_HEADER_BYTES)?;
        let Some(Ok(arrival)) = first.as_deref().map(decode) else { return Ok(None) };
        offset += (FRAME + first.map_or(0, |content| content.len())) as u64;
        frames += 1;
        let (start, mut received) = (offset, 0);
        while let Some(piece) = read_frame(&file, seed, frames, offset, MAX_PIECE_BYTES)? {
            if received + piece.len() as u64 > arrival.total {
                break;
            }
            received += piece.len() as u64;
            offset += (FRAME + piece.len()) as u64;
            frames += 1;
        }
        Ok(Some(Arriving { disk: disk.clone(), file, seed, arrival, frames, offset, start, received }))
    }

    /// What arrives.
    #[must_use]
    pub fn arrival(&self) -> &Arrival {
        &self.arrival
    }

    /// Bytes received so far, without a gap.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Adds the next piece.
    ///
    /// # Errors
    /// The disk refuses; if it is full, the caller may retry with the same piece.
    pub fn add(&mut self, piece: &[u8]) -> Result<(), DiskError> {
        if !piece.is_empty() {
            self.put_frame(piece)?;
            self.received += piece.len() as u64;
        }
        Ok(())
    }

    fn put_frame(&mut self, content: &[u8]) -> Result<(), DiskError> {
        let length = u32::try_from(content.len()).expect("a message is smaller");
        let mut frame = Vec::with_capacity(FRAME + content.len());
        frame.put_u32(length);
        frame.put_u32(checksum(self.seed, self.frames, length, content));
        frame.put(content);
        self.file.write_at(self.offset, &frame)?;
        self.frames += 1;
        self.offset += frame.len() as u64;
        Ok(())
    }

    /// Reads the pieces from the first one on, with one piece in memory at a time.
    pub fn pieces(&self) -> Pieces<'_, D> {
        Pieces { arriving: self, frames: 1, offset: self.start, piece: Vec::new(), taken: 0 }
    }

    /// Removes the file.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove(self) -> Result<(), DiskError> {
        self.disk.remove(&path())
    }
}

/// A frame's content; `None` if it is not whole.
fn read_frame<F: File>(
    file: &F,
    seed: u32,
    number: u64,
    offset: u64,
    most: usize,
) -> Result<Option<Vec<u8>>, DiskError> {
    let left = file.size()?.saturating_sub(offset);
    let mut prefix = [0; FRAME];
    if left < FRAME as u64 {
        return Ok(None);
    }
    file.read_at(offset, &mut prefix)?;
    let half = |at: usize| u32::from_le_bytes(prefix[at..at + 4].try_into().expect("four bytes"));
    let (length, sum) = (half(0), half(4));
    if length == 0 || length as usize > most || u64::from(length) > left - FRAME as u64 {
        return Ok(None);
    }
    let mut content = vec![0; length as usize];
    file.read_at(offset + FRAME as u64, &mut content)?;
    Ok((sum == checksum(seed, number, length, &content)).then_some(content))
}

/// Reads the pieces received so far.
pub struct Pieces<'a, D: Disk> {
    arriving: &'a Arriving<D>,
    frames: u64,
    offset: u64,
    piece: Vec<u8>,
    taken: usize,
}

impl<D: Disk> Read for Pieces<'_, D> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.piece.len() {
            if self.offset >= self.arriving.offset {
                return Ok(0);
            }
            let Arriving { file, seed, .. } = self.arriving;
            let piece = read_frame(file, *seed, self.frames, self.offset, MAX_PIECE_BYTES).map_err(io::Error::other)?;
            self.piece = piece.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
            self.taken = 0;
            self.frames += 1;
            self.offset += (FRAME + self.piece.len()) as u64;
        }
        let count = out.len().min(self.piece.len() - self.taken);
        out[..count].copy_from_slice(&self.piece[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}
