//! The functions that take the place of libc's. Each has the name, the arguments and the result of the original.
//!
//! `open`, `openat` and `syscall` take any number of arguments in C. These here take as many as may be used: on the
//! machines that glibc runs on, both kinds of functions find their first arguments at the same places.

use std::ffi::{c_char, c_int, c_long, c_uint, c_void};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use bowline_power::{PowerError, Record};
use libc::{iovec, mode_t, off_t, off64_t, size_t, ssize_t};

use crate::descriptors::{by_number, forget, forget_range, is_recorded, path, status};
use crate::real::real;
use crate::recorder::{Recorder, recorder, set_errno};

/// The recorder, if a descriptor is recorded.
fn recording(fd: c_int) -> Option<&'static Recorder> {
    recorder().filter(|recorder| is_recorded(recorder, fd))
}

/// The answer to a call that can't be recorded.
fn refuse(errno: c_int) -> c_int {
    set_errno(errno);
    -1
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> PowerError {
    let path = path.to_owned();
    move |source| PowerError::Refused { what: "read", path, source }
}

/// Reads bytes of a file, from an offset on so many, which will be replaced.
fn read_old(path: &Path, offset: u64, length: u64) -> Result<Vec<u8>, PowerError> {
    let mut old = vec![0; usize::try_from(length).expect("a file descriptor reaches no further")];
    let file = File::open(path).map_err(unreadable(path))?;
    file.read_exact_at(&mut old, offset).map_err(unreadable(path))?;
    Ok(old)
}

/// Makes a call that writes `length` bytes, at `offset` or else where the descriptor stands.
fn write_with(fd: c_int, length: usize, offset: Option<off64_t>, call: impl FnOnce() -> ssize_t) -> ssize_t {
    let Some(recorder) = recording(fd).filter(|_| length > 0) else { return call() };
    let note = |record: &mut Record| {
        // What has no name is lost with the process.
        let Some(stat) = status(fd).filter(|stat| stat.st_nlink > 0) else { return Ok(false) };
        let size = stat.st_size.cast_unsigned();
        // SAFETY: both only look at the descriptor.
        let (flags, place) = unsafe { (libc::fcntl(fd, libc::F_GETFL), libc::lseek64(fd, 0, libc::SEEK_CUR)) };
        let appends = flags & libc::O_APPEND != 0;
        let offset = if appends { stat.st_size } else { offset.unwrap_or(place) };
        // The system refuses other places.
        let Ok(offset) = u64::try_from(offset) else { return Ok(false) };
        let old = |from, length| read_old(Path::new(&by_number(fd)), from, length);
        record.write(stat.st_ino, (offset, length as u64), size, old).map(|()| false)
    };
    recorder.change(note, call, |_| true)
}

/// Makes a call that gives an open file another size; `resize` tells which, given the present one.
fn resize_with(fd: c_int, resize: impl FnOnce(u64) -> u64, call: impl FnOnce() -> c_int) -> c_int {
    let Some(recorder) = recording(fd) else { return call() };
    let note = |record: &mut Record| {
        let Some(stat) = status(fd).filter(|stat| stat.st_nlink > 0) else { return Ok(false) };
        let (size, old) = (stat.st_size.cast_unsigned(), by_number(fd));
        let bytes = resize(size);
        if bytes != size {
            record.resize(stat.st_ino, bytes, size, |from, length| read_old(Path::new(&old), from, length))?;
        }
        Ok(false)
    };
    recorder.change(note, call, |_| true)
}

/// Makes a call that makes a file durable, or the names in a folder.
fn sync_with(fd: c_int, call: impl FnOnce() -> c_int) -> c_int {
    let Some(recorder) = recording(fd) else { return call() };
    if recorder.lies() {
        return 0;
    }
    let since = recorder.now();
    let outcome = call();
    let (0, Some(stat)) = (outcome, status(fd)) else { return outcome };
    recorder.note(|record| {
        if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
            return record.synced_file(stat.st_ino, since);
        }
        match path(fd).as_deref().map(|path| path.strip_prefix(recorder.folder())) {
            Some(Ok(folder)) => record.synced_folder(folder, since),
            _ => Ok(()),
        }
    });
    outcome
}

