//! What the exit code means: 0 passed, 1 failed, 2 bad input.

use std::process::ExitCode;

use bowline_client::ClientError;

use crate::complaint;

/// How a command ended, if it could be carried out at all; what could not is bad input, unless a cluster is to
/// blame.
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
            complain(&error);
            ExitCode::from(if is_bad_input(&error) { 2 } else { 1 })
        }
    }
}

/// Tells an error on standard error, and what to do about it.
pub(crate) fn complain(error: &anyhow::Error) {
    anstream::eprintln!("error: {}", complaint::tell(error));
    if let Some(advice) = advice(error) {
        anstream::eprintln!("  {advice}");
    }
}

/// Whether other input would have helped. A cluster that can't be reached, or says no, is none.
fn is_bad_input(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Unreachable { .. } | ClientError::Unknown { .. }) => false,
        Some(ClientError::Refused { status, .. }) => status.code() == tonic::Code::InvalidArgument,
        Some(ClientError::Endpoint(_) | ClientError::NoEndpoint) | None => true,
    }
}

/// What to do next, where that is known.
fn advice(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref::<ClientError>()? {
        ClientError::Unreachable { .. } => {
            Some("is a cluster running there? bowline up starts one; --endpoints or BOWLINE_ENDPOINTS says where it is")
        }
        ClientError::Unknown { .. } => Some("get tells whether it was done; bowline status shows how the members are"),
        ClientError::Refused { status, .. } if status.message().contains("no leader") => {
            Some("a majority of the members must run and reach each other: bowline status shows how they are")
        }
        ClientError::Refused { status, .. } if status.message().contains("compacted") => {
            Some("history before the last compaction is gone; read without --rev, or at a later one")
        }
        ClientError::Refused { status, .. } if status.message() == "no answer in time" => {
            Some("bowline status shows how the members are; --timeout waits longer")
        }
        _ => None,
    }
}
