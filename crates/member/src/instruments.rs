//! What a host may measure.

use std::fmt;
use std::time::Duration;

/// What a host measures. Nothing that a member does depends on it; without any method, nothing is measured.
pub trait Instruments: fmt::Debug + Send + Sync {
    /// The reading of a stopwatch, to measure how long something takes.
    fn stopwatch(&self) -> Duration {
        Duration::ZERO
    }

    /// A command was applied. Its kind is as [`Command::kind_of`](bowline_kv::store::Command::kind_of) tells it.
    fn applied(&self, _kind: u8, _good: bool, _took: Duration) {}

    /// The file of the state was written, with the commands during which that happened.
    fn committed(&self, _took: Duration) {}

    /// A step of removing compacted revisions has removed this many records.
    fn tidied(&self, _removed: u64, _took: Duration) {}
}

/// Measures nothing.
impl Instruments for () {}
