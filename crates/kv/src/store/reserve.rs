//! Reserved disk space, so that a batch can be finished when another process fills the disk.
//!
//! [`super::Engine::has_room`] checks the disk before each batch, but another process may take the free space before
//! the batch is written, and redb can't be used after an error. So a file without a name reserves a few
//! mebibytes. When a write finds the disk full, the reserve is released and the write is tried once more. After that
//! [`super::Engine::has_room`] says no until the space is reserved again.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bowline_storage::{is_passing, private_options, wait_out};

/// Bytes to reserve: more than a batch and the pages around it take.
pub(super) const RESERVE_BYTES: u64 = 8 << 20;

/// How the temporary file names begin.
const NAME: &str = "reserve-";

/// Makes the temporary file names of one process unique.
static MADE: AtomicU64 = AtomicU64::new(0);

/// The reserve of one engine.
#[derive(Debug)]
pub(super) struct Reserve {
    folder: PathBuf,
    held: Mutex<Held>,
}

#[derive(Debug)]
enum Held {
    /// A file without a name: the system frees it when the process ends.
    By(#[expect(dead_code, reason = "it is there to be there")] File),
    Nothing,
    /// This file system can't reserve space.
    Never,
}

impl Reserve {
    /// A reserve on the disk of this folder, which no other process uses. Nothing is reserved yet.
    pub(super) fn new(folder: PathBuf) -> Reserve {
        // A loss of power may have brought names back that had been removed. Those of this process are in use.
        let own = prefix();
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(NAME) && !name.starts_with(&own) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Reserve { folder, held: Mutex::new(Held::Nothing) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are still to be reserved.
    pub(super) fn missing(&self) -> u64 {
        if matches!(*self.held(), Held::Nothing) { RESERVE_BYTES } else { 0 }
    }

    /// Reserves the space, if there is room. Returns true if it is reserved, or never can be.
    pub(super) fn hold(&self) -> bool {
        let mut held = self.held();
        if matches!(*held, Held::Nothing) {
            *held = match self.make() {
                Ok(file) => Held::By(file),
                Err(error) if is_full(&error) || is_passing(&error) => Held::Nothing,
                Err(_) => Held::Never,
            };
        }
        !matches!(*held, Held::Nothing)
    }

    fn make(&self) -> io::Result<File> {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{}{number}", prefix()));
        // An earlier process with the same id may have left it.
        let file = private_options().write(true).create(true).truncate(true).open(&path)?;
        fs::remove_file(&path)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES)?;
        Ok(file)
    }

    /// Releases the space. Returns whether any was reserved.
    fn let_go(&self) -> bool {
        let mut held = self.held();
        let had = matches!(*held, Held::By(_));
        if had {
            *held = Held::Nothing;
        }
        had
    }

    /// Runs this; if the disk is full, releases the reserve and runs it once more. Waits while the system lacks memory.
    pub(super) fn with<T>(&self, run: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match wait_out(&run) {
            Err(error) if is_full(&error) && self.let_go() => wait_out(&run),
            outcome => outcome,
        }
    }
}

/// How the names of this process's files begin.
fn prefix() -> String {
    format!("{NAME}{}-", std::process::id())
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_full_disk_is_met_once_and_then_there_is_no_room_before_it_is_held_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let reserve = Reserve::new(folder.path().to_owned());
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(reserve.with(|| Err::<(), _>(full())).map_err(|error| error.kind()), Err(full().kind()));
        assert_eq!(reserve.missing(), RESERVE_BYTES);
        assert!(reserve.hold() && reserve.hold(), "there is room for it here");
        assert_eq!(reserve.missing(), 0);
        assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0, "nobody sees it");
        let tries = Cell::new(0);
        let write = || {
            tries.set(tries.get() + 1);
            if tries.get() == 1 { Err(full()) } else { Ok(7) }
        };
        assert_eq!(reserve.with(write).expect("there is room then"), 7);
        assert_eq!((tries.get(), reserve.missing()), (2, RESERVE_BYTES));
        assert!(reserve.with(|| Err::<(), _>(full())).is_err(), "there is nothing more to let go");
        assert!(reserve.hold());
    }

    #[test]
    fn what_a_loss_of_power_brought_back_does_no_harm() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = |number: u64| folder.path().join(format!("{}{number}", prefix()));
        let next = MADE.load(Ordering::Relaxed);
        for path in [folder.path().join("reserve-0-7")].into_iter().chain((next..next + 50).map(own)) {
            fs::write(path, "left over").expect("written");
        }
        let reserve = Reserve::new(folder.path().to_owned());
        assert!(!folder.path().join("reserve-0-7").exists(), "another process's is removed");
        assert!(reserve.hold() && matches!(*reserve.held(), Held::By(_)), "a name of this process is used again");
    }

    #[test]
    fn what_is_no_full_disk_is_not_tried_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let reserve = Reserve::new(folder.path().to_owned());
        assert!(reserve.hold());
        let tries = Cell::new(0);
        let outcome = reserve.with(|| {
            tries.set(tries.get() + 1);
            Err::<(), _>(io::Error::other("broken"))
        });
        assert!(outcome.is_err());
        assert_eq!((tries.get(), reserve.missing()), (1, 0));
    }
}
