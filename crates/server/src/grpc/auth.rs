//! The Auth service: users, roles, and logins.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bowline_api::authpb;
use bowline_api::etcdserverpb as pb;
use bowline_kv::store::{
    AuthChange, AuthListRequest, AuthRequest, AuthResponse, AuthStatusRequest, KvError, Login, NewPassword, Permission,
    PermissionKind, Principal, ROOT, RoleGetRequest, RoleOfUser, RolePermission, User, UserGetRequest,
};
use bowline_kv::tokens;
use bowline_kv::versions;
use pb::auth_server::Auth;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::{Context, answer, errors};
use crate::auth::{Refusal, Verdict, is_hash};
use crate::sessions::Token;

/// Characters of an unknown user's name that the log shows.
const SHOWN_CHARACTERS: usize = 64;

/// How often a login is tried whose user changes meanwhile.
const ATTEMPTS: usize = 8;

#[derive(Clone, Debug)]
pub(crate) struct AuthService {
    pub(crate) context: Context,
}

impl AuthService {
    /// Makes a change, and returns the header of the answer.
    async fn change<T>(&self, request: Request<T>, change: impl FnOnce(T) -> AuthChange) -> Result<Header, Status> {
        let caller = self.context.caller(&request).await?;
        self.write(&caller, change(request.into_inner())).await
    }

    async fn write(&self, caller: &Caller<'_>, change: AuthChange) -> Result<Header, Status> {
        self.ready().await?;
        let AuthResponse { revision, .. } = caller.write_auth(AuthRequest { change: Some(change) }).await?;
        Ok(Some(self.context.header(revision)))
    }

    /// Waits until every member knows users and roles.
    async fn ready(&self) -> Result<(), Status> {
        let replica = &self.context.replica;
        // A new cluster agrees on its version as soon as all members know each other. If they don't, this waits in vain.
        let _ = replica.reaches(|facts| facts.cluster_version > 0).await;
        let version = replica.status().facts.cluster_version;
        if version >= versions::USERS {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "bowline: users and roles need version {} of the peer protocol, but the cluster has version {version}: \
             start a newer program on every member",
            versions::USERS
        )))
    }

    /// A user with the hash of a new password. Only who may make the change is worth the work.
    async fn new_password(
        &self,
        caller: &Caller<'_>,
        user: String,
        password: String,
        hashed: &str,
    ) -> Result<NewPassword, Status> {
        caller.check(AuthListRequest).await?;
        let password_hash = match (password.is_empty(), hashed.is_empty()) {
            (false, true) => self.context.sessions.passwords.hash(password).await.map_err(of_passwords)?,
            (_, false) => given_hash(hashed)?,
            (true, true) => {
                return Err(Status::invalid_argument(format!(
                    "bowline: the password of user {user:?} is empty; give one, or add the user with the option \
                     no_password"
                )));
            }
        };
        Ok(NewPassword { user, password_hash, since: 0 })
    }

    /// Checks a password, and issues a token.
    async fn log_in(&self, name: &str, password: &str) -> Result<(String, i64), Status> {
        let Context { replica, sessions, .. } = &self.context;
        for _ in 0..ATTEMPTS {
            // From now on this member knows every change that was acknowledged before.
            replica.confirm().await.map_err(errors::of_request)?;
            let (auth, revision) = (replica.auth(), replica.status().facts.revision);
            if !auth.is_enabled() {
                return Err(errors::of_store(KvError::AuthNotEnabled));
            }
            let user = auth.user(name);
            let hash = user.map(|user| user.password_hash.as_str()).filter(|hash| !hash.is_empty());
            let verdict = sessions.passwords.verify(password.to_owned(), hash).await.map_err(of_passwords)?;
            let Some(user) = user.filter(|_| verdict != Verdict::Wrong) else {
                let shown: String = name.chars().take(SHOWN_CHARACTERS).collect();
                sessions.complaints.say(&shown, |more| {
                    tracing::warn!(user = shown, more, "a login was refused: the user or the password is wrong");
                });
                return Err(errors::of_store(KvError::AuthenticationFailed));
            };
            if verdict == Verdict::Old {
                self.renew_hash(user, password).await?;
            }
            let letters = match sessions.token(name, &auth) {
                Some(Token::Signed(token)) => return Ok((token, revision)),
                Some(Token::Letters(letters)) => letters,
                None => {
                    return Err(Status::failed_precondition(
                        "bowline: this member can't sign tokens: its \
                    --auth-token has no priv-key; log in at another member",
                    ));
                }
            };
            let digest = tokens::digest(&letters).to_vec().into();
            let login = Login { user: name.to_owned(), since: user.since, digest };
            match self.write_by_member(AuthChange::Login(login)).await {
                Ok(response) => return Ok((format!("{letters}.{}", response.index), response.revision)),
                Err(status) if status.message() == KvError::AuthRevisionOld.to_string() => {}
                Err(status) => return Err(status),
            }
        }
        Err(errors::of_store(KvError::AuthRevisionOld))
    }

    /// Replaces a hash that was made by an older algorithm.
    async fn renew_hash(&self, user: &User, password: &str) -> Result<(), Status> {
        let password_hash = self.context.sessions.passwords.hash(password.to_owned()).await.map_err(of_passwords)?;
        let new = NewPassword { user: user.name.clone(), password_hash, since: user.since };
        self.write_by_member(AuthChange::RenewHash(new)).await.map(|_| ())
    }

    async fn write_by_member(&self, change: AuthChange) -> Result<AuthResponse, Status> {
        self.context.on_behalf_of(Principal::Member).write_auth(AuthRequest { change: Some(change) }).await
    }
}

