//! X5: checksums that a real etcd (3.4.23, single member) gave for the same requests.

use bowline_kv::store::*;
use bowline_node::StateMachine;
use bowline_node::raft::Index;

use crate::bench::*;

/// The checksum, whatever is removed already.
fn hash(kv: &mut Kv, revision: i64) -> u32 {
    let before = kv.hash(revision).expect("it is readable");
    kv.store.scrub(1).expect("memory does not fail");
    assert_eq!(kv.hash(revision).expect("it is readable"), before);
    kv.scrub();
    assert_eq!(kv.hash(revision).expect("it is readable"), before);
    before.hash
}

#[test]
fn x05_checksums_are_those_of_a_real_etcd() {
    let mut kv = Kv::new();
    assert_eq!(hash(&mut kv, 0), 1_084_519_789);
    kv.put("a", "1");
    kv.put("b", "2");
    kv.put("a", "3");
    assert_eq!([0, 2, 3].map(|revision| hash(&mut kv, revision)), [2_069_675_932, 2_587_454_935, 1_827_592_406]);
    kv.all(vec![op_put("c", "4"), op_put("d", "5"), op_delete("b", "")]).expect("allowed");
    assert_eq!(hash(&mut kv, 0), 1_421_323_504);
    kv.delete("c", "");
    kv.put("c", "");
    kv.put("e", &"x".repeat(300));
    assert_eq!([0, 6, 5].map(|revision| hash(&mut kv, revision)), [1_572_324_807, 1_430_524_686, 1_421_323_504]);
    kv.compact(6).expect("allowed");
    assert_eq!([0, 7].map(|revision| hash(&mut kv, revision)), [3_862_793_349, 1_878_123_591]);
    kv.put("a", "9");
    assert_eq!([0, 8].map(|revision| hash(&mut kv, revision)), [3_041_737_808, 3_862_793_349]);
    kv.delete("a", "");
    kv.compact(10).expect("allowed");
    assert_eq!(hash(&mut kv, 0), 262_657_319);
    kv.delete("\0", "\0");
    assert_eq!(hash(&mut kv, 0), 902_948_318);
    kv.compact(11).expect("allowed");
    assert_eq!(hash(&mut kv, 0), 1_084_519_789);
    kv.put("z", "1");
    kv.put("z", "2");
    kv.delete("z", "");
    assert_eq!(hash(&mut kv, 0), 3_454_825_504);
    kv.compact(13).expect("allowed");
    assert_eq!(hash(&mut kv, 0), 949_493_609);
    kv.put("z", "3");
    assert_eq!(hash(&mut kv, 0), 1_898_273_043);
    kv.all(vec![op_delete("a", "\0"), op_put("b", "v")]).expect("allowed");
    kv.all(vec![op_delete("b", "\0"), op_put("b", "v")]).expect("allowed");
    kv.all(vec![op_txn(vec![op_put("b", "v")]), op_txn(vec![op_delete("b", "")])]).expect("allowed");
    assert_eq!((kv.revision(), hash(&mut kv, 0)), (18, 191_681_101));
}

#[test]
fn x06_a_checksum_has_the_bounds_of_a_read() {
    let mut kv = Kv::new();
    for value in ["1", "2", "3"] {
        kv.put("k", value);
    }
    let first = kv.hash(0).expect("it is readable");
    assert_eq!((first.revision, first.compact_revision, first.hash_revision), (4, -1, 4));
    kv.compact(3).expect("allowed");
    assert_eq!(kv.hash(2), Err(KvError::Compacted));
    assert_eq!(kv.hash(5), Err(KvError::FutureRevision));
    let at = kv.hash(4).expect("it is readable");
    assert_eq!((at.revision, at.compact_revision, at.hash_revision), (4, 3, 4));
}

/// What is told for a revision now, told later.
fn later(kv: &Kv, hash: HashKv) -> HashKv {
    HashKv { revision: kv.revision(), ..hash }
}

