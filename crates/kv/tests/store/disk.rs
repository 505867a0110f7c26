//! redb on a disk that loses what was not synced, and on one that flips bits.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bowline_kv::store::*;
use bowline_node::raft::{Index, Random};
use bowline_storage::{Crash, Disk, Injection, Operation, SimDisk, SimFile};
use proptest::prelude::*;

use crate::bench::*;

const FILE: &str = "state.redb";

/// The engine on a disk, which is made if it isn't there.
pub(crate) fn engine(disk: &SimDisk, cache_bytes: usize) -> Result<RedbEngine, EngineError> {
    RedbEngine::with_backend(OnDisk::new(file(disk)), cache_bytes)
}

/// Its file.
pub(crate) fn file(disk: &SimDisk) -> SimFile {
    disk.open(FILE).unwrap_or_else(|_| {
        let file = disk.create(FILE).expect("the disk takes it");
        disk.sync_dir("").expect("the disk works");
        file
    })
}

/// The store in it.
pub(crate) fn open(disk: &SimDisk, cache_bytes: usize) -> Result<Store<RedbEngine>, EngineError> {
    Store::open(engine(disk, cache_bytes)?)
}

/// Applies so many entries behind those that were applied, each on one of a few keys.
pub(crate) fn apply<E: Engine>(store: &mut Store<E>, entries: u64) {
    for _ in 0..entries {
        let index = store.applied().0 + 1;
        let lease = index as i64 % 4 + 1;
        let command = match index % 9 {
            8 => Command::LeaseRevoke(LeaseRevokeRequest { id: lease }),
            7 => Command::LeaseGrant(LeaseGrantRequest { id: lease, ttl: 10 }),
            6 => Command::DeleteRange(delete(&format!("k{}", index % 5), "")),
            5 => Command::Compact(CompactionRequest { revision: store.revision() - 3, physical: false }),
            _ => Command::Put(PutRequest {
                lease: store.lease(lease).map_or(0, |lease| lease.id),
                ..put(&format!("k{}", index % 11), &"v".repeat(index as usize % 300))
            }),
        };
        // A few are refused; they are the same on each run.
        let _ = store.apply_command(Index(index), &command);
        assert_eq!(store.fault(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_crash_leaves_the_state_of_a_checkpoint_whole(
        rounds in prop::collection::vec((1..60_u64, any::<bool>(), any::<bool>()), 1..6),
        kind in prop::sample::select(&Crash::ALL[..]), seed: u64, small: bool,
    ) {
        let disk = SimDisk::new();
        // With a small cache, much is written before anybody syncs.
        let cache = if small { 16 << 10 } else { 1 << 20 };
        let mut store = open(&disk, cache).expect("it is new");
        let mut safe = (Index(0), store.hash_kv(0));
        for (entries, checkpoint, scrub) in rounds {
            apply(&mut store, entries);
            if scrub {
                store.scrub(7).expect("the disk works");
            }
            store.flush().expect("the disk works");
            if checkpoint {
                safe = (store.checkpoint().expect("the disk works"), store.hash_kv(0));
            }
        }
        let (end, hash) = (store.applied(), store.hash_kv(0));
        let crashed = disk.crash(kind, &mut Random::new(seed));
        let mut again = open(&crashed, cache).expect("a crash damages nothing");
        prop_assert_eq!((again.applied(), again.hash_kv(0)), safe);
        // The log is fed again from there.
        let entries = end.0 - again.applied().0;
        apply(&mut again, entries);
        prop_assert_eq!((again.applied(), again.hash_kv(0)), (end, hash));
    }
}

/// etcd#17780: it took the revision from the newest record that a compaction had left.
#[test]
fn a_crash_within_a_compaction_takes_no_revision_back() {
    for steps in 0..6 {
        for kind in Crash::ALL {
            let disk = SimDisk::new();
            let mut store = open(&disk, 1 << 20).expect("it is new");
            let commands = [
                put("k", "v").into(),
                delete("k", "").into(),
                CompactionRequest { revision: 3, physical: true }.into(),
            ];
            let mut next = 1;
            for command in commands {
                store.apply_command(Index(next), &command).expect("nothing forbids it");
                next += 1;
            }
            for _ in 0..steps {
                store.scrub(1).expect("the disk works");
                store.checkpoint().expect("the disk works");
            }
            let mut again = open(&disk.crash(kind, &mut Random::new(steps)), 1 << 20).expect("a crash damages nothing");
            let durable = if steps == 0 { (1, -1) } else { (3, 3) };
            assert_eq!((again.revision(), again.compacted_revision()), durable, "after {steps} steps");
            if steps > 0 {
                let put: Command = put("k", "v").into();
                let reply = again.apply_command(Index(next), &put).expect("nothing forbids it");
                assert_eq!(reply.revision(), 4, "after {steps} steps");
            }
        }
    }
}

#[test]
fn a_flipped_bit_is_found_or_harmless() {
    let disk = SimDisk::new();
    let mut store = open(&disk, 1 << 20).expect("it is new");
    apply(&mut store, 3000);
    store.checkpoint().expect("the disk works");
    let (revision, hash) = (store.revision(), store.hash_kv(0));
    drop(store);
    let image = disk.content(FILE).expect("it is there");
    let (mut found, mut harmless) = (0, 0);
    for place in (0..image.len()).step_by(image.len() / 1_000) {
        let disk = SimDisk::new();
        disk.put(FILE, image.clone());
        disk.damage(FILE, |bytes| bytes[place] ^= 0x10);
        let opened = catch_unwind(AssertUnwindSafe(|| open(&disk, 1 << 20)));
        match opened.unwrap_or_else(|_| panic!("byte {place} panics")) {
            Err(error) => {
                assert!(!error.is_refusal(), "byte {place} is taken for a disk that can't be read now: {error}");
                found += 1;
            }
            Ok(store) => {
                assert_eq!((store.revision(), store.hash_kv(0)), (revision, hash), "byte {place} is believed");
                harmless += 1;
            }
        }
    }
    assert!(found > 0, "{found} found, {harmless} harmless");
}

#[test]
fn a_label_is_kept_with_the_checkpoint_that_it_came_with() {
    let disk = SimDisk::new();
    let mut store = open(&disk, 1 << 20).expect("it is new");
    assert_eq!(store.engine().label().expect("it can be read"), "");
    apply(&mut store, 10);
    store.checkpoint_with(Some(b"at 10")).expect("the disk works");
    apply(&mut store, 10);
    store.pass_over(Index(25));
    store.checkpoint().expect("the disk works");
    apply(&mut store, 10);
    store.flush().expect("the disk works");
    let crashed = open(&disk.crash(Crash::KeepNone, &mut Random::new(0)), 1 << 20).expect("a crash damages nothing");
    assert_eq!(crashed.engine().label().expect("it can be read"), "at 10");
    assert_eq!(crashed.applied(), Index(25), "entries that are no commands count too");
}

#[test]
fn a_disk_that_refuses_is_not_taken_for_damage() {
    let disk = SimDisk::new();
    let mut store = open(&disk, 1 << 20).expect("it is new");
    apply(&mut store, 100);
    store.checkpoint().expect("the disk works");
    let hash = store.hash_kv(0);
    for (operation, skip) in [Operation::Read, Operation::Write, Operation::Sync].into_iter().zip([3, 0, 0]) {
        let disk = disk.fork();
        disk.inject(Injection::Fail { operation, skip });
        let error = open(&disk, 1 << 20).expect_err("it can't be opened");
        assert!(error.is_refusal(), "{operation:?}: {error}");
        assert_eq!(open(&disk, 1 << 20).expect("nothing is lost").hash_kv(0), hash);
    }
}
