//! One sector: what makes it this replica's, of this segment, at this place; and what it is if it isn't.

use bowline_raft::Index;

use crate::disk::SECTOR;
use crate::identity::Binding;

/// Bytes of a sector before its part of the payload.
pub(crate) const HEADER: usize = 32;
/// Bytes of payload in a sector.
pub(crate) const PAYLOAD: usize = SECTOR - HEADER;
/// Many ones, so that no sector that was ever written looks like zeros with a few bits flipped.
const MAGIC: u32 = 0xb7ed_9f5b;
/// So many ones among zeros are rot: a written sector has more in [`MAGIC`] alone.
const MOST_ROTTEN_BITS: u32 = 4;

/// What every sector of a batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SectorHeader {
    /// Sequence number of the segment.
    pub(crate) segment: u64,
    /// First sector of the batch.
    pub(crate) batch_start: u32,
    /// Sectors of the batch.
    pub(crate) batch_len: u32,
    /// The log's last index after the batch.
    pub(crate) reach: Index,
}

/// What a sector is to the reader of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sector {
    /// Written in this segment's life.
    Current(SectorHeader),
    /// Never written in this segment's life: zeros, or the valid remains of an earlier life of the file.
    Unwritten,
    /// The same, with a bit or a few that have flipped since: surely not written in this life.
    UnwrittenRotten,
    /// Anything else. As a disk writes a sector whole or not at all, this is no torn write.
    Damaged,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn checksum(binding: Binding, at: u32, sector: &[u8]) -> u32 {
    crc32c::crc32c_append(binding.at(&[u64::from(at)]), &sector[4..])
}

/// Puts the header and the checksum before the payload of the sector `at` of a segment.
pub(crate) fn seal(binding: Binding, at: u32, header: SectorHeader, sector: &mut [u8]) {
    sector[4..8].copy_from_slice(&MAGIC.to_le_bytes());
    sector[8..16].copy_from_slice(&header.segment.to_le_bytes());
    sector[16..20].copy_from_slice(&header.batch_start.to_le_bytes());
    sector[20..24].copy_from_slice(&header.batch_len.to_le_bytes());
    sector[24..32].copy_from_slice(&header.reach.0.to_le_bytes());
    let sum = checksum(binding, at, sector);
    sector[..4].copy_from_slice(&sum.to_le_bytes());
}

/// The header of a sector that is whole and in its place, of whatever life of the file.
fn whole(binding: Binding, at: u32, sector: &[u8]) -> Option<SectorHeader> {
    (word(sector, 4) == MAGIC && word(sector, 0) == checksum(binding, at, sector)).then(|| SectorHeader {
        segment: long(sector, 8),
        batch_start: word(sector, 16),
        batch_len: word(sector, 20),
        reach: Index(long(sector, 24)),
    })
}

/// The header of a sector that was written in this segment's life.
pub(crate) fn current(binding: Binding, segment: u64, at: u32, sector: &[u8]) -> Option<SectorHeader> {
    whole(binding, at, sector).filter(|header| header.segment == segment)
}

/// Says what the sector `at` of segment number `segment` is.
pub(crate) fn classify(binding: Binding, segment: u64, at: u32, sector: &[u8]) -> Sector {
    match whole(binding, at, sector) {
        Some(header) if header.segment == segment => Sector::Current(header),
        Some(header) if header.segment < segment => Sector::Unwritten,
        // From the future: it can't be.
        Some(_) => Sector::Damaged,
        None => match sector.iter().map(|byte| byte.count_ones()).sum::<u32>() {
            0 => Sector::Unwritten,
            1..=MOST_ROTTEN_BITS => Sector::UnwrittenRotten,
            _ if is_old_but_for_one_bit(binding, segment, at, sector) => Sector::UnwrittenRotten,
            _ => Sector::Damaged,
        },
    }
}

/// Whether flipping one bit makes a sector of an earlier life of it. CRC32C tells any two sectors of
/// this size apart that differ in up to five bits, so a sector of *this* life with a bit flipped never
/// passes.
fn is_old_but_for_one_bit(binding: Binding, segment: u64, at: u32, sector: &[u8]) -> bool {
    let mut candidate: [u8; SECTOR] = sector.try_into().expect("a sector's size");
    (0..SECTOR * 8).any(|bit| {
        candidate[bit / 8] ^= 1 << (bit % 8);
        let old = whole(binding, at, &candidate).is_some_and(|header| header.segment < segment);
        candidate[bit / 8] ^= 1 << (bit % 8);
        old
    })
}
