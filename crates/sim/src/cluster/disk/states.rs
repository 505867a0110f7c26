//! The files that hold the state, as on a server: the one in use, and new ones that may replace it.
//!
//! The rules are those of the server's `state_files.rs`, over the simulated disk: `state.redb` is in use; a leader's
//! snapshot is restored into `state-<number>.new`, which is renamed to `state.redb` once the log begins after the
//! snapshot; a damaged file is set aside; a file that can't be read *now* is left where it is.

use bowline_kv::store::{Engine as _, EngineError, OnDisk, RedbEngine, RestoreError, Store};
use bowline_raft::SnapshotHeader;
use bowline_storage::{Disk as _, DiskError, Identity, KeptState, Label, OpenError, SimDisk};

use crate::cluster::machine::{Machine, parts};

pub(super) const IN_USE: &str = "state.redb";
const DAMAGED: &str = "state.damaged";
/// The cache is small, so that much is written before a sync.
const CACHE_BYTES: usize = 64 << 10;

/// The state files of a replica.
#[derive(Debug)]
pub(crate) struct States {
    disk: SimDisk,
    identity: Identity,
    /// How many new files were made.
    made: u64,
    /// The file in use was damaged.
    pub(crate) damaged: bool,
}

/// A restored state, durable in a file of its own.
#[derive(Debug)]
pub(crate) struct NewState {
    machine: Machine,
    path: String,
}

/// A state that was found.
pub(super) struct Found {
    path: String,
    machine: Machine,
    header: Option<SnapshotHeader>,
}

impl Found {
    pub(super) fn kept(&self) -> KeptState {
        KeptState { applied: self.machine.applied(), header: self.header.clone() }
    }
}

impl States {
    pub(super) fn new(disk: &SimDisk, identity: Identity) -> States {
        States { disk: disk.clone(), identity, made: 0, damaged: false }
    }

    /// Opens all states that are whole, the one in use first.
    ///
    /// # Errors
    /// A state can't be read now.
    pub(super) fn find(&mut self) -> Result<Vec<Found>, OpenError> {
        let mut paths = self.new_ones()?;
        if self.disk.list("")?.iter().any(|name| name == IN_USE) {
            paths.insert(0, IN_USE.to_owned());
        }
        let mut found = Vec::new();
        for path in paths {
            match self.open(&path) {
                Ok((machine, header)) => found.push(Found { path, machine, header }),
                Err(error) if error.is_refusal() => return Err(unusable(&error)),
                // A restore that didn't finish.
                Err(_) if path != IN_USE => self.disk.remove(&path)?,
                Err(_) => {
                    self.damaged = true;
                    self.disk.rename(IN_USE, DAMAGED)?;
                }
            }
        }
        Ok(found)
    }

    /// Puts one of the states into use and removes the others.
    pub(super) fn choose(&self, mut found: Vec<Found>, chosen: usize) -> Result<Machine, OpenError> {
        let Found { path, machine, .. } = found.swap_remove(chosen);
        drop(found);
        if path != IN_USE {
            self.disk.rename(&path, IN_USE)?;
        }
        self.remove_new_ones()?;
        Ok(machine)
    }

    /// Puts an empty state into use, in place of all others.
    pub(super) fn found_anew(&self) -> Result<Machine, OpenError> {
        self.disk.remove(IN_USE)?;
        self.remove_new_ones()?;
        let store = self.make(IN_USE).and_then(Store::open).map_err(|error| unusable(&error))?;
        let mut machine = Machine::on_disk(store, 0, 0);
        machine.checkpoint(self.identity, None).map_err(|error| unusable(&error))?;
        self.disk.sync_dir("")?;
        Ok(machine)
    }

