//! What the program says: results on standard output, remarks on standard error.
//!
//! A result that can't be printed is an error of its own kind, [`Unprinted`], so that the exit code can tell it from
//! bad input. A remark that can't be printed is no reason to stop.

use std::fmt;
use std::io::{self, StdoutLock, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A result could not be printed.
#[derive(Debug)]
pub(crate) struct Unprinted {
    /// Something was changed before: the command must not look as if nothing had happened.
    done: bool,
    why: io::Error,
}

impl fmt::Display for Unprinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.done { "done, but could not be printed" } else { "the result could not be printed" };
        write!(f, "{what}: {}", self.why)
    }
}

impl std::error::Error for Unprinted {}

impl Unprinted {
    /// Nobody reads the output any more, and nothing was changed that somebody would have to hear of.
    pub(crate) fn ends_silently(&self) -> bool {
        !self.done && self.why.kind() == io::ErrorKind::BrokenPipe
    }

    /// What an error says of this, if it says anything of it.
    pub(crate) fn of(error: &anyhow::Error) -> Option<&Unprinted> {
        error.chain().find_map(|cause| {
            let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            inner.and_then(|inner| inner.downcast_ref()).or_else(|| cause.downcast_ref())
        })
    }
}

/// Standard output, byte for byte, as requests write to it.
pub(crate) struct Out {
    stdout: StdoutLock<'static>,
    done: bool,
}

impl Out {
    pub(crate) fn lock() -> Out {
        Out { stdout: io::stdout().lock(), done: false }
    }

    /// From here on something is changed, whether that can be printed or not.
    pub(crate) fn done(&mut self) {
        self.done = true;
    }

    fn unprinted(&self, why: io::Error) -> io::Error {
        io::Error::new(why.kind(), Unprinted { done: self.done, why })
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stdout.write(bytes).map_err(|why| self.unprinted(why))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush().map_err(|why| self.unprinted(why))
    }
}

/// Prints a line of a result; the value is whether it could be printed.
macro_rules! tell {
    ($($words:tt)*) => {
        $crate::out::print(format_args!("{}\n", format_args!($($words)*)))
    };
}

/// Makes a remark on standard error.
macro_rules! remark {
    ($($words:tt)*) => {
        $crate::out::whisper(format_args!("{}\n", format_args!($($words)*)))
    };
}

pub(crate) use {remark, tell};

/// Prints a result, in colour where a terminal reads it.
///
/// # Errors
/// It could not be printed.
pub(crate) fn print(words: impl fmt::Display) -> Result<(), Unprinted> {
    let mut stdout = anstream::stdout();
    write!(stdout, "{words}").and_then(|()| stdout.flush()).map_err(|why| Unprinted { done: false, why })
}

/// What follows something that was done: the same error, which says so.
pub(crate) fn after_it_was_done(printed: Result<(), Unprinted>) -> Result<(), Unprinted> {
    printed.map_err(|error| Unprinted { done: true, ..error })
}

/// Writes to standard error. Where that fails, there is nobody to tell.
pub(crate) fn whisper(words: impl fmt::Display) {
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{words}").and_then(|()| stderr.flush());
}

/// Fails if standard output is a pipe or a socket that nobody reads any more, so that nothing is done whose answer
/// nobody can see.
///
/// # Errors
/// Nobody reads it.
pub(crate) fn is_read() -> Result<(), Unprinted> {
    let stdout = io::stdout();
    let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A system that can't tell does so when something is printed.
    let told = poll(&mut asked, Some(&at_once)).is_ok_and(|ready| ready > 0);
    let gone = told && asked[0].revents().intersects(PollFlags::ERR | PollFlags::HUP);
    if gone { Err(Unprinted { done: false, why: io::ErrorKind::BrokenPipe.into() }) } else { Ok(()) }
}
