//! A storage backend for redb on a disk of `bowline-storage`: the machine's or a simulated one.

use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bowline_storage::{DiskError, DiskErrorKind, File};
use redb::StorageBackend;

/// A file as a storage backend. It passes each write, change of size and sync to the file, and returns the file's
/// errors. It has no thread, clock or random source.
pub struct OnDisk<F>(Mutex<F>);

impl<F: File> OnDisk<F> {
    /// Stores everything in this file, which nobody else may write.
    pub fn new(file: F) -> OnDisk<F> {
        OnDisk(Mutex::new(file))
    }

    fn file(&self) -> MutexGuard<'_, F> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> fmt::Debug for OnDisk<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDisk").finish_non_exhaustive()
    }
}

impl<F: File> StorageBackend for OnDisk<F> {
    fn len(&self) -> io::Result<u64> {
        self.file().size().map_err(as_io)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file().read_at(offset, out).map_err(as_io)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file().set_size(len).map_err(as_io)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file().sync_data().map_err(as_io)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file().write_at(offset, data).map_err(as_io)
    }
}

fn as_io(error: DiskError) -> io::Error {
    let kind = match error.kind {
        DiskErrorKind::NoSpace => io::ErrorKind::StorageFull,
        DiskErrorKind::NotFound => io::ErrorKind::NotFound,
        DiskErrorKind::Short => io::ErrorKind::UnexpectedEof,
        DiskErrorKind::NoResources | DiskErrorKind::Io => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
