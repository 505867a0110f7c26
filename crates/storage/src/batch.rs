//! A batch: the records that one sync makes durable. It has whole sectors of its own, so that acknowledged
//! data is never overwritten.

use bowline_raft::Index;

use crate::codec::{Put, Reader};
use crate::disk::SECTOR;
use crate::identity::Binding;
use crate::record::Record;
use crate::sector::{self, HEADER, PAYLOAD, Sector, SectorHeader};

/// Bytes of a batch before its records.
pub(crate) const BATCH_HEADER: usize = 24;

/// Where a batch stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) binding: Binding,
    /// Sequence number of the segment.
    pub(crate) segment: u64,
    /// Its first sector.
    pub(crate) start: u32,
}

/// A batch, as read from a segment.
#[derive(Debug)]
pub(crate) struct Batch {
    /// In sectors.
    pub(crate) len: u32,
    /// The log's version before this batch.
    pub(crate) log_version: u64,
    /// The hard state's version before this batch.
    pub(crate) hard_version: u64,
    pub(crate) last_index: Index,
    pub(crate) records: Vec<Record>,
}

/// Sectors of a batch with this many bytes of records.
pub(crate) fn sectors_for(record_bytes: usize) -> usize {
    (BATCH_HEADER + record_bytes).div_ceil(PAYLOAD)
}

/// Bytes of records that fit into a batch of this many sectors.
pub(crate) fn room_in(sectors: usize) -> usize {
    (sectors * PAYLOAD).saturating_sub(BATCH_HEADER)
}

/// The checksum over the length and everything after the checksum.
fn checksum(place: Place, length: &[u8], rest: &[u8]) -> u32 {
    let seed = place.binding.at(&[place.segment, u64::from(place.start)]);
    crc32c::crc32c_append(crc32c::crc32c_append(seed, length), rest)
}

/// Encodes a batch as sectors. `versions` are those of the log and of the hard state before the batch, `last_index` is
/// the log's last index after it.
pub(crate) fn encode<'a>(
    place: Place,
    versions: (u64, u64),
    last_index: Index,
    records: impl Iterator<Item = &'a Record>,
) -> Vec<u8> {
    let mut payload = vec![0; 8];
    payload.put_u64(versions.0);
    payload.put_u64(versions.1);
    records.for_each(|record| record.encode(&mut payload));
    seal(place, last_index, payload)
}

/// Fills in length and checksum, for which the payload begins with eight free bytes, and cuts it into sectors.
pub(crate) fn seal(place: Place, last_index: Index, mut payload: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(payload.len() - BATCH_HEADER).expect("a batch is bounded by its segment");
    payload[..4].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(place, &payload[..4], &payload[8..]);
    payload[4..8].copy_from_slice(&sum.to_le_bytes());

    let count = payload.len().div_ceil(PAYLOAD);
    let batch_len = u32::try_from(count).expect("a batch is bounded by its segment");
    let mut sectors = vec![0; count * SECTOR];
    for (at, (sector, part)) in (place.start..).zip(sectors.chunks_exact_mut(SECTOR).zip(payload.chunks(PAYLOAD))) {
        sector[HEADER..HEADER + part.len()].copy_from_slice(part);
        let header = SectorHeader { segment: place.segment, batch_start: place.start, batch_len, last_index };
        sector::seal(place.binding, at, header, sector);
    }
    sectors
}

fn sector_at(at: u32, bytes: &[u8]) -> Option<&[u8]> {
    let offset = usize::try_from(at).ok()? * SECTOR;
    bytes.get(offset..offset + SECTOR)
}

/// Reads the batch at `place` of a segment's bytes; `None` unless all of it is there and right.
pub(crate) fn decode(place: Place, bytes: &[u8]) -> Option<Batch> {
    let sector_at = |at: u32| sector_at(at, bytes);
    let current = |at: u32| sector::current(place.binding, place.segment, at, sector_at(at)?);
    let first = current(place.start)?;
    let end = place.start.checked_add(first.batch_len)?;
    if first.batch_start != place.start || first.batch_len == 0 || sector_at(end - 1).is_none() {
        return None;
    }
    let mut payload = Vec::with_capacity((end - place.start) as usize * PAYLOAD);
    for at in place.start..end {
        if current(at)? != first {
            return None;
        }
        payload.extend_from_slice(&sector_at(at)?[HEADER..]);
    }
    let mut reader = Reader::new(&payload);
    let length = usize::try_from(reader.u32("length").ok()?).ok()?;
    let sum = reader.u32("checksum").ok()?;
    let covered = payload.get(8..BATCH_HEADER.checked_add(length)?)?;
    if sectors_for(length) != (end - place.start) as usize || sum != checksum(place, &payload[..4], covered) {
        return None;
    }
    let mut reader = Reader::new(covered);
    let (log_version, hard_version) = (reader.count("version").ok()?, reader.count("version").ok()?);
    let mut records = Vec::new();
    while !reader.is_empty() {
        records.push(Record::decode(&mut reader).ok()?);
    }
    Some(Batch { len: first.batch_len, log_version, hard_version, last_index: first.last_index, records })
}

/// Classifies the sector `at`.
pub(crate) fn classify_at(place: Place, at: u32, bytes: &[u8]) -> Sector {
    let offset = at as usize * SECTOR;
    bytes
        .get(offset..offset + SECTOR)
        .map_or(Sector::Unwritten, |sector| sector::classify(place.binding, place.segment, at, sector))
}
