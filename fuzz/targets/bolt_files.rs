//! A bbolt file, as somebody gives it to be restored: any bytes, with and without right checksums.
#![no_main]

use bowline_bolt::{fuzz_read, fuzz_seeds};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: bowline_fuzz::seed(fuzz_seeds()),
    |data: &[u8]| fuzz_read(data)
);
