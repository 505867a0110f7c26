//! A bbolt file, as somebody gives it to be restored: any bytes, with and without right checksums.

use bowline_bolt::{fuzz_read, fuzz_seeds};

pub(crate) fn run(data: &[u8]) {
    fuzz_read(data);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    fuzz_seeds()
}
