//! What the workers of a member share: the state machine, numbers about it, and new states that are to replace it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use bowline_kv::store::AuthBook;
use bowline_node::SnapshotTransfer;
use bowline_node::raft::SnapshotHeader;

use crate::disk::StateDisk;
use crate::machine::KvMachine;
use crate::rewriting::{GivenUp, Rewriting};
use crate::state_files::NewState;
use crate::status::{Facts, Published};

/// A state machine that was restored from a leader's snapshot, durably, in a file beside the one in use.
#[derive(Debug)]
pub(crate) struct Restored<D: StateDisk> {
    /// The transfer by which it came.
    pub(crate) transfer: SnapshotTransfer,
    /// What it contains.
    pub(crate) header: SnapshotHeader,
    /// The state.
    pub(crate) state: NewState<D>,
}

/// The shared data of a member. One worker changes the state machine, many read it.
#[derive(Debug)]
pub struct Shared<D: StateDisk> {
    machine: RwLock<KvMachine>,
    published: Mutex<Published>,
    /// Whether the state machine's disk has room.
    room: AtomicBool,
    /// Whether the log's disk has room for entries.
    log_room: AtomicBool,
    /// A restored state, until the core accepts or discards it.
    restored: Mutex<Option<Restored<D>>>,
    /// The accepted states, the oldest first, until one of them or a later one is installed. Until then nobody knows
    /// after which of them the log on the disk begins.
    accepted: Mutex<VecDeque<Restored<D>>>,
    /// A rewrite that has ended, until the worker of the state takes it.
    rewritten: Mutex<Option<Result<Rewriting<D>, GivenUp>>>,
}

impl<D: StateDisk> Shared<D> {
    /// For the state of a member that starts.
    #[must_use]
    pub fn new(machine: KvMachine) -> Shared<D> {
        let published = Mutex::new(machine.published());
        Shared {
            machine: RwLock::new(machine),
            published,
            room: AtomicBool::new(true),
            log_room: AtomicBool::new(true),
            restored: Mutex::default(),
            accepted: Mutex::default(),
            rewritten: Mutex::default(),
        }
    }

    /// Whether the state's disk has room. If not, no more should be written.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.room.load(Ordering::Relaxed)
    }

    /// Whether the log has room for entries.
    #[must_use]
    pub fn log_has_room(&self) -> bool {
        self.log_room.load(Ordering::Relaxed)
    }

    /// For the worker of the log.
    pub fn set_log_room(&self, room: bool) {
        self.log_room.store(room, Ordering::Relaxed);
    }

    /// For the worker of the state. Returns the previous value.
    pub(crate) fn set_room(&self, room: bool) -> bool {
        self.room.swap(room, Ordering::Relaxed)
    }

    /// The state machine, for readers.
    pub fn read(&self) -> RwLockReadGuard<'_, KvMachine> {
        // A panic during a change ends its worker, and with it the member.
        self.machine.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Like [`Shared::read`]; `None` if it would have to wait.
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, KvMachine>> {
        match self.machine.try_read() {
            Ok(machine) => Some(machine),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// For the worker of the state.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, KvMachine> {
        self.machine.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers about the state machine.
    pub fn facts(&self) -> Facts {
        locked(&self.published).facts
    }

    /// For a change that leaves the members, users and roles as they are.
    pub(crate) fn set_facts(&self, facts: Facts) {
        locked(&self.published).facts = facts;
    }

    /// What is published of the state machine.
    pub fn published(&self) -> Published {
        locked(&self.published).clone()
    }

    /// The users and roles.
    pub fn auth(&self) -> Arc<AuthBook> {
        Arc::clone(&locked(&self.published).auth)
    }

    pub(crate) fn publish(&self, published: Published) {
        *locked(&self.published) = published;
    }

    pub(crate) fn put_restored(&self, restored: Option<Restored<D>>) {
        *locked(&self.restored) = restored;
    }

    pub(crate) fn put_rewritten(&self, rewritten: Option<Result<Rewriting<D>, GivenUp>>) {
        let before = std::mem::replace(&mut *locked(&self.rewritten), rewritten);
        // This removes its file, after the lock is released.
        drop(before);
    }

    pub(crate) fn take_rewritten(&self) -> Option<Result<Rewriting<D>, GivenUp>> {
        locked(&self.rewritten).take()
    }

    pub(crate) fn discard(&self, transfer: SnapshotTransfer) {
        let of_it = locked(&self.restored).take_if(|restored| restored.transfer == transfer);
        // This removes its file, after the lock is released.
        drop(of_it);
    }

    pub(crate) fn accept(&self, header: &SnapshotHeader) {
        let restored = locked(&self.restored).take().filter(|restored| restored.header == *header);
        let mut restored = restored.expect("the core takes what has just arrived");
        restored.state.keep();
        locked(&self.accepted).push_back(restored);
    }

    /// How many accepted states are not installed yet.
    pub(crate) fn accepted(&self) -> usize {
        locked(&self.accepted).len()
    }

    pub(crate) fn take_accepted(&self, header: &SnapshotHeader) -> Restored<D> {
        let mut accepted = locked(&self.accepted);
        let at = accepted.iter().position(|accepted| accepted.header == *header);
        let at = at.expect("the core installs what it has decided for");
        let mut up_to_it: Vec<Restored<D>> = accepted.drain(..=at).collect();
        drop(accepted);
        let installed = up_to_it.pop().expect("it is the last of them");
        // The log begins after a later state now, so these are of no use any more.
        up_to_it.into_iter().for_each(|earlier| earlier.state.discard());
        installed
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is complete before the lock is released, even after a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
