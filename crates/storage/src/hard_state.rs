//! The second copy of term and vote: a file with two slots, written in turn. It is written before the log, so that a
//! damaged record in the log never makes a replica vote twice.

use bowline_raft::HardState;

use crate::codec::{Malformed, Put, Reader};
use crate::disk::{Disk, DiskError, File, SECTOR, read_all, write_whole};
use crate::identity::Binding;

pub(crate) const HARD_STATE_FILE: &str = "hard-state";
const MAGIC: &[u8; 4] = b"VOTE";
const SLOTS: u64 = 2;

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) version: u64,
    pub(crate) hard_state: HardState,
    /// The log's version after the sync that writes this hard state.
    pub(crate) log_version: u64,
    /// Segment, first sector and number of sectors of the batch that holds the same hard state, if the whole sync
    /// is one batch.
    pub(crate) extent: Option<(u64, u32, u32)>,
}

/// The result of reading both slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FoundCopies {
    pub(crate) newest: Option<Slot>,
    /// A slot can't be read: it may have held the newest copy.
    pub(crate) damaged: bool,
    /// The slot for the next copy.
    pub(crate) next: u64,
}

/// The file, open for writing.
pub(crate) struct Copies<F> {
    file: F,
    binding: Binding,
    next: u64,
}

fn encode(binding: Binding, slot: u64, copy: &Slot) -> Vec<u8> {
    let mut body = Vec::with_capacity(SECTOR);
    body.put(&[0; 4]);
    body.put(MAGIC);
    body.put_u64(copy.version);
    body.put_hard_state(copy.hard_state);
    body.put_u64(copy.log_version);
    let (segment, start, len) = copy.extent.unwrap_or((0, 0, 0));
    body.put_u64(segment);
    body.put_u32(start);
    body.put_u32(len);
    body.resize(SECTOR, 0);
    let sum = crc32c::crc32c_append(binding.at(&[slot]), &body[4..]);
    body[..4].copy_from_slice(&sum.to_le_bytes());
    body
}

fn decode(binding: Binding, slot: u64, sector: &[u8]) -> Result<Slot, Malformed> {
    let mut reader = Reader::new(sector);
    let sum = reader.u32("checksum")?;
    if reader.bytes(4, "slot")? != MAGIC || sum != crc32c::crc32c_append(binding.at(&[slot]), &sector[4..]) {
        return Err(Malformed("slot"));
    }
    let version = reader.count("version")?;
    let hard_state = reader.hard_state()?;
    let log_version = reader.count("version")?;
    let extent = (reader.u64("segment")?, reader.u32("start")?, reader.u32("length")?);
    Ok(Slot { version, hard_state, log_version, extent: (extent.2 > 0).then_some(extent) })
}

/// Reads both slots.
pub(crate) fn read<D: Disk>(disk: &D, binding: Binding) -> Result<FoundCopies, DiskError> {
    let file = match disk.open(HARD_STATE_FILE) {
        Err(error) if error.is_not_found() => return Ok(FoundCopies { newest: None, damaged: true, next: 0 }),
        file => file?,
    };
    let bytes = read_all(&file, HARD_STATE_FILE, 64 << 10)?;
    let mut found = FoundCopies { newest: None, damaged: bytes.len() as u64 != SLOTS * SECTOR as u64, next: 0 };
    for (slot, sector) in (0..SLOTS).zip(bytes.chunks_exact(SECTOR)) {
        match decode(binding, slot, sector) {
            Ok(copy) if found.newest.is_none_or(|newest| newest.version < copy.version) => {
                found.newest = Some(copy);
                found.next = (slot + 1) % SLOTS;
            }
            Ok(_) => {}
            Err(_) => found.damaged = true,
        }
    }
    Ok(found)
}

/// Writes a new file, with the same copy in both slots.
pub(crate) fn write_both<D: Disk>(disk: &D, binding: Binding, copy: &Slot) -> Result<(), DiskError> {
    let bytes: Vec<u8> = (0..SLOTS).flat_map(|slot| encode(binding, slot, copy)).collect();
    write_whole(disk, "", HARD_STATE_FILE, &bytes)
}

impl<F: File> Copies<F> {
    pub(crate) fn open<D: Disk<File = F>>(disk: &D, binding: Binding, next: u64) -> Result<Copies<F>, DiskError> {
        Ok(Copies { file: disk.open(HARD_STATE_FILE)?, binding, next })
    }

    /// Overwrites the older of the two copies; durable after [`Copies::sync`].
    pub(crate) fn write(&mut self, copy: &Slot) -> Result<(), DiskError> {
        self.file.write_at(self.next * SECTOR as u64, &encode(self.binding, self.next, copy))?;
        self.next = (self.next + 1) % SLOTS;
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> Result<(), DiskError> {
        self.file.sync_data()
    }
}
