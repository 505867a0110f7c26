//! Users, roles and permissions.

use bowline_api::authpb;
use bowline_api::etcdserverpb as pb;
use bytes::Bytes;
use pb::auth_client::AuthClient;

use super::op::{prefix_end, prefix_range};
use super::{Channel, Client, ClientError, Password};

/// Whether the users are enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthStatus {
    /// Whether each call needs a user.
    pub enabled: bool,
    /// The number of changes of users, roles and permissions so far, from 1.
    pub revision: u64,
}

/// What a permission allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// To read.
    Read,
    /// To write.
    Write,
    /// To read and to write.
    ReadWrite,
}

/// The keys of a permission.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Keys {
    /// One key.
    One(Bytes),
    /// The keys from the first up to, but not including, the second.
    Range(Bytes, Bytes),
    /// The keys that begin with this. An empty prefix means all keys.
    Prefix(Bytes),
    /// This key and all keys after it.
    From(Bytes),
}

impl Keys {
    /// The keys of a range of the API: an empty `range_end` means `key` alone, and one zero byte all keys from `key` on.
    #[must_use]
    pub fn of(key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> Keys {
        let (key, range_end) = (key.into(), range_end.into());
        match &range_end[..] {
            [] => Keys::One(key),
            [0] if key[..] == [0] || key.is_empty() => Keys::Prefix(Bytes::new()),
            [0] => Keys::From(key),
            _ if prefix_end(&key) == range_end => Keys::Prefix(key),
            _ => Keys::Range(key, range_end),
        }
    }

    /// The key and the end of the range, as in the API.
    #[must_use]
    pub fn bounds(&self) -> (Bytes, Bytes) {
        match self {
            Keys::One(key) => (key.clone(), Bytes::new()),
            Keys::Range(key, range_end) => (key.clone(), range_end.clone()),
            Keys::Prefix(prefix) => prefix_range(prefix.clone()),
            Keys::From(key) => (key.clone(), Bytes::from_static(&[0])),
        }
    }
}

/// A permission of a role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Permission {
    /// What is allowed.
    pub access: Access,
    /// With which keys.
    pub keys: Keys,
}

impl From<authpb::Permission> for Permission {
    fn from(told: authpb::Permission) -> Permission {
        let access = match told.perm_type() {
            authpb::permission::Type::Read => Access::Read,
            authpb::permission::Type::Write => Access::Write,
            authpb::permission::Type::Readwrite => Access::ReadWrite,
        };
        Permission { access, keys: Keys::of(told.key, told.range_end) }
    }
}

impl From<Permission> for authpb::Permission {
    fn from(permission: Permission) -> authpb::Permission {
        let perm_type = match permission.access {
            Access::Read => authpb::permission::Type::Read,
            Access::Write => authpb::permission::Type::Write,
            Access::ReadWrite => authpb::permission::Type::Readwrite,
        };
        let (key, range_end) = permission.keys.bounds();
        authpb::Permission { perm_type: perm_type.into(), key, range_end }
    }
}

/// Calls a method of the service: with `read_at` if it may be repeated, else with `write_at`.
macro_rules! call {
    ($client:expr, $how:ident, $method:ident, $request:expr) => {{
        let request = $request;
        let send = |channel: Channel| {
            let request = request.clone();
            async move { AuthClient::new(channel).$method(request).await }
        };
        $client.$how(send).await
    }};
}

