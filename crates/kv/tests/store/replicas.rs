//! Replicas that were fed the same commands are the same; snapshots and restarts lose nothing; what is
//! damaged is refused.

use bowline_kv::store::*;
use bowline_node::raft::Index;
use bowline_node::{Recall, StateMachine};

use crate::bench::*;

/// A history with everything in it.
fn busy(kv: &mut Kv) {
    for number in 0..300 {
        kv.put(&format!("k{:02}", number % 37), &"v".repeat(number));
        if number % 5 == 0 {
            kv.delete(&format!("k{:02}", number % 23), "");
        }
        if number % 60 == 59 {
            kv.compact(kv.revision() - 30).expect("allowed");
        }
    }
    kv.all(vec![op_put("a", "1"), op_delete("k0", "k1"), op_put("b", "2")]).expect("allowed");
}

#[test]
fn two_replicas_have_the_same_checksum_and_snapshot() {
    let (mut one, mut other) = (Kv::new(), Kv::new());
    busy(&mut one);
    busy(&mut other);
    // One removes and writes through while the other does not.
    one.scrub();
    one.store.checkpoint().expect("memory does not fail");
    assert_eq!(one.hash(0), other.hash(0));
    assert!(one.store.snapshot() == other.store.snapshot());
}

#[test]
fn a_snapshot_holds_the_whole_state() {
    let mut kv = Kv::new();
    assert_eq!(Store::<MemoryEngine>::restore(&kv.store.snapshot()).expect("it is one").revision(), 1);
    busy(&mut kv);
    let snapshot = kv.store.snapshot();
    let mut restored = Store::<MemoryEngine>::restore(&snapshot).expect("it is one");
    assert!(restored.snapshot() == snapshot);
    assert_eq!(restored.applied(), kv.store.applied());
    assert_eq!(restored.hash_kv(0), kv.hash(0));
    for revision in kv.store.compacted_revision()..=kv.revision() {
        let range = RangeRequest { revision, ..everything() };
        assert_eq!(restored.range(&range), kv.range(range));
    }
    // Both go on alike.
    let next = Index(restored.applied().0 + 1);
    let command = Command::Compact(CompactionRequest { revision: kv.revision(), physical: false });
    assert_eq!(restored.apply_command(next, &command), kv.store.apply_command(next, &command));
    kv.scrub();
    while !restored.scrub(10).expect("memory does not fail").done {}
    assert!(restored.snapshot() == kv.store.snapshot());
}

#[test]
fn a_dump_shows_the_moment_it_was_made_at() {
    let mut kv = Kv::new();
    busy(&mut kv);
    kv.store.flush().expect("memory does not fail");
    let expected = kv.store.snapshot();
    let dump = kv.store.dump().expect("memory does not fail");
    kv.delete("\0", "\0");
    kv.compact(kv.revision()).expect("allowed");
    kv.scrub();
    let elsewhere = std::thread::spawn(move || {
        let mut out = Vec::new();
        dump.write_to(&mut out).expect("memory does not fail");
        out
    });
    assert!(elsewhere.join().expect("it does not panic") == expected);
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let mut kv = Kv::new();
    kv.put("key", "value");
    kv.delete("key", "");
    kv.put("key", "again");
    let snapshot = kv.store.snapshot().to_vec();
    for end in 0..snapshot.len() {
        assert!(Store::<MemoryEngine>::restore(&snapshot[..end]).is_err(), "cut at {end}");
    }
    for at in 0..snapshot.len() {
        let mut damaged = snapshot.clone();
        damaged[at] ^= 0x40;
        assert!(Store::<MemoryEngine>::restore(&damaged).is_err(), "damaged at {at}");
    }
    let longer = [&snapshot[..], b"x"].concat();
    let error = Store::<MemoryEngine>::restore(&longer).expect_err("it is too long");
    assert_eq!(error.to_string(), "not a snapshot of this state machine: 1 bytes follow its end");
}

