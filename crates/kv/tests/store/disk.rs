//! redb on a disk that loses what was not synced, and on one that flips bits.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use bowline_kv::store::*;
use bowline_node::raft::Index;
use proptest::prelude::*;
use redb::StorageBackend;

use crate::bench::*;

/// What is on the disk, and what was written since the last sync.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
}

impl State {
    /// The disk after a loss of power: of what was not synced, anything may have reached it.
    pub(crate) fn after_crash(mut self, survives: impl Fn(usize) -> bool) -> Disk {
        for (place, (offset, data)) in self.unsynced.iter().enumerate() {
            let (start, end) = (*offset as usize, *offset as usize + data.len());
            if survives(place) {
                self.durable.resize(self.durable.len().max(end), 0);
                self.durable[start..end].copy_from_slice(data);
            }
        }
        self.durable.resize(self.durable.len().max(self.current.len()), 0);
        Disk(Arc::new(Mutex::new(State { current: self.durable.clone(), durable: self.durable, unsynced: vec![] })))
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with it")
    }

    pub(crate) fn engine(&self) -> Result<RedbEngine, EngineError> {
        RedbEngine::with_backend(self.clone(), 1 << 20)
    }

    pub(crate) fn store(&self) -> Result<Store<RedbEngine>, EngineError> {
        Store::open(self.engine()?)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let found = state.current.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state().current.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.durable = state.current.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.current[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        state.unsynced.push((offset, data.to_vec()));
        Ok(())
    }
}

/// Applies so many entries behind those that were applied, each on one of a few keys.
pub(crate) fn apply<E: Engine>(store: &mut Store<E>, entries: u64) {
    for _ in 0..entries {
        let index = store.applied().0 + 1;
        let command = match index % 7 {
            6 => Command::DeleteRange(delete(&format!("k{}", index % 5), "")),
            5 => Command::Compact(CompactionRequest { revision: store.revision() - 3, physical: false }),
            _ => Command::Put(put(&format!("k{}", index % 11), &"v".repeat(index as usize % 300))),
        };
        // A compaction may be refused; it is the same on each run.
        let _ = store.apply_command(Index(index), &command);
        assert_eq!(store.fault(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_crash_leaves_the_state_of_a_checkpoint_whole(
        rounds in prop::collection::vec((1..60_u64, any::<bool>(), any::<bool>()), 1..6), mask: u64,
    ) {
        let disk = Disk::default();
        let mut store = disk.store().expect("it is new");
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
        let crashed = disk.state().clone().after_crash(|place| mask >> (place % 64) & 1 == 1);
        let mut again = crashed.store().expect("a crash damages nothing");
        prop_assert_eq!((again.applied(), again.hash_kv(0)), safe);
        // The log is fed again from there.
        let entries = end.0 - again.applied().0;
        apply(&mut again, entries);
        prop_assert_eq!((again.applied(), again.hash_kv(0)), (end, hash));
    }
}

#[test]
fn a_flipped_bit_is_found_or_harmless() {
    let disk = Disk::default();
    let mut store = disk.store().expect("it is new");
    apply(&mut store, 3000);
    store.checkpoint().expect("the disk works");
    let (revision, hash) = (store.revision(), store.hash_kv(0));
    drop(store);
    let image = disk.state().current.clone();
    let (mut found, mut harmless) = (0, 0);
    for place in (0..image.len()).step_by(image.len() / 150) {
        let mut damaged = image.clone();
        damaged[place] ^= 0x10;
        let state = State { durable: damaged.clone(), current: damaged, unsynced: vec![] };
        let disk = Disk(Arc::new(Mutex::new(state)));
        let opened = catch_unwind(AssertUnwindSafe(|| disk.store())).unwrap_or_else(|_| panic!("byte {place} panics"));
        match opened {
            Err(_) => found += 1,
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
    let disk = Disk::default();
    let mut store = disk.store().expect("it is new");
    assert_eq!(store.engine().label().expect("it can be read"), "");
    apply(&mut store, 10);
    store.checkpoint_with(Some(b"at 10")).expect("the disk works");
    apply(&mut store, 10);
    store.pass_over(Index(25));
    store.checkpoint().expect("the disk works");
    apply(&mut store, 10);
    store.flush().expect("the disk works");
    let crashed = disk.state().clone().after_crash(|_| false).store().expect("a crash damages nothing");
    assert_eq!(crashed.engine().label().expect("it can be read"), "at 10");
    assert_eq!(crashed.applied(), Index(25), "entries that are no commands count too");
}
