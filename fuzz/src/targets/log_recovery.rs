//! What a replica finds in its own folder: identity, term and vote, segments of the log, snapshots.

use bowline_storage::fuzz_recovery;

pub(crate) fn run(data: &[u8]) {
    fuzz_recovery(data);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    // One for each file, with and without right checksums; the content is the fuzzer's.
    (0..32).map(|choice| vec![choice, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).collect()
}
