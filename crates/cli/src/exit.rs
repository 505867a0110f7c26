//! Exit codes: 0 passed, 1 failed, 2 bad input.
//!
//! The type of an error decides, not its text: see [`is_bad_input`].

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use bowline_client::ClientError;
use bowline_emulator::harness::HarnessError;
use bowline_emulator::virtual_run::VirtualError;
use bowline_kv::store::BackupError;
use bowline_lan::replica_program::ReplicaError;
use bowline_server::StartError;
use bowline_server::folder::FolderError;
use bowline_server::restore::FromBackupError;
use bowline_server::salvage::SalvageError;
use bowline_storage::OpenError;

use crate::complaint;
use crate::out::{Unprinted, remark};

/// The exit code when nobody reads the output any more: the one that a shell reports after SIGPIPE.
const NOBODY_READS: u8 = 128 + 13;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The run passed, or the request was done.
    Passed,
    /// The run did not pass, or the request was not done.
    Failed,
    /// Some input was bad, and the error was printed.
    BadInput,
    /// Another exit code, such as that of a command that was run.
    Code(u8),
}

impl Exit {
    /// Passed if `passed`.
    pub(crate) fn of(passed: bool) -> Exit {
        if passed { Exit::Passed } else { Exit::Failed }
    }
}

/// Something was not done, although the input is good.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotDone(pub(crate) String);

/// A test was not completed, so there is no verdict. Counts as bad input, because "failed" would be a verdict.
#[derive(Debug, thiserror::Error)]
#[error("the run was not completed")]
pub(crate) struct NotRun;

/// The exit code for a command's outcome. Prints an error to standard error.
pub(crate) fn code_of(outcome: anyhow::Result<Exit>) -> ExitCode {
    match outcome {
        Ok(Exit::Passed) => ExitCode::SUCCESS,
        Ok(Exit::Failed) => ExitCode::from(1),
        Ok(Exit::BadInput) => ExitCode::from(2),
        Ok(Exit::Code(code)) => ExitCode::from(code),
        Err(error) if Unprinted::of(&error).is_some_and(Unprinted::ends_silently) => ExitCode::from(NOBODY_READS),
        Err(error) => {
            complain(&error);
            ExitCode::from(if is_bad_input(&error) { 2 } else { 1 })
        }
    }
}

/// Prints an error, and what to do about it, to standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    remark!("error: {}", complaint::tell(error));
    if let Some(advice) = advice(error) {
        remark!("  {advice}");
    }
}

/// Whether the input is to blame, so that the same command would fail again. A cluster that can't be reached or
/// refuses, a port in use and a full disk are not bad input.
pub(crate) fn is_bad_input(error: &anyhow::Error) -> bool {
    if error.is::<NotRun>() {
        return true;
    }
    if Unprinted::of(error).is_some() {
        return false;
    }
    error.chain().find_map(judge).unwrap_or(true)
}

/// The answer for a single cause; `None` if it decides nothing.
fn judge(cause: &(dyn std::error::Error + 'static)) -> Option<bool> {
    if let Some(error) = cause.downcast_ref() {
        return Some(client_is_to_blame(error));
    }
    if let Some(error) = cause.downcast_ref::<FolderError>() {
        return Some(is_another_folder_needed(error));
    }
    match cause.downcast_ref() {
        Some(SalvageError::Folder(error)) => return Some(is_another_folder_needed(error)),
        Some(SalvageError::State(_) | SalvageError::Refused { .. }) => return Some(false),
        _ => {}
    }
    match cause.downcast_ref() {
        Some(FromBackupError::Folder(OpenError::Disk(_) | OpenError::InUse { .. })) => return Some(false),
        Some(FromBackupError::Backup(BackupError::Write(_))) => return Some(false),
        _ => {}
    }
    match cause.downcast_ref() {
        Some(StartError::Listen { .. } | StartError::Threads(_) | StartError::Descriptors(_)) => return Some(false),
        Some(StartError::Replica(_) | StartError::Tls(_) | StartError::Scheme(_)) => return Some(true),
        None => {}
    }
    match cause.downcast_ref() {
        // The system denies permission to execute a file that is not a program.
        Some(HarnessError::CannotStart { source, .. }) => {
            return Some(source.kind() == ErrorKind::PermissionDenied || is_about_input(source));
        }
        Some(HarnessError::Interrupted) => return Some(false),
        _ => {}
    }
    let failed = cause.is::<NotDone>()
        || matches!(cause.downcast_ref(), Some(ReplicaError::Stopped(_)))
        || matches!(cause.downcast_ref(), Some(VirtualError::TooManySteps));
    if failed { Some(false) } else { cause.downcast_ref().map(is_about_input) }
}

fn client_is_to_blame(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::Unknown { .. } | ClientError::Compacted { .. } => false,
        ClientError::InUse { .. } | ClientError::NotHeld { .. } => false,
        ClientError::PermissionDenied { .. } => false,
        ClientError::Refused { status, .. } => status.code() == tonic::Code::InvalidArgument,
        ClientError::WrongPassword { .. } => true,
        ClientError::Endpoint(_) | ClientError::NoTls(_) | ClientError::NoEndpoint | ClientError::NoName => true,
    }
}

/// Whether the data folder is another member's or damaged for good, so that no start with it can succeed.
fn is_another_folder_needed(error: &FolderError) -> bool {
    match error {
        FolderError::Open(OpenError::InUse { .. } | OpenError::State { .. } | OpenError::Disk(_)) => false,
        FolderError::Open(_) | FolderError::Suspect { .. } => true,
        _ => false,
    }
}

