//! How changes are encoded in the record: a header of fixed length with little-endian numbers, then bytes or paths.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The most bytes that one change may replace, and the most that a file may have.
const MOST_BYTES: u64 = 1 << 40;
/// The most bytes of a path.
const MOST_PATH: usize = 4096;

/// A change that can be written into a record.
pub(crate) trait Entry: Sized {
    /// Its number in the order of all changes.
    fn number(&self) -> u64;
    fn encode(&self) -> Vec<u8>;
    /// Reads one from the beginning of `bytes`. Returns it with its length; `None` if it is cut short.
    fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, &'static str>;
}

/// A change of a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) number: u64,
    pub(crate) kind: ChangeKind,
    /// The size of the file before it, in bytes.
    pub(crate) before: u64,
    /// The bytes that it replaces or cuts off.
    pub(crate) old: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Write { offset: u64, length: u64 },
    Resize { bytes: u64 },
}

impl ChangeKind {
    /// The bytes, from an offset on, that it replaces or cuts off in a file of `before` bytes.
    pub(crate) fn replaces(self, before: u64) -> (u64, u64) {
        let (from, until) = match self {
            ChangeKind::Write { offset, length } => (offset, before.min(offset.saturating_add(length))),
            ChangeKind::Resize { bytes } => (bytes, before),
        };
        (from, until.saturating_sub(from))
    }

    /// The size of a file of `before` bytes after it.
    pub(crate) fn after(self, before: u64) -> u64 {
        match self {
            ChangeKind::Write { offset, length } => before.max(offset.saturating_add(length)),
            ChangeKind::Resize { bytes } => bytes,
        }
    }
}

const CHANGE_HEADER: usize = 33;

impl Entry for Change {
    fn number(&self) -> u64 {
        self.number
    }

    fn encode(&self) -> Vec<u8> {
        let (kind, at, length) = match self.kind {
            ChangeKind::Write { offset, length } => (1, offset, length),
            ChangeKind::Resize { bytes } => (2, bytes, 0),
        };
        let mut bytes = Vec::with_capacity(CHANGE_HEADER + self.old.len());
        bytes.push(kind);
        for field in [self.number, at, length, self.before] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(&self.old);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Option<(Change, usize)>, &'static str> {
        let Some((header, rest)) = bytes.split_at_checked(CHANGE_HEADER) else { return Ok(None) };
        let [number, at, length, before] = [1, 9, 17, 25].map(|at| u64_at(header, at));
        let kind = match (header[0], length) {
            (1, length) => ChangeKind::Write { offset: at, length },
            (2, 0) => ChangeKind::Resize { bytes: at },
            _ => return Err("there is no such change of a file"),
        };
        if [at, length, before].iter().any(|field| *field > MOST_BYTES) {
            return Err("a file is never so large");
        }
        let (_, replaced) = kind.replaces(before);
        let replaced = usize::try_from(replaced).map_err(|_| "it does not fit into memory")?;
        let Some(old) = rest.get(..replaced) else { return Ok(None) };
        Ok(Some((Change { number, kind, before, old: old.to_vec() }, CHANGE_HEADER + replaced)))
    }
}

/// A change of names. Paths are relative to the recorded folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameChange {
    pub(crate) number: u64,
    pub(crate) kind: NameKind,
    pub(crate) path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NameKind {
    Create,
    MakeFolder,
    RemoveFolder,
    Remove(Gone),
    /// A file gets the name `to` in the same folder, and takes it from another one.
    Rename {
        to: PathBuf,
        inode: u64,
        replaces: Option<Gone>,
    },
}

/// A file that loses its last name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) inode: u64,
    /// Whether it is kept. A file without content is not: an empty one can take its place, and nobody has to know the
    /// other uses of its inode.
    pub(crate) kept: bool,
}

impl NameChange {
    /// The file that loses its last name by this.
    pub(crate) fn gone(&self) -> Option<Gone> {
        match self.kind {
            NameKind::Remove(gone) => Some(gone),
            NameKind::Rename { replaces, .. } => replaces,
            NameKind::Create | NameKind::MakeFolder | NameKind::RemoveFolder => None,
        }
    }

    /// The folder whose sync makes it durable.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

/// Kind, whether a file is gone and kept, lengths of both paths, number, both inodes.
const NAME_HEADER: usize = 2 + 2 * 2 + 3 * 8;

impl Entry for NameChange {
    fn number(&self) -> u64 {
        self.number
    }

    fn encode(&self) -> Vec<u8> {
        let (kind, to, inode) = match &self.kind {
            NameKind::Create => (1, Path::new(""), 0),
            NameKind::MakeFolder => (2, Path::new(""), 0),
            NameKind::RemoveFolder => (3, Path::new(""), 0),
            NameKind::Remove(_) => (4, Path::new(""), 0),
            NameKind::Rename { to, inode, .. } => (5, to.as_path(), *inode),
        };
        let gone = self.gone().map_or(0, |gone| 1 + u8::from(gone.kept));
        let paths = [self.path.as_os_str().as_bytes(), to.as_os_str().as_bytes()];
        let mut bytes = vec![kind, gone];
        for path in paths {
            let length = u16::try_from(path.len()).expect("the system accepts no such path");
            bytes.extend(length.to_le_bytes());
        }
        for field in [self.number, inode, self.gone().map_or(0, |gone| gone.inode)] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(paths.concat());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Option<(NameChange, usize)>, &'static str> {
        let Some((header, rest)) = bytes.split_at_checked(NAME_HEADER) else { return Ok(None) };
        let [path, to] = [2, 4].map(|at| usize::from(u16::from_le_bytes([header[at], header[at + 1]])));
        let [number, inode, gone] = [6, 14, 22].map(|at| u64_at(header, at));
        let gone = match header[1] {
            0 => None,
            kept @ (1 | 2) => Some(Gone { inode: gone, kept: kept == 2 }),
            _ => return Err("a file is either kept or not"),
        };
        if path > MOST_PATH || to > MOST_PATH {
            return Err("a path is never so long");
        }
        let Some(paths) = rest.get(..path + to) else { return Ok(None) };
        let (path, to) = paths.split_at(path);
        let [path, to] = [path, to].map(|path| PathBuf::from(OsStr::from_bytes(path)));
        let plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        if path.as_os_str().is_empty() || !plain(&path) || !plain(&to) {
            return Err("a path leads out of the folder");
        }
        let kind = match (header[0], gone, to.as_os_str().is_empty()) {
            (1, None, true) => NameKind::Create,
            (2, None, true) => NameKind::MakeFolder,
            (3, None, true) => NameKind::RemoveFolder,
            (4, Some(gone), true) => NameKind::Remove(gone),
            (5, replaces, false) if to.parent() == path.parent() => NameKind::Rename { to, inode, replaces },
            _ => return Err("there is no such change of a name"),
        };
        Ok(Some((NameChange { number, kind, path }, NAME_HEADER + paths.len())))
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("it is eight bytes"))
}

/// Reads all entries. Returns them, and the length of what is whole; an error has the place of what can't be understood.
pub(crate) fn decode_all<E: Entry>(bytes: &[u8]) -> Result<(Vec<E>, usize), (usize, &'static str)> {
    let (mut entries, mut at, mut last) = (Vec::new(), 0, 0);
    while let Some((entry, length)) = E::decode(&bytes[at..]).map_err(|reason| (at, reason))? {
        if entry.number() <= last {
            return Err((at, "it is not after the one before it"));
        }
        last = entry.number();
        at += length;
        entries.push(entry);
    }
    Ok((entries, at))
}