/// Users and roles. Only the user `root` may call these once the users are enabled; others may read themselves and their
/// roles.
impl Client {
    /// Enables the users: from now on, each call needs one. The user `root` must exist and have the role `root`.
    ///
    /// # Errors
    /// See [`ClientError`].
    ///
    /// # Example
    /// ```no_run
    /// # use bowline_client::{Access, Client, ClientError, Keys, Permission};
    /// # async fn run(client: &mut Client) -> Result<(), ClientError> {
    /// client.user_add("root", Some("a long password".into())).await?;
    /// client.user_grant_role("root", "root").await?;
    /// client.role_add("app").await?;
    /// let permission = Permission { access: Access::ReadWrite, keys: Keys::Prefix("app/".into()) };
    /// client.role_grant_permission("app", permission).await?;
    /// client.user_add("alice", Some("another one".into())).await?;
    /// client.user_grant_role("alice", "app").await?;
    /// client.auth_enable().await?;
    ///
    /// let mut alice = client.clone().with_user("alice", "another one");
    /// alice.put("app/greeting", "hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn auth_enable(&mut self) -> Result<(), ClientError> {
        call!(self, write_at, auth_enable, pb::AuthEnableRequest {}).map(drop)
    }

    /// Disables the users: everybody may do everything. Users and roles are kept.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn auth_disable(&mut self) -> Result<(), ClientError> {
        call!(self, write_at, auth_disable, pb::AuthDisableRequest {}).map(drop)
    }

    /// Whether the users are enabled. etcd has this since 3.5.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn auth_status(&mut self) -> Result<AuthStatus, ClientError> {
        let told = call!(self, read_at, auth_status, pb::AuthStatusRequest {})?;
        Ok(AuthStatus { enabled: told.enabled, revision: told.auth_revision })
    }

    /// Adds a user. Without a password, the user can only log in with a certificate of TLS.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn user_add(&mut self, name: &str, password: Option<Password>) -> Result<(), ClientError> {
        let options = Some(authpb::UserAddOptions { no_password: password.is_none() });
        let password = password.map_or_else(String::new, |password| password.reveal().to_owned());
        let request = pb::AuthUserAddRequest { name: name.to_owned(), password, options, ..Default::default() };
        call!(self, write_at, user_add, request).map(drop)
    }

    /// The roles of a user.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn user_get(&mut self, name: &str) -> Result<Vec<String>, ClientError> {
        call!(self, read_at, user_get, pb::AuthUserGetRequest { name: name.to_owned() }).map(|told| told.roles)
    }

    /// The names of all users.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn user_list(&mut self) -> Result<Vec<String>, ClientError> {
        call!(self, read_at, user_list, pb::AuthUserListRequest {}).map(|told| told.users)
    }

    /// Deletes a user.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn user_delete(&mut self, name: &str) -> Result<(), ClientError> {
        call!(self, write_at, user_delete, pb::AuthUserDeleteRequest { name: name.to_owned() }).map(drop)
    }

    /// Changes the password of a user, whose tokens are no longer valid then. If it is the user of this client, the client
    /// and its clones use the new password from now on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn user_change_password(&mut self, name: &str, password: Password) -> Result<(), ClientError> {
        let (name, new) = (name.to_owned(), password.reveal().to_owned());
        let request = pb::AuthUserChangePasswordRequest { name: name.clone(), password: new, ..Default::default() };
        call!(self, write_at, user_change_password, request)?;
        if let Some(login) = self.login.as_ref().filter(|login| login.user() == name) {
            login.set_password(password);
        }
        Ok(())
    }

    /// Gives a role to a user.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn user_grant_role(&mut self, user: &str, role: &str) -> Result<(), ClientError> {
        let request = pb::AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() };
        call!(self, write_at, user_grant_role, request).map(drop)
    }

    /// Takes a role from a user.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn user_revoke_role(&mut self, user: &str, role: &str) -> Result<(), ClientError> {
        let request = pb::AuthUserRevokeRoleRequest { name: user.to_owned(), role: role.to_owned() };
        call!(self, write_at, user_revoke_role, request).map(drop)
    }

    /// Adds a role, without permissions.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn role_add(&mut self, name: &str) -> Result<(), ClientError> {
        call!(self, write_at, role_add, pb::AuthRoleAddRequest { name: name.to_owned() }).map(drop)
    }

    /// The permissions of a role.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn role_get(&mut self, role: &str) -> Result<Vec<Permission>, ClientError> {
        let told = call!(self, read_at, role_get, pb::AuthRoleGetRequest { role: role.to_owned() })?;
        Ok(told.perm.into_iter().map(Permission::from).collect())
    }

    /// The names of all roles.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn role_list(&mut self) -> Result<Vec<String>, ClientError> {
        call!(self, read_at, role_list, pb::AuthRoleListRequest {}).map(|told| told.roles)
    }

    /// Deletes a role, and takes it from all users.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn role_delete(&mut self, role: &str) -> Result<(), ClientError> {
        call!(self, write_at, role_delete, pb::AuthRoleDeleteRequest { role: role.to_owned() }).map(drop)
    }

    /// Adds a permission to a role. It replaces one of exactly the same keys.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn role_grant_permission(&mut self, role: &str, permission: Permission) -> Result<(), ClientError> {
        let request = pb::AuthRoleGrantPermissionRequest { name: role.to_owned(), perm: Some(permission.into()) };
        call!(self, write_at, role_grant_permission, request).map(drop)
    }

    /// Takes the permission of exactly these keys from a role.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn role_revoke_permission(&mut self, role: &str, keys: &Keys) -> Result<(), ClientError> {
        let (key, range_end) = keys.bounds();
        let request = pb::AuthRoleRevokePermissionRequest { role: role.to_owned(), key, range_end };
        call!(self, write_at, role_revoke_permission, request).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_recognised() {
        let all = [
            (Keys::One("k".into()), &b"k"[..], &b""[..]),
            (Keys::Range("a".into(), "c".into()), b"a", b"c"),
            (Keys::Prefix("app/".into()), b"app/", b"app0"),
            (Keys::Prefix(Bytes::from_static(b"a\xff")), b"a\xff", b"b"),
            (Keys::Prefix(Bytes::new()), b"\0", b"\0"),
            (Keys::From("k".into()), b"k", b"\0"),
        ];
        for (keys, key, end) in all {
            assert_eq!(keys.bounds(), (Bytes::from_static(key), Bytes::from_static(end)));
            assert_eq!(Keys::of(key, end), keys);
            let permission = Permission { access: Access::ReadWrite, keys };
            assert_eq!(Permission::from(authpb::Permission::from(permission.clone())), permission);
        }
        // All keys from one on that begins with 0xff: the same keys as the prefix.
        assert_eq!(Keys::of(&b"\xff"[..], &b"\0"[..]), Keys::From(Bytes::from_static(b"\xff")));
    }
}
