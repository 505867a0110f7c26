//! A replica's own clock: it runs a little fast or slow, and may jump.

use bowline_raft::Time;

/// Nanoseconds of true time.
pub(crate) type Moment = u64;

const MILLION: i128 = 1_000_000;

/// A monotonic clock, which advances at its own rate from one true moment on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    since: Moment,
    shown_then: u64,
    /// How much it gains on true time, in parts per million; negative if it loses.
    gains_ppm: i64,
}

impl Clock {
    pub(crate) fn new(since: Moment, shown_then: u64, gains_ppm: i64) -> Clock {
        Clock { since, shown_then, gains_ppm }
    }

    /// How much it gains on true time, in parts per million.
    pub(crate) fn gains_ppm(&self) -> i64 {
        self.gains_ppm
    }

    /// The time that it shows.
    pub(crate) fn shows(&self, now: Moment) -> Time {
        let passed = i128::from(now - self.since);
        let shown = passed + (passed * i128::from(self.gains_ppm)).div_euclid(MILLION);
        Time(self.shown_then + u64::try_from(shown).expect("a clock doesn't run backwards"))
    }

    /// The first true moment at which it shows `time` or more.
    pub(crate) fn moment_of(&self, time: Time) -> Moment {
        if time == Time::NEVER {
            return Moment::MAX;
        }
        if time.0 <= self.shown_then {
            return self.since;
        }
        let ahead = i128::from(time.0.saturating_sub(self.shown_then));
        let rate = MILLION + i128::from(self.gains_ppm);
        let passed = (ahead * MILLION + rate - 1) / rate;
        let mut moment = self.since.saturating_add(u64::try_from(passed).unwrap_or(Moment::MAX));
        // Rounding may leave it a nanosecond off, either way.
        while moment < Moment::MAX && self.shows(moment) < time {
            moment += 1;
        }
        while moment > self.since && self.shows(moment - 1) >= time {
            moment -= 1;
        }
        moment
    }

    /// Changes its rate.
    pub(crate) fn retune(&mut self, now: Moment, gains_ppm: i64) {
        *self = Clock::new(now, self.shows(now).0, gains_ppm);
    }

    /// Jumps ahead.
    pub(crate) fn jump(&mut self, now: Moment, by: u64) {
        *self = Clock::new(now, self.shows(now).0.saturating_add(by), self.gains_ppm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_at_the_moment_that_it_names() {
        for gains in [-300_000, -10_000, 0, 333, 10_000, 499_999] {
            let mut clock = Clock::new(1_000, 77, gains);
            clock.jump(5_000, 123_456);
            for ahead in [0, 1, 2, 999, 1_000_003] {
                let time = Time(clock.shows(5_000).0 + ahead);
                let moment = clock.moment_of(time);
                assert!(clock.shows(moment) >= time, "{gains} {ahead}");
                assert!(moment == 5_000 || clock.shows(moment - 1) < time, "{gains} {ahead}");
            }
        }
    }
}