/// Notes that a file will be cut to `bytes`, if there is one.
fn note_cut(record: &mut Record, path: &Path, bytes: u64) -> Result<(), PowerError> {
    match path.symlink_metadata() {
        Ok(file) if file.is_file() && file.len() != bytes => {
            record.resize(file.ino(), bytes, file.len(), |from, length| read_old(path, from, length))
        }
        _ => Ok(()),
    }
}

/// Makes a call that opens a file.
///
/// # Safety
/// `name` must point to a text that ends with a zero byte.
unsafe fn open_with(folder: c_int, name: *const c_char, flags: c_int, call: impl FnOnce() -> c_int) -> c_int {
    const NAMELESS: c_int = libc::O_TMPFILE & !libc::O_DIRECTORY;
    let changes = flags & (libc::O_CREAT | libc::O_TRUNC | libc::O_DSYNC | libc::O_SYNC | NAMELESS) != 0;
    let Some(recorder) = recorder().filter(|_| changes) else { return call() };
    // SAFETY: the caller promises it.
    let Some(path) = (unsafe { recorder.within(folder, name, flags & libc::O_NOFOLLOW == 0) }) else { return call() };
    if flags & (libc::O_DSYNC | libc::O_SYNC | NAMELESS) != 0 {
        return refuse(libc::EINVAL);
    }
    let whole = recorder.folder().join(&path);
    let note = |record: &mut Record| match whole.symlink_metadata() {
        Err(_) if flags & libc::O_CREAT != 0 => record.create(&path).map(|()| true),
        Ok(_) if flags & libc::O_TRUNC != 0 && flags & libc::O_EXCL == 0 => note_cut(record, &whole, 0).map(|()| false),
        _ => Ok(false),
    };
    recorder.change(note, call, |fd| *fd >= 0)
}

/// Makes a call that renames a file.
///
/// # Safety
/// Both names must point to texts that end with a zero byte.
unsafe fn rename_with(
    (old_folder, old): (c_int, *const c_char),
    (new_folder, new): (c_int, *const c_char),
    flags: c_uint,
    call: impl FnOnce() -> c_int,
) -> c_int {
    let Some(recorder) = recorder() else { return call() };
    // SAFETY: the caller promises it.
    let paths = unsafe { (recorder.within(old_folder, old, false), recorder.within(new_folder, new, false)) };
    let (from, to) = match paths {
        (None, None) => return call(),
        (Some(from), Some(to)) if from.parent() == to.parent() && flags & !libc::RENAME_NOREPLACE == 0 => (from, to),
        _ => return refuse(libc::EXDEV),
    };
    let status = |path: &Path| recorder.folder().join(path).symlink_metadata().ok();
    if status(&from).is_some_and(|file| !file.is_file()) {
        return refuse(libc::EXDEV);
    }
    let note = |record: &mut Record| match (status(&from), status(&to)) {
        (Some(file), Some(replaced)) if !replaced.is_file() || file.ino() == replaced.ino() => Ok(false),
        (Some(file), replaced) => {
            let replaces = replaced.map(|file| (file.ino(), file.len()));
            record.rename((&from, &to), file.ino(), replaces).map(|()| true)
        }
        (None, _) => Ok(false),
    };
    recorder.change(note, call, |done| *done == 0)
}

/// Makes a call that removes a file or an empty folder.
///
/// # Safety
/// `name` must point to a text that ends with a zero byte.
unsafe fn remove_with(folder: c_int, name: *const c_char, call: impl FnOnce() -> c_int) -> c_int {
    let Some(recorder) = recorder() else { return call() };
    // SAFETY: the caller promises it.
    let Some(path) = (unsafe { recorder.within(folder, name, false) }) else { return call() };
    let note = |record: &mut Record| match recorder.folder().join(&path).symlink_metadata() {
        Ok(file) if file.is_dir() => record.remove_folder(&path).map(|()| true),
        Ok(file) => record.remove(&path, file.ino(), file.len()).map(|()| true),
        Err(_) => Ok(false),
    };
    recorder.change(note, call, |done| *done == 0)
}

