//! The multi-version store as the state machine of a server.

use std::cell::RefCell;

use bowline_kv::store::{MemoryEngine, Store};
use bowline_node::raft::Index;
use bowline_node::{InvalidSnapshot, Recall, StateMachine};
use bytes::Bytes;

use crate::replica::{Facts, Machine};

/// Records that a step of removing old revisions looks at.
const SCRUB_BUDGET: usize = 256;

/// The store, in memory: what makes it durable is the log, and the snapshots.
#[derive(Debug)]
pub struct KvMachine {
    /// The node owns its state machine and lets others only look at it; removing what nobody can see any more
    /// changes nothing that they could see.
    store: RefCell<Store<MemoryEngine>>,
}

impl KvMachine {
    /// An empty store.
    #[must_use]
    pub fn new() -> KvMachine {
        let store = Store::open(MemoryEngine::default()).expect("an empty memory can be read");
        KvMachine { store: RefCell::new(store) }
    }
}

impl Default for KvMachine {
    fn default() -> KvMachine {
        KvMachine::new()
    }
}

impl StateMachine for KvMachine {
    fn apply(&mut self, index: Index, command: &[u8]) -> Bytes {
        self.store.get_mut().apply(index, command)
    }

    fn query(&self, query: &[u8]) -> Bytes {
        self.store.borrow().query(query)
    }

    fn recall(&self, command: &[u8], proposed_at: Index) -> Recall {
        self.store.borrow().recall(command, proposed_at)
    }

    fn snapshot(&self) -> Bytes {
        self.store.borrow().snapshot()
    }

    fn restore(snapshot: &[u8]) -> Result<KvMachine, InvalidSnapshot> {
        Ok(KvMachine { store: RefCell::new(Store::restore(snapshot)?) })
    }
}

impl Machine for KvMachine {
    fn facts(&self) -> Facts {
        let store = self.store.borrow();
        let status = store.status();
        let compacted = status.compact_revision;
        Facts {
            revision: status.revision,
            compact_revision: compacted,
            scrubbed_revision: if store.is_scrubbed(compacted) { compacted } else { -1 },
            keys: status.keys,
            db_size: status.db_size,
        }
    }

    fn tidy(&self) -> bool {
        let mut store = self.store.borrow_mut();
        let compacted = store.compacted_revision();
        if store.is_scrubbed(compacted) {
            return false;
        }
        // An engine in memory doesn't fail; if it did, the store would refuse everything from here on.
        store.scrub(SCRUB_BUDGET).is_ok_and(|progress| !progress.done)
    }
}
