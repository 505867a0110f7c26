//! One sector: its header and checksum bind it to a replica, a segment and a place.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bowline_raft::Index;

use crate::disk::SECTOR;
use crate::identity::Binding;

/// Bytes of a sector before its part of the payload.
pub(crate) const HEADER: usize = 32;
/// Bytes of payload in a sector.
pub(crate) const PAYLOAD: usize = SECTOR - HEADER;
/// Many ones, so that no written sector looks like zeros with a few flipped bits.
const MAGIC: u32 = 0xb7ed_9f5b;
/// Up to this many ones among zeros are rot: a written sector has more in [`MAGIC`] alone.
const MOST_ROTTEN_BITS: u32 = 4;

/// The header of every sector of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SectorHeader {
    /// Sequence number of the segment.
    pub(crate) segment: u64,
    /// First sector of the batch.
    pub(crate) batch_start: u32,
    /// Sectors of the batch.
    pub(crate) batch_len: u32,
    /// The log's last index after the batch.
    pub(crate) last_index: Index,
}

/// How a sector looks to the reader of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sector {
    /// Written in this use of the file.
    Current(SectorHeader),
    /// Never written in this use of the file: zeros, or a valid sector of an earlier use.
    Unwritten,
    /// As [`Sector::Unwritten`], but with one or a few flipped bits: certainly not written in this use.
    UnwrittenRotten,
    /// Anything else. This is no torn write, as a disk writes a sector whole or not at all.
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
    sector[24..32].copy_from_slice(&header.last_index.0.to_le_bytes());
    let sum = checksum(binding, at, sector);
    sector[..4].copy_from_slice(&sum.to_le_bytes());
}

/// The header of a valid sector in its place, of any use of the file.
pub(crate) fn whole(binding: Binding, at: u32, sector: &[u8]) -> Option<SectorHeader> {
    (word(sector, 4) == MAGIC && word(sector, 0) == checksum(binding, at, sector)).then(|| SectorHeader {
        segment: long(sector, 8),
        batch_start: word(sector, 16),
        batch_len: word(sector, 20),
        last_index: Index(long(sector, 24)),
    })
}

/// The header of a sector that was written in this use of the file.
pub(crate) fn current(binding: Binding, segment: u64, at: u32, sector: &[u8]) -> Option<SectorHeader> {
    whole(binding, at, sector).filter(|header| header.segment == segment)
}

/// Classifies the sector `at` of segment number `segment`.
pub(crate) fn classify(binding: Binding, segment: u64, at: u32, sector: &[u8]) -> Sector {
    match whole(binding, at, sector) {
        Some(header) if header.segment == segment => Sector::Current(header),
        Some(header) if header.segment < segment => Sector::Unwritten,
        // No earlier use of the file had a greater number.
        Some(_) => Sector::Damaged,
        None => match sector.iter().map(|byte| byte.count_ones()).sum::<u32>() {
            0 => Sector::Unwritten,
            1..=MOST_ROTTEN_BITS => Sector::UnwrittenRotten,
            _ if is_old_but_for_one_bit(binding, segment, at, sector) => Sector::UnwrittenRotten,
            _ => Sector::Damaged,
        },
    }
}

/// Whether flipping one bit makes it a sector of an earlier use. CRC32C distinguishes any two sectors of
/// this size that differ in up to five bits, so a sector of *this* use with a flipped bit never passes.
fn is_old_but_for_one_bit(binding: Binding, segment: u64, at: u32, sector: &[u8]) -> bool {
    // The effect of a flipped bit on the checksum depends only on its place.
    static EFFECTS: OnceLock<BTreeMap<u32, usize>> = OnceLock::new();
    let effects = EFFECTS.get_or_init(effects_of_single_bits);
    let effect = word(sector, 0) ^ checksum(binding, at, sector);
    let Some(bit) = effects.get(&effect) else { return false };
    let mut candidate: [u8; SECTOR] = sector.try_into().expect("a sector's size");
    candidate[bit / 8] ^= 1 << (bit % 8);
    whole(binding, at, &candidate).is_some_and(|header| header.segment < segment)
}

/// Maps the difference between a sector's stored and computed checksums to the bit whose flip causes it.
fn effects_of_single_bits() -> BTreeMap<u32, usize> {
    let mut sector = [0; SECTOR];
    let nothing = crc32c::crc32c(&sector[4..]);
    let mut effects = BTreeMap::new();
    for bit in 0..SECTOR * 8 {
        sector[bit / 8] ^= 1 << (bit % 8);
        effects.insert(word(&sector, 0) ^ crc32c::crc32c(&sector[4..]) ^ nothing, bit);
        sector[bit / 8] = 0;
    }
    effects
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ClusterId, Identity};

    #[test]
    fn one_flipped_bit_is_told_from_a_sector_of_this_life() {
        let identity = Identity { cluster: ClusterId(5), replica: bowline_raft::NodeId(1), incarnation: 8 };
        let binding = Binding::of(&identity);
        let header = SectorHeader { segment: 6, batch_start: 3, batch_len: 1, last_index: Index(4) };
        let mut sector = [0x5a; SECTOR];
        seal(binding, 3, header, &mut sector);
        assert_eq!(classify(binding, 6, 3, &sector), Sector::Current(header));
        assert_eq!(classify(binding, 7, 3, &sector), Sector::Unwritten);
        assert_eq!(classify(binding, 5, 3, &sector), Sector::Damaged);
        assert_eq!(classify(binding, 6, 4, &sector), Sector::Damaged);
        for bit in 0..SECTOR * 8 {
            let mut flipped = sector;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(classify(binding, 6, 3, &flipped), Sector::Damaged, "bit {bit}");
            assert_eq!(classify(binding, 7, 3, &flipped), Sector::UnwrittenRotten, "bit {bit}");
            let mut zeros = [0; SECTOR];
            zeros[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(classify(binding, 6, 3, &zeros), Sector::UnwrittenRotten, "bit {bit}");
        }
    }
}
