//! Backups: the state as a bbolt file in the form of etcd 3.5's database, so that etcd's tools can read and restore it.
//!
//! | bucket | content |
//! |---|---|
//! | `key` | every record that the store still keeps, under its revision |
//! | `lease` | the leases |
//! | `alarm` | the active alarms |
//! | `meta` | the index and term of the last applied entry, who votes, and the compacted revision |
//! | `auth`, `authRoles`, `authUsers` | the users and roles |
//! | `cluster`, `members`, `members_removed` | nothing: whoever restores the file names the new members |

use std::io::{self, Seek, Write};
use std::ops::ControlFlow;

use bowline_bolt::Writer;
use prost::Message;

use super::auth::User;
use super::engine::{Records, Revision};
use super::leases::Lease;
use super::record::{Record, bucket_key};
use super::snapshot::Dump;
use super::types::Alarm;

mod read;

pub use read::{Backup, BackupError, BackupPlan, BackupSummary};

/// The version of etcd whose database has this form.
pub const BACKUP_VERSION: &str = "3.5.0";

/// Bytes of a page, as etcd's database has them on most machines.
const PAGE_BYTES: usize = 4096;

/// The names of the buckets that have content, and of the keys in `auth` and `meta`.
const ALARM: &[u8] = b"alarm";
const AUTH: &[u8] = b"auth";
const ENABLED: &[u8] = b"authEnabled";
const AUTH_REVISION: &[u8] = b"authRevision";
const ROLES: &[u8] = b"authRoles";
const USERS: &[u8] = b"authUsers";
const KEY: &[u8] = b"key";
const LEASE: &[u8] = b"lease";
const META: &[u8] = b"meta";
const FINISHED: &[u8] = b"finishedCompactRev";
const SCHEDULED: &[u8] = b"scheduledCompactRev";

/// A lease in etcd's database.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct StoredLease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
}

/// A user in etcd's database.
#[derive(Clone, PartialEq, Eq, Message)]
struct StoredUser {
    #[prost(string, tag = "1")]
    name: String,
    /// The hash of its password.
    #[prost(string, tag = "2")]
    password: String,
    #[prost(string, repeated, tag = "3")]
    roles: Vec<String>,
    #[prost(message, optional, tag = "4")]
    options: Option<StoredOptions>,
}

/// The options of a user there.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct StoredOptions {
    #[prost(bool, tag = "1")]
    no_password: bool,
}

impl StoredUser {
    fn of(user: &User) -> StoredUser {
        let options = Some(StoredOptions { no_password: user.password_hash.is_empty() });
        let User { name, password_hash, roles, .. } = user.clone();
        StoredUser { name, password: password_hash, roles, options }
    }

    fn user(self) -> User {
        let StoredUser { name, password, roles, options } = self;
        let no_password = options.is_some_and(|options| options.no_password);
        User { name, password_hash: if no_password { String::new() } else { password }, roles, since: 0 }
    }
}

/// What a backup says about the cluster that it was taken from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupOrigin {
    /// The term of the member.
    pub term: u64,
    /// The ids of the voting members.
    pub voters: Vec<u64>,
    /// The ids of the learners.
    pub learners: Vec<u64>,
}

impl BackupOrigin {
    /// The configuration as etcd stores it.
    fn conf_state(&self) -> String {
        let list = |ids: &[u64]| ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let learners = match self.learners.is_empty() {
            true => String::new(),
            false => format!("\"learners\":[{}],", list(&self.learners)),
        };
        format!("{{\"voters\":[{}],{learners}\"auto_leave\":false}}", list(&self.voters))
    }
}

impl<V: Records> Dump<V> {
    /// Writes the state as a backup, from the beginning of `out` on. Returns `out`.
    ///
    /// # Errors
    /// The state can't be read (as an error of kind `Other`), or the bytes can't be written.
    pub fn write_backup<W: Write + Seek>(&self, origin: &BackupOrigin, out: W) -> io::Result<W> {
        let mut writer = Writer::new(out, PAGE_BYTES)?;
        writer.bucket(ALARM)?;
        let mut alarms: Vec<Vec<u8>> = self.meta.alarms.iter().map(|alarm| stored_alarm(&alarm)).collect();
        alarms.sort();
        alarms.dedup();
        alarms.iter().try_for_each(|alarm| writer.put(alarm, b""))?;
        self.write_users(&mut writer)?;
        writer.bucket(b"cluster")?;
        writer.bucket(KEY)?;
        self.each_record(&mut |at, record| {
            let (key, length) = bucket_key(at, record.is_tombstone());
            writer.put(&key[..length], record.message())
        })?;
        writer.bucket(LEASE)?;
        let mut leases: Vec<&Lease> = self.leases.iter().collect();
        // Their keys are compared as bytes.
        leases.sort_by_key(|lease| lease.id.cast_unsigned());
        for Lease { id, ttl, .. } in leases {
            writer.put(&id.to_be_bytes(), &StoredLease { id: *id, ttl: *ttl }.encode_to_vec())?;
        }
        writer.bucket(b"members")?;
        writer.bucket(b"members_removed")?;
        writer.bucket(META)?;
        writer.put(b"confState", origin.conf_state().as_bytes())?;
        writer.put(b"consistent_index", &self.meta.applied.to_be_bytes())?;
        if self.meta.compacted >= 0 {
            let (revision, length) = bucket_key(Revision::start_of(self.meta.compacted), false);
            writer.put(FINISHED, &revision[..length])?;
            writer.put(SCHEDULED, &revision[..length])?;
        }
        writer.put(b"term", &origin.term.to_be_bytes())?;
        writer.finish()
    }

    fn write_users<W: Write + Seek>(&self, writer: &mut Writer<W>) -> io::Result<()> {
        let auth = &self.meta.auth;
        writer.bucket(AUTH)?;
        if !auth.is_new() {
            writer.put(ENABLED, &[auth.is_enabled().into()])?;
            writer.put(AUTH_REVISION, &auth.revision().to_be_bytes())?;
        }
        writer.bucket(ROLES)?;
        for role in auth.roles() {
            // The fields are etcd's.
            writer.put(role.name.as_bytes(), &role.encode_to_vec())?;
        }
        writer.bucket(USERS)?;
        for user in auth.users() {
            writer.put(user.name.as_bytes(), &StoredUser::of(user).encode_to_vec())?;
        }
        Ok(())
    }

    /// Visits the records that no compaction gave up.
    fn each_record(&self, visit: &mut dyn FnMut(Revision, Record) -> io::Result<()>) -> io::Result<()> {
        let (mut failed, stays) = (None, |at: &Revision| !self.leavings.contains_key(at));
        let whole = Revision::default()..Revision::start_of(i64::MAX);
        let scanned = self.view.scan(whole.start, whole.end, &mut |at, record| {
            failed = if stays(&at) { visit(at, record).err() } else { None };
            if failed.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        scanned.map_err(io::Error::other)?;
        failed.map_or(Ok(()), Err)?;
        let mut pending = self.pending.iter().filter(|(at, _)| stays(at));
        pending.try_for_each(|(at, record)| visit(*at, record.clone()))
    }
}

/// An alarm in etcd's database, which does not say whether a member raised it by itself.
fn stored_alarm(alarm: &Alarm) -> Vec<u8> {
    Alarm { automatic: false, ..*alarm }.encode_to_vec()
}
