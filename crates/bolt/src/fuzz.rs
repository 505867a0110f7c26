//! What the fuzzer runs.

use std::io;

use crate::page::{CHECKSUM_AT, HEADER, fnv1a};
use crate::{Bolt, BoltError, Bucket, Source, Writer};

/// Most entries that are visited, so that nested buckets that refer to each other end.
const MAX_ENTRIES: usize = 10_000;

/// Reads any bytes as a file, as they are, and with right checksums of the meta pages. It may fail, but must not panic.
pub fn fuzz_read(bytes: &[u8]) {
    let _ = walk(bytes);
    let mut mended = bytes.to_vec();
    // Pages of the size that the seeds have.
    for page in mended.chunks_mut(crate::MIN_PAGE_BYTES).take(2) {
        if page.len() >= CHECKSUM_AT + 8 {
            let sum = fnv1a(&page[HEADER..CHECKSUM_AT]);
            page[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let _ = walk(&mended);
}

/// Visits everything, and returns the number of entries.
fn walk(bytes: &[u8]) -> Result<usize, BoltError> {
    let bolt = Bolt::open(bytes)?;
    let (mut buckets, mut entries) = (vec![bolt.root()], 0);
    while let Some(bucket) = buckets.pop() {
        let found = visit(&bolt, &bucket, &mut entries)?;
        buckets.extend(found);
        if entries > MAX_ENTRIES {
            break;
        }
    }
    Ok(entries)
}

/// Visits a bucket, and returns those inside it.
fn visit<S: Source>(bolt: &Bolt<S>, bucket: &Bucket, entries: &mut usize) -> Result<Vec<Bucket>, BoltError> {
    let (mut found, mut cursor) = (Vec::new(), bolt.cursor(bucket));
    while let Some(entry) = cursor.next()? {
        *entries += 1;
        found.extend(entry.bucket);
    }
    Ok(found)
}

/// Files to begin with.
#[must_use]
pub fn fuzz_seeds() -> Vec<Vec<u8>> {
    let file = |pairs: u32, value: usize| -> io::Result<Vec<u8>> {
        let mut writer = Writer::new(io::Cursor::new(Vec::new()), crate::MIN_PAGE_BYTES)?;
        writer.bucket(b"empty")?;
        writer.bucket(b"key")?;
        for number in 0..pairs {
            writer.put(&number.to_be_bytes(), &vec![b'v'; value])?;
        }
        Ok(writer.finish()?.into_inner())
    };
    let seeds = [(0, 0), (3, 10), (60, 20), (2, 1_500)].map(|(pairs, value)| file(pairs, value));
    seeds.into_iter().map(|seed| seed.expect("memory takes whatever is written")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_whole_files() {
        let entries: Vec<usize> = fuzz_seeds().iter().map(|seed| walk(seed).expect("it is whole")).collect();
        assert_eq!(entries, [2, 5, 62, 4]);
    }
}
