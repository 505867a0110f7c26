//! Judges a run from its record alone. It knows no replica, network or clock.
//!
//! Two checkers decide whether a history is linearizable: [`registers`] handles reads and writes whose values may
//! repeat; [`keys`] handles puts, deletions and swaps, with the store's revisions. Both return a [`Verdict`] and read
//! their [`history`] from lines of JSON. [`trace`] computes the hash of a run, which must be the same for the same
//! seed.

pub mod history;
pub mod keys;
pub mod registers;
pub mod trace;
mod verdict;

pub use verdict::{MAX_STEPS, Undecided, Verdict};