type Header = Option<pb::ResponseHeader>;

/// A hash that the client has made itself, in base64 as in etcd.
fn given_hash(hashed: &str) -> Result<String, Status> {
    let decoded = BASE64.decode(hashed).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.filter(|hash| is_hash(hash)).ok_or_else(|| {
        Status::invalid_argument(
            "bowline: hashedPassword is no hash that is allowed; allowed: the base64 of a hash of argon2id or bcrypt",
        )
    })
}

fn of_passwords(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Busy => Status::resource_exhausted("etcdserver: too many requests"),
        Refusal::TooLong(_) => Status::invalid_argument(format!("bowline: {refusal}")),
    }
}

fn permission(permission: authpb::Permission) -> Permission {
    let authpb::Permission { perm_type, key, range_end } = permission;
    Permission { kind: perm_type, key, range_end }
}

/// The permissions of a role. Those of root are not listed in the state: it may do everything.
fn shown(name: &str, permissions: &[Permission]) -> Vec<authpb::Permission> {
    let all = Permission { kind: PermissionKind::ReadWrite.into(), range_end: vec![0].into(), ..Permission::default() };
    let permissions = if name == ROOT { Cow::Owned(vec![all]) } else { Cow::Borrowed(permissions) };
    let shown = |permission: &Permission| {
        let Permission { kind, key, range_end } = permission.clone();
        authpb::Permission { perm_type: kind, key, range_end }
    };
    permissions.iter().map(shown).collect()
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let header = self.change(request, |_| AuthChange::Enable(())).await?;
        Ok(answer(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let header = self.change(request, |_| AuthChange::Disable(())).await?;
        Ok(answer(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        // It needs no token. One that is not valid any more must not keep a client from the answer.
        self.context.require_leader(request.metadata())?;
        let told = self.context.on_behalf_of(Principal::Anonymous).read(AuthStatusRequest, false).await?;
        let header = Some(self.context.header(told.revision));
        let (enabled, auth_revision) = (told.found.is_enabled(), told.found.revision());
        Ok(answer(pb::AuthStatusResponse { header, enabled, auth_revision }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        self.context.require_leader(request.metadata())?;
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        let (token, revision) = self.log_in(&name, &password).await?;
        Ok(answer(pb::AuthenticateResponse { header: Some(self.context.header(revision)), token }))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let pb::AuthUserAddRequest { name, password, options, hashed_password } = request.into_inner();
        let new = match options {
            Some(options) if options.no_password => NewPassword { user: name, password_hash: String::new(), since: 0 },
            _ if name.is_empty() => return Err(errors::of_store(KvError::UserEmpty)),
            _ => self.new_password(&caller, name, password, &hashed_password).await?,
        };
        let header = self.write(&caller, AuthChange::AddUser(new)).await?;
        Ok(answer(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let told = caller.read(UserGetRequest { name: request.into_inner().name }, false).await?;
        let header = Some(self.context.header(told.revision));
        Ok(answer(pb::AuthUserGetResponse { header, roles: told.found.roles }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let told = self.context.caller(&request).await?.read(AuthListRequest, false).await?;
        let header = Some(self.context.header(told.revision));
        let users = told.found.users().map(|user| user.name.clone()).collect();
        Ok(answer(pb::AuthUserListResponse { header, users }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let header = self.change(request, |request| AuthChange::DeleteUser(request.name)).await?;
        Ok(answer(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let pb::AuthUserChangePasswordRequest { name, password, hashed_password } = request.into_inner();
        let new = self.new_password(&caller, name, password, &hashed_password).await?;
        let header = self.write(&caller, AuthChange::ChangePassword(new)).await?;
        Ok(answer(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let grant = |request: pb::AuthUserGrantRoleRequest| {
            AuthChange::GrantRole(RoleOfUser { user: request.user, role: request.role })
        };
        let header = self.change(request, grant).await?;
        Ok(answer(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let revoke = |request: pb::AuthUserRevokeRoleRequest| {
            AuthChange::RevokeRole(RoleOfUser { user: request.name, role: request.role })
        };
        let header = self.change(request, revoke).await?;
        Ok(answer(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let header = self.change(request, |request| AuthChange::AddRole(request.name)).await?;
        Ok(answer(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let told = caller.read(RoleGetRequest { name: request.into_inner().role }, false).await?;
        let header = Some(self.context.header(told.revision));
        let perm = shown(&told.found.name, &told.found.permissions);
        Ok(answer(pb::AuthRoleGetResponse { header, perm }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let told = self.context.caller(&request).await?.read(AuthListRequest, false).await?;
        let header = Some(self.context.header(told.revision));
        let roles = told.found.roles().map(|role| role.name.clone()).collect();
        Ok(answer(pb::AuthRoleListResponse { header, roles }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let header = self.change(request, |request| AuthChange::DeleteRole(request.role)).await?;
        Ok(answer(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let grant = |request: pb::AuthRoleGrantPermissionRequest| {
            let permission = request.perm.map(permission);
            AuthChange::GrantPermission(RolePermission { role: request.name, permission })
        };
        let header = self.change(request, grant).await?;
        Ok(answer(pb::AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let revoke = |request: pb::AuthRoleRevokePermissionRequest| {
            let pb::AuthRoleRevokePermissionRequest { role, key, range_end } = request;
            let permission = Some(Permission { kind: PermissionKind::Read.into(), key, range_end });
            AuthChange::RevokePermission(RolePermission { role, permission })
        };
        let header = self.change(request, revoke).await?;
        Ok(answer(pb::AuthRoleRevokePermissionResponse { header }))
    }
}
