//! Entry points for a fuzzer: hostile bytes in place of those of a leader, a client or the replica's own file. They
//! must never panic.

use bowline_node::StateMachine;
use bowline_node::raft::Index;
use bytes::Bytes;

use super::command::Command;
use super::meta::Meta;
use super::snapshot::{MAX_ORDINAL, seal};
use super::types::{CompactionRequest, PutRequest, RangeRequest};
use super::{Engine, MemoryEngine, Store, decode_reply};

/// Restores a snapshot: `data` as it is, or, if the first byte is odd, the numbers of a head and records with valid
/// checksums around them, so that the code behind the checksums is tested too. A restored store must work: it
/// answers, takes commands, and writes a snapshot that can be restored again.
pub fn fuzz_restore(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let sealed = choice % 2 == 1;
    let snapshot = if sealed { sealed_snapshot(data) } else { data.to_vec() };
    let Ok(mut store) = Store::<MemoryEngine>::restore(&snapshot) else { return };
    exercise(&mut store);
    if store.revision() > MAX_ORDINAL >> 33 || store.applied().0 > MAX_ORDINAL.unsigned_abs() {
        // A forged state may have begun at a limit, and may be beyond it now.
        return;
    }
    let written = store.snapshot();
    let again = Store::<MemoryEngine>::restore(&written);
    assert!(again.is_ok(), "what was restored and written again is restored again: {:?}", again.err());
}

fn sealed_snapshot(data: &[u8]) -> Vec<u8> {
    let small = |at: usize| i64::from(data.get(at).copied().unwrap_or(0));
    // Mostly small numbers, sometimes huge ones.
    let wide = |at: usize| {
        let number = small(at);
        if number < 0xf0 { number } else { i64::MAX - (number - 0xf0) }
    };
    let meta = Meta { applied: wide(0).unsigned_abs(), revision: wide(1), compacted: wide(2) - 1, ..Meta::default() };
    seal(&meta, data.get(3..).unwrap_or_default())
}

/// Applies each piece of `data` as a command; a piece begins with its length in one or two bytes.
/// Then the store must still work.
pub fn fuzz_commands(data: &[u8]) {
    let mut store = Store::open(MemoryEngine::default()).expect("an empty memory can be read");
    let mut rest = data;
    let mut index = 0;
    while let Some((first, tail)) = rest.split_first() {
        let (length, tail) = match (first, tail.split_first()) {
            (0xf0.., Some((second, tail))) => (usize::from(first - 0xf0) * 256 + usize::from(*second), tail),
            _ => (usize::from(*first), tail),
        };
        let (piece, tail) = tail.split_at(length.min(tail.len()));
        rest = tail;
        index += 1;
        if let Ok(command) = Command::from_bytes(piece) {
            assert_eq!(Command::from_bytes(&command.to_bytes()).as_ref(), Ok(&command));
        }
        assert!(decode_reply(store.apply(Index(index), piece)).is_ok());
    }
    exercise(&mut store);
    let written = store.snapshot();
    let restored = Store::<MemoryEngine>::restore(&written).expect("an own snapshot is a good one");
    assert_eq!(restored.snapshot(), written);
    assert_eq!(restored.hash_kv(0), store.hash_kv(0));
}

/// Tries a bit of everything. The store may refuse a request, but must answer it.
fn exercise<E: Engine + Default>(store: &mut Store<E>) {
    let everything =
        RangeRequest { key: Bytes::from_static(b"\0"), range_end: Bytes::from_static(b"\0"), ..Default::default() };
    let revision = store.revision();
    for at in [0, 1, store.compacted_revision(), revision / 2, revision] {
        let _ = store.range(&RangeRequest { revision: at, ..everything.clone() });
        let _ = store.hash_kv(at);
    }
    let _ = store.status();
    let keys: Vec<Bytes> =
        store.range(&everything).map(|found| found.kvs.into_iter().map(|kv| kv.key).collect()).unwrap_or_default();
    for key in keys.into_iter().take(4).chain([Bytes::from_static(b"k")]) {
        let put = Command::Put(PutRequest { key, value: "v".into(), prev_kv: true, ..PutRequest::default() });
        let _ = store.apply_command(store.applied().next(), &put);
    }
    let compaction = Command::Compact(CompactionRequest { revision: store.revision(), physical: false });
    let _ = store.apply_command(store.applied().next(), &compaction);
    while store.scrub(3).is_ok_and(|progress| !progress.done) {}
}

