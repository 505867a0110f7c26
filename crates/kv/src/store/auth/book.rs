//! The users, the roles, and what they are permitted: part of the replicated state.
//!
//! The rules are etcd's, and so are the texts of their errors.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::ranges::KeySet;
use super::types::{
    AuthChange, AuthRequest, Login, NewPassword, Permission, PermissionKind, Role, RoleOfUser, RolePermission, User,
};
use crate::store::KvError;
use crate::watch::KeyRange;

/// The user, and the role, that may do everything.
pub const ROOT: &str = "root";

/// Longest name, in bytes.
const MAX_NAME: usize = 255;

/// Longest hash of a password, in bytes.
const MAX_HASH: usize = 512;

/// Most bytes of all users and roles, as they are encoded: they are in memory, and in each note of the store.
const MAX_BYTES: usize = 1 << 20;

/// Length of the digest of a token, in bytes.
const DIGEST: usize = 32;

/// The users and roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthBook {
    enabled: bool,
    /// Counts the changes; 1 at first.
    revision: u64,
    /// Who logged in before this revision is logged in no longer.
    valid_from: u64,
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Role>,
    /// What each user may do. Follows from the roles.
    access: BTreeMap<Arc<str>, Access>,
}

/// What a user may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Access {
    /// Everything.
    pub(super) root: bool,
    pub(super) reads: KeySet,
    pub(super) writes: KeySet,
}

/// The users and roles in a note or a snapshot. Field numbers never change.
#[derive(Clone, PartialEq, prost::Message)]
struct Note {
    #[prost(bool, tag = "1")]
    enabled: bool,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(uint64, tag = "3")]
    valid_from: u64,
    #[prost(message, repeated, tag = "4")]
    users: Vec<User>,
    #[prost(message, repeated, tag = "5")]
    roles: Vec<Role>,
}

impl Default for AuthBook {
    fn default() -> AuthBook {
        AuthBook {
            enabled: false,
            revision: 1,
            valid_from: 0,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            access: BTreeMap::new(),
        }
    }
}

impl AuthBook {
    /// Whether each request needs a user who is permitted to make it.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// How often users and roles were changed, plus 1.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether nothing was ever changed.
    #[must_use]
    pub fn is_new(&self) -> bool {
        *self == AuthBook::default()
    }

