//! Decides what is right by what was seen, and knows nothing of what was running: no replica, no network, no clock.
//!
//! Two checkers decide whether a history is linearizable: [`registers`] are read and written, with values that may
//! repeat; [`keys`] are put, deleted and swapped, and carry the store's revisions. Both give a [`Verdict`], and read
//! their [`history`] from lines of JSON. [`trace`] is the fingerprint of a run, which must be the same for the same
//! seed.

pub mod history;
pub mod keys;
#[cfg(test)]
mod random;
pub mod registers;
pub mod trace;
mod verdict;

pub use verdict::{MAX_STEPS, Undecided, Verdict};
