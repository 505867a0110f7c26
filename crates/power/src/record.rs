//! Keeps the record while the process runs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::entry::{Change, ChangeKind, Entry, Gone, NameChange, NameKind, decode_all};
use crate::{LIMIT, Place, PowerError, or_none, refused};

/// The record of one folder. One process at a time may have it open.
#[derive(Debug)]
pub struct Record {
    place: Place,
    /// The number of the last change.
    last: u64,
    names: Vec<NameChange>,
    names_part: Part,
    files: BTreeMap<u64, Part>,
}

/// The changes of each file's content, by its inode.
pub(crate) type FileChanges = BTreeMap<u64, Vec<Change>>;

/// A file of the record.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    /// The number of its last change.
    last: u64,
}

impl Record {
    /// Opens the record of a folder in which nothing else is going on, or begins one. What an earlier process has not
    /// synced is still in it. If that process was killed while it noted a change, the change was not done, and is
    /// dropped.
    ///
    /// # Errors
    /// The record can't be read or written, or is damaged.
    pub fn open(place: &Place) -> Result<Record, PowerError> {
        fs::create_dir_all(place.files()).map_err(refused("create", &place.files()))?;
        let (names_part, names) = Part::open::<NameChange>(place.names())?;
        let (mut files, mut last) = (BTreeMap::new(), names_part.last);
        for (inode, path) in numbered(&place.files())? {
            let (part, _) = Part::open::<Change>(path)?;
            last = last.max(part.last);
            files.insert(inode, part);
        }
        // A file that was about to lose its last name, but has it still.
        for (number, path) in numbered(&place.removed)? {
            if !names.iter().any(|change| change.number == number && change.gone().is_some_and(|gone| gone.kept)) {
                fs::remove_file(&path).map_err(refused("remove", &path))?;
            }
        }
        Ok(Record { place: place.clone(), last, names, names_part, files })
    }

