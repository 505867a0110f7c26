//! What the threads of a replica share: the state machine, numbers about it, and new states that are to replace it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use bowline_kv::store::Members;
use bowline_node::SnapshotTransfer;
use bowline_node::raft::SnapshotHeader;
use bowline_storage::RealDisk;

use super::rewriting::{GivenUp, Rewriting};
use crate::watches::Watches;
use bowline_member::Facts;
use bowline_member::KvMachine;
use bowline_member::NewState;

/// A state machine that was restored from a leader's snapshot, durably, in a file beside the one in use.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) transfer: SnapshotTransfer,
    pub(crate) header: SnapshotHeader,
    pub(crate) state: NewState<RealDisk>,
}

/// The shared data of a replica. One thread changes the state machine, many read it.
#[derive(Debug)]
pub(crate) struct Shared {
    machine: RwLock<KvMachine>,
    watches: Watches,
    facts: Mutex<(Facts, Arc<Members>)>,
    /// Whether the state machine's disk has room.
    room: AtomicBool,
    /// A restored state, until the core accepts or discards it.
    restored: Mutex<Option<Restored>>,
    /// An accepted state, until it is installed.
    accepted: Mutex<Option<Restored>>,
    /// A rewrite that has ended, until the apply thread takes it.
    rewritten: Mutex<Option<Result<Rewriting, GivenUp>>>,
}

impl Shared {
    pub(crate) fn new(machine: KvMachine) -> Shared {
        let (facts, members) = (machine.facts(), machine.members());
        let (watches, facts) = (Watches::new(facts.revision), Mutex::new((facts, members)));
        Shared {
            machine: RwLock::new(machine),
            watches,
            facts,
            room: AtomicBool::new(true),
            restored: Mutex::default(),
            accepted: Mutex::default(),
            rewritten: Mutex::default(),
        }
    }

    /// Whether the state's disk has room. If not, no more should be written.
    pub(crate) fn has_room(&self) -> bool {
        self.room.load(Ordering::Relaxed)
    }

    /// For the apply thread. Returns the previous value.
    pub(crate) fn set_room(&self, room: bool) -> bool {
        self.room.swap(room, Ordering::Relaxed)
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, KvMachine> {
        // A panic during a change ends the apply thread, and with it the replica.
        self.machine.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Like [`Shared::read`]; `None` if it would have to wait.
    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, KvMachine>> {
        match self.machine.try_read() {
            Ok(machine) => Some(machine),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// For the apply thread.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, KvMachine> {
        self.machine.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The watches of the member.
    pub(crate) fn watches(&self) -> &Watches {
        &self.watches
    }

    pub(crate) fn facts(&self) -> Facts {
        locked(&self.facts).0
    }

    /// For a change that leaves the members as they are.
    pub(crate) fn set_facts(&self, facts: Facts) {
        locked(&self.facts).0 = facts;
    }

    /// The facts, and the records of the members at the same moment.
    pub(crate) fn published(&self) -> (Facts, Arc<Members>) {
        locked(&self.facts).clone()
    }

    pub(crate) fn publish(&self, facts: Facts, members: Arc<Members>) {
        *locked(&self.facts) = (facts, members);
    }

    pub(crate) fn put_restored(&self, restored: Option<Restored>) {
        *locked(&self.restored) = restored;
    }

    pub(crate) fn put_rewritten(&self, rewritten: Option<Result<Rewriting, GivenUp>>) {
        let before = std::mem::replace(&mut *locked(&self.rewritten), rewritten);
        // This removes its file, after the lock is released.
        drop(before);
    }

    pub(crate) fn take_rewritten(&self) -> Option<Result<Rewriting, GivenUp>> {
        locked(&self.rewritten).take()
    }

    pub(crate) fn discard(&self, transfer: SnapshotTransfer) {
        let of_it = locked(&self.restored).take_if(|restored| restored.transfer == transfer);
        // This removes its file, after the lock is released.
        drop(of_it);
    }

    pub(crate) fn accept(&self, header: &SnapshotHeader) {
        let restored = locked(&self.restored).take().filter(|restored| restored.header == *header);
        *locked(&self.accepted) = Some(restored.expect("the core takes what has just arrived"));
    }

    pub(crate) fn take_accepted(&self, header: &SnapshotHeader) -> Restored {
        let accepted = locked(&self.accepted).take().filter(|accepted| accepted.header == *header);
        accepted.expect("the core installs what it has decided for")
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is complete before the lock is released, even after a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
