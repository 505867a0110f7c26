//! Lines for the log that strangers can cause: each at most once a minute, and not too many different ones.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::stopwatch;

/// Shortest interval between two lines that say the same.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Most different lines within that time.
const MOST_LINES: usize = 64;

/// A line that was said.
#[derive(Clone, Copy, Debug)]
struct Said {
    /// The reading of the stopwatch.
    at: Duration,
    /// How often it was not said since.
    more: u64,
}

/// The lines that were said lately.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<BTreeMap<String, Said>>);

impl Complaints {
    /// Calls `log`, unless it was called for the same text less than a minute ago. It is told how often it was left out
    /// meanwhile.
    pub(crate) fn say(&self, text: &str, log: impl FnOnce(u64)) {
        self.say_each(SAY_AGAIN, text, log);
    }

    /// The same with another interval.
    pub(crate) fn say_each(&self, interval: Duration, text: &str, log: impl FnOnce(u64)) {
        let now = stopwatch();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = |said: &Said, interval| now.saturating_sub(said.at) < interval;
        if let Some(said) = all.get_mut(text).filter(|said| lately(said, interval)) {
            said.more += 1;
            return;
        }
        if all.len() >= MOST_LINES {
            all.retain(|_, said| lately(said, SAY_AGAIN));
        }
        if all.len() < MOST_LINES {
            let before = all.insert(text.to_owned(), Said { at: now, more: 0 });
            drop(all);
            log(before.map_or(0, |before| before.more));
        }
    }

    /// Forgets what was said.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_repeated_after_its_interval_only_and_there_are_not_too_many() {
        let (complaints, mut said) = (Complaints::default(), Vec::new());
        for _ in 0..3 {
            complaints.say("the same", |more| said.push(more));
        }
        complaints.say_each(Duration::ZERO, "the same", |more| said.push(more));
        assert_eq!(said, [0, 2], "the second line tells of two others");
        for number in 0..1_000 {
            complaints.say(&number.to_string(), |more| said.push(more));
        }
        assert_eq!(said.len(), 1 + MOST_LINES);
        complaints.clear();
        complaints.say("the same", |more| said.push(more));
        assert_eq!(said.len(), 2 + MOST_LINES);
    }
}