    /// What was noted until now, to say later what a sync made durable that begins now.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.last
    }

    /// Bytes of the record.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.names_part.bytes + self.files.values().map(|part| part.bytes).sum::<u64>()
    }

    /// Makes everything in the record durable.
    ///
    /// # Errors
    /// The record can't be written.
    pub fn clear(&mut self) -> Result<(), PowerError> {
        for part in std::mem::take(&mut self.files).into_values() {
            part.remove()?;
        }
        self.forget_names(|_| true)
    }

    fn note_content(
        &mut self,
        inode: u64,
        kind: ChangeKind,
        before: u64,
        old: impl FnOnce(u64, u64) -> Result<Vec<u8>, PowerError>,
    ) -> Result<(), PowerError> {
        self.bound()?;
        let (from, length) = kind.replaces(before);
        let old = if length == 0 { Vec::new() } else { old(from, length)? };
        self.last += 1;
        let change = Change { number: self.last, kind, before, old };
        let path = self.place.files().join(inode.to_string());
        let part = self.files.entry(inode).or_insert_with(|| Part::new(path));
        part.append(&change)
    }

    /// Notes that `length` bytes will be written at `offset` of a file that has `before` bytes. `old` reads bytes of the
    /// file, from an offset on so many.
    ///
    /// # Errors
    /// `old` fails, or the record can't be written.
    pub fn write(
        &mut self,
        inode: u64,
        (offset, length): (u64, u64),
        before: u64,
        old: impl FnOnce(u64, u64) -> Result<Vec<u8>, PowerError>,
    ) -> Result<(), PowerError> {
        self.note_content(inode, ChangeKind::Write { offset, length }, before, old)
    }

    /// Notes that a file of `before` bytes will have `bytes`. `old` is that of [`Record::write`].
    ///
    /// # Errors
    /// `old` fails, or the record can't be written.
    pub fn resize(
        &mut self,
        inode: u64,
        bytes: u64,
        before: u64,
        old: impl FnOnce(u64, u64) -> Result<Vec<u8>, PowerError>,
    ) -> Result<(), PowerError> {
        self.note_content(inode, ChangeKind::Resize { bytes }, before, old)
    }

    /// Empties a record that has become too large. To be called before a change has its number.
    fn bound(&mut self) -> Result<(), PowerError> {
        if self.bytes() > LIMIT { self.clear() } else { Ok(()) }
    }

    fn note_name(&mut self, path: &Path, kind: NameKind) -> Result<(), PowerError> {
        self.last += 1;
        let change = NameChange { number: self.last, kind, path: path.to_owned() };
        self.names_part.append(&change)?;
        self.names.push(change);
        Ok(())
    }

    /// Notes that a new file will have the name `path`. Paths are relative to the folder.
    ///
    /// # Errors
    /// The record can't be written.
    pub fn create(&mut self, path: &Path) -> Result<(), PowerError> {
        self.note_name(path, NameKind::Create)
    }

    /// Notes that a folder will be made.
    ///
    /// # Errors
    /// The record can't be written.
    pub fn make_folder(&mut self, path: &Path) -> Result<(), PowerError> {
        self.note_name(path, NameKind::MakeFolder)
    }

    /// Notes that an empty folder will be removed.
    ///
    /// # Errors
    /// The record can't be written.
    pub fn remove_folder(&mut self, path: &Path) -> Result<(), PowerError> {
        self.note_name(path, NameKind::RemoveFolder)
    }

    /// Notes that a file of `bytes` bytes will lose its name.
    ///
    /// # Errors
    /// The record can't be written, or the file can't be kept.
    pub fn remove(&mut self, path: &Path, inode: u64, bytes: u64) -> Result<(), PowerError> {
        let gone = self.keep(path, inode, bytes)?;
        self.note_name(path, NameKind::Remove(gone))
    }

    /// Notes that a file will get another name in the same folder. `replaces` has the inode and the bytes of the file
    /// that has this name until then.
    ///
    /// # Errors
    /// The record can't be written, or the replaced file can't be kept.
    pub fn rename(
        &mut self,
        (from, to): (&Path, &Path),
        inode: u64,
        replaces: Option<(u64, u64)>,
    ) -> Result<(), PowerError> {
        let replaces = replaces.map(|(inode, bytes)| self.keep(to, inode, bytes)).transpose()?;
        self.note_name(from, NameKind::Rename { to: to.to_owned(), inode, replaces })
    }

    /// Gives a file that will lose its last name by the next change another one, so that it can come back.
    fn keep(&mut self, path: &Path, inode: u64, bytes: u64) -> Result<Gone, PowerError> {
        if bytes == 0 {
            // Its inode's number may soon be another file's.
            self.forget_file(inode)?;
            return Ok(Gone { inode, kept: false });
        }
        let (path, kept) = (self.place.folder.join(path), self.place.kept(self.last + 1));
        fs::create_dir_all(&self.place.removed).map_err(refused("create", &self.place.removed))?;
        fs::hard_link(&path, &kept).map_err(refused("keep", &path))?;
        Ok(Gone { inode, kept: true })
    }

    /// Takes back the last note of a name: its change failed. A failed write needs no such call, because what a write
    /// has done is looked up when it is undone.
    ///
    /// # Errors
    /// The record can't be written.
    pub fn failed(&mut self) -> Result<(), PowerError> {
        let Some(change) = self.names.pop() else { return Ok(()) };
        self.names_part.cut(self.names_part.bytes - change.encode().len() as u64)?;
        self.drop_kept(&change)
    }

    /// Notes that a sync of a file has succeeded that began at `since` ([`Record::now`]).
    ///
    /// # Errors
    /// The record can't be written.
    pub fn synced_file(&mut self, inode: u64, since: u64) -> Result<(), PowerError> {
        match self.files.get_mut(&inode) {
            Some(part) if part.last > since => part.forget::<Change>(since),
            _ => self.forget_file(inode),
        }
    }

    /// Notes that a sync of a folder has succeeded that began at `since`. The empty path is that of the recorded folder.
    ///
    /// # Errors
    /// The record can't be written.
    pub fn synced_folder(&mut self, folder: &Path, since: u64) -> Result<(), PowerError> {
        self.forget_names(|change| change.number <= since && change.folder() == folder)
    }

    fn forget_names(&mut self, durable: impl Fn(&NameChange) -> bool) -> Result<(), PowerError> {
        let (gone, names): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.names).into_iter().partition(|change| durable(change));
        self.names = names;
        if gone.is_empty() {
            return Ok(());
        }
        // In this order: a kill between the steps leaves nothing that speaks of an inode whose number is free.
        for inode in gone.iter().filter_map(NameChange::gone).filter(|gone| gone.kept).map(|gone| gone.inode) {
            self.forget_file(inode)?;
        }
        self.names_part.rewrite(&self.names)?;
        gone.iter().try_for_each(|change| self.drop_kept(change))
    }

    fn forget_file(&mut self, inode: u64) -> Result<(), PowerError> {
        self.files.remove(&inode).map_or(Ok(()), Part::remove)
    }

    fn drop_kept(&self, change: &NameChange) -> Result<(), PowerError> {
        if !change.gone().is_some_and(|gone| gone.kept) {
            return Ok(());
        }
        let kept = self.place.kept(change.number);
        fs::remove_file(&kept).map_err(refused("remove", &kept))
    }

    /// The changes of names, and those of each file.
    pub(crate) fn into_changes(self) -> Result<(Vec<NameChange>, FileChanges), PowerError> {
        let files = self.files.into_iter();
        let files = files.map(|(inode, part)| Ok((inode, part.read()?))).collect::<Result<_, PowerError>>()?;
        Ok((self.names, files))
    }
}

