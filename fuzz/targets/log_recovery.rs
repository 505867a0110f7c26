//! What a replica finds in its own folder: identity, term and vote, segments of the log, snapshots.
#![no_main]

use bowline_storage::fuzz_recovery;
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    // One for each file, with and without right checksums; the content is the fuzzer's.
    init: bowline_fuzz::seed((0..32).map(|choice| vec![choice, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
    |data: &[u8]| fuzz_recovery(data)
);
