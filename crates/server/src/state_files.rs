//! The files of the state: the one in use, and new ones that are to replace it.
//!
//! `state.redb` is in use. A leader's snapshot is restored into `state-<number>.new`, which is renamed to `state.redb`
//! once the log begins after the snapshot. If much of the file in use is free, its contents are rewritten to such a new
//! file, which is renamed as soon as it is complete. A crash before that leaves both files: the next start takes the
//! one that fits the log (if both do, the one in use) and removes the other. An incomplete file has no label, so it
//! never fits. A file in use that can't be read is kept as `state.damaged`, for people to look at.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bowline_kv::store::{EngineError, RestoreError};
use bowline_node::raft::SnapshotHeader;
use bowline_storage::{Identity, KeptState, wait_out};
use tracing::{error, info};

use crate::machine::KvMachine;

const IN_USE: &str = "state.redb";
const DAMAGED: &str = "state.damaged";

/// The files of a member's state.
#[derive(Debug)]
pub struct StateFiles {
    folder: PathBuf,
    identity: Identity,
    /// The number of new files so far.
    made: u64,
}

/// A new file beside the one in use. It is removed on drop unless it has replaced that.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    stays: bool,
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.stays {
            // If this fails, the next start removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl NewFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file in use with this one. A crash may still undo this.
    pub(crate) fn take_name(&mut self) -> io::Result<()> {
        wait_out(|| fs::rename(&self.path, self.folder().join(IN_USE)))?;
        self.stays = true;
        Ok(())
    }

    /// Makes the replacement durable.
    pub(crate) fn sync_name(&self) -> io::Result<()> {
        sync_folder(self.folder())
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }
}

/// A state in a new file, which is removed on drop unless the state is installed.
#[derive(Debug)]
pub(crate) struct NewState {
    machine: KvMachine,
    file: NewFile,
}

impl NewState {
    /// Replaces the state in use with this one, durably.
    pub(crate) fn install(self) -> io::Result<KvMachine> {
        let NewState { machine, mut file } = self;
        // The log begins after this state: whatever happens now, only this file fits.
        file.stays = true;
        file.take_name()?;
        file.sync_name()?;
        Ok(machine)
    }
}

/// A state that was found in the folder.
pub(crate) struct Found {
    path: PathBuf,
    machine: KvMachine,
    header: Option<SnapshotHeader>,
}

impl Found {
    pub(crate) fn kept(&self) -> KeptState {
        KeptState { applied: self.machine.applied(), header: self.header.clone() }
    }
}

impl StateFiles {
    /// The files in the opened folder of this member.
    #[must_use]
    pub fn new(folder: &Path, identity: Identity) -> StateFiles {
        StateFiles { folder: folder.to_owned(), identity, made: 0 }
    }

    /// Finds the complete states, the one in use first.
    ///
    /// # Errors
    /// The system refuses to read a file now, which tells nothing about its contents.
    pub(crate) fn find(&self) -> Result<Vec<Found>, EngineError> {
        let mut paths = self.new_ones();
        paths.insert(0, self.folder.join(IN_USE));
        let mut found = Vec::new();
        for path in paths.into_iter().filter(|path| path.exists()) {
            match KvMachine::open(&path, self.identity) {
                Ok((machine, header)) => found.push(Found { path, machine, header }),
                Err(error) if error.is_refusal() => return Err(error),
                Err(error) => self.set_aside(&path, &error),
            }
        }
        Ok(found)
    }

    /// Uses one of the states, and removes the others.
    ///
    /// # Errors
    /// The system refuses a call.
    pub(crate) fn choose(&self, mut found: Vec<Found>, chosen: usize) -> io::Result<KvMachine> {
        let Found { path, machine, .. } = found.swap_remove(chosen);
        drop(found);
        if path != self.folder.join(IN_USE) {
            wait_out(|| fs::rename(&path, self.folder.join(IN_USE)))?;
        }
        self.remove_new_ones()?;
        Ok(machine)
    }

    /// Replaces all states with an empty one.
    ///
    /// # Errors
    /// The system refuses a call.
    pub(crate) fn found_anew(&self) -> Result<KvMachine, EngineError> {
        let refused = |error: io::Error| EngineError::new("create its file", error);
        let path = self.folder.join(IN_USE);
        if path.exists() {
            fs::remove_file(&path).map_err(refused)?;
        }
        self.remove_new_ones().map_err(refused)?;
        let machine = KvMachine::found(&path, self.identity)?;
        sync_folder(&self.folder).map_err(refused)?;
        Ok(machine)
    }

    /// Restores a state from a snapshot, durably in a new file.
    ///
    /// # Errors
    /// The snapshot is invalid, or the system refuses a call; no file is left.
    pub(crate) fn restore(
        &mut self,
        header: &SnapshotHeader,
        snapshot: &mut impl Read,
    ) -> Result<NewState, RestoreError> {
        let file = self.new_file()?;
        let machine = KvMachine::restore(file.path(), self.identity, header, snapshot)?;
        // The name must survive a crash, too.
        file.sync_name()?;
        Ok(NewState { machine, file })
    }

    /// Chooses the name of a new file.
    ///
    /// # Errors
    /// A left-over file of this name can't be removed.
    pub(crate) fn new_file(&mut self) -> io::Result<NewFile> {
        self.made += 1;
        let path = self.folder.join(format!("state-{}.new", self.made));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(NewFile { path, stays: false }),
        }
    }

    fn new_ones(&self) -> Vec<PathBuf> {
        let entries = wait_out(|| self.folder.read_dir()?.collect::<io::Result<Vec<_>>>()).unwrap_or_default();
        let mut paths: Vec<PathBuf> =
            entries.into_iter().map(|entry| entry.path()).filter(|path| is_new(path)).collect();
        paths.sort();
        paths
    }

    fn remove_new_ones(&self) -> io::Result<()> {
        for path in self.new_ones() {
            wait_out(|| fs::remove_file(&path))?;
        }
        sync_folder(&self.folder)
    }

    fn set_aside(&self, path: &Path, error: &EngineError) {
        let file = path.display();
        if is_new(path) {
            // A restore or a rewrite that did not finish.
            info!(%file, %error, "removing an incomplete file of the state");
            let _ = fs::remove_file(path);
            return;
        }
        let aside = self.folder.join(DAMAGED);
        error!(%file, %error, "can't use the file of the state; keeping it as {DAMAGED}");
        if let Err(error) = fs::rename(path, &aside) {
            error!(%error, "can't rename the file of the state to {DAMAGED}");
        }
    }
}

/// Makes the names in a folder durable. Only opening it is repeated; a failed sync is not.
fn sync_folder(folder: &Path) -> io::Result<()> {
    wait_out(|| File::open(folder))?.sync_all()
}

fn is_new(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("state-") && name.ends_with(".new")
}
