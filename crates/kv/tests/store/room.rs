//! An engine without room: what was applied waits, and is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bowline_kv::store::*;
use bowline_node::raft::Index;
use bytes::Bytes;

/// A memory that breaks when it is written to while it has no room.
#[derive(Debug, Default)]
struct Narrow {
    memory: MemoryEngine,
    full: Arc<AtomicBool>,
}

impl Engine for Narrow {
    type Reader<'a> = &'a MemoryRecords;
    type View = MemoryRecords;

    fn meta(&self) -> Result<Bytes, EngineError> {
        self.memory.meta()
    }
    fn label(&self) -> Result<Bytes, EngineError> {
        self.memory.label()
    }
    fn reader(&self) -> Result<&MemoryRecords, EngineError> {
        self.memory.reader()
    }
    fn view(&self) -> Result<MemoryRecords, EngineError> {
        self.memory.view()
    }
    fn write(&mut self, batch: &Batch<'_>) -> Result<(), EngineError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(EngineError::new("commit a batch", "no space left"));
        }
        self.memory.write(batch)
    }
    fn checkpoint(&mut self, label: Option<&[u8]>) -> Result<(), EngineError> {
        self.memory.checkpoint(label)
    }
    fn size(&self) -> EngineSize {
        self.memory.size()
    }
    fn has_room(&self, _bytes: u64) -> bool {
        !self.full.load(Ordering::Relaxed)
    }
}

#[test]
fn without_room_what_was_applied_waits_and_is_read_and_nothing_breaks() {
    let full = Arc::new(AtomicBool::new(false));
    let mut store = Store::open(Narrow { full: Arc::clone(&full), ..Narrow::default() }).expect("a new memory");
    full.store(true, Ordering::Relaxed);
    let put = |index: u64| {
        Command::Put(PutRequest { key: format!("k{index}").into(), value: "v".into(), ..PutRequest::default() })
    };
    for index in 1..=3_000 {
        store.apply_command(Index(index), &put(index)).expect("nothing forbids it");
    }
    assert!(store.is_flush_due() && !store.has_room() && store.fault().is_none());
    let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..RangeRequest::default() };
    assert_eq!(store.range(&all).expect("it is read").count, 3_000);

    full.store(false, Ordering::Relaxed);
    store.apply_command(Index(3_001), &put(3_001)).expect("nothing forbids it");
    assert!(!store.is_flush_due() && store.fault().is_none());
    assert_eq!(store.range(&all).expect("it is read").count, 3_001);
}
