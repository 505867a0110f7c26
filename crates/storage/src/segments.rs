//! The files of the log: their names, and how new ones are made.

use crate::codec::GREATEST_COUNT;
use crate::disk::{Disk, DiskError, File, SECTOR};

pub(crate) const LOG_DIR: &str = "log";
/// Zeros are written in pieces of this size.
const FILL_BYTES: usize = 1 << 20;

/// The files in the log's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Sequence numbers of the segments, ascending.
    pub(crate) segments: Vec<u64>,
    /// Names of the segments in reserve.
    pub(crate) spares: Vec<String>,
    /// Unfinished files.
    pub(crate) temporary: Vec<String>,
    /// The greatest sequence number in any name.
    pub(crate) highest: u64,
}

/// Path of a segment.
pub(crate) fn segment_path(sequence: u64) -> String {
    format!("{LOG_DIR}/{sequence:016x}.seg")
}

/// Path of a segment in reserve. It may still hold the data of segment `sequence`.
pub(crate) fn spare_path(sequence: u64) -> String {
    format!("{LOG_DIR}/spare-{sequence:016x}")
}

fn sequence(name: &str) -> Option<u64> {
    let number = (name.len() == 16).then(|| u64::from_str_radix(name, 16).ok()).flatten();
    number.filter(|number| *number <= GREATEST_COUNT)
}

/// Reads the folder.
pub(crate) fn list<D: Disk>(disk: &D) -> Result<Listing, DiskError> {
    let mut listing = Listing::default();
    for name in disk.list(LOG_DIR)? {
        let path = format!("{LOG_DIR}/{name}");
        let found = if let Some(sequence) = name.strip_suffix(".seg").and_then(sequence) {
            listing.segments.push(sequence);
            sequence
        } else if let Some(sequence) = name.strip_prefix("spare-").and_then(sequence) {
            listing.spares.push(path);
            sequence
        } else {
            if name.ends_with(".tmp") {
                listing.temporary.push(path);
            }
            0
        };
        listing.highest = listing.highest.max(found);
    }
    Ok(listing)
}

/// Makes a file of zeros, under a temporary name until it is whole. The zeros are written, not
/// only reserved: a sync of written blocks costs half as much as one that also records new blocks.
pub(crate) fn make_filled<D: Disk>(disk: &D, sectors: u32, temporary: &str, path: &str) -> Result<D::File, DiskError> {
    let made = fill(disk, sectors, temporary).and_then(|file| disk.rename(temporary, path).map(|()| file));
    let mut file = match made {
        Err(error) if error.is_passing() => {
            // Otherwise the unfinished file would keep the disk full.
            disk.remove(temporary)?;
            return Err(error);
        }
        made => made?,
    };
    file.renamed(path);
    disk.sync_dir(LOG_DIR)?;
    Ok(file)
}

fn fill<D: Disk>(disk: &D, sectors: u32, temporary: &str) -> Result<D::File, DiskError> {
    let mut file = disk.create(temporary)?;
    let size = u64::from(sectors) * SECTOR as u64;
    let zeros = vec![0; FILL_BYTES.min(usize::try_from(size).unwrap_or(FILL_BYTES))];
    let mut offset = 0;
    while offset < size {
        let piece = usize::try_from(size - offset).unwrap_or(FILL_BYTES).min(zeros.len());
        file.write_at(offset, &zeros[..piece])?;
        offset += piece as u64;
    }
    file.sync_data()?;
    Ok(file)
}