    /// Restores a snapshot into a file of its own, durably.
    ///
    /// # Errors
    /// It isn't a valid snapshot, or the disk fails. The file is removed if possible.
    pub(crate) fn restore(&mut self, header: &SnapshotHeader, snapshot: &[u8]) -> Result<NewState, RestoreError> {
        self.made += 1;
        let path = format!("state-{}.new", self.made);
        let restored = self.restore_to(&path, header, snapshot);
        if restored.is_err() {
            // If this fails, the next start removes it.
            let _ = self.disk.remove(&path);
        }
        Ok(NewState { machine: restored?, path })
    }

    fn restore_to(&self, path: &str, header: &SnapshotHeader, snapshot: &[u8]) -> Result<Machine, RestoreError> {
        let invalid = |what: String| RestoreError::Invalid(what);
        let (last, digest, state) = parts(snapshot).map_err(|error| invalid(error.to_string()))?;
        let [b's', rest @ ..] = state else { return Err(invalid("it isn't a store's".to_owned())) };
        let mut rest = rest;
        let store = Store::restore_from(self.make(path)?, &mut rest)?;
        let (applied, index) = (store.applied(), header.position.index);
        if applied != index || !rest.is_empty() {
            return Err(invalid(format!("it reaches up to {applied}, but its header says {index}")));
        }
        let mut machine = Machine::on_disk(store, last, digest);
        machine.checkpoint(self.identity, Some(header))?;
        // The file's name must survive a crash too.
        self.disk.sync_dir("").map_err(|error| refused("make its file", error))?;
        Ok(machine)
    }

    /// Puts a new state into use, durably: its file replaces the one in use.
    pub(crate) fn install(&self, new: NewState) -> Result<Machine, DiskError> {
        self.disk.rename(&new.path, IN_USE)?;
        self.disk.sync_dir("")?;
        Ok(new.machine)
    }

    /// Removes a new state that isn't needed.
    pub(crate) fn discard(&self, new: NewState) {
        let NewState { machine, path } = new;
        drop(machine);
        // If this fails, the next start removes it.
        let _ = self.disk.remove(&path);
    }

    /// Makes a state durable, with the header that describes it.
    pub(crate) fn checkpoint(&self, machine: &mut Machine, header: &SnapshotHeader) -> Result<(), EngineError> {
        machine.checkpoint(self.identity, Some(header))
    }

    /// Free bytes on the disk.
    pub(crate) fn free(&self) -> u64 {
        self.disk.free()
    }

    fn make(&self, path: &str) -> Result<RedbEngine, EngineError> {
        let file = self.disk.create(path).map_err(|error| refused("make its file", error))?;
        RedbEngine::with_backend(OnDisk::new(file), CACHE_BYTES)
    }

    fn open(&self, path: &str) -> Result<(Machine, Option<SnapshotHeader>), EngineError> {
        let file = self.disk.open(path).map_err(|error| refused("open its file", error))?;
        let store = Store::open(RedbEngine::with_backend(OnDisk::new(file), CACHE_BYTES)?)?;
        let label = Label::decode(&store.engine().label()?).map_err(|error| EngineError::new("be used", error))?;
        let (words, []) = label.note.as_chunks::<8>() else { return Err(EngineError::new("be used", "its note")) };
        match (label.identity == self.identity, words) {
            (true, [last, digest]) => {
                let machine = Machine::on_disk(store, u64::from_le_bytes(*last), u64::from_le_bytes(*digest));
                Ok((machine, label.header))
            }
            _ => Err(EngineError::new("be used", format!("it belongs to {}", label.identity))),
        }
    }

    fn new_ones(&self) -> Result<Vec<String>, DiskError> {
        let names = self.disk.list("")?;
        Ok(names.into_iter().filter(|name| name.starts_with("state-") && name.ends_with(".new")).collect())
    }

    fn remove_new_ones(&self) -> Result<(), DiskError> {
        for path in self.new_ones()? {
            self.disk.remove(&path)?;
        }
        self.disk.sync_dir("")
    }
}

fn refused(action: &'static str, error: DiskError) -> EngineError {
    EngineError::refused(action, error)
}

fn unusable(error: &EngineError) -> OpenError {
    OpenError::State { place: "simulated disk".to_owned(), why: error.to_string() }
}
