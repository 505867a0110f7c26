//! Reads backups: etcd's databases and snapshots, and those that [`Dump::write_backup`](super::Dump) wrote.
//!
//! A backup becomes a snapshot of the store, which a new member restores. It is read twice: first to learn its
//! revisions, and which of its records a compaction gave up; then to write the others.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use bowline_bolt::{Bolt, BoltError, Bucket, Source};
use bowline_node::raft::Index;
use bytes::Bytes;
use prost::Message;

use super::{
    AUTH, AUTH_REVISION, ENABLED, FINISHED, KEY, LEASE, META, ROLES, SCHEDULED, StoredLease, StoredUser, USERS,
};
use crate::store::auth::{AuthBook, Role};
use crate::store::engine::Revision;
use crate::store::leases::Lease;
use crate::store::meta::Meta;
use crate::store::rebuild::Rebuild;
use crate::store::record::Record;
use crate::store::snapshot::{BlockWriter, Found, MAX_ORDINAL, RestoreError};

/// Bytes of a record's key in the bucket `key`; that of a tombstone has one more.
const PLACE_BYTES: usize = 17;

/// Why a backup can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It is no bbolt file, or a damaged one.
    #[error("not a bbolt file, or a damaged one: {0}")]
    Bolt(#[from] BoltError),
    /// It does not hold the state of an etcd, or one that can't be restored.
    #[error("{0}")]
    Invalid(String),
    /// The snapshot can't be written.
    #[error("can't write the state: {0}")]
    Write(#[from] io::Error),
}

impl From<RestoreError> for BackupError {
    fn from(error: RestoreError) -> BackupError {
        BackupError::Invalid(error.to_string())
    }
}

fn invalid<T>(why: impl Into<String>) -> Result<T, BackupError> {
    Err(BackupError::Invalid(why.into()))
}

/// A backup in a bbolt file.
#[derive(Debug)]
pub struct Backup<S> {
    bolt: Bolt<S>,
    keys: Bucket,
    /// The latest compaction, also an unfinished one; -1 if there was none.
    compacted: i64,
    version: String,
}

/// What a backup holds, as etcd's tools tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    /// The CRC32C of the names of all buckets and of all their keys and values.
    pub hash: u32,
    /// The revision of the last record.
    pub revision: i64,
    /// Number of pairs in all buckets.
    pub total_keys: u64,
    /// Bytes of the pages.
    pub total_bytes: u64,
    /// The version of etcd whose database has this form.
    pub version: String,
}

/// How a backup is to be restored. It needs memory for each key, but not for the values.
#[derive(Clone, Debug)]
pub struct BackupPlan {
    revision: i64,
    compacted: i64,
    keys: u64,
    /// The latest record of each key that is not after the compacted revision.
    latest: BTreeMap<Bytes, Revision>,
}

impl BackupPlan {
    /// The revision of the restored store.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Its oldest readable revision; -1 if all revisions are readable.
    #[must_use]
    pub fn compacted_revision(&self) -> i64 {
        self.compacted
    }

    /// How many keys exist at its revision.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.keys
    }
}

impl<S: Source> Backup<S> {
    /// Opens a backup.
    ///
    /// # Errors
    /// It is no bbolt file, lacks the bucket `key` or `meta`, or has a damaged number.
    pub fn open(source: S) -> Result<Backup<S>, BackupError> {
        let bolt = Bolt::open(source)?;
        let needed = |name: &[u8]| match bolt.bucket(name)? {
            Some(bucket) => Ok(bucket),
            None => {
                invalid(format!("it has no bucket `{}`, so it is no database of etcd", String::from_utf8_lossy(name)))
            }
        };
        let (keys, meta) = (needed(KEY)?, needed(META)?);
        let (mut compacted, mut stored, mut parts) = (-1, None, 0);
        let mut cursor = bolt.cursor(&meta);
        while let Some(entry) = cursor.next()? {
            let Some(value) = entry.value else { continue };
            match entry.key {
                FINISHED | SCHEDULED => {
                    let Some(main) = value.first_chunk().map(|main| i64::from_be_bytes(*main)) else {
                        return invalid("its compacted revision is too short");
                    };
                    compacted = compacted.max(main);
                }
                b"storageVersion" => stored = Some(String::from_utf8_lossy(value).into_owned()),
                b"confState" | b"term" => parts += 1,
                _ => {}
            }
        }
        drop(cursor);
        // Etcd stores its version from 3.6 on; the configuration and the term are new in 3.5.
        let version = stored.unwrap_or(if parts == 2 { "3.5.0".to_owned() } else { "3.4.0".to_owned() });
        Ok(Backup { bolt, keys, compacted, version })
    }

