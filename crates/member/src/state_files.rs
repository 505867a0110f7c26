//! The files of the state: the one in use, and new ones that are to replace it.
//!
//! `state.redb` is in use. A leader's snapshot is restored into `state-<number>.new`, which is renamed to `state.redb`
//! once the log begins after the snapshot. On a slow disk of the log there may be several by then. Each of them stays
//! until the log begins after a later one, because a crash may leave a log that begins after any of them. If much of the
//! file in use is free, its contents are rewritten to such a new file, which is renamed as soon as it is complete. A crash
//! before that leaves all these files: the next start takes the one that fits the log (if several do, the one in use, or
//! else the oldest) and removes the others. An incomplete file has no label, so it never fits. A file in use that can't be
//! read is kept as `state.damaged`, for people to look at.

use std::fmt;
use std::io::Read;

use bowline_kv::store::{EngineError, RedbEngine, RestoreError};
use bowline_node::raft::SnapshotHeader;
use bowline_storage::{DiskError, Identity, KeptState};
use tracing::{error, info};

use crate::disk::StateDisk;
use crate::machine::KvMachine;

const IN_USE: &str = "state.redb";
const DAMAGED: &str = "state.damaged";

/// The files of a member's state.
pub struct StateFiles<D> {
    disk: D,
    identity: Identity,
    cache_bytes: usize,
    /// The number of new files so far.
    made: u64,
    /// Whether the file in use was found damaged.
    damaged: bool,
}

impl<D> fmt::Debug for StateFiles<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateFiles").field("identity", &self.identity).field("made", &self.made).finish_non_exhaustive()
    }
}

/// A new file beside the one in use. It is removed on drop unless it has replaced that, or the log may need it.
pub struct NewFile<D: StateDisk> {
    disk: D,
    path: String,
    stays: bool,
}

impl<D: StateDisk> fmt::Debug for NewFile<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<D: StateDisk> Drop for NewFile<D> {
    fn drop(&mut self) {
        if !self.stays {
            // If this fails, the next start removes it.
            let _ = self.disk.remove(&self.path);
        }
    }
}

impl<D: StateDisk> NewFile<D> {
    /// Its name in the folder.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Replaces the file in use with this one. A crash may still undo this.
    ///
    /// # Errors
    /// The disk refuses; then the file has its old name.
    pub fn take_name(&mut self) -> Result<(), DiskError> {
        self.disk.rename(&self.path, IN_USE)?;
        self.stays = true;
        Ok(())
    }

    /// Makes the replacement durable.
    ///
    /// # Errors
    /// The disk refuses; after a crash, either name may be there.
    pub fn sync_name(&self) -> Result<(), DiskError> {
        self.disk.sync_dir("")
    }
}

/// A state in a new file, which is removed on drop unless the state is kept or installed.
#[derive(Debug)]
pub struct NewState<D: StateDisk> {
    machine: KvMachine,
    file: NewFile<D>,
}

impl<D: StateDisk> NewState<D> {
    /// From now on the log on the disk may begin after this state, so its file stays, even if the process ends.
    pub(crate) fn keep(&mut self) {
        self.file.stays = true;
    }

    /// Removes a kept state. The log begins after a later one.
    pub(crate) fn discard(mut self) {
        self.file.stays = false;
    }

    /// Replaces the state in use with this one, durably.
    ///
    /// # Errors
    /// The disk refuses; after a crash, either name may be there.
    pub fn install(self) -> Result<KvMachine, DiskError> {
        let NewState { machine, mut file } = self;
        // The log begins after this state: whatever happens now, only this file fits.
        file.stays = true;
        file.take_name()?;
        file.sync_name()?;
        Ok(machine)
    }
}

/// A state that was found in the folder.
#[derive(Debug)]
pub struct FoundState {
    path: String,
    machine: KvMachine,
    header: Option<SnapshotHeader>,
}

impl FoundState {
    /// What is known of it before the log is read.
    #[must_use]
    pub fn kept(&self) -> KeptState {
        KeptState { applied: self.machine.applied(), header: self.header.clone() }
    }
}

impl<D: StateDisk> StateFiles<D> {
    /// The files in the opened folder of this member. At most `cache_bytes` of each file are kept in memory.
    #[must_use]
    pub fn new(disk: D, identity: Identity, cache_bytes: usize) -> StateFiles<D> {
        StateFiles { disk, identity, cache_bytes, made: 0, damaged: false }
    }

