//! Output: results on standard output, remarks on standard error.
//!
//! A result that can't be printed is an [`Unprinted`] error, which the exit code distinguishes from bad input. A remark
//! that can't be printed is ignored.

use std::fmt;
use std::io::{self, StdoutLock, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A result could not be printed.
#[derive(Debug)]
pub(crate) struct Unprinted {
    /// Whether something was changed before: then the error must say so.
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
    /// Whether the output has no reader any more and nothing was changed, so that there is nothing to report.
    pub(crate) fn ends_silently(&self) -> bool {
        !self.done && self.why.kind() == io::ErrorKind::BrokenPipe
    }

    /// The [`Unprinted`] among the causes of an error.
    pub(crate) fn of(error: &anyhow::Error) -> Option<&Unprinted> {
        error.chain().find_map(|cause| {
            let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            inner.and_then(|inner| inner.downcast_ref()).or_else(|| cause.downcast_ref())
        })
    }
}

/// Standard output for requests, byte for byte.
pub(crate) struct Out {
    stdout: StdoutLock<'static>,
    done: bool,
}

impl Out {
    pub(crate) fn lock() -> Out {
        Out { stdout: io::stdout().lock(), done: false }
    }

    /// Records that something was changed, whether or not the result can be printed.
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

/// Prints a line of a result. Returns whether it could be printed.
macro_rules! tell {
    ($($words:tt)*) => {
        $crate::out::print(format_args!("{}\n", format_args!($($words)*)))
    };
}

/// Prints a line on standard error.
macro_rules! remark {
    ($($words:tt)*) => {
        $crate::out::whisper(format_args!("{}\n", format_args!($($words)*)))
    };
}

pub(crate) use {remark, tell};

/// Prints a result, in colour on a terminal.
///
/// # Errors
/// It could not be printed.
pub(crate) fn print(words: impl fmt::Display) -> Result<(), Unprinted> {
    let mut stdout = anstream::stdout();
    write!(stdout, "{words}").and_then(|()| stdout.flush()).map_err(|why| Unprinted { done: false, why })
}

/// Makes the error say that something was changed.
pub(crate) fn after_it_was_done(printed: Result<(), Unprinted>) -> Result<(), Unprinted> {
    printed.map_err(|error| Unprinted { done: true, ..error })
}

/// Writes to standard error, and ignores failures, which can't be reported.
pub(crate) fn whisper(words: impl fmt::Display) {
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{words}").and_then(|()| stderr.flush());
}

/// Checks that standard output still has a reader, so that no request is sent whose answer nobody can see.
///
/// # Errors
/// It is a pipe or a socket whose reader is gone.
pub(crate) fn is_read() -> Result<(), Unprinted> {
    let stdout = io::stdout();
    let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // If the system can't tell now, printing will fail later.
    let told = poll(&mut asked, Some(&at_once)).is_ok_and(|ready| ready > 0);
    let gone = told && asked[0].revents().intersects(PollFlags::ERR | PollFlags::HUP);
    if gone { Err(Unprinted { done: false, why: io::ErrorKind::BrokenPipe.into() }) } else { Ok(()) }
}
