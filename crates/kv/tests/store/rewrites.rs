//! A store that moves to another engine while it goes on.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bowline_kv::store::*;
use bowline_node::raft::{Index, Random};
use bowline_storage::{Crash, SimDisk, SimFile};
use proptest::prelude::*;
use redb::StorageBackend;

use crate::bench::everything;
use crate::disk::{apply, engine, file, open};

const CACHE_BYTES: usize = 1 << 20;

const BOUND: usize = 1 << 20;

/// All that can be seen of a store.
fn seen<E: Engine>(store: &Store<E>) -> (Index, i64, Result<HashKv, KvError>, Vec<u8>) {
    let mut snapshot = Vec::new();
    store.dump().expect("it is whole").write_to(&mut snapshot).expect("memory takes it");
    (store.applied(), store.compacted_revision(), store.hash_kv(0), snapshot)
}

/// What happens between two steps of a rewrite: entries, records that a scrub looks at, whether all is flushed.
type Between = (u64, usize, bool);

fn go_on<E: Engine>(store: &mut Store<E>, (entries, scrub, flush): Between) {
    apply(store, entries);
    if scrub > 0 {
        store.scrub(scrub).expect("it works");
    }
    if flush {
        store.flush().expect("it works");
    }
}

/// Rewrites a store in steps of so many bytes, and holds it against one that was left alone. `looks` is called after
/// each step, and told whether all is done.
fn rewrite<E: Engine>(
    store: &mut Store<E>,
    new: E,
    bytes: usize,
    betweens: &[Between],
    mut looks: impl FnMut(bool),
) -> Result<(), TestCaseError> {
    let mut alone = Store::open(MemoryEngine::default()).expect("memory does not fail");
    apply(&mut alone, store.applied().0);
    let mut rewrite = store.begin_rewrite(new, BOUND).expect("it works");
    looks(false);
    let mut copied = false;
    let mut between = betweens.iter().cycle();
    while !copied {
        let part = store.rewrite_part().expect("nothing stops it");
        let between = *between.next().expect("there are some");
        // Part and step have something between them too: threads do that.
        go_on(store, between);
        go_on(&mut alone, between);
        copied = rewrite.step(&part, bytes).expect("it works");
        if bytes.is_multiple_of(3) {
            rewrite.sync().expect("it works");
        }
        looks(false);
    }
    let rewritten = store.finish_rewrite(rewrite).expect("nothing stops it");
    looks(true);
    let old = store.move_to(rewritten);
    prop_assert_eq!(store.engine().meta(), old.meta());
    prop_assert_eq!(store.engine().label(), old.label());
    drop(old);
    prop_assert_eq!(seen(store), seen(&alone));
    go_on(store, betweens[0]);
    go_on(&mut alone, betweens[0]);
    prop_assert_eq!(seen(store), seen(&alone));
    Ok(())
}