    /// The users, in the order of their names.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values()
    }

    /// The roles, in the order of their names.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.values()
    }

    /// The user of a name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// The role of a name.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    pub(super) fn access(&self, user: &str) -> Option<&Access> {
        self.access.get(user)
    }

    pub(super) fn valid_from(&self) -> u64 {
        self.valid_from
    }

    pub(crate) fn encode(&self) -> Bytes {
        self.note().encode_to_vec().into()
    }

    fn note(&self) -> Note {
        let (users, roles) = (self.users.values().cloned().collect(), self.roles.values().cloned().collect());
        Note { enabled: self.enabled, revision: self.revision, valid_from: self.valid_from, users, roles }
    }

    /// Reads what [`AuthBook::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are no users and roles, or these break a rule.
    pub(crate) fn decode(bytes: &[u8]) -> Result<AuthBook, String> {
        AuthBook::checked(Note::decode(bytes).map_err(|error| format!("its users and roles: {error}"))?)
    }

    /// Users and roles that come from a backup. Everybody has to log in again.
    ///
    /// # Errors
    /// They break a rule.
    pub(crate) fn restored(
        enabled: bool,
        revision: u64,
        mut users: Vec<User>,
        mut roles: Vec<Role>,
    ) -> Result<AuthBook, String> {
        for user in &mut users {
            user.roles.sort();
            user.since = revision;
        }
        for role in &mut roles {
            role.permissions.sort_by(|one, next| one.place().cmp(&next.place()));
        }
        AuthBook::checked(Note { enabled, revision, valid_from: revision, users, roles })
    }

    fn checked(note: Note) -> Result<AuthBook, String> {
        let bytes = note.encoded_len();
        let Note { enabled, revision, valid_from, users, roles } = note;
        let count = (users.len(), roles.len());
        let users: BTreeMap<String, User> = users.into_iter().map(|user| (user.name.clone(), user)).collect();
        let roles: BTreeMap<String, Role> = roles.into_iter().map(|role| (role.name.clone(), role)).collect();
        let mut book = AuthBook { enabled, revision, valid_from, users, roles, access: BTreeMap::new() };
        let known = |user: &User| user.roles.iter().all(|role| role == ROOT || book.roles.contains_key(role));
        let sound = (book.users.len(), book.roles.len()) == count
            && revision >= 1
            && bytes <= MAX_BYTES
            && book.users.values().all(|user| check_user(user).is_ok() && known(user) && is_sorted(&user.roles))
            && book.roles.values().all(|role| check_name(&role.name).is_ok() && has_good_permissions(role));
        if !sound {
            return Err("its users and roles break a rule".to_owned());
        }
        book.derive_access();
        Ok(book)
    }

    /// Finds out what each user may do.
    fn derive_access(&mut self) {
        let access = |user: &User| {
            let roles = user.roles.iter().filter_map(|name| self.roles.get(name));
            let permissions: Vec<&Permission> = roles.flat_map(|role| &role.permissions).collect();
            let of = |other: PermissionKind| {
                let granted = permissions.iter().filter(|permission| permission.kind() != other);
                KeySet::of(granted.filter_map(|permission| KeyRange::of(&permission.key, &permission.range_end)))
            };
            Access { root: user.has(ROOT), reads: of(PermissionKind::Write), writes: of(PermissionKind::Read) }
        };
        self.access = self.users.values().map(|user| (user.name.as_str().into(), access(user))).collect();
    }

    /// Makes a change.
    ///
    /// # Errors
    /// A rule forbids it; the copy is of no use then.
    pub(crate) fn change(&mut self, change: &AuthChange) -> Result<(), KvError> {
        let before = self.revision;
        match change {
            AuthChange::Enable(()) => self.enable()?,
            AuthChange::Disable(()) => self.disable(),
            AuthChange::AddUser(new) => self.add_user(new)?,
            AuthChange::DeleteUser(name) => self.delete_user(name)?,
            AuthChange::ChangePassword(new) => {
                self.revision += 1;
                let since = self.revision;
                let user = self.user_mut(&new.user)?;
                (user.password_hash, user.since) = (new.password_hash.clone(), since);
            }
            AuthChange::GrantRole(RoleOfUser { user, role }) => self.grant_role(user, role)?,
            AuthChange::RevokeRole(RoleOfUser { user, role }) => self.revoke_role(user, role)?,
            AuthChange::AddRole(name) => self.add_role(name)?,
            AuthChange::DeleteRole(name) => self.delete_role(name)?,
            AuthChange::GrantPermission(RolePermission { role, permission }) => {
                self.grant_permission(role, permission.as_ref().ok_or(KvError::PermissionNotGiven)?)?;
            }
            AuthChange::RevokePermission(RolePermission { role, permission }) => {
                self.revoke_permission(role, permission.as_ref().ok_or(KvError::PermissionNotGiven)?)?;
            }
            AuthChange::Login(login) => return self.admit(login),
            AuthChange::RenewHash(new) => {
                if let Some(user) = self.users.get_mut(&new.user).filter(|user| user.since == new.since) {
                    user.password_hash.clone_from(&new.password_hash);
                }
                return Ok(());
            }
        }
        if self.revision != before {
            if self.note().encoded_len() > MAX_BYTES {
                return Err(KvError::TooManyUsers);
            }
            self.derive_access();
        }
        Ok(())
    }

    fn enable(&mut self) -> Result<(), KvError> {
        let root = self.users.get(ROOT).ok_or(KvError::RootUserMissing)?;
        if !root.has(ROOT) {
            return Err(KvError::RootRoleMissing);
        }
        self.enabled = true;
        Ok(())
    }

    fn disable(&mut self) {
        if self.enabled {
            self.enabled = false;
            self.revision += 1;
            self.valid_from = self.revision;
        }
    }

    fn add_user(&mut self, new: &NewPassword) -> Result<(), KvError> {
        if self.users.contains_key(&new.user) {
            return Err(KvError::UserExists);
        }
        self.revision += 1;
        let (name, password_hash) = (new.user.clone(), new.password_hash.clone());
        let user = User { name: name.clone(), password_hash, roles: Vec::new(), since: self.revision };
        self.users.insert(name, user);
        Ok(())
    }

    fn delete_user(&mut self, name: &str) -> Result<(), KvError> {
        if self.enabled && name == ROOT {
            return Err(KvError::InvalidAuthManagement);
        }
        self.users.remove(name).ok_or(KvError::UserNotFound)?;
        self.revision += 1;
        Ok(())
    }

    fn user_mut(&mut self, name: &str) -> Result<&mut User, KvError> {
        self.users.get_mut(name).ok_or(KvError::UserNotFound)
    }

    fn grant_role(&mut self, user: &str, role: &str) -> Result<(), KvError> {
        // As in etcd, the role root need not exist.
        let known = role == ROOT || self.roles.contains_key(role);
        let user = self.user_mut(user)?;
        if !known {
            return Err(KvError::RoleNotFound);
        }
        if let Err(place) = user.roles.binary_search_by(|other| other.as_str().cmp(role)) {
            user.roles.insert(place, role.to_owned());
            self.revision += 1;
        }
        Ok(())
    }

    fn revoke_role(&mut self, user: &str, role: &str) -> Result<(), KvError> {
        if self.enabled && user == ROOT && role == ROOT {
            return Err(KvError::InvalidAuthManagement);
        }
        let user = self.user_mut(user)?;
        let place = user.roles.binary_search_by(|other| other.as_str().cmp(role));
        user.roles.remove(place.map_err(|_| KvError::RoleNotGranted)?);
        self.revision += 1;
        Ok(())
    }

    fn add_role(&mut self, name: &str) -> Result<(), KvError> {
        if self.roles.contains_key(name) {
            return Err(KvError::RoleExists);
        }
        self.roles.insert(name.to_owned(), Role { name: name.to_owned(), permissions: Vec::new() });
        self.revision += 1;
        Ok(())
    }

    fn delete_role(&mut self, name: &str) -> Result<(), KvError> {
        if self.enabled && name == ROOT {
            return Err(KvError::InvalidAuthManagement);
        }
        self.roles.remove(name).ok_or(KvError::RoleNotFound)?;
        self.users.values_mut().for_each(|user| user.roles.retain(|role| role != name));
        self.revision += 1;
        Ok(())
    }

    fn grant_permission(&mut self, role: &str, permission: &Permission) -> Result<(), KvError> {
        let role = self.roles.get_mut(role).ok_or(KvError::RoleNotFound)?;
        match role.permissions.binary_search_by(|other| other.place().cmp(&permission.place())) {
            Ok(place) if role.permissions[place] == *permission => return Ok(()),
            Ok(place) => role.permissions[place] = permission.clone(),
            Err(place) => role.permissions.insert(place, permission.clone()),
        }
        self.revision += 1;
        Ok(())
    }

    fn revoke_permission(&mut self, role: &str, permission: &Permission) -> Result<(), KvError> {
        let role = self.roles.get_mut(role).ok_or(KvError::RoleNotFound)?;
        let place = role.permissions.binary_search_by(|other| other.place().cmp(&permission.place()));
        role.permissions.remove(place.map_err(|_| KvError::PermissionNotGranted)?);
        self.revision += 1;
        Ok(())
    }

    /// Checks that a login is still true: the password may have changed since it was checked.
    fn admit(&self, login: &Login) -> Result<(), KvError> {
        if !self.enabled {
            return Err(KvError::AuthNotEnabled);
        }
        let user = self.users.get(&login.user).filter(|user| user.since == login.since);
        user.map(|_| ()).ok_or(KvError::AuthRevisionOld)
    }
}

