//! The host's monotonic clock, as the core's time.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bowline_node::raft::Time;

/// A clock that counts from its own start. Copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Now. Starts at one second: a time of zero means "no time" on the wire.
    #[must_use]
    pub fn now(self) -> Time {
        Time::ZERO.after(self.start.elapsed() + Duration::from_secs(1))
    }

    /// The time until a deadline; `None` if it never comes.
    #[must_use]
    pub fn until(self, deadline: Time) -> Option<Duration> {
        (deadline != Time::NEVER).then(|| deadline.since(self.now()))
    }
}

/// The system's time in seconds since 1970, for what is exchanged with others; 0 if it is set to a time before.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The reading of a stopwatch that runs as long as the process.
#[must_use]
pub(crate) fn stopwatch() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// Now, as the timers of tokio count.
pub(crate) fn timer_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