/// Makes a call that makes a folder.
///
/// # Safety
/// `name` must point to a text that ends with a zero byte.
unsafe fn make_folder_with(folder: c_int, name: *const c_char, call: impl FnOnce() -> c_int) -> c_int {
    let Some(recorder) = recorder() else { return call() };
    // SAFETY: the caller promises it.
    let Some(path) = (unsafe { recorder.within(folder, name, false) }) else { return call() };
    let note = |record: &mut Record| match recorder.folder().join(&path).symlink_metadata() {
        Ok(_) => Ok(false),
        Err(_) => record.make_folder(&path).map(|()| true),
    };
    recorder.change(note, call, |done| *done == 0)
}

/// Makes a call that gives a file a name in a way that can't be recorded.
///
/// # Safety
/// `name` must point to a text that ends with a zero byte.
unsafe fn unless_within(folder: c_int, name: *const c_char, call: impl FnOnce() -> c_int) -> c_int {
    // SAFETY: the caller promises it.
    let within = recorder().and_then(|recorder| unsafe { recorder.within(folder, name, false) });
    if within.is_some() { refuse(libc::EPERM) } else { call() }
}

/// The bytes that a list of pieces has together.
///
/// # Safety
/// `pieces` must point to so many.
unsafe fn total(pieces: *const iovec, count: c_int) -> usize {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the caller promises it.
    (0..count).map(|at| unsafe { (*pieces.add(at)).iov_len }).fold(0, usize::saturating_add)
}

