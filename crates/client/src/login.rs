//! Logging in: a user with a password gets a token from a member, and each call carries the token.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bowline_api::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::codegen::{Service, StdError};
use tonic::{Code, Status, transport};

use crate::{ClientError, reason};

/// The metadata with the token.
const TOKEN: &str = "token";

/// What a server without users answers to a login.
const NO_USERS: &str = "etcdserver: authentication is not enabled";

/// What a server answers to a wrong password, and to a user that does not exist.
const WRONG: &str = "etcdserver: authentication failed, invalid user ID or password";

/// What a server answers to a call whose token is missing, has expired or is outdated. It did nothing then. The last one
/// comes when the users were enabled after this client had found none.
const OUTDATED: [&str; 3] =
    ["etcdserver: invalid auth token", "etcdserver: revision of auth store is old", "etcdserver: user name is empty"];

/// A password. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The password in plain text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(text: String) -> Password {
        Password(text)
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Password {
        Password(text.to_owned())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// A user that logs in. All clones of a client share it, and so they share each login.
#[derive(Debug)]
pub(crate) struct Login {
    user: String,
    session: Mutex<Session>,
    /// Held by the call that logs in: the others wait for its token.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Session {
    /// How often a token was forgotten: tells whether a token is the one that a call has used.
    number: u64,
    password: Password,
    access: Access,
}

/// What a login has given.
#[derive(Clone, Debug)]
enum Access {
    /// Nothing yet, or its token was forgotten.
    None,
    Token(HeaderValue),
    /// The server has no users, and wants no token.
    Open,
    /// The password is wrong. It is not tried again.
    Refused(Box<Status>),
}

/// The login before a call has failed, so the call was not sent.
#[derive(Debug, thiserror::Error)]
#[error("can't log in as {user}: {why}")]
struct LoginFailed {
    user: String,
    why: String,
}

impl Login {
    pub(crate) fn new(user: String, password: Password) -> Login {
        let session = Session { number: 0, password, access: Access::None };
        Login { user, session: Mutex::new(session), turn: tokio::sync::Mutex::default() }
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// The number of the present session, for [`Login::forget`].
    pub(crate) fn number(&self) -> u64 {
        self.session().number
    }

    /// Forgets the token of the session of this number. The next call logs in again. If it is forgotten already, another
    /// call of the same session has failed before.
    pub(crate) fn forget(&self, number: u64) {
        let mut session = self.session();
        if session.number == number && matches!(session.access, Access::Token(_) | Access::Open) {
            session.number += 1;
            session.access = Access::None;
        }
    }

    /// The user has another password from now on, which makes the token worthless.
    pub(crate) fn set_password(&self, password: Password) {
        let mut session = self.session();
        *session = Session { number: session.number + 1, password, access: Access::None };
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        // Each change is one step, so a panic leaves nothing half done.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token, if the server wants one, and the number of its session. Logs in if there is no token yet.
    async fn token(&self, channel: transport::Channel) -> Result<(Option<HeaderValue>, u64), Status> {
        let known = |session: &Session| match &session.access {
            Access::None => None,
            Access::Token(token) => Some(Ok((Some(token.clone()), session.number))),
            Access::Open => Some(Ok((None, session.number))),
            Access::Refused(status) => Some(Err(Status::clone(status))),
        };
        if let Some(known) = known(&self.session()) {
            return known;
        }
        let _turn = self.turn.lock().await;
        let session = self.session().clone();
        if let Some(known) = known(&session) {
            return known;
        }
        let access = self.log_in(&session.password, channel).await?;
        let mut now = self.session();
        // A password that was changed meanwhile is another one.
        if now.number == session.number {
            now.access = access.clone();
        }
        known(&Session { access, ..session }).unwrap_or_else(|| Err(Status::internal("a login gives access")))
    }

    async fn log_in(&self, password: &Password, channel: transport::Channel) -> Result<Access, Status> {
        let request = pb::AuthenticateRequest { name: self.user.clone(), password: password.reveal().to_owned() };
        match AuthClient::new(channel).authenticate(request).await {
            Ok(answer) => {
                let token = HeaderValue::try_from(answer.into_inner().token);
                let mut token = token.map_err(|_| self.failed(Status::internal("the token is no metadata")))?;
                token.set_sensitive(true);
                Ok(Access::Token(token))
            }
            Err(status) if status.message() == NO_USERS => Ok(Access::Open),
            Err(status) if status.message() == WRONG => Ok(Access::Refused(Box::new(self.failed(status)))),
            Err(status) => Err(self.failed(status)),
        }
    }

    /// Marks the error of a login.
    fn failed(&self, mut status: Status) -> Status {
        let why = reason(&status);
        status.set_source(Arc::new(LoginFailed { user: self.user.clone(), why }));
        status
    }
}

/// Whether the login before a call has failed, so that the call was not sent.
pub(crate) fn has_failed(status: &Status) -> bool {
    std::error::Error::source(status).is_some_and(|source| source.is::<LoginFailed>())
}

/// Whether a call was not done because of its token, so that it may succeed after another login.
pub(crate) fn is_outdated(status: &Status) -> bool {
    !has_failed(status) && OUTDATED.iter().any(|message| status.message().ends_with(message))
}

/// Calls, and once more if the server has refused the token, which did nothing. The second call logs in again.
pub(crate) async fn with_login<T, A>(login: Option<&Login>, mut call: impl FnMut() -> A) -> Result<T, Status>
where
    A: Future<Output = Result<T, Status>>,
{
    let session = login.map_or(0, Login::number);
    match (call().await, login) {
        (Err(status), Some(login)) if is_outdated(&status) => {
            login.forget(session);
            call().await
        }
        (answer, _) => answer,
    }
}

/// The error of a call that a server has refused.
pub(crate) fn refused(login: Option<&Login>, endpoint: String, status: Status) -> ClientError {
    let user = login.map(|login| login.user().to_owned());
    match user {
        Some(user) if status.message() == WRONG => ClientError::WrongPassword { endpoint, user },
        user if status.code() == Code::PermissionDenied && status.message().ends_with("permission denied") => {
            ClientError::PermissionDenied { endpoint, user }
        }
        _ => ClientError::Refused { endpoint, status: Box::new(status) },
    }
}

/// A connection to an endpoint, for the services of the API. If its client has a user, each call carries the token of that
/// user. A call that finds no token logs in first. The token of a call that the server refuses because of the token is
/// forgotten; such a call is not repeated.
#[derive(Clone, Debug)]
pub struct Channel {
    inner: transport::Channel,
    login: Option<Arc<Login>>,
}

impl Channel {
    pub(crate) fn new(inner: transport::Channel, login: Option<Arc<Login>>) -> Channel {
        Channel { inner, login }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, StdError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Some(login) = self.login.clone() else {
            let answer = self.inner.call(request);
            return Box::pin(async { Ok(answer.await?) });
        };
        // The one that is ready must send the request.
        let other = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, other.clone());
        Box::pin(async move {
            let (token, session) = login.token(other).await?;
            if let Some(token) = token {
                request.headers_mut().insert(TOKEN, token);
            }
            let answer = ready.call(request).await?;
            if Status::from_header_map(answer.headers()).is_some_and(|status| is_outdated(&status)) {
                login.forget(session);
            }
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login::new("alice".to_owned(), Password::from("secret"))
    }

    #[test]
    fn secrets_are_not_shown() {
        let login = login();
        let mut token = HeaderValue::from_static("token.17");
        token.set_sensitive(true);
        login.session().access = Access::Token(token);
        let shown = format!("{login:?}");
        assert!(shown.contains("alice") && !shown.contains("secret") && !shown.contains("token.17"), "{shown}");
    }

    #[test]
    fn calls_that_fail_together_forget_one_token() {
        let login = login();
        login.session().access = Access::Open;
        let (first, second) = (login.number(), login.number());
        login.forget(first);
        login.session().access = Access::Token(HeaderValue::from_static("new"));
        login.forget(second);
        assert!(matches!(login.session().access, Access::Token(_)), "the new token is not the one that was refused");
        login.forget(login.number());
        assert!(matches!(login.session().access, Access::None));
    }

    #[test]
    fn errors_say_what_was_refused() {
        let login = login();
        let error = |status| refused(Some(&login), "e".to_owned(), status).to_string();
        assert_eq!(
            error(Status::permission_denied("etcdserver: permission denied")),
            "e refuses this to the user alice: permission denied; a role of this user must grant it"
        );
        assert_eq!(
            error(Status::invalid_argument(WRONG)),
            "e does not let the user alice in: there is no such user, or the password is wrong"
        );
        let anonymous = refused(None, "e".to_owned(), Status::permission_denied("etcdserver: permission denied"));
        assert_eq!(
            anonymous.to_string(),
            "e refuses this to a client without a user: permission denied; log in as a user whose role grants it"
        );
        assert!(matches!(refused(None, String::new(), Status::not_found("x")), ClientError::Refused { .. }));
    }

    #[test]
    fn a_failed_login_is_no_outdated_token() {
        let failed = login().failed(Status::invalid_argument("etcdserver: user name is empty"));
        assert!(has_failed(&failed) && !is_outdated(&failed));
        assert_eq!(reason(&failed), "can't log in as alice: etcdserver: user name is empty");
        // A watch tells the status as a text.
        let told = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
        assert!(is_outdated(&Status::failed_precondition(told)) && !has_failed(&Status::internal("x")));
    }
}
