//! The host's monotonic clock, in the core's terms.

use std::time::{Duration, Instant};

use bowline_node::raft::Time;

/// Counts from its own start. Copies of it agree.
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

    /// How long it is until then; `None` if it never comes.
    #[must_use]
    pub fn until(self, deadline: Time) -> Option<Duration> {
        (deadline != Time::NEVER).then(|| deadline.since(self.now()))
    }

    /// The core's time of a moment that is now or later.
    #[must_use]
    pub fn at(self, moment: Instant) -> Time {
        self.now().after(moment.saturating_duration_since(Instant::now()))
    }
}
