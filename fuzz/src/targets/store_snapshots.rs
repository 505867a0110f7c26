//! The state that a leader sends: any bytes, with and without right checksums.

use bowline_kv::store::{Command, LeaseGrantRequest, MemoryEngine, PutRequest, Store, fuzz_restore};
use bowline_node::StateMachine;
use bowline_raft::Index;

/// Of a snapshot's head, and of what stands before a block.
const HEAD_BYTES: usize = 38;
const BEFORE_BLOCK: usize = 8;
/// Of what stands behind the last block.
const END_BYTES: usize = 20;

pub(crate) fn run(data: &[u8]) {
    fuzz_restore(data);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut store = Store::open(MemoryEngine::default()).expect("it is empty");
    let grant = Command::LeaseGrant(LeaseGrantRequest { id: 1, ttl: 10 });
    let _ = store.apply_command(Index(1), &grant);
    for index in 2..=5 {
        let (key, lease) = if index % 2 == 0 { ("a", 1) } else { ("b", 0) };
        let put = PutRequest { key: key.into(), value: "v".into(), lease, ..PutRequest::default() };
        let _ = store.apply_command(Index(index), &Command::Put(put));
    }
    let snapshot = store.snapshot();
    let block = &snapshot[HEAD_BYTES + BEFORE_BLOCK..snapshot.len() - END_BYTES];
    vec![[&[0], &snapshot[..]].concat(), [&[1, 5, 5, 0], block].concat()]
}