fn betweens() -> impl Strategy<Value = Vec<Between>> {
    prop::collection::vec((0..40_u64, prop_oneof![Just(0), 1..60_usize], any::<bool>()), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_rewritten_store_is_the_same_in_memory(first in 0..400_u64, bytes in 1..3_000_usize, betweens in betweens()) {
        let mut store = Store::open(MemoryEngine::default()).expect("memory does not fail");
        apply(&mut store, first);
        rewrite(&mut store, MemoryEngine::default(), bytes, &betweens, |_| ())?;
    }

    #[test]
    fn a_rewritten_store_is_the_same_in_redb_and_a_crash_leaves_all_or_nothing(
        first in 0..400_u64, bytes in 200..3_000_usize, betweens in betweens(),
        kind in prop::sample::select(&Crash::ALL[..]), seed: u64,
    ) {
        let (old, new) = (SimDisk::new(), SimDisk::new());
        let mut store = open(&old, CACHE_BYTES).expect("it is new");
        apply(&mut store, first);
        store.checkpoint_with(Some(b"whose it is")).expect("the disk works");
        let done = Cell::new(0);
        rewrite(&mut store, engine(&new, CACHE_BYTES).expect("it is new"), bytes, &betweens, |whole| {
            let crashed = new.crash(kind, &mut Random::new(seed));
            let engine = engine(&crashed, CACHE_BYTES).expect("a crash damages nothing");
            let label = engine.label().expect("it can be read");
            assert_eq!(&label[..], if whole { &b"whose it is"[..] } else { b"" }, "nobody takes a half for whole");
            if whole {
                let crashed = Store::open(engine).expect("it is whole");
                // Its log is fed again from there.
                let mut alone = Store::open(MemoryEngine::default()).expect("memory does not fail");
                apply(&mut alone, crashed.applied().0);
                assert!(crashed.applied() >= Index(first));
                assert_eq!(crashed.hash_kv(0), alone.hash_kv(0));
                done.set(done.get() + 1);
            }
        })?;
        prop_assert_eq!(done.get(), 1);
        let (flushed, hash) = (store.checkpoint().expect("the disk works"), store.hash_kv(0));
        drop(store);
        let again = open(&new, CACHE_BYTES).expect("it is whole");
        prop_assert_eq!((again.applied(), again.hash_kv(0)), (flushed, hash));
    }
}

#[test]
fn a_rewrite_for_which_too_much_waits_comes_to_nothing_and_the_next_one_may_succeed() {
    let mut store = Store::open(MemoryEngine::default()).expect("memory does not fail");
    apply(&mut store, 300);
    let mut rewrite = store.begin_rewrite(MemoryEngine::default(), 5_000).expect("it works");
    let part = store.rewrite_part().expect("nothing stops it");
    rewrite.step(&part, 100).expect("it works");
    apply(&mut store, 300);
    store.flush().expect("it works");
    assert_eq!(store.rewrite_part().err(), Some(RewriteError::TooMuch));
    assert_eq!(store.finish_rewrite(rewrite).err(), Some(RewriteError::TooMuch));
    let before = seen(&store);
    let rewrite = store.begin_rewrite(MemoryEngine::default(), BOUND).expect("it works");
    let rewritten = store.finish_rewrite(rewrite).expect("nothing stops it");
    store.move_to(rewritten);
    assert_eq!(seen(&store), before);
}

#[test]
fn a_rewrite_that_is_forgotten_or_is_of_another_store_comes_to_nothing() {
    let mut store = Store::open(MemoryEngine::default()).expect("memory does not fail");
    apply(&mut store, 30);
    let rewrite = store.begin_rewrite(MemoryEngine::default(), BOUND).expect("it works");
    store.forget_rewrite();
    assert_eq!(store.finish_rewrite(rewrite).err(), Some(RewriteError::Cancelled));
    let rewrite = store.begin_rewrite(MemoryEngine::default(), BOUND).expect("it works");
    let mut other = Store::open(MemoryEngine::default()).expect("memory does not fail");
    apply(&mut other, 40);
    assert_eq!(other.finish_rewrite(rewrite).err(), Some(RewriteError::Cancelled));
    // Nor may one that is older than the last that was begun have its way.
    let mut older = store.begin_rewrite(MemoryEngine::default(), BOUND).expect("it works");
    let part = store.rewrite_part().expect("nothing stops it");
    older.step(&part, usize::MAX).expect("it works");
    apply(&mut store, 30);
    store.flush().expect("it works");
    let newer = store.begin_rewrite(MemoryEngine::default(), BOUND).expect("it works");
    assert_eq!(store.finish_rewrite(older).err(), Some(RewriteError::Different));
    let before = seen(&store);
    let rewritten = store.finish_rewrite(newer).expect("nothing stops it");
    store.move_to(rewritten);
    assert_eq!(seen(&store), before);
}

/// A disk that fails when so many bytes are written.
#[derive(Debug)]
struct Narrow(OnDisk<SimFile>, Arc<AtomicU64>);

impl StorageBackend for Narrow {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let left = self.1.load(Ordering::Relaxed).checked_sub(data.len() as u64);
        self.1.store(left.ok_or(io::ErrorKind::StorageFull)?, Ordering::Relaxed);
        self.0.write(offset, data)
    }
}

