//! The state that a leader sends: any bytes, with and without right checksums.
#![no_main]

use bowline_kv::store::{Command, MemoryEngine, PutRequest, Store, fuzz_restore};
use bowline_node::StateMachine;
use bowline_raft::Index;
use libfuzzer_sys::fuzz_target;

/// Of a snapshot's head, and of what stands before a block.
const HEAD_BYTES: usize = 38;
const BEFORE_BLOCK: usize = 8;
/// Of what stands behind the last block.
const END_BYTES: usize = 20;

fuzz_target!(
    init: bowline_fuzz::seed(seeds()),
    |data: &[u8]| fuzz_restore(data)
);

fn seeds() -> Vec<Vec<u8>> {
    let mut store = Store::open(MemoryEngine::default()).expect("it is empty");
    for index in 1..=4 {
        let key = if index % 2 == 0 { "a" } else { "b" };
        let put = PutRequest { key: key.into(), value: "v".into(), ..PutRequest::default() };
        let _ = store.apply_command(Index(index), &Command::Put(put));
    }
    let snapshot = store.snapshot();
    let block = &snapshot[HEAD_BYTES + BEFORE_BLOCK..snapshot.len() - END_BYTES];
    vec![[&[0], &snapshot[..]].concat(), [&[1, 4, 5, 0], block].concat()]
}