#[test]
fn at_a_compacted_revision_the_checksum_from_before_the_compaction_is_told() {
    let mut kv = Kv::new();
    for number in 0..20 {
        kv.put(&format!("k{}", number % 3), &number.to_string());
    }
    let at_5 = kv.hash(5).expect("it is readable");
    kv.compact(5).expect("allowed");
    let at_10 = kv.hash(10).expect("it is readable");
    assert_eq!((at_5.compact_revision, at_10.compact_revision, at_10.hash_revision), (-1, 5, 10));
    kv.compact(10).expect("allowed");
    let now = kv.hash(0).expect("it is readable");
    assert_eq!((now.compact_revision, now.hash_revision), (10, 21), "the latest is told as it is now");
    let mut steps = 0;
    // Whatever is computed and removed already, and after a later compaction.
    loop {
        assert_eq!(kv.hash(5), Ok(later(&kv, at_5)), "after {steps} steps");
        assert_eq!(kv.hash(10), Ok(later(&kv, at_10)), "after {steps} steps");
        if kv.store.scrub(1).expect("memory does not fail").done {
            break;
        }
        steps += 1;
        if steps == 9 {
            kv.put("k1", "new");
            kv.compact(15).expect("allowed");
        }
    }
    assert!(steps > 30, "{steps} steps");
    assert_eq!(kv.hash(14), Err(KvError::Compacted));
    assert_eq!(kv.hash(15).map(|hash| hash.compact_revision), Ok(10));
}

#[test]
fn the_checksums_of_the_last_ten_compactions_are_told() {
    let mut kv = Kv::new();
    for number in 0..40 {
        kv.put("k", &number.to_string());
    }
    let mut told = Vec::new();
    for revision in (4..=36).step_by(4) {
        told.push(kv.hash(revision).expect("it is readable"));
        kv.compact(revision).expect("allowed");
        // Of some, before the next one comes; of others, none or not all.
        for _ in 0..revision {
            kv.store.scrub(1).expect("memory does not fail");
        }
    }
    for revision in 37..=40 {
        told.push(kv.hash(revision).expect("it is readable"));
        kv.compact(revision).expect("allowed");
    }
    for scrubbed in [false, true] {
        let (gone, kept) = told.split_at(told.len() - 10);
        assert!(gone.iter().all(|hash| kv.hash(hash.hash_revision) == Err(KvError::Compacted)), "{scrubbed}");
        for hash in kept {
            assert_eq!(kv.hash(hash.hash_revision), Ok(later(&kv, *hash)), "{scrubbed}");
        }
        kv.scrub();
    }
    let mut left = 0;
    let reader = kv.store.engine().reader().expect("memory does not fail");
    let count = &mut |_, _| {
        left += 1;
        std::ops::ControlFlow::Continue(())
    };
    reader.scan(Revision::default(), Revision::start_of(i64::MAX), count).expect("memory does not fail");
    assert_eq!(left, 2, "what they counted is removed all the same");
}

/// Etcd's rule for a compaction differs there from that for a question: tombstones at its revision count.
#[test]
fn a_compaction_that_leaves_nothing_counts_the_deletions() {
    let mut kv = Kv::new();
    kv.put("a", "1");
    kv.put("b", "2");
    kv.compact(3).expect("allowed");
    kv.delete("a", "c");
    let mut expected = crc32c::crc32c(b"key");
    let reader = kv.store.engine().reader().expect("memory does not fail");
    assert!(reader.get(Revision::start_of(4)).expect("memory does not fail").is_none(), "it waits in memory");
    for (sub, key) in [(0_i64, "a"), (1, "b")] {
        let place = [&4_i64.to_be_bytes()[..], b"_", &sub.to_be_bytes(), b"t"].concat();
        expected = crc32c::crc32c_append(expected, &place);
        expected = crc32c::crc32c_append(expected, &[b"\x0a\x01", key.as_bytes()].concat());
    }
    kv.compact(4).expect("allowed");
    for _ in 0..3 {
        assert_eq!(kv.hash(4).map(|hash| (hash.hash, hash.compact_revision)), Ok((expected, 3)));
        let restored = Store::<MemoryEngine>::restore(&kv.store.snapshot()).expect("it is one");
        assert_eq!(restored.hash_kv(4), kv.hash(4));
        kv.store.scrub(2).expect("memory does not fail");
    }
}