#[test]
fn a_new_engine_whose_disk_is_full_harms_nothing() {
    let mut store = open(&SimDisk::new(), CACHE_BYTES).expect("it is new");
    apply(&mut store, 2_000);
    store.checkpoint().expect("the disk works");
    let mut failed = 0;
    for room in (0..3_000_000).step_by(200_000) {
        let before = seen(&store);
        let narrow = Narrow(OnDisk::new(file(&SimDisk::new())), Arc::new(AtomicU64::new(u64::MAX)));
        let left = Arc::clone(&narrow.1);
        let mut rewrite =
            store.begin_rewrite(RedbEngine::with_backend(narrow, 0).expect("it is new"), BOUND).expect("it works");
        left.store(room, Ordering::Relaxed);
        let outcome = loop {
            match store.rewrite_part().map(|part| rewrite.step(&part, 20_000)).expect("the old one works") {
                Ok(true) => break store.finish_rewrite(rewrite).map_err(|error| error.to_string()),
                Ok(false) => {}
                Err(error) => break Err(error.to_string()),
            }
        };
        if let Err(error) = outcome {
            assert!(error.contains("could not"), "{error}");
            failed += 1;
        }
        store.forget_rewrite();
        assert_eq!(seen(&store), before);
        apply(&mut store, 50);
        store.flush().expect("the disk works");
        assert_eq!(store.fault(), None);
    }
    assert!((2..15).contains(&failed), "{failed} of 15 failed");
}

#[test]
fn a_file_of_deleted_keys_gets_small_and_a_view_of_the_old_one_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = |name: &str| RedbEngine::open(&folder.path().join(name), 1 << 20).expect("it can be made");
    let mut store = Store::open(engine("old")).expect("it is new");
    for index in 1..=4_000 {
        let put = PutRequest { key: format!("k{index}").into(), value: vec![7; 2_000].into(), ..PutRequest::default() };
        store.apply_command(Index(index), &Command::Put(put)).expect("nothing forbids it");
    }
    let view = store.dump().expect("it is whole");
    let mut before = Vec::new();
    view.write_to(&mut before).expect("memory takes it");
    let delete = DeleteRangeRequest { key: "k12".into(), range_end: "z".into(), prev_kv: false };
    store.apply_command(Index(4_001), &Command::DeleteRange(delete)).expect("nothing forbids it");
    let revision = store.revision();
    let compaction = CompactionRequest { revision, physical: false };
    store.apply_command(Index(4_002), &Command::Compact(compaction)).expect("nothing forbids it");
    while !store.scrub(1_000).expect("the disk works").done {}
    store.checkpoint().expect("the disk works");

    let (grown, left) = (store.size(), store.range(&everything()).expect("it is read"));
    assert!(grown.total > 8_000_000, "{grown:?}");
    let mut rewrite = store.begin_rewrite(engine("new"), BOUND).expect("it works");
    while !rewrite.step(&store.rewrite_part().expect("nothing stops it"), 100_000).expect("it works") {}
    let rewritten = store.finish_rewrite(rewrite).expect("nothing stops it");
    drop(store.move_to(rewritten));
    let size = store.size();
    assert!(size.total < grown.total / 3 && size.in_use == grown.in_use, "{size:?} after {grown:?}");
    assert_eq!(store.range(&everything()).expect("it is read"), left);
    let mut after = Vec::new();
    view.write_to(&mut after).expect("memory takes it");
    assert!(before == after, "the view has changed");
}

#[test]
fn room_is_seen_also_where_the_file_got_another_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, other) = (folder.path().join("new"), folder.path().join("state"));
    let engine = RedbEngine::open(&path, 1 << 20).expect("it can be made");
    std::fs::rename(&path, &other).expect("it is ours");
    assert!(engine.has_room(0) && !engine.has_room(u64::MAX / 4), "no disk has that much");
}
