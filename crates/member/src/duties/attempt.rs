//! Something that is written until it is so.

use std::time::Duration;

use bowline_node::raft::Time;

/// Writes what is wanted, one attempt at a time, with a pause between two of the same.
#[derive(Debug)]
pub(super) struct Attempt<T> {
    pause: Duration,
    /// What was written last, as long as it is still wanted.
    written: Option<T>,
    is_under_way: bool,
    not_before: Time,
}

impl<T: Clone + PartialEq> Attempt<T> {
    pub(super) fn new(pause: Duration) -> Attempt<T> {
        Attempt { pause, written: None, is_under_way: false, not_before: Time::ZERO }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    /// What is to be written now.
    pub(super) fn next(&mut self, now: Time, wanted: Option<T>) -> Option<T> {
        if self.is_under_way {
            return None;
        }
        if wanted.is_none() || (self.written == wanted && now < self.not_before) {
            // It may be that the member's own state has it a little later than the answer.
            self.written = self.written.take().filter(|_| wanted.is_some());
            return None;
        }
        self.is_under_way = true;
        self.written.clone_from(&wanted);
        wanted
    }

    /// When it is to be written again, if it is still wanted then.
    pub(super) fn due(&self) -> Time {
        if self.is_under_way || self.written.is_none() { Time::NEVER } else { self.not_before }
    }

    /// What was written last was answered, in any way. Returns it.
    pub(super) fn ended(&mut self, now: Time) -> Option<T> {
        self.is_under_way = false;
        self.not_before = now.after(self.pause);
        self.written.clone()
    }
}