/// Whether the system rejects the arguments of a call, rather than being unable to do it now.
fn is_about_input(error: &io::Error) -> bool {
    use ErrorKind::{
        AlreadyExists, InvalidData, InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound, UnexpectedEof,
    };
    matches!(
        error.kind(),
        AlreadyExists
            | InvalidData
            | InvalidFilename
            | InvalidInput
            | IsADirectory
            | NotADirectory
            | NotFound
            | UnexpectedEof
    )
}

/// What to do about an error, if that is known.
fn advice(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref::<ClientError>()? {
        ClientError::Unreachable { why, .. } if why.contains("certificate") => {
            Some("`bowline cert show FILE` tells what is in a certificate; --cacert, --cert and --key name the files")
        }
        ClientError::Unreachable { why, .. } if why.contains("plain text") => {
            Some("use http:// in the endpoint, or leave --cacert, --cert and --key out")
        }
        ClientError::Unreachable { why, .. } if why.contains("TLS") => {
            Some("use https:// in the endpoint, and --cacert; the server's log says more")
        }
        ClientError::Unreachable { .. } => Some(
            "is a cluster running there? `bowline up` starts one; --endpoints or BOWLINE_ENDPOINTS gives its address",
        ),
        ClientError::Unknown { .. } => {
            Some("`bowline get` shows whether it was done, and `bowline status` the state of the members")
        }
        ClientError::PermissionDenied { user: Some(_), .. } => Some(
            "`bowline user get NAME --detail` shows what a user may do; `bowline role grant-permission` and `bowline user \
             grant-role` allow more; only users with the role root manage the cluster",
        ),
        ClientError::PermissionDenied { user: None, .. } => Some(LOG_IN),
        ClientError::WrongPassword { .. } => Some(
            "check --user, and --password-file or BOWLINE_PASSWORD; root sets a password with `bowline user passwd`",
        ),
        ClientError::Refused { status, .. } => refused(status),
        ClientError::Compacted { .. } => Some("watch from that revision on, or without --rev"),
        _ => None,
    }
}

/// What to do about a refusal.
fn refused(status: &tonic::Status) -> Option<&'static str> {
    let message = status.message();
    Some(match message.strip_prefix("etcdserver: ").unwrap_or(message) {
        "user name is empty" => LOG_IN,
        "root user does not exist" => {
            "`bowline user add root` adds it, and `bowline user grant-role root root` gives it the role root"
        }
        "root user does not have root role" => {
            "`bowline user grant-role root root` gives it that role; without the user, begin with `bowline user add root`"
        }
        "authentication is not enabled" => "`bowline auth enable` enables it",
        _ if message.contains("no leader") => {
            "a majority of the members must run and reach each other; `bowline status` shows their state"
        }
        _ if message.contains("compacted") => {
            "the history before the last compaction is removed; read without --rev, or at a later revision"
        }
        "no answer in time" => "`bowline status` shows the state of the members; --timeout allows more time",
        _ if status.code() == tonic::Code::Unimplemented => "the server has no such request; is it an older version?",
        _ => return None,
    })
}

/// What to do where a user is needed.
const LOG_IN: &str = "the cluster wants to know who asks: --user NAME, or BOWLINE_USER with BOWLINE_PASSWORD";

#[cfg(test)]
mod tests {
    use std::io::Error;

    use anyhow::Context;
    use bowline_storage::{DiskError, DiskErrorKind};

    use super::*;

    fn is_bad(error: impl Into<anyhow::Error>) -> bool {
        is_bad_input(&error.into().context("can't do this").context("or that"))
    }

    #[test]
    fn what_the_system_can_not_do_now_is_no_bad_input() {
        // Another input helps only against the errors of the first list.
        let (input, state) = (
            ["ENOENT 2", "EEXIST 17", "ENOTDIR 20", "EISDIR 21", "EINVAL 22"],
            [
                "EPERM 1",
                "EINTR 4",
                "EIO 5",
                "ENOMEM 12",
                "EACCES 13",
                "ENFILE 23",
                "EMFILE 24",
                "ENOSPC 28",
                "EROFS 30",
                "EPIPE 32",
                "EADDRINUSE 98",
                "EDQUOT 122",
            ],
        );
        let error = |told: &str| {
            let (_, number) = told.split_once(' ').expect("a name and a number");
            Error::from_raw_os_error(number.parse().expect("a number"))
        };
        assert!(input.into_iter().all(|told| is_bad(error(told))));
        assert!(state.into_iter().all(|told| !is_bad(error(told))));

        let listen = |told| StartError::Listen { address: "127.0.0.1:1".to_owned(), why: error(told) };
        assert!(!is_bad(listen("EADDRINUSE 98")) && !is_bad(listen("EACCES 13")));
        let (operation, path, reason) = ("create", "data".to_owned(), "read-only".to_owned());
        let disk = DiskError { operation, path, kind: DiskErrorKind::Io, reason };
        assert!(!is_bad(FolderError::Open(OpenError::Disk(disk))));
        assert!(!is_bad(FolderError::Open(OpenError::InUse { place: "data".to_owned() })));
        assert!(is_bad(FolderError::Open(OpenError::Unclaimed { place: "data".to_owned() })));

        let start = |told| HarnessError::CannotStart { program: "./kvstore".to_owned(), source: error(told) };
        assert!(is_bad(start("ENOENT 2")) && is_bad(start("EACCES 13")) && !is_bad(start("EMFILE 24")));
    }

    #[test]
    fn an_error_without_a_type_is_bad_input_unless_it_says_otherwise() {
        assert!(is_bad(anyhow::anyhow!("KEY is empty")));
        assert!(!is_bad(NotDone("nothing was deleted".to_owned())));
        let not_run = Err::<(), _>(Error::from_raw_os_error(28)).context(NotRun).expect_err("it failed");
        assert!(is_bad_input(&not_run), "failed would be a verdict");
    }
}
