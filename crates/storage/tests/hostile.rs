//! Hostile bytes in every file: whatever they are, a start ends with an answer.

use bowline_raft::Random;
use bowline_storage::fuzz_recovery;

#[test]
fn garbage_in_any_file_never_panics() {
    let mut random = Random::new(5);
    let rounds = if cfg!(debug_assertions) { 3_000 } else { 60_000 };
    for round in 0..rounds {
        let length = [3, 30, 700, 4096][round % 4];
        let mut data: Vec<u8> = (0..length).map(|_| random.next_u64() as u8).collect();
        data[0] = (round / 4 % 32) as u8;
        if data[0] % 8 == 7 {
            // A few changed bytes get further than many.
            data.truncate(1 + 2 * (1 + round % 3));
        }
        // Small numbers are more often lengths, kinds and counts that nearly fit.
        if round.is_multiple_of(3) {
            data[1..].iter_mut().for_each(|byte| *byte %= 9);
        }
        fuzz_recovery(&data);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { failure_persistence: None, ..Default::default() })]
    #[test]
    fn nor_does_what_proptest_thinks_of(data: Vec<u8>) {
        fuzz_recovery(&data);
    }
}
