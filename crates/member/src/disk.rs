//! Where the files of states are: on the machine's own disk, or on a simulated one.

use bowline_kv::store::{EngineError, OnDisk, RedbEngine};
use bowline_storage::{Disk, RealDisk, SimDisk};

/// A disk that can hold the file of a state.
pub trait StateDisk: Disk {
    /// Opens the engine in a file, or makes a new file. At most `cache_bytes` of it are kept in memory.
    ///
    /// # Errors
    /// The file can't be read or written, is in use, or is damaged.
    fn engine(&self, path: &str, cache_bytes: usize) -> Result<RedbEngine, EngineError>;
}

impl StateDisk for RealDisk {
    fn engine(&self, path: &str, cache_bytes: usize) -> Result<RedbEngine, EngineError> {
        RedbEngine::open(&self.path(path), cache_bytes)
    }
}

impl StateDisk for SimDisk {
    fn engine(&self, path: &str, cache_bytes: usize) -> Result<RedbEngine, EngineError> {
        let file = match self.open(path) {
            Err(error) if error.is_not_found() => self.create(path),
            opened => opened,
        };
        let file = file.map_err(|error| EngineError::refused("open its file", error))?;
        let disk = self.clone();
        Ok(RedbEngine::with_backend(OnDisk::new(file), cache_bytes)?.with_free_bytes(move || Some(disk.free())))
    }
}
