//! The messages about users and roles, in the log and in the state. Field numbers never change.

use bytes::Bytes;

/// A user.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct User {
    /// Its name: 1 to 255 bytes.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The hash of its password, in the form of its algorithm, up to 512 bytes; empty if it has none. Such a user proves
    /// who it is by a certificate.
    #[prost(string, tag = "2")]
    pub password_hash: String,
    /// The names of its roles, in order.
    #[prost(string, repeated, tag = "3")]
    pub roles: Vec<String>,
    /// The revision of users and roles at which it was added, or got its present password. Who logged in before is
    /// logged in no longer.
    #[prost(uint64, tag = "4")]
    pub since: u64,
}

/// A role.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Role {
    /// Its name: 1 to 255 bytes.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it permits, in the order of the keys.
    #[prost(message, repeated, tag = "2")]
    pub permissions: Vec<Permission>,
}

/// What may be done with the keys of a range. The numbers are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PermissionKind {
    /// They may be read.
    Read = 0,
    /// They may be written.
    Write = 1,
    /// They may be read and written.
    ReadWrite = 2,
}

/// A permission for a range of keys.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Permission {
    /// What is permitted.
    #[prost(enumeration = "PermissionKind", tag = "1")]
    pub kind: i32,
    /// The first key.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// The end of the range, as in a range request.
    #[prost(bytes = "bytes", tag = "3")]
    pub range_end: Bytes,
}

/// Changes users and roles, or logs a user in.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AuthRequest {
    /// The change.
    #[prost(oneof = "AuthChange", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13")]
    pub change: Option<AuthChange>,
}

/// A change of users and roles, or a login.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum AuthChange {
    /// From now on, each request needs a user who is permitted to make it.
    #[prost(message, tag = "1")]
    Enable(()),
    /// From now on, everybody may do everything.
    #[prost(message, tag = "2")]
    Disable(()),
    /// Adds a user without roles.
    #[prost(message, tag = "3")]
    AddUser(NewPassword),
    /// Deletes a user.
    #[prost(string, tag = "4")]
    DeleteUser(String),
    /// Changes the password of a user.
    #[prost(message, tag = "5")]
    ChangePassword(NewPassword),
    /// Gives a role to a user.
    #[prost(message, tag = "6")]
    GrantRole(RoleOfUser),
    /// Takes a role from a user.
    #[prost(message, tag = "7")]
    RevokeRole(RoleOfUser),
    /// Adds a role without permissions.
    #[prost(string, tag = "8")]
    AddRole(String),
    /// Deletes a role, also from all users.
    #[prost(string, tag = "9")]
    DeleteRole(String),
    /// Gives a permission to a role. It replaces the one for the same key and end.
    #[prost(message, tag = "10")]
    GrantPermission(RolePermission),
    /// Takes a permission from a role; its kind does not matter.
    #[prost(message, tag = "11")]
    RevokePermission(RolePermission),
    /// A member has checked the password of a user, and gives it a token.
    #[prost(message, tag = "12")]
    Login(Login),
    /// A member has checked the password of a user, and replaces the hash by a better one of the same password.
    #[prost(message, tag = "13")]
    RenewHash(NewPassword),
}

/// A user with a new password.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NewPassword {
    /// The name of the user.
    #[prost(string, tag = "1")]
    pub user: String,
    /// The hash of its password; empty for none.
    #[prost(string, tag = "2")]
    pub password_hash: String,
    /// With [`AuthChange::RenewHash`]: the user's `since` when the password was checked. Else 0.
    #[prost(uint64, tag = "3")]
    pub since: u64,
}

/// A user and a role.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RoleOfUser {
    /// The name of the user.
    #[prost(string, tag = "1")]
    pub user: String,
    /// The name of the role.
    #[prost(string, tag = "2")]
    pub role: String,
}

/// A permission and its role.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RolePermission {
    /// The name of the role.
    #[prost(string, tag = "1")]
    pub role: String,
    /// The permission.
    #[prost(message, optional, tag = "2")]
    pub permission: Option<Permission>,
}

/// A login.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Login {
    /// The name of the user.
    #[prost(string, tag = "1")]
    pub user: String,
    /// The user's `since` when the password was checked.
    #[prost(uint64, tag = "2")]
    pub since: u64,
    /// The SHA-256 of the secret part of the token.
    #[prost(bytes = "bytes", tag = "3")]
    pub digest: Bytes,
}

/// A change was made.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct AuthResponse {
    /// The header's revision: the store's.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// The revision of users and roles after it.
    #[prost(uint64, tag = "2")]
    pub auth_revision: u64,
    /// The index of the command in the log.
    #[prost(uint64, tag = "3")]
    pub index: u64,
}
