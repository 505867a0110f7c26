//! The progress of a run, shown on a terminal only.

use std::time::Duration;

use bowline_emulator::emulation::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress line on standard error. Nothing is drawn if that is not a terminal.
pub(crate) struct Live {
    bar: ProgressBar,
    quiet: bool,
}

impl Live {
    /// A line for a task of `total` steps.
    pub(crate) fn new(total: u64, quiet: bool) -> Live {
        Live::with(total, quiet, "[{bar:24.cyan/dim}] {msg}")
    }

    /// A line for a long message, which is cut at the terminal's width.
    pub(crate) fn wide(total: u64) -> Live {
        Live::with(total, false, "[{bar:8.cyan/dim}] {wide_msg}")
    }

    fn with(total: u64, quiet: bool, rest: &str) -> Live {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(5) };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let template = format!("{{prefix:.bold}} {rest}");
        let template = if plain { template.replace(":.bold", "").replace(".cyan/dim", "") } else { template };
        let style = ProgressStyle::with_template(&template).expect("the template is well-formed");
        bar.set_style(style.progress_chars("=> "));
        Live { bar, quiet }
    }

    pub(crate) fn title(&self, title: &str) {
        self.bar.set_prefix(title.to_owned());
    }

    pub(crate) fn step(&self, done: u64, message: String) {
        self.bar.set_position(done);
        self.bar.set_message(message);
    }

    /// Replaces the message of the progress line.
    pub(crate) fn message(&self, message: String) {
        self.bar.set_message(message);
    }

    /// Prints a line to standard error, above the progress line.
    pub(crate) fn say(&self, line: &str) {
        if self.quiet {
            return;
        }
        self.bar.suspend(|| crate::out::remark!("{line}"));
    }

    /// Prints a line of the result to standard output, above the progress line.
    pub(crate) fn print(&self, line: &str) -> Result<(), crate::out::Unprinted> {
        if self.quiet { Ok(()) } else { self.bar.suspend(|| crate::out::tell!("{line}")) }
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// The progress of a run on the LAN, in one line.
pub(crate) fn describe(progress: &Progress) -> String {
    let leader = progress.leader.map_or_else(|| "no leader".to_owned(), |leader| format!("leader {leader}"));
    let cut = if progress.cut { ", network cut" } else { "" };
    format!(
        "{:>4.1}/{:.0} s  {}/{} done, {} waiting, {} messages, {leader}, {} alive{cut}",
        progress.time.as_secs_f64(),
        progress.duration.as_secs_f64(),
        progress.answered,
        progress.requests,
        progress.outstanding,
        progress.messages,
        progress.alive,
    )
}

/// A time in a run, formatted.
pub(crate) fn at(time: Duration) -> String {
    format!("{:>8.3} s", time.as_secs_f64())
}
