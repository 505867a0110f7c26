//! Who asks, and what they ask for.

use std::fmt;
use std::sync::Arc;

use super::super::Command;
use super::super::codec::CodecError;

/// Who makes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Principal {
    /// Nobody has logged in. While authentication is enabled, almost everything is refused.
    #[default]
    Anonymous,
    /// A user, who has proved it.
    User(LoggedIn),
    /// A member of the cluster, for what the cluster does by itself. Everything is permitted.
    Member,
}

/// A user who has proved who it is, by a password or a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedIn {
    /// Its name.
    pub user: Arc<str>,
    /// The revision of users and roles when it did so. If its password was changed later, it has to do it again.
    pub at: u64,
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Anonymous => write!(f, "nobody"),
            Principal::User(LoggedIn { user, .. }) => write!(f, "user {user}"),
            Principal::Member => write!(f, "a member"),
        }
    }
}

/// A command, and who gives it. What goes through the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Who gives it.
    pub by: Principal,
    /// The command.
    pub command: Command,
}

impl Submission {
    /// Reads what [`Command::to_bytes_by`] wrote. Ignores fields that this program does not know.
    ///
    /// # Errors
    /// As [`Command::from_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Submission, CodecError> {
        Command::read(bytes).map(|(command, by)| Submission { by, command })
    }
}