/// Defines functions of libc.
macro_rules! calls {
    ($($(#[$comment:meta])* fn $name:ident($($argument:ident: $kind:ty),*) -> $result:ty = |$real:ident| $body:expr;)*) => {
        $($(#[$comment])*
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $kind),*) -> $result {
            let $real = || real!($name($($argument => $kind),*) -> $result);
            // SAFETY: our caller has promised it to libc.
            #[allow(unused_unsafe, reason = "not each of them has pointers")]
            unsafe { $body }
        })*
    };
}

use libc::AT_FDCWD as HERE;

calls! {
    fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int = |real| open_with(HERE, path, flags, real);
    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int = |real| open_with(HERE, path, flags, real);
    fn openat(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int =
        |real| open_with(folder, path, flags, real);
    fn openat64(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int =
        |real| open_with(folder, path, flags, real);
    fn creat(path: *const c_char, mode: mode_t) -> c_int =
        |real| open_with(HERE, path, libc::O_CREAT | libc::O_TRUNC, real);
    fn creat64(path: *const c_char, mode: mode_t) -> c_int =
        |real| open_with(HERE, path, libc::O_CREAT | libc::O_TRUNC, real);

    fn write(fd: c_int, data: *const c_void, length: size_t) -> ssize_t = |real| write_with(fd, length, None, real);
    fn pwrite(fd: c_int, data: *const c_void, length: size_t, offset: off_t) -> ssize_t =
        |real| write_with(fd, length, Some(offset), real);
    fn pwrite64(fd: c_int, data: *const c_void, length: size_t, offset: off64_t) -> ssize_t =
        |real| write_with(fd, length, Some(offset), real);
    fn writev(fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t =
        |real| write_with(fd, total(pieces, count), None, real);
    fn pwritev(fd: c_int, pieces: *const iovec, count: c_int, offset: off_t) -> ssize_t =
        |real| write_with(fd, total(pieces, count), Some(offset), real);
    fn pwritev64(fd: c_int, pieces: *const iovec, count: c_int, offset: off64_t) -> ssize_t =
        |real| write_with(fd, total(pieces, count), Some(offset), real);

    fn ftruncate(fd: c_int, bytes: off_t) -> c_int =
        |real| resize_with(fd, |before| u64::try_from(bytes).unwrap_or(before), real);
    fn ftruncate64(fd: c_int, bytes: off64_t) -> c_int =
        |real| resize_with(fd, |before| u64::try_from(bytes).unwrap_or(before), real);
    fn truncate(path: *const c_char, bytes: off_t) -> c_int = |real| truncate_with(path, bytes, real);
    fn truncate64(path: *const c_char, bytes: off64_t) -> c_int = |real| truncate_with(path, bytes, real);
    fn fallocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int =
        |real| allocate_with(fd, mode, offset.saturating_add(length), real);
    fn fallocate64(fd: c_int, mode: c_int, offset: off64_t, length: off64_t) -> c_int =
        |real| allocate_with(fd, mode, offset.saturating_add(length), real);
    fn posix_fallocate(fd: c_int, offset: off_t, length: off_t) -> c_int =
        |real| allocate_with(fd, 0, offset.saturating_add(length), real);
    fn posix_fallocate64(fd: c_int, offset: off64_t, length: off64_t) -> c_int =
        |real| allocate_with(fd, 0, offset.saturating_add(length), real);

    fn rename(old: *const c_char, new: *const c_char) -> c_int = |real| rename_with((HERE, old), (HERE, new), 0, real);
    fn renameat(old_folder: c_int, old: *const c_char, new_folder: c_int, new: *const c_char) -> c_int =
        |real| rename_with((old_folder, old), (new_folder, new), 0, real);
    fn renameat2(
        old_folder: c_int, old: *const c_char, new_folder: c_int, new: *const c_char, flags: c_uint
    ) -> c_int = |real| rename_with((old_folder, old), (new_folder, new), flags, real);
    fn unlink(path: *const c_char) -> c_int = |real| remove_with(HERE, path, real);
    fn unlinkat(folder: c_int, path: *const c_char, flags: c_int) -> c_int = |real| remove_with(folder, path, real);
    fn remove(path: *const c_char) -> c_int = |real| remove_with(HERE, path, real);
    fn rmdir(path: *const c_char) -> c_int = |real| remove_with(HERE, path, real);
    fn mkdir(path: *const c_char, mode: mode_t) -> c_int = |real| make_folder_with(HERE, path, real);
    fn mkdirat(folder: c_int, path: *const c_char, mode: mode_t) -> c_int =
        |real| make_folder_with(folder, path, real);

    fn fsync(fd: c_int) -> c_int = |real| sync_with(fd, real);
    fn fdatasync(fd: c_int) -> c_int = |real| sync_with(fd, real);

    fn close(fd: c_int) -> c_int = |real| { forget(fd); real() };
    fn dup2(old: c_int, new: c_int) -> c_int = |real| { forget(new); real() };
    fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int = |real| { forget(new); real() };
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int =
        |real| { forget_range(first, last); real() };

    fn link(old: *const c_char, new: *const c_char) -> c_int = |real| unless_within(HERE, new, real);
    fn linkat(old_folder: c_int, old: *const c_char, folder: c_int, new: *const c_char, flags: c_int) -> c_int =
        |real| unless_within(folder, new, real);
    fn symlink(target: *const c_char, new: *const c_char) -> c_int = |real| unless_within(HERE, new, real);
    fn symlinkat(target: *const c_char, folder: c_int, new: *const c_char) -> c_int =
        |real| unless_within(folder, new, real);
    fn copy_file_range(
        from: c_int, from_offset: *mut off64_t, to: c_int, to_offset: *mut off64_t, length: size_t, flags: c_uint
    ) -> ssize_t = |real| if recording(to).is_some() { refuse(libc::EINVAL) as ssize_t } else { real() };
    fn sendfile(to: c_int, from: c_int, offset: *mut off_t, length: size_t) -> ssize_t =
        |real| if recording(to).is_some() { refuse(libc::EINVAL) as ssize_t } else { real() };
    fn sendfile64(to: c_int, from: c_int, offset: *mut off64_t, length: size_t) -> ssize_t =
        |real| if recording(to).is_some() { refuse(libc::EINVAL) as ssize_t } else { real() };
    fn splice(
        from: c_int, from_offset: *mut off64_t, to: c_int, to_offset: *mut off64_t, length: size_t, flags: c_uint
    ) -> ssize_t = |real| if recording(to).is_some() { refuse(libc::EINVAL) as ssize_t } else { real() };
    fn pwritev2(fd: c_int, pieces: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t =
        |real| if recording(fd).is_some() { refuse(libc::EOPNOTSUPP) as ssize_t } else { real() };
    fn pwritev64v2(fd: c_int, pieces: *const iovec, count: c_int, offset: off64_t, flags: c_int) -> ssize_t =
        |real| if recording(fd).is_some() { refuse(libc::EOPNOTSUPP) as ssize_t } else { real() };
    fn syncfs(fd: c_int) -> c_int = |real| if recording(fd).is_some() { refuse(libc::ENOSYS) } else { real() };
    fn mmap(at: *mut c_void, length: size_t, access: c_int, flags: c_int, fd: c_int, offset: off_t) -> *mut c_void =
        |real| if maps(access, flags, fd) { set_errno(libc::EACCES); libc::MAP_FAILED } else { real() };
    fn mmap64(
        at: *mut c_void, length: size_t, access: c_int, flags: c_int, fd: c_int, offset: off64_t
    ) -> *mut c_void =
        |real| if maps(access, flags, fd) { set_errno(libc::EACCES); libc::MAP_FAILED } else { real() };
    fn syscall(
        number: c_long, one: c_long, two: c_long, three: c_long, four: c_long, five: c_long, six: c_long
    ) -> c_long = |real| if is_hidden(number, one, three) { c_long::from(refuse(libc::ENOSYS)) } else { real() };
}

/// # Safety
/// `name` must point to a text that ends with a zero byte.
unsafe fn truncate_with(name: *const c_char, bytes: off64_t, call: impl FnOnce() -> c_int) -> c_int {
    let Some(recorder) = recorder() else { return call() };
    // SAFETY: the caller promises it.
    let path = unsafe { recorder.within(HERE, name, true) };
    let (Some(path), Ok(bytes)) = (path, u64::try_from(bytes)) else { return call() };
    let whole = recorder.folder().join(path);
    recorder.change(|record| note_cut(record, &whole, bytes).map(|()| false), call, |_| true)
}

/// Makes a call that reserves space until the byte `until`.
fn allocate_with(fd: c_int, mode: c_int, until: off64_t, call: impl FnOnce() -> c_int) -> c_int {
    match mode {
        0 => resize_with(fd, |before| before.max(u64::try_from(until).unwrap_or(0)), call),
        libc::FALLOC_FL_KEEP_SIZE => call(),
        _ if recording(fd).is_some() => refuse(libc::EOPNOTSUPP),
        _ => call(),
    }
}

/// Whether a mapping would change a recorded file.
fn maps(access: c_int, flags: c_int, fd: c_int) -> bool {
    let writes = access & libc::PROT_WRITE != 0 && flags & libc::MAP_TYPE != libc::MAP_PRIVATE;
    writes && flags & libc::MAP_ANONYMOUS == 0 && recording(fd).is_some()
}

/// Whether a system call may change a recorded file past the functions above.
fn is_hidden(number: c_long, one: c_long, three: c_long) -> bool {
    let is_recorded = |fd: c_long| c_int::try_from(fd).is_ok_and(|fd| recording(fd).is_some());
    match number {
        libc::SYS_io_uring_setup => recorder().is_some(),
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 => {
            is_recorded(one)
        }
        libc::SYS_ftruncate | libc::SYS_fallocate | libc::SYS_sendfile => is_recorded(one),
        libc::SYS_copy_file_range | libc::SYS_splice => is_recorded(three),
        _ => false,
    }
}