#[test]
fn a_restart_goes_on_from_the_last_checkpoint() {
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("kv.redb");
    let mut store = Store::open(RedbEngine::open(&path, 1 << 20).expect("there is room")).expect("it is new");
    let commands: Vec<_> = (1..=50).map(|n| Command::Put(put(&format!("k{}", n % 9), &n.to_string()))).collect();
    let apply = |store: &mut Store<RedbEngine>, range: std::ops::RangeInclusive<u64>| {
        for index in range {
            store.apply_command(Index(index), &commands[index as usize - 1]).expect("nothing forbids it");
        }
    };
    apply(&mut store, 1..=20);
    assert_eq!(store.checkpoint(), Ok(Index(20)));
    let at_checkpoint = store.hash_kv(0);
    apply(&mut store, 21..=50);
    let at_end = store.hash_kv(0);
    // Neither flushed nor durable: gone, as in a crash.
    drop(store);
    let mut store = Store::open(RedbEngine::open(&path, 1 << 20).expect("it is whole")).expect("it is whole");
    assert_eq!((store.applied(), store.revision()), (Index(20), 21));
    assert_eq!(store.hash_kv(0), at_checkpoint);
    // The log is fed again; what was applied before changes nothing.
    assert_eq!(store.apply_command(Index(20), &commands[19]), Err(KvError::AlreadyApplied));
    apply(&mut store, 21..=50);
    assert_eq!(store.hash_kv(0), at_end);
}

#[test]
fn a_restore_that_did_not_end_leaves_an_empty_store() {
    let mut kv = Kv::new();
    for number in 0..4000 {
        kv.put(&format!("k{number}"), &"v".repeat(200));
    }
    let snapshot = kv.store.snapshot();
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("kv.redb");
    let engine = RedbEngine::open(&path, 1 << 20).expect("there is room");
    let mut cut = &snapshot[..snapshot.len() - 1];
    assert!(matches!(Store::restore_from(engine, &mut cut), Err(RestoreError::Read(_))));
    let store = Store::open(RedbEngine::open(&path, 1 << 20).expect("it is whole")).expect("it is whole");
    assert_eq!((store.revision(), store.len()), (1, 0));
    drop(store);
    let engine = RedbEngine::open(&path, 1 << 20).expect("it is whole");
    let store = Store::restore_from(engine, &mut &snapshot[..]).expect("it is one");
    assert_eq!((store.revision(), store.len()), (4001, 4000));
    assert_eq!(store.hash_kv(0), kv.hash(0));
}

#[test]
fn a_failing_engine_stops_the_store_and_says_why() {
    /// Fails when told to.
    #[derive(Debug, Default)]
    struct Failing(MemoryEngine, bool);

    impl Engine for Failing {
        type Reader<'a> = &'a MemoryRecords;
        type View = MemoryRecords;

        fn meta(&self) -> Result<bytes::Bytes, EngineError> {
            self.0.meta()
        }

        fn reader(&self) -> Result<&MemoryRecords, EngineError> {
            self.0.reader()
        }

        fn view(&self) -> Result<MemoryRecords, EngineError> {
            self.0.view()
        }

        fn write(&mut self, batch: &Batch<'_>) -> Result<(), EngineError> {
            if std::mem::replace(&mut self.1, !batch.puts.is_empty()) {
                return Err(EngineError::new("write", "the disk is gone"));
            }
            self.0.write(batch)
        }

        fn checkpoint(&mut self, label: Option<&[u8]>) -> Result<(), EngineError> {
            self.0.checkpoint(label)
        }

        fn label(&self) -> Result<bytes::Bytes, EngineError> {
            self.0.label()
        }

        fn size(&self) -> EngineSize {
            self.0.size()
        }
    }

    let mut store = Store::open(Failing::default()).expect("it works at first");
    let command = Command::Put(put("k", "v"));
    store.apply_command(Index(1), &command).expect("it waits in memory");
    store.flush().expect("the first is written");
    store.apply_command(Index(2), &command).expect("it waits in memory");
    let error = store.flush().expect_err("the second fails");
    assert_eq!(error.to_string(), "the storage engine could not write: the disk is gone");
    assert_eq!(store.fault(), Some(&error));
    assert_eq!(store.apply_command(Index(3), &command), Err(KvError::Stopped));
    assert_eq!(store.range(&range("k", "")), Err(KvError::Stopped));
    assert_eq!(store.checkpoint(), Err(error));
    assert!(store.snapshot().is_empty());
    assert_eq!(KvError::Stopped.code(), Code::Unavailable);
}

#[test]
fn the_store_does_not_know_what_became_of_a_command() {
    let mut kv = Kv::new();
    kv.put("k", "v");
    let command = Command::Put(put("k", "v")).to_bytes();
    assert_eq!(kv.store.recall(&command, Index(1)), Recall::Forgotten);
}
