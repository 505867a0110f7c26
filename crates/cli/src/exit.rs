//! What the exit code means: 0 passed, 1 failed, 2 bad input.

use std::process::ExitCode;

use crate::complaint;

/// How a command ended, if it could be carried out at all; what could not is bad input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What was run passed, or what was asked is done.
    Passed,
    /// What was run did not pass.
    Failed,
}

impl Verdict {
    /// Passed if `passed`.
    pub(crate) fn of(passed: bool) -> Verdict {
        if passed { Verdict::Passed } else { Verdict::Failed }
    }
}

/// The exit code for a command's outcome. An error is told on standard error, the first line first.
pub(crate) fn code_of(outcome: anyhow::Result<Verdict>) -> ExitCode {
    match outcome {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::from(1),
        Err(error) => {
            anstream::eprintln!("error: {}", complaint::tell(&error));
            ExitCode::from(2)
        }
    }
}
