//! The machine's own disk, through the standard library.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::{Disk, DiskError, DiskErrorKind, File};

/// How long to wait before retrying a call that was refused for lack of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Called when a call has to wait.
type Notice = Arc<dyn Fn(&DiskError) + Send + Sync>;

/// A folder of this machine.
///
/// When the system lacks file descriptors or memory, [`Disk::open`], [`Disk::create`] and [`Disk::list`] return an
/// error, as their callers can do something else meanwhile. Every other call has done nothing yet, and retries until
/// it succeeds. Only a failed sync is never retried.
#[derive(Clone)]
pub struct RealDisk {
    root: Arc<PathBuf>,
    /// Folders that were synced once, by path. They stay open, so that another sync needs no new descriptor.
    folders: Arc<Mutex<BTreeMap<String, Arc<fs::File>>>>,
    notice: Option<Notice>,
}

/// An open file of this machine.
pub struct RealFile {
    file: fs::File,
    /// The disk's own folder, for messages.
    root: Arc<PathBuf>,
    path: String,
    notice: Option<Notice>,
}

/// An advisory lock (`flock`); it ends with the process at the latest.
#[derive(Debug)]
pub struct RealLock {
    _file: fs::File,
}

/// Options for files that only their owner may read and write, whatever the umask: they hold clients' data.
#[must_use]
pub fn private_options() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.mode(0o600);
    options
}

/// Whether a call failed for lack of file descriptors, memory or threads, or was interrupted: it did nothing, and may
/// succeed later.
#[must_use]
pub fn is_passing(error: &io::Error) -> bool {
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::AGAIN, Errno::INTR];
    Errno::from_io_error(error).is_some_and(|error| passing.contains(&error))
}

/// Repeats a call until it is no longer refused for a passing reason ([`is_passing`]). Not for syncs: after a failed
/// sync nobody knows what is on the disk.
///
/// # Errors
/// The call fails for another reason.
pub fn wait_out<T>(call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    wait_out_and_tell(call, |_| {})
}

fn wait_out_and_tell<T>(mut call: impl FnMut() -> io::Result<T>, mut tell: impl FnMut(&io::Error)) -> io::Result<T> {
    let mut told = false;
    loop {
        match call() {
            Err(error) if is_passing(&error) => {
                if !std::mem::replace(&mut told, true) {
                    tell(&error);
                }
                std::thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

impl fmt::Debug for RealDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealDisk").field("root", &self.root).finish_non_exhaustive()
    }
}

impl fmt::Debug for RealFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RealDisk {
    /// The folder `root`, which need not exist yet.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> RealDisk {
        RealDisk { root: Arc::new(root.into()), folders: Arc::default(), notice: None }
    }

    /// The same disk; calls `notice` once for each call that has to wait.
    #[must_use]
    pub fn with_notice(self, notice: impl Fn(&DiskError) + Send + Sync + 'static) -> RealDisk {
        RealDisk { notice: Some(Arc::new(notice)), ..self }
    }

    /// Makes a call on a path, and repeats it while the system lacks resources.
    fn call<T>(
        &self,
        operation: &'static str,
        path: &str,
        call: impl FnMut() -> io::Result<T>,
    ) -> Result<T, DiskError> {
        waiting(&self.notice, operation, || self.shown(path), call)
    }

    /// The path of a file or folder on this machine.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.as_ref().clone() } else { self.root.join(path) }
    }

    fn shown(&self, path: &str) -> String {
        self.path(path).display().to_string()
    }

    fn refused(&self, operation: &'static str, path: &str, error: &io::Error) -> DiskError {
        refused(operation, self.shown(path), error)
    }

    fn file(&self, file: fs::File, path: &str) -> RealFile {
        RealFile { file, root: Arc::clone(&self.root), path: path.to_owned(), notice: self.notice.clone() }
    }

    fn open_folder(&self, path: &str, folder: &Path) -> Result<fs::File, DiskError> {
        self.call("open", path, || fs::File::open(folder))
    }

    /// Syncs an open folder, without retries: after a failed sync nobody knows what is on the disk.
    fn sync_open(&self, path: &str, folder: &fs::File) -> Result<(), DiskError> {
        folder.sync_all().map_err(|error| self.refused("sync", path, &error))
    }
}

/// Makes a call, and repeats it while the system lacks resources.
fn waiting<T>(
    notice: &Option<Notice>,
    operation: &'static str,
    path: impl Fn() -> String,
    call: impl FnMut() -> io::Result<T>,
) -> Result<T, DiskError> {
    let tell = |error: &io::Error| {
        if let Some(notice) = notice {
            notice(&refused(operation, path(), error));
        }
    };
    wait_out_and_tell(call, tell).map_err(|error| refused(operation, path(), &error))
}

fn refused(operation: &'static str, path: String, error: &io::Error) -> DiskError {
    let kind = match error.kind() {
        _ if is_passing(error) => DiskErrorKind::NoResources,
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
        let opened = fs::OpenOptions::new().read(true).write(true).open(self.path(path));
        Ok(self.file(opened.map_err(|error| self.refused("open", path, &error))?, path))
    }

    fn create(&self, path: &str) -> Result<RealFile, DiskError> {
        let created = private_options().read(true).write(true).create(true).truncate(true).open(self.path(path));
        let file = created.map_err(|error| self.refused("create", path, &error))?;
        Ok(self.file(file, path))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.call("rename", from, || fs::rename(self.path(from), self.path(to)))
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        match self.call("remove", path, || fs::remove_file(self.path(path))) {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }

    fn size_of(&self, path: &str) -> Result<u64, DiskError> {
        self.call("measure", path, || fs::metadata(self.path(path)).map(|metadata| metadata.len()))
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        let read = || {
            let entries = fs::read_dir(self.path(dir))?;
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()
        };
        let names = match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            names => names.map_err(|error| self.refused("list", dir, &error))?,
        };
        // All our names are valid UTF-8.
        let mut names: Vec<String> = names.into_iter().filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    fn make_dir(&self, dir: &str) -> Result<(), DiskError> {
        let whole = self.path(dir);
        // The name of each new folder must be durable in its parent folder.
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
            self.call("create", dir, || match fs::DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            })?;
            let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
            self.sync_open(dir, &self.open_folder(dir, above.unwrap_or(Path::new(".")))?)?;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        // A poisoned lock is fine: every change of the map is complete before the lock is released.
        let folders = || self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let known = folders().get(dir).cloned();
        let open = match known {
            Some(open) => open,
            None => {
                let open = Arc::new(self.open_folder(dir, &self.path(dir))?);
                folders().insert(dir.to_owned(), Arc::clone(&open));
                open
            }
        };
        self.sync_open(dir, &open)
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
    fn call<T>(&self, operation: &'static str, call: impl FnMut() -> io::Result<T>) -> Result<T, DiskError> {
        waiting(&self.notice, operation, || self.shown(), call)
    }

    fn shown(&self) -> String {
        self.root.join(&self.path).display().to_string()
    }
}

impl File for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.call("read", || self.file.read_exact_at(buffer, offset))
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        // A retry after a partial write writes the same bytes again.
        self.call("write", || self.file.write_all_at(data, offset))
    }

    fn set_size(&mut self, bytes: u64) -> Result<(), DiskError> {
        self.call("resize", || self.file.set_len(bytes))
    }

    fn sync_data(&mut self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(|error| refused("sync", self.shown(), &error))
    }

    fn renamed(&mut self, path: &str) {
        path.clone_into(&mut self.path);
    }

    fn size(&self) -> Result<u64, DiskError> {
        self.call("measure", || self.file.metadata().map(|metadata| metadata.len()))
    }
}
