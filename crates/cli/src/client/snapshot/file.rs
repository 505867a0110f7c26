//! A snapshot's file: the pages of a bbolt file, and behind them their SHA-256.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use bowline_kv::store::{Backup, BackupSummary};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::client::output::human_size;

/// Bytes of the checksum. Pages have a multiple of [`BLOCK`] bytes, so it is clear whether a file has one.
pub(super) const HASH_BYTES: u64 = 32;
const BLOCK: u64 = 512;

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// Whether the SHA-256 at the end of a file was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// It is right.
    Right,
    /// The file has none, as a database that was copied from etcd's data folder.
    None,
}

/// Opens a file, and compares its checksum if it has one.
pub(super) fn open(path: &Path) -> anyhow::Result<(Backup<File>, Checked)> {
    let (file, checked) = check(path)?;
    Ok((backup(path, file)?, checked))
}

/// Opens a file without comparing a checksum.
pub(super) fn open_unchecked(path: &Path) -> anyhow::Result<Backup<File>> {
    backup(path, File::open(path).with_context(|| path.display().to_string())?)
}

fn backup(path: &Path, file: File) -> anyhow::Result<Backup<File>> {
    Backup::open(file).with_context(|| path.display().to_string())
}

fn check(path: &Path) -> anyhow::Result<(File, Checked)> {
    let place = path.display();
    let mut file = File::open(path).with_context(|| place.to_string())?;
    let bytes = file.metadata().with_context(|| place.to_string())?.len();
    match bytes % BLOCK {
        0 if bytes > 0 => return Ok((file, Checked::None)),
        HASH_BYTES if bytes > BLOCK => {}
        _ => bail!("{place} has {bytes} bytes, which no snapshot has: it is cut off, or another file"),
    }
    let (mut hash, mut left, mut piece) = (Sha256::new(), bytes - HASH_BYTES, vec![0; PIECE]);
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        file.read_exact(&mut piece[..length]).with_context(|| place.to_string())?;
        hash.update(&piece[..length]);
        left -= length as u64;
    }
    let mut expected = [0; HASH_BYTES as usize];
    file.read_exact(&mut expected).with_context(|| place.to_string())?;
    if hash.finalize()[..] != expected {
        bail!("{place} is damaged: the SHA-256 at its end is not that of its content; use another copy");
    }
    Ok((file, Checked::Right))
}

/// What a file holds, as JSON.
pub(super) fn json(summary: &BackupSummary) -> Value {
    json!({
        "hash": format!("{:08x}", summary.hash), "revision": summary.revision, "total_keys": summary.total_keys,
        "total_size": summary.total_bytes, "version": summary.version,
    })
}

/// The same as text.
pub(super) fn text(summary: &BackupSummary) -> String {
    let BackupSummary { hash, revision, total_keys, total_bytes, version } = summary;
    let size = human_size(i64::try_from(*total_bytes).unwrap_or(i64::MAX));
    format!("hash {hash:08x}, revision {revision}, {total_keys} keys in all buckets, {size}, version {version}")
}
