//! Which file descriptors are of the recorded folder.

use std::ffi::{c_int, c_uint};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::recorder::Recorder;

/// Descriptors with a place in the table. Higher ones are looked at in each call.
const TABLE: usize = 1 << 16;

const UNKNOWN: u8 = 0;
const OTHER: u8 = 1;
const RECORDED: u8 = 2;

static KINDS: [AtomicU8; TABLE] = [const { AtomicU8::new(UNKNOWN) }; TABLE];

fn kind_of(fd: c_int) -> Option<&'static AtomicU8> {
    KINDS.get(usize::try_from(fd).ok()?)
}

/// Forgets what a descriptor is, because it is closed or replaced. To be called before that is done: afterwards, another
/// thread may have the same number for another file.
pub(crate) fn forget(fd: c_int) {
    if let Some(kind) = kind_of(fd) {
        kind.store(UNKNOWN, Ordering::Release);
    }
}

/// Forgets a range of descriptors, the last one included.
pub(crate) fn forget_range(first: c_uint, last: c_uint) {
    let last = last.min(TABLE as c_uint - 1);
    (first..=last).for_each(|fd| forget(fd.cast_signed()));
}

/// Whether a descriptor is a file or a folder inside of the recorded folder, or that itself.
pub(crate) fn is_recorded(recorder: &Recorder, fd: c_int) -> bool {
    let known = kind_of(fd).map_or(UNKNOWN, |kind| kind.load(Ordering::Acquire));
    if known != UNKNOWN {
        return known == RECORDED;
    }
    let Some(stat) = status(fd) else { return false };
    // No path is asked for a pipe or a socket: a signal's handler may write to one, where memory can't be allocated.
    let recorded = matches!(stat.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR)
        && path(fd).is_some_and(|path| path.starts_with(recorder.folder()));
    if let Some(kind) = kind_of(fd) {
        kind.store(if recorded { RECORDED } else { OTHER }, Ordering::Release);
    }
    recorded
}

/// The status of an open file; `None` if the descriptor is not open.
pub(crate) fn status(fd: c_int) -> Option<libc::stat64> {
    let mut stat = std::mem::MaybeUninit::<libc::stat64>::uninit();
    // SAFETY: fstat64 writes one structure of this type, or fails and writes nothing.
    let done = unsafe { libc::fstat64(fd, stat.as_mut_ptr()) };
    // SAFETY: it succeeded, so the structure is written.
    (done == 0).then(|| unsafe { stat.assume_init() })
}

/// The path of an open file, as the system knows it.
pub(crate) fn path(fd: c_int) -> Option<PathBuf> {
    std::fs::read_link(by_number(fd)).ok()
}

/// A name that leads to an open file, even if it has no other.
pub(crate) fn by_number(fd: c_int) -> String {
    format!("/proc/self/fd/{fd}")
}
