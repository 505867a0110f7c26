//! The files that hold the state: the one in use, and those that are to take its place.
//!
//! `state.redb` is in use. A leader's snapshot is restored into `state-<number>.new`, which gets that name
//! once the log begins after the snapshot; and where much of the file in use is free, what it holds is written to
//! such a new one, which gets the name as soon as it holds all. A crash before that leaves both: the one that fits
//! the log is taken (that in use, if both do), the other is removed; one that is not complete does not say whose
//! it is, and fits nothing. One that can't be read is set aside as `state.damaged`, for people.

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

/// Where the states of a member are.
#[derive(Debug)]
pub struct StateFiles {
    folder: PathBuf,
    identity: Identity,
    /// How many new ones were made.
    made: u64,
}

/// A file beside the one in use. It goes unless it takes the place of that.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    stays: bool,
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.stays {
            // If this fails, the next start does it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl NewFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it the name of the one in use, which is gone then. A crash may still undo this.
    pub(crate) fn take_name(&mut self) -> io::Result<()> {
        wait_out(|| fs::rename(&self.path, self.folder().join(IN_USE)))?;
        self.stays = true;
        Ok(())
    }

    /// From here on a crash can't undo it.
    pub(crate) fn sync_name(&self) -> io::Result<()> {
        sync_folder(self.folder())
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }
}

/// A state in a file of its own, which goes with it unless it is taken in use.
#[derive(Debug)]
pub(crate) struct NewState {
    machine: KvMachine,
    file: NewFile,
}

impl NewState {
    /// Takes it in use, durably: its file gets the name of the one before, which is gone.
    pub(crate) fn install(self) -> io::Result<KvMachine> {
        let NewState { machine, mut file } = self;
        // The log begins after it: whatever happens now, it is the only one that fits.
        file.stays = true;
        file.take_name()?;
        file.sync_name()?;
        Ok(machine)
    }
}

/// A state that was found.
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
    /// The folder of this member, which is open.
    #[must_use]
    pub fn new(folder: &Path, identity: Identity) -> StateFiles {
        StateFiles { folder: folder.to_owned(), identity, made: 0 }
    }

    /// The states that are there and whole: the one in use first.
    ///
    /// # Errors
    /// The system refuses to let one be read now: that says nothing of what is in it.
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

    /// Takes one of them in use, and removes the others.
    ///
    /// # Errors
    /// The disk refuses.
    pub(crate) fn choose(&self, mut found: Vec<Found>, chosen: usize) -> io::Result<KvMachine> {
        let Found { path, machine, .. } = found.swap_remove(chosen);
        drop(found);
        if path != self.folder.join(IN_USE) {
            wait_out(|| fs::rename(&path, self.folder.join(IN_USE)))?;
        }
        self.remove_new_ones()?;
        Ok(machine)
    }

    /// A state in use without anything in it, in place of all that were there.
    ///
    /// # Errors
    /// The disk refuses.
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

    /// The state that a snapshot holds, durably in a file of its own.
    ///
    /// # Errors
    /// It is none, or the disk refuses; nothing of it is left.
    pub(crate) fn restore(
        &mut self,
        header: &SnapshotHeader,
        snapshot: &mut impl Read,
    ) -> Result<NewState, RestoreError> {
        let file = self.new_file()?;
        let machine = KvMachine::restore(file.path(), self.identity, header, snapshot)?;
        // Its name too must be there after a crash.
        file.sync_name()?;
        Ok(NewState { machine, file })
    }

    /// A file in which nothing is yet.
    ///
    /// # Errors
    /// What was left under its name can't be removed.
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
            // A restore that did not end.
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

/// Makes the names in a folder durable. Only opening it may have to wait: a sync that failed is not tried again.
fn sync_folder(folder: &Path) -> io::Result<()> {
    wait_out(|| File::open(folder))?.sync_all()
}

fn is_new(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("state-") && name.ends_with(".new")
}
