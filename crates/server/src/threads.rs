//! Threads of the system: nothing is decided here.

use std::io;
use std::thread::{self, Builder, JoinHandle};
use std::time::Duration;

/// A thread that runs.
pub(crate) type Thread<T> = JoinHandle<T>;

/// Starts a thread.
pub(crate) fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Thread<T> {
    try_spawn(name, work).expect("the system has room for four more threads")
}

/// Starts a thread that can be done without.
pub(crate) fn try_spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Thread<T>> {
    Builder::new().name(name.to_owned()).spawn(work)
}

/// Works in a thread of its own, and waits for the end.
pub(crate) fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().expect("the work does not panic"))
}

/// Blocks this thread for a time.
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

/// How many threads can work at the same time.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
