//! Who makes a request, and what it may do: the only way of the services to the data.

use std::time::Duration;

use bowline_kv::store::{
    AuthRequest, AuthResponse, Authorized, Change, Check, Command, Guarded, KvError, LoggedIn, Principal, Query,
    RangeRequest, RangeResponse, Task, decode_reply_to,
};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::{Context, errors};
use crate::client_connection::CertifiedName;
use crate::clock::stopwatch;
use crate::duties;

/// How long a request waits until this member knows the token that another one has issued.
const TOKEN_PATIENCE: Duration = Duration::from_secs(1);

/// Somebody who makes a request.
#[derive(Debug)]
pub(super) struct Caller<'a> {
    pub(super) context: &'a Context,
    by: Principal,
}

impl Context {
    /// Who makes a request. Also refuses it if it requires a leader and none is known.
    pub(super) async fn caller<T>(&self, request: &Request<T>) -> Result<Caller<'_>, Status> {
        self.require_leader(request.metadata())?;
        let by = self.identify(request).await.map_err(errors::of_store)?;
        Ok(self.on_behalf_of(by))
    }

    /// For the further requests of a stream.
    pub(super) fn on_behalf_of(&self, by: Principal) -> Caller<'_> {
        Caller { context: self, by }
    }

    async fn identify<T>(&self, request: &Request<T>) -> Result<Principal, KvError> {
        let token = token(request.metadata());
        let certified = request.extensions().get::<CertifiedName>();
        if !self.replica.auth().is_enabled() && (token.is_some() || certified.is_some()) {
            // It has just started, perhaps, and does not know yet that there are users.
            self.replica.catch_up(TOKEN_PATIENCE).await;
        }
        let auth = self.replica.auth();
        if !auth.is_enabled() {
            return Ok(Principal::Anonymous);
        }
        if let Some(token) = token {
            if let Some(index) = self.sessions.issued_at(token)
                && index > self.replica.status().applied_index
            {
                // If it never comes, the token is not valid.
                let _ = tokio::time::timeout(TOKEN_PATIENCE, self.replica.has_applied(index)).await;
            }
            return self.sessions.check(token, &self.replica.auth()).map(Principal::User);
        }
        Ok(certified.map_or(Principal::Anonymous, |CertifiedName(name)| {
            Principal::User(LoggedIn { user: name.clone(), at: auth.revision() })
        }))
    }
}

/// The token of a request, from the fields that etcd reads.
fn token(metadata: &MetadataMap) -> Option<&str> {
    let token = metadata.get("token").or_else(|| metadata.get("authorization"))?.to_str().ok()?;
    Some(token.strip_prefix("Bearer ").unwrap_or(token))
}

impl Caller<'_> {
    /// For a stream that goes on after this request.
    pub(super) fn principal(&self) -> Principal {
        self.by.clone()
    }

    /// Authorizes a task, by the users and roles that this member knows.
    pub(super) fn may(&self, task: Task) -> Result<Authorized<Task>, Status> {
        self.context.replica.auth().authorize_task(&self.by, task).map_err(errors::of_store)
    }

    /// Authorizes a request that has to do with leases.
    pub(super) async fn check<T>(&self, request: T) -> Result<Authorized<T>, Status>
    where
        T: Guarded + Clone + Send + 'static,
    {
        // With users, what this member knows of their permissions must be recent.
        let serializable = !self.context.replica.auth().is_enabled();
        self.read(Check(request), serializable).await
    }

    /// Refuses a command that its giver may not give, before it is written to the log: otherwise strangers could fill
    /// the log. The state checks it again when the command is applied, which decides.
    async fn precheck(&self, command: &Command) -> Result<(), Status> {
        let replica = &self.context.replica;
        if !replica.auth().is_enabled() {
            return Ok(());
        }
        let look = || async { replica.look(&self.by, Check(command.clone())).await.map_err(errors::of_request) };
        if look().await?.is_ok() {
            return Ok(());
        }
        // The permission may be so new that this member does not know it yet.
        replica.confirm().await.map_err(errors::of_request)?;
        look().await?.map(|_| ()).map_err(errors::of_store)
    }

    /// Writes a change through the log, then waits until this member's own state contains it, so that the client's next
    /// read here does not see an older state.
    pub(super) async fn write<C: Change>(&self, change: C) -> Result<C::Response, Status> {
        let Context { replica, limits, quota, .. } = self.context;
        let command: Command = change.into();
        command.check(limits).map_err(errors::of_store)?;
        self.precheck(&command).await?;
        if !quota.admits(&replica.status().facts, command.cost()) {
            duties::raise_alarm(replica, *quota).await;
            return Err(errors::of_store(KvError::NoSpace));
        }
        let written = replica.write(self.context.extended(command.to_bytes_by(&self.by))).await;
        if written.is_err() {
            replica.metrics().proposals_failed.inc();
        }
        let reply = decode_reply_to::<C>(written.map_err(errors::of_request)?);
        let reply = reply.map_err(|error| Status::data_loss(format!("bowline: {error}")))?;
        let (response, revision) = reply.map_err(errors::of_store)?;
        if !replica.reaches(|facts| facts.revision >= revision).await {
            return Err(late());
        }
        Ok(response)
    }

    /// Changes users or roles, and waits until this member knows the change.
    pub(super) async fn write_auth(&self, request: AuthRequest) -> Result<AuthResponse, Status> {
        let response = self.write(request).await?;
        if self.context.replica.has_applied(response.index).await { Ok(response) } else { Err(late()) }
    }

    /// Checks a query, and waits until this member's state is recent enough to answer it.
    async fn admit(&self, query: &impl Query, serializable: bool) -> Result<(), Status> {
        query.check(&self.context.limits).map_err(errors::of_store)?;
        if serializable { Ok(()) } else { self.context.replica.confirm().await.map_err(errors::of_request) }
    }

    /// Reads from the latest state, or from this member's own (`serializable`).
    pub(super) async fn read<Q>(&self, query: Q, serializable: bool) -> Result<Q::Answer, Status>
    where
        Q: Query + Send + 'static,
        Q::Answer: Send + 'static,
    {
        self.admit(&query, serializable).await?;
        self.context.replica.look(&self.by, query).await.map_err(errors::of_request)?.map_err(errors::of_store)
    }

    /// Reads a range, and measures how long reading the state takes.
    pub(super) async fn range(&self, range: RangeRequest, serializable: bool) -> Result<RangeResponse, Status> {
        self.context.refuse_for_learner(serializable)?;
        self.admit(&range, serializable).await?;
        let began = stopwatch();
        let found = self.context.replica.look(&self.by, range).await.map_err(errors::of_request)?;
        self.context.replica.metrics().ranged(found.is_ok(), stopwatch() - began);
        found.map_err(errors::of_store)
    }
}

fn late() -> Status {
    Status::unavailable("etcdserver: request timed out, waiting for the applied index took too long")
}
