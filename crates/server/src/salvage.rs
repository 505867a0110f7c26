//! Saves the data of a member whose cluster has lost its quorum for ever.
//!
//! The log of the member is applied to its end. Nobody can tell any more which of the last entries were committed, so all
//! count as committed. What only other members had is lost.

use std::io;
use std::path::{Path, PathBuf};

use bowline_kv::store::{Backup, BackupError, BackupOrigin, EngineError};
use bowline_node::raft::{Index, Position};

use crate::config::{ConfigError, Layers};
use crate::files::{self, File};
use crate::folder::{self, FolderError};
use crate::peer::{Identity, Protocol};

/// Why the data can't be saved.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// The path of the folder is not UTF-8, or empty.
    #[error(transparent)]
    Path(#[from] ConfigError),
    /// The folder can't be opened.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The state can't be read or written.
    #[error(transparent)]
    State(#[from] EngineError),
    /// The system refused a call.
    #[error("{path}: {why}")]
    Refused {
        /// The file or folder.
        path: String,
        /// The error.
        why: io::Error,
    },
    /// The saved data can't be read again.
    #[error(transparent)]
    Backup(#[from] BackupError),
}

/// What a member's folder holds.
#[derive(Clone, Debug)]
pub struct Survivor {
    /// The folder.
    pub folder: PathBuf,
    /// Whose it is.
    pub identity: Identity,
    /// The last entry of its log.
    pub last: Position,
    /// The last entry that is certainly committed.
    pub committed: Index,
    /// Whether damage has cost it acknowledged entries.
    pub is_damaged: bool,
}

/// Looks into the folder of a member that does not run. What a start would repair is repaired.
///
/// # Errors
/// See [`SalvageError`].
pub fn inspect(folder: &Path) -> Result<Survivor, SalvageError> {
    let disk = open(folder)?;
    let base = disk.recovered.snapshot.as_ref().map_or(Position::ORIGIN, |snapshot| snapshot.position);
    let last = disk.recovered.entries.last().map_or(base, |entry| Position::new(entry.index, entry.term));
    Ok(Survivor {
        folder: folder.to_owned(),
        identity: disk.identity,
        last,
        committed: disk.state.machine.applied(),
        is_damaged: disk.recovered.suspect.is_some(),
    })
}

/// Applies the whole log of a folder, and gives the state as a backup. All of this happens in `workshop`, a folder that
/// is made and that the caller removes; the member's folder stays as it is.
///
/// # Errors
/// See [`SalvageError`].
pub fn save(survivor: &Survivor, workshop: &Path) -> Result<Backup<File>, SalvageError> {
    let refused = |path: &Path| {
        let path = path.display().to_string();
        move |why: io::Error| SalvageError::Refused { path, why }
    };
    let copy = workshop.join("member");
    files::copy_all(&survivor.folder, &copy).map_err(refused(&survivor.folder))?;
    let mut disk = open(&copy)?;
    let applied = disk.state.machine.applied();
    let rest: Vec<_> = disk.recovered.entries.into_iter().filter(|entry| entry.index > applied).collect();
    disk.state.machine.apply(&rest, &(), Protocol::CURRENT.version);
    if let Some(fault) = disk.state.machine.fault() {
        return Err(fault.clone().into());
    }
    let origin =
        BackupOrigin { term: survivor.last.term.0, voters: vec![survivor.identity.replica.0], learners: Vec::new() };
    let path = workshop.join("backup.db");
    let file = files::create(&path).map_err(refused(&path))?;
    let file = disk.state.machine.dump()?.write_backup(&origin, file).map_err(refused(&path))?;
    Ok(Backup::open(file)?)
}

fn open(folder: &Path) -> Result<crate::Disk<bowline_storage::RealDisk>, SalvageError> {
    let mut layers = Layers::new();
    layers.add_flag("data_dir", folder.display().to_string());
    layers.add_flag("initial_cluster_state", "existing".to_owned());
    Ok(folder::open(&layers.check()?)?)
}