    /// Reads everything, and says what it holds.
    ///
    /// # Errors
    /// It is damaged.
    pub fn summary(&self) -> Result<BackupSummary, BackupError> {
        let (mut hash, mut revision, mut total_keys) = (0, 0, 0);
        let mut buckets = self.bolt.cursor(&self.bolt.root());
        while let Some(entry) = buckets.next()? {
            let Some(bucket) = entry.bucket else { continue };
            let is_key = entry.key == KEY;
            hash = crc32c::crc32c_append(hash, entry.key);
            let mut pairs = self.bolt.cursor(&bucket);
            while let Some(pair) = pairs.next()? {
                hash = crc32c::crc32c_append(hash, pair.key);
                hash = crc32c::crc32c_append(hash, pair.value.unwrap_or_default());
                if is_key {
                    revision = place(pair.key)?.0.main;
                }
                total_keys += 1;
            }
        }
        let (total_bytes, version) = (self.bolt.size(), self.version.clone());
        Ok(BackupSummary { hash, revision, total_keys, total_bytes, version })
    }

    /// Decides what a restored store holds. With `raise`, its revision is higher than that of the backup by so much, and
    /// everything before it counts as compacted, so that whoever watches or has read the old cluster notices.
    ///
    /// # Errors
    /// It is damaged, or the raised revision is too high.
    pub fn plan(&self, raise: Option<i64>) -> Result<BackupPlan, BackupError> {
        self.auth()?;
        let mut revision = self.compacted.max(1);
        let (mut latest, mut exists) = (BTreeMap::new(), BTreeMap::new());
        self.each_record(|at, record| {
            revision = revision.max(at.main);
            let Some(record) = record else { return Ok(()) };
            let key = record.key_value().map_err(|error| at_revision(at, &error))?.key;
            if raise.is_some() || at.main <= self.compacted {
                latest.insert(key.clone(), at);
            }
            exists.insert(key, !record.is_tombstone());
            Ok(())
        })?;
        let keys = exists.values().filter(|exists| **exists).count() as u64;
        let raised = revision.checked_add(raise.unwrap_or(0)).filter(|raised| *raised <= MAX_ORDINAL);
        let Some(raised) = raised else {
            return invalid(format!("revision {revision}, raised by {}, is beyond 2^62", raise.unwrap_or(0)));
        };
        let compacted = if raise.is_some() { raised } else { self.compacted };
        Ok(BackupPlan { revision: raised, compacted, keys, latest })
    }

    /// Writes the restored store as a snapshot that ends at log index `at`, and returns its number of bytes. The store
    /// has the leases, each with its full time to live, and the users and roles, but no alarms.
    ///
    /// # Errors
    /// It is damaged, or the bytes can't be written.
    pub fn write_snapshot(&self, plan: &BackupPlan, at: Index, out: &mut impl Write) -> Result<u64, BackupError> {
        let BackupPlan { revision, compacted, ref latest, .. } = *plan;
        let meta = Meta { applied: at.0, revision, compacted, auth: Arc::new(self.auth()?), ..Meta::default() };
        let (mut found, mut rebuild, mut writer) = (Found::default(), Rebuild::default(), BlockWriter::new(out));
        writer.head(&meta)?;
        for lease in self.leases(at)? {
            found.admit_lease(lease, &meta)?;
            rebuild.lease(lease);
            writer.lease(&lease)?;
        }
        self.each_record(|at, record| {
            let Some(record) = record else { return Ok(()) };
            let kv = record.key_value().map_err(|error| at_revision(at, &error))?;
            let is_latest = latest.get(&kv.key) == Some(&at);
            // As after a compaction: see `compact.rs`.
            let stays = at.main > compacted || is_latest && (!record.is_tombstone() || at.main == compacted);
            if !stays {
                return Ok(());
            }
            if !record.is_tombstone() && kv.mod_revision != at.main {
                return invalid(format!("the record of revision {} says that it is of {}", at.main, kv.mod_revision));
            }
            found.admit(at, &record, &meta, &mut rebuild)?;
            Ok(writer.record(at, &record)?)
        })?;
        rebuild.finish().map_err(|error| BackupError::Invalid(error.to_string()))?;
        writer.users(&meta.auth)?;
        Ok(writer.end()?)
    }