#[test]
fn replicas_never_differ_in_the_checksums_of_compactions() {
    let (mut eager, mut lazy) = (Kv::new(), Kv::new());
    for round in 0..12 {
        for kv in [&mut eager, &mut lazy] {
            for number in 0..20 {
                kv.put(&format!("k{}", (round + number * number) % 7), &format!("{round} {number}"));
            }
            kv.delete("k2", "k4");
            kv.compact(kv.revision() - round).expect("allowed");
        }
        eager.scrub();
        for _ in 0..round * 5 {
            lazy.store.scrub(3).expect("memory does not fail");
        }
        let told = |store: &Store<MemoryEngine>| -> Vec<_> {
            (1..=store.revision()).map(|revision| store.hash_kv(revision)).collect()
        };
        let expected = told(&eager.store);
        assert_eq!(told(&lazy.store), expected, "round {round}");
        assert!(lazy.store.snapshot() == eager.store.snapshot(), "round {round}");
        // One that starts again, one that gets a snapshot, and one whose file is written anew.
        for kv in [&mut eager, &mut lazy] {
            kv.store.checkpoint().expect("memory does not fail");
            let restarted = Store::open(kv.store.engine().clone()).expect("it is whole");
            assert_eq!(told(&restarted), expected, "round {round}");
            let restored = Store::restore(&kv.store.snapshot()).expect("it is one");
            assert_eq!(told(&restored), expected, "round {round}");
            let mut rewrite = kv.store.begin_rewrite(MemoryEngine::default(), 1 << 20).expect("memory does not fail");
            let part = kv.store.rewrite_part().expect("it is under way");
            rewrite.step(&part, usize::MAX).expect("memory does not fail");
            let rewritten = kv.store.finish_rewrite(rewrite).expect("it holds the same");
            kv.store.move_to(rewritten);
            assert_eq!(told(&kv.store), expected, "round {round}");
        }
    }
}

/// What was written before there were checksums of compactions: they are computed anew, as they were then.
#[test]
fn states_without_checksums_of_compactions_are_read() {
    let words = |words: &[i64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let sealed = |bytes: Vec<u8>| [&bytes[..], &crc32c::crc32c(&bytes).to_le_bytes()].concat();
    let head = sealed([&b"BOWLINEKV\x02"[..], &words(&[9, 5, 4])].concat());
    let end = sealed(vec![0; 12]);
    let restored = Store::<MemoryEngine>::restore(&[&head[..], &[0; 4], &end].concat()).expect("it is one");
    let mut engine = MemoryEngine::default();
    let meta = [&b"\x01"[..], &words(&[9, 5, 4, 4, 4]), &[0; 4]].concat().into();
    engine.write(&Batch { meta, ..Batch::default() }).expect("memory does not fail");
    for mut store in [restored, Store::open(engine).expect("it is whole")] {
        assert_eq!((store.applied(), store.revision(), store.compacted_revision()), (Index(9), 5, 4));
        assert_eq!(store.hash_kv(4).map(|hash| hash.compact_revision), Ok(4));
        let compaction = Command::Compact(CompactionRequest { revision: 5, physical: false });
        store.apply_command(Index(10), &compaction).expect("allowed");
        assert_eq!(store.hash_kv(5).map(|hash| hash.compact_revision), Ok(4));
        assert_eq!(store.hash_kv(4), Err(KvError::Compacted));
        assert!(Store::<MemoryEngine>::restore(&store.snapshot()).is_ok());
    }
}