impl Part {
    fn new(path: PathBuf) -> Part {
        Part { path, file: None, bytes: 0, last: 0 }
    }

    /// Opens what an earlier process has left, and cuts off what is not whole.
    fn open<E: Entry>(path: PathBuf) -> Result<(Part, Vec<E>), PowerError> {
        let mut part = Part::new(path);
        let entries: Vec<E> = part.read()?;
        part.last = entries.last().map_or(0, Entry::number);
        let whole = entries.iter().map(|entry| entry.encode().len() as u64).sum();
        if or_none(fs::metadata(&part.path)).map_err(refused("read", &part.path))?.is_some() {
            part.cut(whole)?;
        }
        Ok((part, entries))
    }

    fn read<E: Entry>(&self) -> Result<Vec<E>, PowerError> {
        let bytes = or_none(fs::read(&self.path)).map_err(refused("read", &self.path))?.unwrap_or_default();
        let damaged = |(at, reason)| PowerError::Damaged { path: self.path.clone(), at, reason };
        Ok(decode_all(&bytes).map_err(damaged)?.0)
    }

    fn file(&mut self) -> Result<&mut File, PowerError> {
        if self.file.is_none() {
            let opened = File::options().create(true).append(true).mode(0o600).open(&self.path);
            self.file = Some(opened.map_err(refused("open", &self.path))?);
        }
        Ok(self.file.as_mut().expect("it was just opened"))
    }

    fn append(&mut self, entry: &impl Entry) -> Result<(), PowerError> {
        let bytes = entry.encode();
        let written = self.file()?.write_all(&bytes);
        written.map_err(refused("write", &self.path))?;
        self.bytes += bytes.len() as u64;
        self.last = entry.number();
        Ok(())
    }

    fn cut(&mut self, bytes: u64) -> Result<(), PowerError> {
        let cut = self.file()?.set_len(bytes);
        cut.map_err(refused("cut", &self.path))?;
        self.bytes = bytes;
        Ok(())
    }

    /// Removes the changes until the one with the number `until`.
    fn forget<E: Entry>(&mut self, until: u64) -> Result<(), PowerError> {
        let mut entries: Vec<E> = self.read()?;
        entries.retain(|entry| entry.number() > until);
        self.rewrite(&entries)
    }

    /// Replaces all changes; at once, so that a kill leaves the old ones or the new ones.
    fn rewrite<E: Entry>(&mut self, entries: &[E]) -> Result<(), PowerError> {
        let (path, bytes) =
            (self.path.with_extension("new"), entries.iter().flat_map(Entry::encode).collect::<Vec<_>>());
        fs::write(&path, &bytes).map_err(refused("write", &path))?;
        fs::rename(&path, &self.path).map_err(refused("replace", &self.path))?;
        (self.file, self.bytes) = (None, bytes.len() as u64);
        Ok(())
    }

    fn remove(self) -> Result<(), PowerError> {
        or_none(fs::remove_file(&self.path)).map_err(refused("remove", &self.path)).map(drop)
    }
}

/// The files of a folder whose names are numbers.
fn numbered(folder: &Path) -> Result<BTreeMap<u64, PathBuf>, PowerError> {
    let Some(entries) = or_none(fs::read_dir(folder)).map_err(refused("list", folder))? else {
        return Ok(BTreeMap::new());
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(refused("list", folder))?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.insert(number, entry.path());
        }
    }
    Ok(found)
}
