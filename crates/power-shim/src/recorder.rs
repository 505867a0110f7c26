//! The record of this process, and the rule that no call of this library is recorded.

use std::cell::Cell;
use std::ffi::{CStr, OsStr, c_char, c_int};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bowline_power::{Place, PowerError, Record};

use crate::descriptors;

static RECORDER: OnceLock<Recorder> = OnceLock::new();

thread_local! {
    /// Whether this thread is at work for the record: then every call passes through.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// The exit code of a process whose changes can't be recorded.
const CANNOT_RECORD: c_int = 70;

/// What is recorded, and where.
pub(crate) struct Recorder {
    /// As the system names it: without links.
    folder: PathBuf,
    lies: bool,
    record: Mutex<Record>,
}

/// Runs before the program does.
extern "C" fn start() {
    let (folder, record) = (std::env::var_os("BOWLINE_POWER_FOLDER"), std::env::var_os("BOWLINE_POWER_RECORD"));
    let (Some(folder), Some(record)) = (folder, record) else { return };
    let lies = std::env::var_os("BOWLINE_POWER_LIES").is_some_and(|value| value == "1");
    let _inside = Inside::enter();
    let folder = without_links(Path::new(&folder));
    match Record::open(&Place::new(&folder, Path::new(&record))) {
        Ok(record) => drop(RECORDER.set(Recorder { folder, lies, record: Mutex::new(record) })),
        Err(error) => die(&error.to_string()),
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

/// Ends the process: if a change were not recorded, a loss of power would make a state that can't be.
pub(crate) fn die(why: &str) -> ! {
    let _inside = Inside::enter();
    eprintln!("bowline-power-shim: {why}");
    // SAFETY: it takes any number and does not return.
    unsafe { libc::_exit(CANNOT_RECORD) }
}

/// The path of a folder that need not exist, as the system names it.
fn without_links(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = path.ancestors().find_map(|above| Some((above, fs::canonicalize(above).ok()?)));
    match there {
        Some((above, real)) => real.join(path.strip_prefix(above).unwrap_or(Path::new(""))),
        None => path,
    }
}

struct Inside {
    before: bool,
}

impl Inside {
    fn enter() -> Inside {
        Inside { before: INSIDE.replace(true) }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(self.before);
    }
}

/// The recorder; `None` if nothing is to be recorded, or if this library itself makes the call.
pub(crate) fn recorder() -> Option<&'static Recorder> {
    if INSIDE.get() { None } else { RECORDER.get() }
}

impl Recorder {
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether syncs only say that they succeed.
    pub(crate) fn lies(&self) -> bool {
        self.lies
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // A panic ends the process, since it can't leave a function that C calls.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was noted until now.
    pub(crate) fn now(&self) -> u64 {
        self.lock().now()
    }

    /// Changes the record; ends the process if that fails.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Record) -> Result<(), PowerError>) {
        let _inside = Inside::enter();
        let errno = errno();
        note(&mut self.lock()).unwrap_or_else(|error| die(&error.to_string()));
        set_errno(errno);
    }

    /// Makes a call that changes the folder. `note` notes that, before the call, and returns whether it has noted a change
    /// of names; such a note is taken back if `is_done` finds that the call failed. Meanwhile, no other change is made.
    pub(crate) fn change<R>(
        &self,
        note: impl FnOnce(&mut Record) -> Result<bool, PowerError>,
        call: impl FnOnce() -> R,
        is_done: impl FnOnce(&R) -> bool,
    ) -> R {
        let _inside = Inside::enter();
        let mut record = self.lock();
        let name = note(&mut record).unwrap_or_else(|error| die(&error.to_string()));
        let outcome = call();
        let errno = errno();
        if name && !is_done(&outcome) {
            record.failed().unwrap_or_else(|error| die(&error.to_string()));
        }
        drop(record);
        set_errno(errno);
        outcome
    }

    /// The path that a call names, relative to the recorded folder; `None` if it leads elsewhere, or to the folder itself.
    /// `follow`: whether the call follows a link in the last place.
    ///
    /// # Safety
    /// `path` must point to a text that ends with a zero byte.
    pub(crate) unsafe fn within(&self, folder: c_int, path: *const c_char, follow: bool) -> Option<PathBuf> {
        let _inside = Inside::enter();
        if path.is_null() {
            return None;
        }
        // SAFETY: the caller promises it.
        let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
        let whole = if path.is_absolute() {
            path.to_owned()
        } else if folder == libc::AT_FDCWD {
            std::env::current_dir().ok()?.join(path)
        } else {
            descriptors::path(folder)?.join(path)
        };
        let whole = fs::canonicalize(whole.parent()?).ok()?.join(whole.file_name()?);
        let whole = if follow { fs::canonicalize(&whole).unwrap_or(whole) } else { whole };
        let within = whole.strip_prefix(&self.folder).ok()?;
        (!within.as_os_str().is_empty()).then(|| within.to_owned())
    }
}

pub(crate) fn errno() -> c_int {
    // SAFETY: libc's pointer to the number of this thread is always good.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(value: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = value }
}
