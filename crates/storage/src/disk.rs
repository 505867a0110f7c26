//! What this crate needs of a disk: files, names, and calls that make them durable.
//!
//! There are two implementations: [`RealDisk`], a folder of the machine, and [`SimDisk`], which loses at a crash what a
//! real disk may lose. Paths are relative to the disk's own folder, with `/` between their parts.

mod real;
mod sim;
mod survival;

pub use real::{RealDisk, RealFile, RealLock, is_passing, private_options, wait_out};
pub use sim::{Injection, Operation, SimDisk, SimFile, SimLock};
pub use survival::{Chooser, Crash, Keep, pieces};

/// Bytes that the disk writes whole or not at all; the unit of everything in this crate. A disk
/// with larger sectors keeps this promise too.
pub const SECTOR: usize = 512;

/// A folder on some disk. A clone is another handle to the same one.
pub trait Disk: Clone + Send + 'static {
    /// An open file.
    type File: File;
    /// Keeps others out while it lives.
    type Lock: Send + Sync;

    /// Names the folder, for messages.
    fn place(&self) -> String;
    /// Opens a file that is there, for reading and writing.
    ///
    /// # Errors
    /// [`DiskErrorKind::NotFound`] if it isn't there; [`DiskErrorKind::NoResources`]; or the disk refuses.
    fn open(&self, path: &str) -> Result<Self::File, DiskError>;
    /// Makes an empty file that only its owner may read and write. It replaces an older file of that name. Its
    /// name is durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// [`DiskErrorKind::NoResources`]: nothing was made. Or the disk refuses.
    fn create(&self, path: &str) -> Result<Self::File, DiskError>;
    /// Renames a file within its folder. It replaces an older file of that name. Durable
    /// after [`Disk::sync_dir`]; until then a crash leaves either the old name or the new one.
    ///
    /// # Errors
    /// The file isn't there, or the disk refuses.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;
    /// Removes a file; a missing file is no error. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// The disk refuses.
    fn remove(&self, path: &str) -> Result<(), DiskError>;
    /// Length of a file in bytes; the file need not be open.
    ///
    /// # Errors
    /// [`DiskErrorKind::NotFound`] if it isn't there.
    fn size_of(&self, path: &str) -> Result<u64, DiskError>;
    /// The names in a folder, sorted; none if there is no such folder.
    ///
    /// # Errors
    /// [`DiskErrorKind::NoResources`], or the disk refuses.
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError>;
    /// Makes a folder that only its owner may use, and missing folders above it, durably. An existing folder is no
    /// error.
    ///
    /// # Errors
    /// The disk refuses.
    fn make_dir(&self, dir: &str) -> Result<(), DiskError>;
    /// Makes the names in the folder durable (`""`: the disk's own folder).
    ///
    /// # Errors
    /// The disk refuses. What is durable is then unknown: the caller must never retry.
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError>;
    /// Takes the lock of that name; `None` if somebody else holds it.
    ///
    /// # Errors
    /// The disk refuses.
    fn lock(&self, path: &str) -> Result<Option<Self::Lock>, DiskError>;
}

/// An open file.
pub trait File: Send + 'static {
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// [`DiskErrorKind::Short`] if the file ends too early, or the disk refuses.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError>;
    /// Writes all of `data` at `offset`; the file grows if necessary. Durable after
    /// [`File::sync_data`]; until then a crash may leave each sector old or new.
    ///
    /// # Errors
    /// [`DiskErrorKind::NoSpace`]: a part may have been written. Or the disk refuses.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError>;
    /// Cuts the file, or extends it with zeros. A crash before [`File::sync_data`] leaves the old size or the new one.
    ///
    /// # Errors
    /// [`DiskErrorKind::NoSpace`]: the size is unchanged. Or the disk refuses.
    fn set_size(&mut self, bytes: u64) -> Result<(), DiskError>;
    /// Makes everything written so far durable, and the length (`fdatasync`).
    ///
    /// # Errors
    /// The disk refuses. What is durable is then unknown: the caller must never retry.
    fn sync_data(&mut self) -> Result<(), DiskError>;
    /// Tells the open file its new name, for messages.
    fn renamed(&mut self, path: &str);
    /// Length in bytes.
    ///
    /// # Errors
    /// The disk refuses.
    fn size(&self) -> Result<u64, DiskError>;
}

/// An operation that the disk refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("can't {operation} {path}: {reason}")]
pub struct DiskError {
    /// What was tried: "read", "write", "sync" ...
    pub operation: &'static str,
    /// The file or folder.
    pub path: String,
    /// The kind of refusal.
    pub kind: DiskErrorKind,
    /// The system's own message.
    pub reason: String,
}

/// Kinds of refusal that callers handle differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// The disk, or the quota, is full.
    NoSpace,
    /// The system has no file descriptor, no memory or no thread to spare. Nothing was done.
    NoResources,
    /// There is no such file.
    NotFound,
    /// The file ends before the requested bytes.
    Short,
    /// Anything else; counts as a broken disk.
    Io,
}

impl DiskError {
    /// Whether the same call may succeed later: the disk is full, or the system lacks another resource for now. What
    /// was durable still is.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self.kind, DiskErrorKind::NoSpace | DiskErrorKind::NoResources)
    }

    /// Whether the file isn't there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == DiskErrorKind::NotFound
    }
}

/// Reads a whole file of at most `limit` bytes.
pub(crate) fn read_all<F: File>(file: &F, path: &str, limit: u64) -> Result<Vec<u8>, DiskError> {
    let size = file.size()?;
    if size > limit {
        let reason = format!("it has {size} bytes, more than the {limit} allowed");
        return Err(DiskError { operation: "read", path: path.to_owned(), kind: DiskErrorKind::Io, reason });
    }
    let mut bytes = vec![0; usize::try_from(size).expect("it was held against the limit")];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// Writes a file so that it exists whole or not at all: writes it under another name, syncs it, then renames it.
pub(crate) fn write_whole<D: Disk>(disk: &D, dir: &str, path: &str, bytes: &[u8]) -> Result<(), DiskError> {
    let temporary = format!("{path}.tmp");
    let mut file = disk.create(&temporary)?;
    file.write_at(0, bytes)?;
    file.sync_data()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(dir)
}