#[cfg(test)]
mod tests {
    use super::super::codec::Sink;
    use super::*;

    /// Runs the fuzzer's entry points in every test run, with random bytes.
    #[test]
    fn random_bytes_are_survived() {
        let mut random = bowline_node::raft::Random::new(1);
        for _ in 0..2_000 {
            let length = random.below(120);
            let byte = |_| if random.below(3) == 0 { 0 } else { random.next_u64() as u8 };
            let data: Vec<u8> = (0..length).map(byte).collect();
            fuzz_restore(&data);
            fuzz_commands(&data);
        }
    }

    /// Found by the fuzzer: there was no revision left for the next write.
    #[test]
    fn numbers_with_nothing_behind_them_are_refused() {
        let error = |data: &[u8]| {
            Store::<MemoryEngine>::restore(&sealed_snapshot(data)).expect_err("it is refused").to_string()
        };
        assert!(error(&[0, 0xf5, 0]).contains("2^62"));
        assert!(error(&[0xf5, 1, 0]).contains("2^62"));
    }

    /// Found by the fuzzer: a key at revision 254 claimed 2^62 versions, so there was no number left for the next one.
    #[test]
    fn more_versions_than_writes_are_refused() {
        let record = b"\x15\x00\x00\x00p\x0a\x01k\x10\x9e\xef\xff\xff\xfe\x0f \xff\xff\xff\xff\xff\xff\xff\xff\x3f";
        let data = [&[4, 5, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], record].concat();
        let error = Store::<MemoryEngine>::restore(&sealed_snapshot(&data)).expect_err("it is refused");
        assert!(error.to_string().contains("more versions than there were writes"), "{error}");
    }

    /// Found by the fuzzer: an unchecked command writes a key more than once, so the key has more versions than there
    /// are revisions.
    #[test]
    fn what_nobody_checked_can_be_restored_too() {
        let input = concat!(
            "f0170101010000006b01000000760000000000000000010000f09301030000000004000000010100000061010000007a",
            "0000000000000000000000000000000000000000000000000000000000db000000000000000000000000000000000000",
            "000000000004000000000100000002010000006b01000000760000000000000000010000000000000301000000610100",
            "00002c0102010000006b0100000076000000000000000001000000000000",
        );
        let byte = |at: usize| u8::from_str_radix(&input[at..at + 2], 16).expect("two digits");
        let data: Vec<u8> = (0..input.len()).step_by(2).map(byte).collect();
        fuzz_commands(&data);
    }

    #[test]
    fn checksums_of_compactions_that_contradict_each_other_are_refused() {
        let restore = |hashes: &[(i64, i64, bool)]| {
            let mut data = vec![0, 9, 6];
            for (previous, at, known) in hashes {
                data.i64(1);
                data.u32(1);
                data.u32(21);
                data.i64(*previous);
                data.i64(*at);
                data.bool(*known);
                data.u32(7);
            }
            Store::<MemoryEngine>::restore(&sealed_snapshot(&data)).map_err(|error| error.to_string())
        };
        let store = restore(&[(-1, 2, true), (2, 5, true)]).expect("they fit");
        assert_eq!(store.hash_kv(2).map(|hash| (hash.hash, hash.compact_revision)), Ok((7, -1)));
        let eleven: Vec<_> = (0..11).map(|number| (number, number + 1, true)).collect();
        for (hashes, why) in [
            (&[(-1, 2, true), (3, 5, true)][..], "do not follow each other"),
            (&[(5, 5, true)], "do not follow each other"),
            (&[(-2, 5, true)], "do not follow each other"),
            (&[(-1, 4, true)], "not those of its compactions"),
            (&[(-1, 5, false)], "lacks a checksum"),
            (&eleven, "too many"),
        ] {
            let error = restore(hashes).expect_err("it is refused");
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_sealed_snapshot_gets_behind_the_checksums() {
        // Nothing but a head: revision 1, nothing compacted.
        let snapshot = sealed_snapshot(&[0, 1, 0]);
        assert!(Store::<MemoryEngine>::restore(&snapshot).is_ok());
        let mut record = Vec::new();
        record.i64(1);
        let snapshot = sealed_snapshot(&[&[0, 1, 0], &record[..]].concat());
        let error = Store::<MemoryEngine>::restore(&snapshot).expect_err("it is cut off");
        assert!(!error.to_string().contains("checksum"), "{error}");
    }
}
