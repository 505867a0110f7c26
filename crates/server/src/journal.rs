//! What a server says while it runs: one line for each event, for people, on standard error.

use std::fmt::Arguments;
use std::io::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What can't be done.
    Error,
    /// What is not as it should be.
    Warn,
    /// What happens.
    Info,
}

type Out = dyn Fn(Level, Arguments<'_>) + Send + Sync;

/// Where lines go; copies write to the same place.
#[derive(Clone)]
pub struct Journal {
    out: Option<Arc<Out>>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Journal")
    }
}

impl Journal {
    /// Lines on standard error, down to `least`, with the time in UTC.
    #[must_use]
    pub fn stderr(least: Level) -> Journal {
        let write = move |level: Level, line: Arguments<'_>| {
            if level <= least {
                let name = match level {
                    Level::Error => "ERROR",
                    Level::Warn => "WARN ",
                    Level::Info => "INFO ",
                };
                // Nobody is left to be told that nobody listens.
                let _ = writeln!(std::io::stderr().lock(), "{} {name} {line}", timestamp(SystemTime::now()));
            }
        };
        Journal { out: Some(Arc::new(write)) }
    }

    /// Says nothing.
    #[must_use]
    pub fn silent() -> Journal {
        Journal { out: None }
    }

    /// Says what can't be done.
    pub fn error(&self, line: Arguments<'_>) {
        self.say(Level::Error, line);
    }

    /// Says what is not as it should be.
    pub fn warn(&self, line: Arguments<'_>) {
        self.say(Level::Warn, line);
    }

    /// Says what happens.
    pub fn info(&self, line: Arguments<'_>) {
        self.say(Level::Info, line);
    }

    fn say(&self, level: Level, line: Arguments<'_>) {
        if let Some(out) = &self.out {
            out(level, line);
        }
    }
}

/// A moment in UTC, to the millisecond, as RFC 3339 writes it.
fn timestamp(moment: SystemTime) -> String {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let milli = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Year, month and day of a day since 1970. Counts in eras of 400 years that begin in March, so that a leap
/// day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_written_in_utc() {
        let at = |seconds, millis: u32| timestamp(UNIX_EPOCH + Duration::new(seconds, millis * 1_000_000));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400, 7), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(1_795_445_999, 999), "2026-11-23T14:59:59.999Z");
    }
}
