//! What this crate asks of a disk: files, names, and what makes each durable.
//!
//! Two bodies: [`RealDisk`], a folder of the machine, and [`SimDisk`], which forgets at a crash what a
//! real one may forget. Paths are relative to the disk's own folder, with `/` between their parts.

mod real;
mod sim;

pub use real::{RealDisk, RealFile, RealLock, is_passing, private_options, wait_out};
pub use sim::{Crash, Injection, Operation, SimDisk, SimFile, SimLock};

/// What is written at once or not at all, in bytes, and the unit of everything in this crate. A disk
/// with larger sectors keeps this promise too.
pub const SECTOR: usize = 512;

/// A folder on some disk. A clone is another handle to the same one.
pub trait Disk: Clone + Send + 'static {
    /// An open file.
    type File: File;
    /// Keeps others out while it lives.
    type Lock: Send + Sync;

    /// Where this is, for messages.
    fn place(&self) -> String;
    /// Opens a file that is there, for reading and writing.
    ///
    /// # Errors
    /// [`DiskErrorKind::NotFound`] if it isn't there; [`DiskErrorKind::NoResources`]; or the disk refuses.
    fn open(&self, path: &str) -> Result<Self::File, DiskError>;
    /// Makes an empty file, in place of an older one of that name, that only its owner may read and write. Its
    /// name is durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// [`DiskErrorKind::NoResources`]: nothing was made. Or the disk refuses.
    fn create(&self, path: &str) -> Result<Self::File, DiskError>;
    /// Gives a file another name in the same folder, in place of an older file of that name. Durable
    /// after [`Disk::sync_dir`]; until then a crash leaves either the old name or the new one.
    ///
    /// # Errors
    /// The file isn't there, or the disk refuses.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;
    /// Removes a file; one that isn't there is no error. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// The disk refuses.
    fn remove(&self, path: &str) -> Result<(), DiskError>;
    /// Length of a file that need not be open, in bytes.
    ///
    /// # Errors
    /// [`DiskErrorKind::NotFound`] if it isn't there.
    fn size_of(&self, path: &str) -> Result<u64, DiskError>;
    /// The names in a folder, sorted; none if there is no such folder.
    ///
    /// # Errors
    /// [`DiskErrorKind::NoResources`], or the disk refuses.
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError>;
    /// Makes a folder that only its owner may use, and those above it, durably; one that is there is no error.
    ///
    /// # Errors
    /// The disk refuses.
    fn make_dir(&self, dir: &str) -> Result<(), DiskError>;
    /// Makes durable which names the folder holds (`""`: the disk's own).
    ///
    /// # Errors
    /// The disk refuses. What is durable is then unknown: never to be tried again.
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError>;
    /// Takes the lock of that name; `None` if somebody else holds it.
    ///
    /// # Errors
    /// The disk refuses.
    fn lock(&self, path: &str) -> Result<Option<Self::Lock>, DiskError>;
}

/// An open file.
pub trait File: Send + 'static {
    /// Fills `buffer` from what is at `offset`.
    ///
    /// # Errors
    /// [`DiskErrorKind::Short`] if the file ends before that, or the disk refuses.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError>;
    /// Writes all of `data` at `offset`, growing the file if need be. Durable after
    /// [`File::sync_data`]; until then a crash leaves any of its sectors old and any new.
    ///
    /// # Errors
    /// [`DiskErrorKind::NoSpace`]: a part may have been written. Or the disk refuses.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError>;
    /// Cuts the file, or makes it longer by zeros. As with what is written, a crash before
    /// [`File::sync_data`] leaves the old size or the new one.
    ///
    /// # Errors
    /// [`DiskErrorKind::NoSpace`], with the size as it was. Or the disk refuses.
    fn set_size(&mut self, bytes: u64) -> Result<(), DiskError>;
    /// Makes all that was written durable, and the length with it (`fdatasync`).
    ///
    /// # Errors
    /// The disk refuses. What is durable is then unknown: never to be tried again.
    fn sync_data(&mut self) -> Result<(), DiskError>;
    /// Says under which name the file is to be found since it was renamed, for messages.
    fn renamed(&mut self, path: &str);
    /// Length in bytes.
    ///
    /// # Errors
    /// The disk refuses.
    fn size(&self) -> Result<u64, DiskError>;
}

/// What a disk refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("can't {operation} {path}: {reason}")]
pub struct DiskError {
    /// What was tried: "read", "write", "sync" ...
    pub operation: &'static str,
    /// On which file or folder.
    pub path: String,
    /// What kind of refusal it is.
    pub kind: DiskErrorKind,
    /// In the words of the system.
    pub reason: String,
}

/// Kinds of refusal that are handled each in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// The disk, or the quota, is full.
    NoSpace,
    /// The system has no file descriptor, no memory or no thread to spare. Nothing was done.
    NoResources,
    /// There is no such file.
    NotFound,
    /// The file ends before what was to be read.
    Short,
    /// Anything else: taken as a broken disk.
    Io,
}

impl DiskError {
    /// Whether the same call may succeed later: the disk is full, or the system lacks something else for now. What
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
        let reason = format!("its {size} bytes are more than the {limit} allowed");
        return Err(DiskError { operation: "read", path: path.to_owned(), kind: DiskErrorKind::Io, reason });
    }
    let mut bytes = vec![0; usize::try_from(size).expect("it was held against the limit")];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// Writes a file so that it is there whole or not at all: under another name, synced, then renamed.
pub(crate) fn write_whole<D: Disk>(disk: &D, dir: &str, path: &str, bytes: &[u8]) -> Result<(), DiskError> {
    let temporary = format!("{path}.tmp");
    let mut file = disk.create(&temporary)?;
    file.write_at(0, bytes)?;
    file.sync_data()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(dir)
}