    /// Visits the records in the order of their revisions. One without content only stands for its revision: etcd's
    /// tools write it when they raise the revision.
    fn each_record(
        &self,
        mut visit: impl FnMut(Revision, Option<Record>) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let mut cursor = self.bolt.cursor(&self.keys);
        while let Some(entry) = cursor.next()? {
            let Some(value) = entry.value else { return invalid("there is a bucket in the bucket `key`") };
            let (at, is_tombstone) = place(entry.key)?;
            let record = (!value.is_empty()).then(|| Record::of_message(is_tombstone, value));
            visit(at, record)?;
        }
        Ok(())
    }

    /// The leases in the order of their ids, as if they were granted at this index.
    fn leases(&self, granted_at: Index) -> Result<Vec<Lease>, BackupError> {
        let mut leases = Vec::new();
        let Some(bucket) = self.bolt.bucket(LEASE)? else { return Ok(leases) };
        let mut cursor = self.bolt.cursor(&bucket);
        while let Some(entry) = cursor.next()? {
            let stored = StoredLease::decode(entry.value.unwrap_or_default());
            let stored = stored.or_else(|error| invalid(format!("a lease can't be read: {error}")))?;
            if entry.key != stored.id.to_be_bytes() {
                return invalid(format!("lease {} has the key of another one", stored.id));
            }
            leases.push(Lease { id: stored.id, ttl: stored.ttl, granted_at });
        }
        leases.sort_by_key(|lease| lease.id);
        Ok(leases)
    }

    /// The users and roles.
    fn auth(&self) -> Result<AuthBook, BackupError> {
        let (mut enabled, mut revision, mut users, mut roles) = (false, 1, Vec::new(), Vec::new());
        self.each_pair(AUTH, |key, value| {
            match key {
                ENABLED => enabled = value.first() == Some(&1),
                AUTH_REVISION => revision = value.try_into().map_or(0, u64::from_be_bytes),
                _ => {}
            }
            Ok(())
        })?;
        let unread = |what: &str, error| BackupError::Invalid(format!("{what} can't be read: {error}"));
        self.each_pair(ROLES, |_, value| {
            roles.push(Role::decode(value).map_err(|error| unread("a role", error))?);
            Ok(())
        })?;
        self.each_pair(USERS, |_, value| {
            users.push(StoredUser::decode(value).map_err(|error| unread("a user", error))?.user());
            Ok(())
        })?;
        AuthBook::restored(enabled, revision, users, roles).map_err(BackupError::Invalid)
    }

    /// Visits the pairs of a bucket, if it is there.
    fn each_pair(
        &self,
        bucket: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let Some(bucket) = self.bolt.bucket(bucket)? else { return Ok(()) };
        let mut cursor = self.bolt.cursor(&bucket);
        while let Some(entry) = cursor.next()? {
            visit(entry.key, entry.value.unwrap_or_default())?;
        }
        Ok(())
    }
}

/// The revision in a key of the bucket `key`, and whether it is that of a tombstone.
fn place(key: &[u8]) -> Result<(Revision, bool), BackupError> {
    let parts = key.first_chunk::<8>().zip(key.get(9..PLACE_BYTES)).zip(key.get(8));
    let is_tombstone = match key.get(PLACE_BYTES..) {
        Some([]) => false,
        Some(b"t") => true,
        _ => return invalid(format!("a key of the bucket `key` has {} bytes; allowed: 17 or 18", key.len())),
    };
    let ((main, sub), underscore) = parts.expect("it has at least 17 bytes");
    let sub = u64::from_be_bytes(sub.try_into().expect("it has eight bytes"));
    match (i64::from_be_bytes(*main), u32::try_from(sub)) {
        (main, Ok(sub)) if main > 0 && *underscore == b'_' => Ok((Revision { main, sub }, is_tombstone)),
        _ => invalid("a key of the bucket `key` is no revision"),
    }
}

fn at_revision(at: Revision, error: &dyn std::fmt::Display) -> BackupError {
    BackupError::Invalid(format!("the record of revision {}: {error}", at.main))
}
