//! What a user sees while something runs: a line that moves on a terminal, and nothing elsewhere.

use std::time::Duration;

use bowline_emulator::emulation::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A live line on standard error. Where that is no terminal, nothing is drawn.
pub(crate) struct Live {
    bar: ProgressBar,
    quiet: bool,
}

impl Live {
    /// A line for a task of `total` steps.
    pub(crate) fn new(total: u64, quiet: bool) -> Live {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(5) };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let template = if plain { "{prefix} [{bar:24}] {msg}" } else { "{prefix:.bold} [{bar:24.cyan/dim}] {msg}" };
        let style = ProgressStyle::with_template(template).expect("the template is well-formed");
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

    /// Another message on the line that moves.
    pub(crate) fn message(&self, message: String) {
        self.bar.set_message(message);
    }

    /// A line that stays, above the one that moves; on standard error.
    pub(crate) fn say(&self, line: &str) {
        if self.quiet {
            return;
        }
        self.bar.suspend(|| crate::out::remark!("{line}"));
    }

    /// A line of the result, above the one that moves; on standard output.
    pub(crate) fn print(&self, line: &str) -> Result<(), crate::out::Unprinted> {
        if self.quiet { Ok(()) } else { self.bar.suspend(|| crate::out::tell!("{line}")) }
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Where a run on the LAN stands, in a line.
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

/// A moment of a run.
pub(crate) fn at(time: Duration) -> String {
    format!("{:>8.3} s", time.as_secs_f64())
}
