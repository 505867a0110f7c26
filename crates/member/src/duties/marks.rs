//! When the leader marks a state that the members compare: see `bowline_kv::store::CompareStep`.

use std::time::Duration;

use bowline_node::raft::Time;

#[derive(Debug)]
pub(super) struct Marks {
    interval: Duration,
    /// When the next mark is written, if one is still due then.
    due: Time,
    is_under_way: bool,
}

impl Marks {
    pub(super) fn new(interval: Duration) -> Marks {
        Marks { interval, due: Time::NEVER, is_under_way: false }
    }

    /// Whether to write a mark now. `is_due`: this member leads, and something was written since the last mark.
    pub(super) fn next(&mut self, now: Time, is_due: bool) -> bool {
        if self.is_under_way {
            return false;
        }
        if !is_due {
            self.due = Time::NEVER;
        } else if self.due == Time::NEVER {
            self.due = now.after(self.interval);
        }
        self.is_under_way = self.due <= now;
        self.is_under_way
    }

    pub(super) fn due(&self) -> Time {
        if self.is_under_way { Time::NEVER } else { self.due }
    }

    /// The mark was answered, in any way. The next one waits for its interval.
    pub(super) fn ended(&mut self) {
        self.is_under_way = false;
        self.due = Time::NEVER;
    }
}
