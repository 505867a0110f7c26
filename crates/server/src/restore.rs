//! Makes the data folder of a founding member of a new cluster whose state comes from a backup.
//!
//! The folder gets the state as a snapshot at the first index of the log. Each founding member begins with the same one,
//! and restores it into its own file when it starts.

use std::io::{self, Write};
use std::path::Path;

use bowline_bolt::Source;
use bowline_kv::store::{Backup, BackupError, BackupPlan};
use bowline_node::raft::{Group, Index, Membership, Position, SnapshotHeader, Term};
use bowline_storage::{ClusterId, Identity, OpenError, RealDisk, SnapshotWriter, create_with_snapshot};

use crate::config::ServerConfig;
use crate::random::random;
use crate::{files, folder};

/// The place of the restored state in the log.
const START: Position = Position { index: Index(1), term: Term(1) };

/// Why a data folder can't be made from a backup.
#[derive(Debug, thiserror::Error)]
pub enum FromBackupError {
    /// There is something in the folder. Nothing was changed.
    #[error("--data-dir is {folder:?}, which is not empty; allowed: an empty folder, or one that does not exist")]
    NotEmpty {
        /// The folder.
        folder: String,
    },
    /// The backup can't be used.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The folder can't be written.
    #[error(transparent)]
    Folder(#[from] OpenError),
}

/// Refuses a folder that holds something.
///
/// # Errors
/// See [`FromBackupError::NotEmpty`].
pub fn check_folder(folder: &Path) -> Result<(), FromBackupError> {
    match folder::is_empty(folder) {
        true => Ok(()),
        false => Err(FromBackupError::NotEmpty { folder: folder.display().to_string() }),
    }
}

/// Makes the folder, durably. The configuration names the member and all founding members. All of them must restore the
/// same backup with the same plan.
///
/// # Errors
/// See [`FromBackupError`]. If the folder was begun, what is in it is removed.
pub fn from_backup<S: Source>(
    config: &ServerConfig,
    backup: &Backup<S>,
    plan: &BackupPlan,
) -> Result<(), FromBackupError> {
    check_folder(&config.data_dir)?;
    let made = make(config, backup, plan);
    if made.is_err() {
        // If this fails, too, `serve` refuses the folder, because it is incomplete.
        let _ = files::empty(&config.data_dir);
    }
    made
}

fn make<S: Source>(config: &ServerConfig, backup: &Backup<S>, plan: &BackupPlan) -> Result<(), FromBackupError> {
    let disk = RealDisk::new(&config.data_dir);
    let cluster = ClusterId(config.cluster_id());
    let identity = Identity { cluster, replica: config.id, incarnation: random() };
    let membership = Membership::simple(Group::of_voters(config.initial_cluster.keys().copied()));
    let header = SnapshotHeader { position: START, membership };
    create_with_snapshot(&disk, &identity, &header, &folder::log_options(), |writer| {
        backup.write_snapshot(plan, START.index, &mut Out(writer))?;
        Ok(())
    })
}

/// Checks that the backup can be restored, without writing anything.
///
/// # Errors
/// See [`BackupError`].
pub fn rehearse<S: Source>(backup: &Backup<S>, plan: &BackupPlan) -> Result<(), BackupError> {
    backup.write_snapshot(plan, START.index, &mut io::sink()).map(|_| ())
}

/// Writes to a snapshot's file.
struct Out<'a>(&'a mut SnapshotWriter<RealDisk>);

impl Write for Out<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.put(data).map_err(io::Error::other)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
