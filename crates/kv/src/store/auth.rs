//! Users and roles: who may do what.
//!
//! There is one place where requests are checked. A request says what it [`Need`]s: which keys it reads and writes, or
//! that it is for administrators. [`authorize`](Store::authorize) compares that with the user's permissions and makes an
//! [`Authorized`] request of it. Nothing else can make one, and the store answers and applies only these. A command is
//! checked when it is applied, by the users and roles that the state has then, so permissions that change while it is
//! under way count.

mod authorize;
mod book;
mod principal;
mod ranges;
mod types;

pub use authorize::{
    AuthListRequest, AuthStatusRequest, Authorized, Check, Guarded, LeaseRenewal, Need, RoleGetRequest, Task,
    UserGetRequest,
};
pub use book::{AuthBook, ROOT};
pub use principal::{LoggedIn, Principal, Submission};
pub use types::{
    AuthChange, AuthRequest, AuthResponse, Login, NewPassword, Permission, PermissionKind, Role, RoleOfUser,
    RolePermission, User,
};

use std::sync::Arc;

use bowline_node::raft::Index;

use super::engine::Engine;
use super::read::Failure;
use super::{KvError, Store};

/// A token that a user was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The login.
    pub login: Login,
    /// The index of its command in the log.
    pub index: Index,
    /// The revision of users and roles at that time.
    pub auth_revision: u64,
}

impl<E: Engine> Store<E> {
    /// The users and roles. Copies share their contents.
    #[must_use]
    pub fn auth(&self) -> &Arc<AuthBook> {
        &self.meta.auth
    }

    /// The token that the last command issued.
    #[must_use]
    pub fn issued(&self) -> Option<&Issued> {
        self.issued.as_ref()
    }

    pub(super) fn change_auth(&mut self, index: Index, request: &AuthRequest) -> Result<AuthResponse, Failure> {
        request.check()?;
        let change = request.change.as_ref().ok_or(KvError::Unreadable)?;
        let mut book = AuthBook::clone(&self.meta.auth);
        book.change(change)?;
        if let AuthChange::Login(login) = change {
            self.issued = Some(Issued { login: login.clone(), index, auth_revision: book.revision() });
        }
        // Whoever watches users and roles compares pointers.
        if book != *self.meta.auth {
            self.meta.auth = Arc::new(book);
        }
        let (revision, auth_revision) = (self.meta.revision, self.meta.auth.revision());
        Ok(AuthResponse { revision, auth_revision, index: index.0 })
    }
}