impl User {
    /// Whether it has a role.
    #[must_use]
    pub fn has(&self, role: &str) -> bool {
        self.roles.binary_search_by(|other| other.as_str().cmp(role)).is_ok()
    }
}

impl Permission {
    /// Where it is in a role: there is one permission for each place.
    fn place(&self) -> (&Bytes, &Bytes) {
        (&self.key, &self.range_end)
    }

    /// Whether it is for at least one key, and of a known kind.
    fn is_good(&self) -> bool {
        let known = PermissionKind::try_from(self.kind).is_ok();
        known && !self.key.is_empty() && KeyRange::of(&self.key, &self.range_end).is_some()
    }
}

impl AuthRequest {
    /// Whether it follows the rules that don't depend on the state.
    ///
    /// # Errors
    /// A name is missing or too long, or a permission is missing or for no key; or [`KvError::Unreadable`], which only a
    /// bug in a server can cause.
    pub fn check(&self) -> Result<(), KvError> {
        match self.change.as_ref().ok_or(KvError::Unreadable)? {
            AuthChange::Enable(()) | AuthChange::Disable(()) => Ok(()),
            AuthChange::AddUser(new) | AuthChange::ChangePassword(new) | AuthChange::RenewHash(new) => {
                check_user(&User {
                    name: new.user.clone(),
                    password_hash: new.password_hash.clone(),
                    ..User::default()
                })
            }
            AuthChange::AddRole(name) => check_name(name).map_err(|error| match error {
                KvError::UserEmpty => KvError::RoleEmpty,
                error => error,
            }),
            AuthChange::GrantPermission(RolePermission { permission, .. }) => {
                let permission = permission.as_ref().ok_or(KvError::PermissionNotGiven)?;
                if permission.is_good() { Ok(()) } else { Err(KvError::InvalidAuthManagement) }
            }
            AuthChange::Login(login) if login.digest.len() != DIGEST => Err(KvError::Unreadable),
            AuthChange::Login(_)
            | AuthChange::DeleteUser(_)
            | AuthChange::GrantRole(_)
            | AuthChange::RevokeRole(_)
            | AuthChange::DeleteRole(_)
            | AuthChange::RevokePermission(_) => Ok(()),
        }
    }
}

fn check_user(user: &User) -> Result<(), KvError> {
    check_name(&user.name)?;
    if user.password_hash.len() > MAX_HASH { Err(KvError::Unreadable) } else { Ok(()) }
}

fn check_name(name: &str) -> Result<(), KvError> {
    match name.len() {
        0 => Err(KvError::UserEmpty),
        1..=MAX_NAME => Ok(()),
        _ => Err(KvError::NameTooLong),
    }
}

fn is_sorted(roles: &[String]) -> bool {
    roles.is_sorted_by(|one, next| one < next)
}

fn has_good_permissions(role: &Role) -> bool {
    let sorted = role.permissions.is_sorted_by(|one, next| one.place() < next.place());
    sorted && role.permissions.iter().all(Permission::is_good)
}
