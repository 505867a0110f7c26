//! The commands `snapshot ...`.

use clap::Subcommand;

use super::Once;
use crate::exit::Exit;

mod file;
mod restore;
mod save;
mod status;

use restore::RestoreCommand;
use save::SaveArgs;
use status::StatusCommand;

const EXAMPLES: &str = "Examples:
  bowline snapshot save backup.db      the state of one member, in a file
  bowline snapshot status backup.db    what is in the file, and whether it is whole
  bowline snapshot restore backup.db --name a --data-dir /var/lib/bowline \\
      --initial-cluster a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://10.0.0.3:2380

The file has the form of etcd's snapshots: etcd's tools can restore it, and these commands read the snapshots of etcd 3.4 \
and later.";

/// The commands for backups.
#[derive(Subcommand, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) enum SnapshotCommand {
    /// Saves the state of one member in a file.
    Save(Once<SaveArgs>),
    /// Says what a file holds.
    Status(StatusCommand),
    /// Makes the data folder of one member of a new cluster from a file.
    Restore(RestoreCommand),
}

impl SnapshotCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            SnapshotCommand::Save(command) => command.run(),
            SnapshotCommand::Status(command) => command.run(),
            SnapshotCommand::Restore(command) => command.run(),
        }
    }
}
