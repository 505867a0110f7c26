//! Who has logged in: the tokens of this member.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bowline_kv::store::{AuthBook, Issued, KvError, LoggedIn, Login};
use bowline_kv::tokens::{self, RANDOM_BYTES, Tokens};

use crate::auth::{Jwt, Passwords, TokenKind};
use crate::clock::{Clock, unix_seconds};
use crate::complaints::Complaints;

/// Most simple tokens that a member remembers. Beyond it, the one that expires first goes.
const MAX_TOKENS: usize = 100_000;

/// The tokens of a member, and what it takes to get one.
#[derive(Debug)]
pub struct Sessions {
    kind: Kind,
    pub(crate) passwords: Passwords,
    /// Of logins that were refused.
    pub(crate) complaints: Complaints,
    clock: Clock,
}

#[derive(Debug)]
enum Kind {
    /// The lock is held only for short changes in memory.
    Simple(Mutex<Tokens>),
    Jwt(Jwt),
}

/// A token for a user whose password was right.
#[derive(Debug)]
pub(crate) enum Token {
    /// It is valid already.
    Signed(String),
    /// It becomes valid when its login is applied: these letters, a dot, and the index of the login.
    Letters(String),
}

impl Sessions {
    pub(crate) fn new(kind: &TokenKind, clock: Clock) -> Sessions {
        let kind = match kind {
            TokenKind::Simple { ttl } => Kind::Simple(Mutex::new(Tokens::new(*ttl, MAX_TOKENS))),
            TokenKind::Jwt(jwt) => Kind::Jwt(jwt.clone()),
        };
        Sessions { kind, passwords: Passwords::new(), complaints: Complaints::default(), clock }
    }

    /// The index of the log entry that issued a simple token.
    pub(crate) fn issued_at(&self, token: &str) -> Option<u64> {
        match &self.kind {
            Kind::Simple(_) => tokens::index_of(token),
            Kind::Jwt(_) => None,
        }
    }

    /// The user of a token.
    ///
    /// # Errors
    /// The token is not valid; or it is a signed one from before the last change of users and roles, as in etcd.
    pub(crate) fn check(&self, token: &str, auth: &AuthBook) -> Result<LoggedIn, KvError> {
        match &self.kind {
            Kind::Simple(tokens) => locked(tokens).user_of(self.clock.now(), token).ok_or(KvError::InvalidAuthToken),
            Kind::Jwt(jwt) => {
                let claims = jwt.verify(token, unix_seconds()).ok_or(KvError::InvalidAuthToken)?;
                if claims.revision < auth.revision() {
                    return Err(KvError::AuthRevisionOld);
                }
                Ok(LoggedIn { user: claims.user.into(), at: claims.revision })
            }
        }
    }

    /// Makes a token for a user whose password was right. `None`: this member can't sign.
    pub(crate) fn token(&self, user: &str, auth: &AuthBook) -> Option<Token> {
        match &self.kind {
            Kind::Simple(_) => {
                let mut random = [0; RANDOM_BYTES];
                getrandom::fill(&mut random).expect("a system that runs programs has random numbers");
                Some(Token::Letters(tokens::draw(random)))
            }
            Kind::Jwt(jwt) => jwt.sign(user, auth.revision(), unix_seconds()).ok().map(Token::Signed),
        }
    }

    /// A login was applied: its token is valid now.
    pub(crate) fn applied(&self, issued: &Issued) {
        let Kind::Simple(tokens) = &self.kind else { return };
        let Issued { login: Login { user, digest, .. }, index, auth_revision } = issued;
        let Ok(digest) = digest[..].try_into() else { return };
        let user = LoggedIn { user: user.as_str().into(), at: *auth_revision };
        locked(tokens).issue(self.clock.now(), digest, user, index.0);
    }
}

fn locked(tokens: &Mutex<Tokens>) -> MutexGuard<'_, Tokens> {
    // Every change is complete before the lock is released, even after a panic.
    tokens.lock().unwrap_or_else(PoisonError::into_inner)
}