    /// Whether the file in use was found damaged.
    #[must_use]
    pub fn was_damaged(&self) -> bool {
        self.damaged
    }

    /// Opens the engine in a file, or makes a new file.
    ///
    /// # Errors
    /// The file can't be read or written, is in use, or is damaged.
    pub fn engine(&self, path: &str) -> Result<RedbEngine, EngineError> {
        self.disk.engine(path, self.cache_bytes)
    }

    /// Finds the complete states, the one in use first.
    ///
    /// # Errors
    /// The system refuses to read a file now, which tells nothing about its contents.
    pub fn find(&mut self) -> Result<Vec<FoundState>, EngineError> {
        let refused = |error: DiskError| EngineError::refused("list its files", error);
        let mut paths = self.new_ones().map_err(refused)?;
        if self.disk.list("").map_err(refused)?.iter().any(|name| name == IN_USE) {
            paths.insert(0, IN_USE.to_owned());
        }
        let mut found = Vec::new();
        for path in paths {
            match self.engine(&path).and_then(|engine| KvMachine::open(engine, self.identity)) {
                Ok((machine, header)) => found.push(FoundState { path, machine, header }),
                Err(error) if error.is_refusal() => return Err(error),
                Err(error) => self.set_aside(&path, &error),
            }
        }
        Ok(found)
    }

    /// Uses one of the states, and removes the others.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn choose(&self, mut found: Vec<FoundState>, chosen: usize) -> Result<KvMachine, DiskError> {
        let FoundState { path, machine, .. } = found.swap_remove(chosen);
        drop(found);
        if path != IN_USE {
            self.disk.rename(&path, IN_USE)?;
        }
        self.remove_new_ones()?;
        Ok(machine)
    }

    /// Replaces all states with an empty one.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn found_anew(&self) -> Result<KvMachine, EngineError> {
        let refused = |error: DiskError| EngineError::new("create its file", error);
        self.disk.remove(IN_USE).map_err(refused)?;
        self.remove_new_ones().map_err(refused)?;
        let machine = KvMachine::found(self.engine(IN_USE)?, self.identity)?;
        self.disk.sync_dir("").map_err(refused)?;
        Ok(machine)
    }

    /// Restores a state from a snapshot, durably in a new file.
    ///
    /// # Errors
    /// The snapshot is invalid, or the disk refuses; no file is left.
    pub fn restore(&mut self, header: &SnapshotHeader, snapshot: &mut impl Read) -> Result<NewState<D>, RestoreError> {
        let refused = |error: DiskError| EngineError::refused("make its file", error);
        let file = self.new_file().map_err(refused)?;
        let machine = KvMachine::restore(self.engine(file.path())?, self.identity, header, snapshot)?;
        // The name must survive a crash, too.
        file.sync_name().map_err(refused)?;
        Ok(NewState { machine, file })
    }

    /// Chooses the name of a new file.
    ///
    /// # Errors
    /// A left-over file of this name can't be removed.
    pub fn new_file(&mut self) -> Result<NewFile<D>, DiskError> {
        self.made += 1;
        let path = format!("state-{}.new", self.made);
        self.disk.remove(&path)?;
        Ok(NewFile { disk: self.disk.clone(), path, stays: false })
    }

    fn new_ones(&self) -> Result<Vec<String>, DiskError> {
        let mut names: Vec<String> = self.disk.list("")?.into_iter().filter(|name| is_new(name)).collect();
        // By number: the oldest first.
        names.sort_by(|one, two| (one.len(), one).cmp(&(two.len(), two)));
        Ok(names)
    }

    fn remove_new_ones(&self) -> Result<(), DiskError> {
        for path in self.new_ones()? {
            self.disk.remove(&path)?;
        }
        self.disk.sync_dir("")
    }

    fn set_aside(&mut self, file: &str, error: &EngineError) {
        if is_new(file) {
            // A restore or a rewrite that did not finish.
            info!(%file, %error, "removing an incomplete file of the state");
            let _ = self.disk.remove(file);
            return;
        }
        self.damaged = true;
        error!(%file, %error, "can't use the file of the state; keeping it as {DAMAGED}");
        if let Err(error) = self.disk.rename(file, DAMAGED) {
            error!(%error, "can't rename the file of the state to {DAMAGED}");
        }
    }
}

fn is_new(name: &str) -> bool {
    name.starts_with("state-") && name.ends_with(".new")
}
