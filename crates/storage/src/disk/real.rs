//! The machine's own disk, through the standard library.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Disk, DiskError, DiskErrorKind, File};

/// A folder of this machine.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: Arc<PathBuf>,
}

/// An open file of this machine.
#[derive(Debug)]
pub struct RealFile {
    file: fs::File,
    path: String,
}

/// An advisory lock (`flock`); ends with the process at the latest.
#[derive(Debug)]
pub struct RealLock {
    _file: fs::File,
}

impl RealDisk {
    /// The folder `root`, which need not be there yet.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> RealDisk {
        RealDisk { root: Arc::new(root.into()) }
    }

    fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.as_ref().clone() } else { self.root.join(path) }
    }

    fn shown(&self, path: &str) -> String {
        self.at(path).display().to_string()
    }

    fn refused(&self, operation: &'static str, path: &str, error: &io::Error) -> DiskError {
        refused(operation, self.shown(path), error)
    }
}

fn refused(operation: &'static str, path: String, error: &io::Error) -> DiskError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskErrorKind::NoSpace,
        io::ErrorKind::NotFound => DiskErrorKind::NotFound,
        io::ErrorKind::UnexpectedEof => DiskErrorKind::Short,
        _ => DiskErrorKind::Io,
    };
    DiskError { operation, path, kind, reason: error.to_string() }
}

impl Disk for RealDisk {
    type File = RealFile;
    type Lock = RealLock;

    fn place(&self) -> String {
        self.root.display().to_string()
    }

    fn open(&self, path: &str) -> Result<RealFile, DiskError> {
        let opened = fs::OpenOptions::new().read(true).write(true).open(self.at(path));
        let file = opened.map_err(|error| self.refused("open", path, &error))?;
        Ok(RealFile { file, path: self.shown(path) })
    }

    fn create(&self, path: &str) -> Result<RealFile, DiskError> {
        let created = fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.at(path));
        let file = created.map_err(|error| self.refused("create", path, &error))?;
        Ok(RealFile { file, path: self.shown(path) })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        fs::rename(self.at(from), self.at(to)).map_err(|error| self.refused("rename", from, &error))
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        match fs::remove_file(self.at(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.refused("remove", path, &error)),
            _ => Ok(()),
        }
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        let refused = |error: io::Error| self.refused("list", dir, &error);
        let entries = match fs::read_dir(self.at(dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(refused)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that isn't text isn't one of ours.
            names.extend(entry.map_err(refused)?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn make_dir(&self, dir: &str) -> Result<(), DiskError> {
        let refused = |error: io::Error| self.refused("create", dir, &error);
        let whole = self.at(dir);
        // Each new folder's name is made durable in the folder above it.
        let mut missing = Vec::new();
        let mut at = whole.as_path();
        while !at.as_os_str().is_empty() && !at.exists() {
            missing.push(at.to_path_buf());
            match at.parent() {
                Some(parent) => at = parent,
                None => break,
            }
        }
        for folder in missing.iter().rev() {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(refused(error)),
                _ => {}
            }
            let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
            let above = above.unwrap_or(std::path::Path::new("."));
            fs::File::open(above).and_then(|above| above.sync_all()).map_err(refused)?;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        let synced = fs::File::open(self.at(dir)).and_then(|folder| folder.sync_all());
        synced.map_err(|error| self.refused("sync", dir, &error))
    }

    fn lock(&self, path: &str) -> Result<Option<RealLock>, DiskError> {
        let file = self.create(path)?.file;
        match file.try_lock() {
            Ok(()) => Ok(Some(RealLock { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(self.refused("lock", path, &error)),
        }
    }
}

impl RealFile {
    fn refused(&self, operation: &'static str, error: &io::Error) -> DiskError {
        refused(operation, self.path.clone(), error)
    }
}

impl File for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.file.read_exact_at(buffer, offset).map_err(|error| self.refused("read", &error))
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.file.write_all_at(data, offset).map_err(|error| self.refused("write", &error))
    }

    fn set_size(&mut self, bytes: u64) -> Result<(), DiskError> {
        self.file.set_len(bytes).map_err(|error| self.refused("resize", &error))
    }

    fn sync_data(&mut self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(|error| self.refused("sync", &error))
    }

    fn size(&self) -> Result<u64, DiskError> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|error| self.refused("measure", &error))
    }
}
