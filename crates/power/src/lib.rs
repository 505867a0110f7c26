//! Loss of power for the folder of a real process: a record of what the process changed and has not synced yet, and a
//! function that makes the folder forget a part of it.
//!
//! A killed process loses nothing that it wrote: the system still has it. A loss of power loses what was not synced. So
//! whoever wants to see what a program makes of that keeps a [`Record`] while the program runs: each change is noted
//! *before* it is done, with what it replaces; a sync that succeeded removes the notes of what it made durable.
//! `bowline-power-shim` does that for a process that knows nothing of it. When the process is dead, [`lose`] undoes all
//! changes in the record, then does a random choice of them again, by the rules of the simulated disk ([`Crash`]).
//!
//! # The record
//!
//! A change belongs to a file, known by its inode, or to the names of a folder. They become durable by different syncs,
//! as POSIX promises no more: the content of a file by a sync of the file, its name by a sync of its folder.
//!
//! | path in the record's folder | what it holds |
//! |---|---|
//! | `files/INODE` | the unsynced changes of that file's content: writes with the bytes that they replaced, and resizes with the bytes that they cut off |
//! | `names` | the unsynced changes of names: made, renamed, removed |
//!
//! Each change has a number; those of all files and names together are in the order in which they happened. A file that
//! lost its last name is kept under another one, in a folder beside the recorded one, until that loss is durable: a loss
//! of power may bring it back. A hard link needs no space, and it keeps the inode's number from being used again.
//!
//! A kill may cut the last change in `names` or in a file short: then it was never done, and is ignored. Everything else
//! that can't be understood is an error.
//!
//! A system writes changes out whenever it likes. So a record that has grown beyond [`LIMIT`] is emptied, as if everything
//! had become durable just then.

mod entry;
mod lose;
mod names;
mod record;

use std::io;
use std::path::{Path, PathBuf};

pub use bowline_storage::Crash;
pub use lose::{Lost, lose};
pub use record::Record;

/// The most bytes that a record may have before it is emptied.
pub const LIMIT: u64 = 256 << 20;

/// A folder, and where its record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    folder: PathBuf,
    record: PathBuf,
    removed: PathBuf,
}

impl Place {
    /// The record of `folder` in the folder `record`, which must not be inside of it. Neither needs to exist. Removed
    /// files are kept beside `folder`, on the same disk.
    #[must_use]
    pub fn new(folder: &Path, record: &Path) -> Place {
        // Without a slash at its end.
        let folder: PathBuf = folder.components().collect();
        let mut removed = folder.clone().into_os_string();
        removed.push("-removed");
        Place { folder, record: record.to_owned(), removed: removed.into() }
    }

    /// The folder whose changes are recorded.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether a record was ever begun here.
    #[must_use]
    pub fn has_record(&self) -> bool {
        self.files().is_dir()
    }

    fn names(&self) -> PathBuf {
        self.record.join("names")
    }

    fn files(&self) -> PathBuf {
        self.record.join("files")
    }

    /// Where the file is kept that lost its last name by the change with this number.
    fn kept(&self, number: u64) -> PathBuf {
        self.removed.join(number.to_string())
    }
}

/// Why a record can't be kept, or nothing can be lost.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// The system refused.
    #[error("can't {what} {path}: {source}", path = .path.display())]
    Refused {
        /// What was tried.
        what: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The record is damaged.
    #[error("the record {path} is damaged at byte {at}: {reason}", path = .path.display())]
    Damaged {
        /// The file of the record.
        path: PathBuf,
        /// Where the change begins that can't be understood.
        at: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// A file was changed by a call that was not recorded.
    #[error("file {path} has {bytes} bytes, more than its record knows: something else has changed it", path = .path.display())]
    Unrecorded {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
}

/// Adds what was tried to an error of the system.
fn refused(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PowerError {
    let path = path.to_owned();
    move |source| PowerError::Refused { what, path, source }
}

/// Takes a missing file or folder for an empty one.
fn or_none<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
